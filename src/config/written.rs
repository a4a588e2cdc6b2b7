//! Keys of a configuration as they are written, to find those that differ between two versions of a file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys with their values as they are written. Secrets and variables are not expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WrittenKeys(BTreeMap<String, String>);

impl WrittenKeys {
    pub(super) fn of(table: &DeTable<'_>) -> WrittenKeys {
        let mut keys = WrittenKeys::default();
        keys.add_table("", table);
        keys
    }

    fn add_table(&mut self, path: &str, table: &DeTable<'_>) {
        for (name, value) in table.iter() {
            let path = match path {
                "" => name.get_ref().to_string(),
                outer => format!("{outer}.{}", name.get_ref()),
            };
            match value.get_ref() {
                DeValue::Table(table) if table.iter().next().is_some() => self.add_table(&path, table),
                value => {
                    self.0.insert(path, text(value));
                }
            }
        }
    }

    /// Returns the keys that only one of both has, or whose values differ, in the order of their names.
    pub fn differences<'a>(&'a self, other: &'a WrittenKeys) -> Vec<&'a str> {
        let own = self.0.iter().filter(|(key, value)| other.0.get(*key) != Some(value)).map(|(key, _)| key.as_str());
        let only_other = other.0.keys().filter(|key| !self.0.contains_key(*key)).map(String::as_str);
        let mut keys: Vec<&str> = own.chain(only_other).collect();
        keys.sort_unstable();
        keys
    }
}

/// Returns a value as text, equal for equal values.
fn text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => format!("{}:{}", number.radix(), number.as_str()),
        DeValue::Float(number) => number.as_str().to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => {
            format!("[{}]", items.iter().map(|item| text(item.get_ref())).collect::<Vec<_>>().join(","))
        }
        DeValue::Table(members) => {
            let member = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                format!("{:?}={}", name.get_ref(), text(value.get_ref()))
            };
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> WrittenKeys {
        WrittenKeys::of(DeTable::parse(text).unwrap().get_ref())
    }

    #[test]
    fn keys_that_are_new_missing_or_changed_are_named_wherever_they_stand() {
        let before =
            "a = 1\n[server]\nlisten = \"x\"\nlimits = { body = 5, rows = 6 }\n[[allow]]\nrole = \"a\"\n[empty]\n";
        let after = "# moved\n\na = 2\n[[allow]]\nrole = \"b\"\n[server.limits]\nbody = 5\n[server]\nlisten = \"x\"\nbase = '/'";
        assert_eq!(
            keys(before).differences(&keys(after)),
            ["a", "allow", "empty", "server.base", "server.limits.rows"]
        );
        assert_eq!(keys(before).differences(&keys(before)), Vec::<&str>::new());
    }
}
