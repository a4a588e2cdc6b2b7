//! Guards of reads and deliveries in progress, and rows that changed while any was open.

use std::sync::Arc;

use imbl::HashMap;

use super::data::{Note, State};
use crate::record::Id;

impl State {
    /// Returns the number of reads and deliveries in progress for this row, including those for all rows.
    pub(super) fn active_guards(&self, id: &str) -> u32 {
        let about_others = self.row_guards.len() as u32 - self.row_guard_counts.get(id).copied().unwrap_or(0);
        self.open_guards.saturating_sub(about_others)
    }

    /// Returns the mark of a guard opened now. No guard for one row has the same mark.
    pub(super) fn next_mark(&self) -> u64 {
        self.clock + u64::from(self.row_guards.contains_key(&self.clock))
    }

    /// Current value of the logical clock.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Applies bookkeeping that is not journaled.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Open => {
                self.clock = self.next_mark();
                self.open_guard();
            }
            Note::OpenFor(id) => {
                self.clock += 1;
                self.open_guard();
                self.row_guards.insert(self.clock, Arc::clone(id));
                *self.row_guard_counts.entry(Arc::clone(id)).or_insert(0) += 1;
                self.note_try(id);
            }
            Note::Close(mark) => self.close_guard(*mark),
            Note::Dirty(id) => {
                self.clock += 1;
                self.dirty.insert(Arc::clone(id), self.clock);
                self.update_rereadable(id);
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
            Note::Untold(id) => drop(self.untold.insert(Arc::clone(id))),
            Note::UntoldAll => self.untold_all = true,
            Note::Attach(built) => {
                self.table.attach(built.index().clone(), built.from());
            }
            Note::Detach(spec) => self.table.detach(spec),
            Note::Forget(ids) => self.forget_values(ids),
            Note::Purged(seq) => drop(self.purges.remove(seq)),
        }
    }

    /// Notes that the row's oldest waiting operation is delivered. Rows with waiting operations are not read singly.
    fn note_try(&mut self, id: &Id) {
        let Some(op) = self.first_queued(id).map(|op| op.id) else { return };
        if let Some(op) = self.ops.get_mut(&op).filter(|op| op.targets.len() == 1) {
            op.tried = true;
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
        if let Some(id) = self.row_guards.remove(&mark) {
            match self.row_guard_counts.get_mut(&id) {
                Some(open) if *open > 1 => *open -= 1,
                _ => drop(self.row_guard_counts.remove(&id)),
            }
        }
        if !last {
            return;
        }
        let was_oldest = self.guards.get_min().is_some_and(|(oldest, _)| *oldest == mark);
        self.guards.remove(&mark);
        match self.guards.get_min().map(|(oldest, _)| *oldest) {
            None => self.touched = HashMap::new(),
            // Only the oldest guard needs the touches from before the next one began.
            Some(oldest) if was_oldest => self.touched.retain(|_, touched| touched.at > oldest),
            Some(_) => {}
        }
    }

    /// Updates [`State::rereadable`] after a change of the row's dirty mark or queue.
    pub(super) fn update_rereadable(&mut self, id: &Id) {
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

    /// Returns true if the row changed, or may have changed, after `mark`.
    pub(super) fn touched_after(&self, id: &str, mark: u64) -> bool {
        self.touched.get(id).is_some_and(|touched| touched.at > mark)
    }

    /// Returns the number of confirmed rows that changed after `mark`, while a read that began at `mark` is in progress.
    pub(super) fn confirmed_since(&self, mark: u64) -> usize {
        let changed = self.touched.iter().filter(|(_, touched)| touched.row > mark);
        changed.filter(|(id, _)| self.base(id).is_some()).count()
    }

    /// Returns true if the confirmed row changed after `mark`.
    pub(super) fn changed_after(&self, id: &str, mark: u64) -> bool {
        self.touched.get(id).is_some_and(|touched| touched.row > mark)
    }

    /// Returns true if a read that began at `mark` settles the doubt about the row.
    pub(super) fn settled_by(&self, id: &str, mark: u64) -> bool {
        self.dirty.get(id).is_none_or(|since| *since <= mark)
    }
}
