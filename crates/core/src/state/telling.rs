//! Changes of rows that subscribers have not been told.
//!
//! Some changes have no row event of their own: those of a bulk change, of a first copy, of rows that a callback gives to the cache.
//! An `Invalidated` announces them, after which subscribers read again. Until then, later changes of these rows have no row event
//! either: it would not fit the rows that subscribers have. After a crash in between, the next start announces them.

use super::data::State;
use super::entry::{Base, Entry, Frame, VisibleChange};
use crate::record::{Body, Id};
use crate::table::RowRef;

impl State {
    /// Returns true if visible rows changed without row events since the last `Invalidated`.
    pub fn has_silent_changes(&self) -> bool {
        self.silent
    }

    /// Returns true if there are rows whose changes an `Invalidated` is still to announce.
    pub fn has_untold(&self) -> bool {
        self.untold_all || !self.untold.is_empty()
    }

    fn is_untold(&self, id: &Id) -> bool {
        self.untold_all || self.untold.contains(id)
    }

    /// Removes the row event of an entry about a row whose last change is still to be announced.
    pub(super) fn withhold(&self, entry: &mut Entry) {
        let is_row = matches!(entry.frame, Frame::Inserted | Frame::Changed | Frame::Removed);
        // An erasure is told to everybody, whatever rows they have.
        if is_row && !entry.erased && entry.id.as_ref().is_some_and(|id| self.is_untold(id)) {
            entry.frame = Frame::Silent;
        }
    }

    /// Notes what an entry tells, before it is applied.
    pub(super) fn note_told(&mut self, entry: &Entry) {
        if matches!(entry.frame, Frame::Invalidated { .. }) {
            self.silent = false;
            self.untold_all = false;
            self.untold.clear();
        }
        self.silent |= matches!(entry.base, Base::Many { .. });
    }

    /// Notes a change of an entry from before the position of the cache, which may have moved the row only.
    pub(super) fn note_known_change(&mut self, entry: &Entry) {
        self.silent |= entry.frame == Frame::Silent && !matches!(entry.visible, VisibleChange::Same);
    }

    /// Notes the change of the visible row of `id` from `old` to what it is now.
    pub(super) fn note_change(&mut self, id: &Id, entry: &Entry, old: Option<&Body>) {
        if entry.frame == Frame::Silent && !self.silent {
            self.silent = !is_same(old, self.table.get(id));
        }
    }
}

fn is_same(old: Option<&Body>, new: Option<RowRef<'_>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => super::apply::same_body(&new, old),
        (None, None) => true,
        _ => false,
    }
}
