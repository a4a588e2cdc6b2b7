//! Values of keys and issuers.

use std::time::SystemTime;

use toml::de::DeValue;

use super::{Reader, Secret};

impl<'a> Reader<'a> {
    /// Reads a text or an array of texts.
    pub(in crate::config) fn text_or_texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.typed(key, "a text or an array of texts", |value, at| match value.as_str() {
            Some(text) => Some(vec![self.fill_in(text, at)]),
            None => {
                let texts = value.as_array()?.iter();
                texts.map(|text| Some(self.fill_in(text.get_ref().as_str()?, text.span().start))).collect()
            }
        })
    }

    /// Reads a text that must be there and have a character.
    pub(in crate::config) fn required_text(&self, key: &'static str) -> Option<String> {
        let text = self.text(key);
        if self.position(key).is_none() {
            self.problem(self.at, format!("[{}] requires {key}", self.name));
        }
        let at = self.position(key).unwrap_or(self.at);
        match text {
            Some(text) if text.is_empty() => {
                self.problem(at, format!("{}{key} is empty", self.prefix()));
                None
            }
            text => text,
        }
    }

    /// Reads a moment.
    pub(in crate::config) fn time(&self, key: &'static str) -> Option<SystemTime> {
        self.typed(key, "a time like 2027-01-01T00:00:00Z", |value, at| {
            let text = match value {
                DeValue::Datetime(time) => time.to_string(),
                value => self.fill_in(value.as_str()?, at),
            };
            text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
        })
    }

    /// Reads a table of any values as JSON.
    pub(in crate::config) fn json_table(&self, key: &'static str) -> Option<serde_json::Value> {
        self.typed(key, "a table of values", |value, at| value.as_table().and_then(|_| self.json_of(value, at)))
    }

    /// Reads one secret from the environment or a file, which is not shorter than `least` bytes.
    pub(in crate::config) fn secret_of(&self, key: &'static str, least: usize) -> Option<Secret> {
        let read = |value: &'a DeValue<'a>, at| value.as_str().map(|text| (text, at));
        let (text, at) = self.typed(key, r#""env:NAME" or "file:PATH""#, read)?;
        self.secret(text, at, least)
    }
}
