//! One TOML table of a mapping while it is read: typed values, and a word about every key that is not known.

use std::cell::RefCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::Problem;

type Value<'a> = Spanned<DeValue<'a>>;

/// A table while it is read: what the first layer has counts. Keys that nobody asked for are mistakes.
pub(super) struct Table<'t, 'a> {
    name: &'static str,
    pub(super) at: usize,
    layers: Vec<&'t DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
    problems: &'t RefCell<Vec<Problem>>,
}

impl<'t, 'a> Table<'t, 'a> {
    pub(super) fn new(
        name: &'static str,
        at: usize,
        layers: Vec<&'t DeTable<'a>>,
        problems: &'t RefCell<Vec<Problem>>,
    ) -> Table<'t, 'a> {
        Table { name, at, layers, asked: RefCell::default(), problems }
    }

    pub(super) fn inner<'i, 'b>(&self, name: &'static str, at: usize, table: &'i DeTable<'b>) -> Table<'i, 'b>
    where
        't: 'i,
    {
        Table::new(name, at, vec![table], self.problems)
    }

    pub(super) fn problem(&self, at: usize, message: &str) {
        let problem = Problem { at, message: message.to_string() };
        let mut problems = self.problems.borrow_mut();
        // Several rules of a preset share what is laid over them.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub(super) fn wrong<T>(&self, at: usize, message: &str) -> Option<T> {
        self.problem(at, message);
        None
    }

    pub(super) fn try_at<T>(&self, at: usize, made: Result<T, String>) -> Option<T> {
        made.map_err(|message| self.problem(at, &message)).ok()
    }

    pub(super) fn value(&self, key: &'static str) -> Option<(&'t Value<'a>, bool)> {
        self.asked.borrow_mut().push(key);
        let found =
            |layer: &&'t DeTable<'a>| layer.iter().find(|(own, _)| own.get_ref() == key).map(|(_, value)| value);
        let first = self.layers.first().and_then(found).map(|value| (value, true));
        first.or_else(|| self.layers.iter().skip(1).find_map(found).map(|value| (value, false)))
    }

    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'t DeValue<'a>, usize) -> Option<T>,
    ) -> Option<T> {
        let (value, own) = self.value(key)?;
        // A preset's own places mean nothing to who uses it.
        read(value.get_ref(), if own { value.span().start } else { self.at })
    }

    /// Reports keys that nobody asked for; says whether there are none.
    pub(super) fn finish(&self) -> bool {
        let asked = self.asked.borrow();
        let mut clean = true;
        for (key, _) in self.layers.iter().flat_map(|layer| layer.iter()) {
            let own: &str = key.get_ref();
            if !asked.contains(&own) {
                clean = false;
                let mut known: Vec<_> = asked.clone();
                known.dedup();
                self.problem(
                    key.span().start,
                    &format!("{} has no key {own:?}: it knows {}", self.name, known.join(", ")),
                );
            }
        }
        clean
    }
}
