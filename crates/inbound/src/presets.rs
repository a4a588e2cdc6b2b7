//! Mappings for well-known senders, written in the mapping language.

use super::map::{Map, Problem};

/// Names and texts of the presets. In a text, `{only}` is replaced by the sender's name of the hook's rows; see [`Table`] for the
/// placeholders of presets for database tables.
const TEXTS: [(&str, &str); 22] = [
    ("airtable", include_str!("presets/airtable.toml")),
    ("asana", include_str!("presets/asana.toml")),
    ("contentful", include_str!("presets/contentful.toml")),
    ("debezium", include_str!("presets/debezium.toml")),
    ("directus", include_str!("presets/directus.toml")),
    ("dropbox", include_str!("presets/dropbox.toml")),
    ("eventgrid", include_str!("presets/eventgrid.toml")),
    ("github", include_str!("presets/github.toml")),
    ("graph", include_str!("presets/graph.toml")),
    ("hasura", include_str!("presets/hasura.toml")),
    ("mailgun", include_str!("presets/mailgun.toml")),
    ("meta", include_str!("presets/meta.toml")),
    ("postgres", include_str!("presets/postgres.toml")),
    ("row", include_str!("presets/row.toml")),
    ("sanity", include_str!("presets/sanity.toml")),
    ("shopify", include_str!("presets/shopify.toml")),
    ("strapi", include_str!("presets/strapi.toml")),
    ("stripe", include_str!("presets/stripe.toml")),
    ("supabase", include_str!("presets/supabase.toml")),
    ("twilio", include_str!("presets/twilio.toml")),
    ("twitch", include_str!("presets/twitch.toml")),
    ("zoom", include_str!("presets/zoom.toml")),
];

/// Names of the presets.
pub const PRESETS: [&str; TEXTS.len()] = {
    let mut names = [""; TEXTS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = TEXTS[at].0;
        at += 1;
    }
    names
};

/// Returns the preset `name` for rows that its sender calls `only`. The keys of the table at `path` of the TOML document `text`
/// override those of the preset.
///
/// # Errors
/// All mistakes in the mapping.
pub fn preset(name: &str, only: Option<&str>, text: &str, path: &[&str]) -> Result<Map, Vec<Problem>> {
    preset_filled(name, only, text, path, &|text| Ok(text.to_string()))
}

/// Returns a [`preset`] with `fill_in` applied to every text of the table.
///
/// # Errors
/// All mistakes in the mapping.
pub fn preset_filled(
    name: &str,
    only: Option<&str>,
    text: &str,
    path: &[&str],
    fill_in: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Map, Vec<Problem>> {
    let wrong = |message: String| vec![Problem { at: 0, message }];
    let Some((_, base)) = TEXTS.iter().find(|(own, _)| *own == name) else {
        return Err(wrong(format!("format {name:?} does not exist")));
    };
    let base = match (needs_name(base), only) {
        (false, None) => base.to_string(),
        (false, Some(_)) => return Err(wrong(format!("format {name:?} does not use only: remove it"))),
        (true, None) => {
            return Err(wrong(format!(
                "format {name:?} requires only = \"NAME\": the sender's name of this resource's rows"
            )));
        }
        (true, Some(only)) => {
            let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':');
            if only.is_empty() || only.len() > 100 || !only.chars().all(plain) {
                return Err(wrong(format!("only = {only:?} is not a valid name: use letters, digits, - _ . :")));
            }
            Table::named(only).fill_in(&base.replace("{only}", only))
        }
    };
    Map::read_filled(text, path, Some(&base), fill_in)
}

/// A table named by `only`: `products`, in the database's default schema, or `shop.products`.
struct Table<'o> {
    schema: Option<&'o str>,
    name: &'o str,
}

/// Default schemas of tables without one: those of PostgreSQL and of SQL Server.
const DEFAULT_SCHEMAS: [&str; 2] = ["public", "dbo"];

impl<'o> Table<'o> {
    fn named(only: &'o str) -> Table<'o> {
        match only.rsplit_once('.') {
            Some((schema, name)) => Table { schema: Some(schema), name },
            None => Table { schema: None, name: only },
        }
    }

    /// Replaces `{table}` by the table's name, `{schema}` by its schema, and `{schemas}` by its possible schemas.
    /// `{database:PATH}`, for databases without schemas, is replaced by the path of the database's name if `only` names a
    /// database.
    fn fill_in(&self, text: &str) -> String {
        let schemas = self.schema.map_or(DEFAULT_SCHEMAS.to_vec(), |schema| vec![schema]);
        let schema = schemas[0];
        let listed: Vec<String> = schemas.iter().map(|schema| format!("\"{schema}\"")).collect();
        let text =
            text.replace("{table}", self.name).replace("{schema}", schema).replace("{schemas}", &listed.join(", "));
        let mut pieces = text.split("{database:");
        let mut out = pieces.next().unwrap_or_default().to_string();
        for piece in pieces {
            let (path, rest) = piece.split_once('}').unwrap_or((piece, ""));
            match self.schema {
                Some(_) => out.push_str(path),
                None => out.push_str(&format!("const:{schema}")),
            }
            out.push_str(rest);
        }
        out
    }
}

/// Returns true if a preset needs the sender's name of the rows.
fn needs_name(text: &str) -> bool {
    text.contains("{only}") || text.contains("{table}")
}

/// Returns true if the preset `name` needs the sender's name of the rows.
#[cfg(test)]
pub(super) fn needs_only(name: &str) -> bool {
    TEXTS.iter().any(|(own, text)| *own == name && needs_name(text))
}

#[cfg(test)]
mod tests;
