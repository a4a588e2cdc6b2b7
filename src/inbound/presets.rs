//! Mappings of well-known senders, in the mapping language itself.

use super::map::{Map, Problem};

/// A preset: its name and its text, in which `{only}` stands for what the hook's rows are called there.
const TEXTS: [(&str, &str); 12] = [
    ("airtable", include_str!("presets/airtable.toml")),
    ("contentful", include_str!("presets/contentful.toml")),
    ("debezium", include_str!("presets/debezium.toml")),
    ("directus", include_str!("presets/directus.toml")),
    ("github", include_str!("presets/github.toml")),
    ("hasura", include_str!("presets/hasura.toml")),
    ("postgres", include_str!("presets/postgres.toml")),
    ("sanity", include_str!("presets/sanity.toml")),
    ("shopify", include_str!("presets/shopify.toml")),
    ("strapi", include_str!("presets/strapi.toml")),
    ("stripe", include_str!("presets/stripe.toml")),
    ("supabase", include_str!("presets/supabase.toml")),
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
    let base = match (base.contains("{only}"), only) {
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
            base.replace("{only}", only)
        }
    };
    Map::read_filled(text, path, Some(&base), fill_in)
}

#[cfg(test)]
mod tests;
