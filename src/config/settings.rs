//! Configuration tables as connectors read them.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use diorama_connect::Settings;

use super::value::Reader;

impl Settings for Reader<'_> {
    fn text(&self, key: &'static str) -> Option<String> {
        Reader::text(self, key)
    }

    fn secret(&self, key: &'static str) -> Option<String> {
        Reader::secret_text(self, key).map(|secret| secret.reveal().to_string())
    }

    fn path(&self, key: &'static str) -> Option<PathBuf> {
        Reader::path(self, key)
    }

    fn word(&self, key: &'static str, words: &[&'static str]) -> Option<&'static str> {
        Reader::word(self, key, words)
    }

    fn flag(&self, key: &'static str) -> Option<bool> {
        Reader::flag(self, key)
    }

    fn number(&self, key: &'static str) -> Option<u64> {
        Reader::number(self, key)
    }

    fn count(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        Reader::count(self, key, range)
    }

    fn size(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        Reader::size(self, key, range)
    }

    fn duration(&self, key: &'static str) -> Option<Duration> {
        Reader::duration(self, key)
    }

    fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        Reader::texts(self, key)
    }

    fn secret_texts(&self, key: &'static str) -> Vec<(String, String)> {
        Reader::secret_texts(self, key).into_iter().map(|(name, secret)| (name, secret.reveal().to_string())).collect()
    }

    fn json(&self, key: &'static str) -> Option<serde_json::Value> {
        Reader::json(self, key)
    }

    fn table(&self, key: &'static str, read: &mut dyn FnMut(&dyn Settings)) {
        if key == "write" {
            // Its unknown keys are reported by its owner.
            self.writes.iter().for_each(|writes| read(&**writes));
        } else if let Some(table) = Reader::table(self, key) {
            read(&table);
            table.finish();
        }
    }

    fn tables(&self, key: &'static str, read: &mut dyn FnMut(&dyn Settings)) {
        for table in self.array(key) {
            read(&table);
            table.finish();
        }
    }

    fn has(&self, key: &'static str) -> bool {
        self.position(key).is_some()
    }

    fn wrong(&self, key: &'static str, problem: String) {
        self.problem(self.position(key).unwrap_or(self.at), problem);
    }
}
