//! Reader of `[connection.NAME]`: settings that several sources and write routes share.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use diorama_connect::Settings;

use super::value::Reader;

/// The connections of a file, by name.
pub(super) struct Connections<'a>(Vec<(String, Reader<'a>)>);

impl<'a> Connections<'a> {
    /// Reads the tables below `connection`.
    pub(super) fn read(root: &Reader<'a>) -> Connections<'a> {
        Connections(root.tables("connection"))
    }

    /// Returns the connection that `table` names by its key `connection`: `None` without that key, or if there is no such
    /// connection, which is reported.
    pub(super) fn of(&self, table: &Reader<'_>) -> Option<&Reader<'a>> {
        table.position("connection")?;
        let name = table.text("connection")?;
        let found = self.0.iter().find(|(own, _)| *own == name).map(|(_, reader)| reader);
        if found.is_none() {
            let known: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
            let known =
                if known.is_empty() { "there are none".to_string() } else { format!("there are {}", known.join(", ")) };
            let at = table.position("connection").unwrap_or(table.at);
            table.problem(at, format!("there is no [connection.{name}]: {known}"));
        }
        found
    }

    /// Reports connections that nothing uses, and unknown keys of the others.
    pub(super) fn finish(self) {
        for (name, reader) in self.0 {
            match reader.is_read() {
                true => reader.finish(),
                false => reader.problem(reader.at, format!("no resource uses [connection.{name}]")),
            }
        }
    }
}

/// A table whose missing keys are those of a connection.
pub(super) struct Connected<'r, 'a> {
    pub(super) own: &'r Reader<'a>,
    pub(super) connection: &'r Reader<'a>,
}

impl Connected<'_, '_> {
    fn of(&self, key: &'static str) -> &dyn Settings {
        if self.own.has(key) { self.own } else { self.connection }
    }
}

impl Settings for Connected<'_, '_> {
    fn text(&self, key: &'static str) -> Option<String> {
        self.of(key).text(key)
    }

    fn secret(&self, key: &'static str) -> Option<String> {
        self.of(key).secret(key)
    }

    fn path(&self, key: &'static str) -> Option<PathBuf> {
        self.of(key).path(key)
    }

    fn word(&self, key: &'static str, words: &[&'static str]) -> Option<&'static str> {
        self.of(key).word(key, words)
    }

    fn flag(&self, key: &'static str) -> Option<bool> {
        self.of(key).flag(key)
    }

    fn number(&self, key: &'static str) -> Option<u64> {
        self.of(key).number(key)
    }

    fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        self.of(key).count(key, range)
    }

    fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        self.of(key).size(key, range)
    }

    fn duration(&self, key: &'static str) -> Option<Duration> {
        self.of(key).duration(key)
    }

    fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        self.of(key).texts(key)
    }

    fn secret_texts(&self, key: &'static str) -> Vec<(String, String)> {
        self.of(key).secret_texts(key)
    }

    fn json(&self, key: &'static str) -> Option<serde_json::Value> {
        self.of(key).json(key)
    }

    fn table(&self, key: &'static str, read: &mut dyn FnMut(&dyn Settings)) {
        let of: &dyn Settings = if key == "write" { self.own } else { self.of(key) };
        of.table(key, read);
    }

    fn tables(&self, key: &'static str, read: &mut dyn FnMut(&dyn Settings)) {
        self.of(key).tables(key, read);
    }

    fn has(&self, key: &'static str) -> bool {
        self.own.has(key) || self.connection.has(key)
    }

    fn wrong(&self, key: &'static str, problem: String) {
        self.of(key).wrong(key, problem);
    }
}
