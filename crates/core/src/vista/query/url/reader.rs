//! Reader of parameter values with nested terms, lists and quotes.

use super::error::{ParamError, Parsed};
use crate::vista::query::split_name;

/// The unread rest of a logic group or a list.
pub(super) struct Reader<'a> {
    pub(super) parameter: &'a str,
    pub(super) rest: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn error(&self, detail: impl Into<String>) -> ParamError {
        ParamError::invalid(self.parameter, detail)
    }

    pub(super) fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    pub(super) fn take(&mut self, c: char) -> bool {
        self.skip_spaces();
        let found = self.rest.strip_prefix(c);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.rest.strip_prefix(word);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    pub(super) fn expect(&mut self, c: char) -> Parsed<()> {
        if self.take(c) {
            return Ok(());
        }
        Err(match self.rest.chars().next() {
            Some(found) => self.error(format!("{c:?} is missing before {found:?}")),
            None => self.error(format!("{c:?} is missing at the end")),
        })
    }

    /// Reads a column's name, still in its quotes, and the dot that follows it.
    pub(super) fn name(&mut self) -> Parsed<&'a str> {
        let (name, rest) = split_name(self.rest, '.');
        let rest =
            rest.ok_or_else(|| self.error(format!("{name:?} is not a valid condition; write column.operator.value")))?;
        self.rest = rest;
        Ok(name.trim())
    }

    /// Reads a value: in double quotes, or up to a comma or closing parenthesis.
    pub(super) fn value(&mut self) -> Parsed<String> {
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        self.rest = &quoted[at + 1..];
                        return Ok(value);
                    }
                    '\\' => value.extend(chars.next().map(|(_, c)| c)),
                    c => value.push(c),
                }
            }
            return Err(self.error("a double quote is not closed"));
        }
        let end = self.rest.find([',', ')']).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(value.to_string())
    }

    /// Reads values and the closing parenthesis; the opening one was read before.
    pub(super) fn list(&mut self) -> Parsed<Vec<String>> {
        let mut values = Vec::new();
        if self.take(')') {
            return Ok(values);
        }
        loop {
            self.skip_spaces();
            values.push(self.value()?);
            if self.take(')') {
                return Ok(values);
            }
            self.expect(',')?;
        }
    }
}

/// Splits a list at its commas, except those in double quotes.
pub fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text).filter(|text| !text.trim().is_empty());
    std::iter::from_fn(move || {
        let (item, tail) = split_name(rest?, ',');
        rest = tail;
        Some(item)
    })
}
