//! Reader of one TOML table of a mapping: typed values, and errors for unknown keys.

use std::cell::RefCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::Problem;

type Value<'a> = Spanned<DeValue<'a>>;

/// A table that is being read. Earlier layers override later ones. Keys that are never requested are mistakes.
pub(super) struct Table<'t, 'a> {
    name: &'static str,
    pub(super) at: usize,
    layers: Vec<&'t DeTable<'a>>,
    requested: RefCell<Vec<&'static str>>,
    problems: &'t RefCell<Vec<Problem>>,
}

impl<'t, 'a> Table<'t, 'a> {
    pub(super) fn new(
        name: &'static str,
        at: usize,
        layers: Vec<&'t DeTable<'a>>,
        problems: &'t RefCell<Vec<Problem>>,
    ) -> Table<'t, 'a> {
        Table { name, at, layers, requested: RefCell::default(), problems }
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
        // Several rules of a preset share the keys that override them.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub(super) fn wrong<T>(&self, at: usize, message: &str) -> Option<T> {
        self.problem(at, message);
        None
    }

    pub(super) fn try_at<T>(&self, at: usize, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|message| self.problem(at, &message)).ok()
    }

    pub(super) fn value(&self, key: &'static str) -> Option<(&'t Value<'a>, bool)> {
        self.requested.borrow_mut().push(key);
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
        // Positions in a preset's text mean nothing to its user.
        read(value.get_ref(), if own { value.span().start } else { self.at })
    }

    /// Reports unknown keys; returns true if there are none.
    pub(super) fn finish(&self) -> bool {
        let requested = self.requested.borrow();
        let mut clean = true;
        for (key, _) in self.layers.iter().flat_map(|layer| layer.iter()) {
            let own: &str = key.get_ref();
            if !requested.contains(&own) {
                clean = false;
                let mut known: Vec<_> = requested.clone();
                known.dedup();
                self.problem(
                    key.span().start,
                    &format!("{} has no key {own:?}: the keys are {}", self.name, known.join(", ")),
                );
            }
        }
        clean
    }
}
