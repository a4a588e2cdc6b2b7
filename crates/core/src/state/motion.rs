//! What is in motion: guards of reads and deliveries, and rows that changed while any was open.

use std::sync::Arc;

use imbl::HashMap;

use super::data::{Note, State};
use crate::record::Id;

impl State {
    /// How many reads and deliveries under way are about this row, those about all rows among them.
    pub(super) fn motions(&self, id: &str) -> u32 {
        let about_others = self.narrow.len() as u32 - self.narrow_of.get(id).copied().unwrap_or(0);
        self.open_guards.saturating_sub(about_others)
    }

    /// The mark of a guard that is opened now: no guard about one row has the same.
    pub(super) fn next_mark(&self) -> u64 {
        self.clock + u64::from(self.narrow.contains_key(&self.clock))
    }

    /// What a guard opened now would carry.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Keeps a book that is not journaled.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Open => {
                self.clock = self.next_mark();
                self.open_guard();
            }
            Note::OpenFor(id) => {
                self.clock += 1;
                self.open_guard();
                self.narrow.insert(self.clock, Arc::clone(id));
                *self.narrow_of.entry(Arc::clone(id)).or_insert(0) += 1;
            }
            Note::Close(mark) => self.close_guard(*mark),
            Note::Dirty(id) => {
                self.clock += 1;
                self.dirty.insert(Arc::clone(id), self.clock);
                self.sort_doubt(id);
            }
            Note::Clean(id) => {
                self.dirty.remove(id);
                self.rereadable.remove(id);
                self.lost.remove(id);
            }
            Note::Touch(id) => {
                self.clock += 1;
                self.touch(id, false);
            }
            Note::Attach(built) => {
                self.table.attach(built.index().clone(), built.from());
            }
            Note::Detach(spec) => self.table.detach(spec),
            Note::Forget(ids) => self.forget_values(ids),
            Note::Purged(seq) => drop(self.purges.remove(seq)),
        }
    }

    fn open_guard(&mut self) {
        *self.guards.entry(self.clock).or_insert(0) += 1;
        self.open_guards += 1;
    }

    fn close_guard(&mut self, mark: u64) {
        let Some(count) = self.guards.get_mut(&mark) else { return };
        *count -= 1;
        let last = *count == 0;
        self.open_guards = self.open_guards.saturating_sub(1);
        if let Some(id) = self.narrow.remove(&mark) {
            match self.narrow_of.get_mut(&id) {
                Some(open) if *open > 1 => *open -= 1,
                _ => drop(self.narrow_of.remove(&id)),
            }
        }
        if !last {
            return;
        }
        let was_oldest = self.guards.get_min().is_some_and(|(oldest, _)| *oldest == mark);
        self.guards.remove(&mark);
        match self.guards.get_min().map(|(oldest, _)| *oldest) {
            None => self.touched = HashMap::new(),
            // Only the oldest guard holds on to what was touched before the next one began.
            Some(oldest) if was_oldest => self.touched.retain(|_, touched| touched.at > oldest),
            Some(_) => {}
        }
    }

    /// Keeps [`State::rereadable`] up to date after a change of the row's doubt or of its queue.
    pub(super) fn sort_doubt(&mut self, id: &Id) {
        if self.dirty.contains_key(id) && !self.has_queued(id) {
            self.rereadable.insert(Arc::clone(id));
        } else {
            self.rereadable.remove(id);
        }
    }

    pub(super) fn touch(&mut self, id: &Id, row: bool) {
        if self.guards.is_empty() {
            return;
        }
        let touched = self.touched.entry(Arc::clone(id)).or_default();
        touched.at = self.clock;
        if row {
            touched.row = self.clock;
        }
    }

    /// Whether the row changed after `mark`, or may have.
    pub(super) fn touched_after(&self, id: &str, mark: u64) -> bool {
        self.touched.get(id).is_some_and(|touched| touched.at > mark)
    }

    /// How many confirmed rows there are that changed after `mark`, while a reading that began there is under way.
    pub(super) fn confirmed_since(&self, mark: u64) -> usize {
        let changed = self.touched.iter().filter(|(_, touched)| touched.row > mark);
        changed.filter(|(id, _)| self.base(id).is_some()).count()
    }

    /// Whether the confirmed row changed after `mark`.
    pub(super) fn changed_after(&self, id: &str, mark: u64) -> bool {
        self.touched.get(id).is_some_and(|touched| touched.row > mark)
    }

    /// Whether a read that began at `mark` settles what was in doubt about the row.
    pub(super) fn settled_by(&self, id: &str, mark: u64) -> bool {
        self.dirty.get(id).is_none_or(|since| *since <= mark)
    }
}
