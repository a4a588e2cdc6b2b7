//! Parameters of a query, or of a body of form fields.

use std::fmt;

use form_urlencoded::Serializer;

/// Pairs of names and values in the order in which they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Params(pub(super) Vec<(String, String)>);

impl Params {
    pub(super) fn parse(text: &[u8]) -> Params {
        Params(form_urlencoded::parse(text).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Number in a parameter; `default` if it is missing or not a number.
    pub(super) fn number(&self, name: &str, default: usize) -> usize {
        self.get(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    /// These parameters with another value for `name`.
    #[expect(clippy::needless_pass_by_value, reason = "callers have numbers and texts")]
    pub(super) fn with(&self, name: &str, value: impl ToString) -> Params {
        let mut pairs = self.without(name);
        pairs.0.push((name.to_owned(), value.to_string()));
        pairs
    }

    pub(super) fn without(&self, name: &str) -> Params {
        Params(self.0.iter().filter(|(known, _)| known != name).cloned().collect())
    }
}

impl fmt::Display for Params {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&Serializer::new(String::new()).extend_pairs(&self.0).finish())
    }
}
