//! Mappings of well-known senders, in the mapping language itself.

use super::map::{Map, Problem};

/// A preset: its name and its text, in which `{only}` stands for what the hook's rows are called there; see [`Table`] for the
/// placeholders of those that are about tables.
const TEXTS: [(&str, &str); 21] = [
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
    ("sanity", include_str!("presets/sanity.toml")),
    ("shopify", include_str!("presets/shopify.toml")),
    ("strapi", include_str!("presets/strapi.toml")),
    ("stripe", include_str!("presets/stripe.toml")),
    ("supabase", include_str!("presets/supabase.toml")),
    ("twilio", include_str!("presets/twilio.toml")),
    ("twitch", include_str!("presets/twitch.toml")),
    ("zoom", include_str!("presets/zoom.toml")),
];

/// The names of the presets.
pub const PRESETS: [&str; TEXTS.len()] = {
    let mut names = [""; TEXTS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = TEXTS[at].0;
        at += 1;
    }
    names
};

/// The preset `name` for rows that its sender calls `only`, with what the table at `path` of the TOML document `text` lays over it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn preset(name: &str, only: Option<&str>, text: &str, path: &[&str]) -> Result<Map, Vec<Problem>> {
    preset_filled(name, only, text, path, &|text| Ok(text.to_string()))
}

/// [`preset`] with every text of the table as `fill_in` makes it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn preset_filled(
    name: &str,
    only: Option<&str>,
    text: &str,
    path: &[&str],
    fill_in: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Map, Vec<Problem>> {
    let wrong = |message: String| vec![Problem { at: 0, message }];
    let Some((_, base)) = TEXTS.iter().find(|(own, _)| *own == name) else {
        return Err(wrong(format!("there is no format {name:?}")));
    };
    let base = match (needs_name(base), only) {
        (false, None) => base.to_string(),
        (false, Some(_)) => return Err(wrong(format!("format {name:?} has no use for only"))),
        (true, None) => {
            return Err(wrong(format!(
                "format {name:?} needs only = \"NAME\": what its sender calls the rows of this resource"
            )));
        }
        (true, Some(only)) => {
            let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':');
            if only.is_empty() || only.len() > 100 || !only.chars().all(plain) {
                return Err(wrong(format!("only = {only:?} is no name: it has letters, digits, - _ . :")));
            }
            Table::named(only).fill_in(&base.replace("{only}", only))
        }
    };
    Map::read_filled(text, path, Some(&base), fill_in)
}

/// A table as `only` names it: `products`, which is in the schema that databases use unless told otherwise, or `shop.products`.
struct Table<'o> {
    schema: Option<&'o str>,
    name: &'o str,
}

/// Schemas of tables that are named without one: those of PostgreSQL and of SQL Server.
const USUAL_SCHEMAS: [&str; 2] = ["public", "dbo"];

impl<'o> Table<'o> {
    fn named(only: &'o str) -> Table<'o> {
        match only.rsplit_once('.') {
            Some((schema, name)) => Table { schema: Some(schema), name },
            None => Table { schema: None, name: only },
        }
    }

    /// Puts the table in place of `{table}`, the schema in place of `{schema}`, the schemas that it may be in in place of
    /// `{schemas}`, and of `{database:PATH}` the path of the database's name, for databases without schemas, where `only` names
    /// one.
    fn fill_in(&self, text: &str) -> String {
        let schemas = self.schema.map_or(USUAL_SCHEMAS.to_vec(), |schema| vec![schema]);
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

/// Whether a preset's text is about rows that its sender has a name for.
fn needs_name(text: &str) -> bool {
    text.contains("{only}") || text.contains("{table}")
}

/// Says whether the preset `name` needs the sender's name of the rows.
#[cfg(test)]
pub(super) fn needs_only(name: &str) -> bool {
    TEXTS.iter().any(|(own, text)| *own == name && needs_name(text))
}

#[cfg(test)]
mod tests;
