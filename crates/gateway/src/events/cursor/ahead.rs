//! Rows that a reader has from States that are newer than its position.
//!
//! Rows of a snapshot, and newest states in place of events, are looked up when they are sent, so that a slow reader keeps no old
//! State in memory. The events up to such a State are left out for its rows: they would show the reader an older row.

use std::collections::HashMap;

use diorama_core::dio::RingItem;
use diorama_core::journal::Seq;
use diorama_core::record::Id;
use diorama_core::state::Frame;
use diorama_core::table::Slot;

/// Rows that a reader has from States that are newer than its position.
#[derive(Debug, Default)]
pub(super) struct RowsAhead {
    /// Slots that were sent up to here, and the position of the State of these rows. Both rise.
    slots: Vec<(Slot, Seq)>,
    /// Rows that were sent by id, with the position of their State.
    ids: HashMap<Id, Seq>,
    /// The newest of these positions.
    upto: Seq,
}

impl RowsAhead {
    /// Notes that the rows in slots before `end` that were not sent yet come from the State at `seq`.
    pub(super) fn add_slots(&mut self, end: Slot, seq: Seq) {
        match self.slots.last_mut() {
            Some(last) if last.1 == seq => last.0 = end,
            _ => self.slots.push((end, seq)),
        }
        self.upto = self.upto.max(seq);
    }

    /// Notes that the row with this id comes from the State at `seq`.
    pub(super) fn add_id(&mut self, id: Id, seq: Seq) {
        self.ids.insert(id, seq);
        self.upto = self.upto.max(seq);
    }

    /// Returns true if no event after `position` is to be left out.
    pub(super) fn is_reached(&self, position: Seq) -> bool {
        self.upto <= position
    }

    /// Returns true if events after `position` are judged by the slots of their rows, which the journal does not have.
    pub(super) fn needs_slots(&self, position: Seq) -> bool {
        self.slots.last().is_some_and(|(_, seq)| *seq > position)
    }

    /// Returns true if the reader has the row of an event as it is after the event, or newer. Only events that tell of a row are
    /// left out, and an erased row is always told.
    pub(super) fn has(&self, item: &RingItem) -> bool {
        let (Some(seq), Some(entry)) = (item.seq.filter(|seq| *seq <= self.upto), &item.entry) else { return false };
        let Some(id) = entry.id.as_ref().filter(|_| !entry.erased) else { return false };
        if !matches!(entry.frame, Frame::Inserted | Frame::Changed | Frame::Removed) {
            return false;
        }
        self.ids.get(id).is_some_and(|at| seq <= *at) || item.slot.is_some_and(|slot| self.has_slot(slot, seq))
    }

    fn has_slot(&self, slot: Slot, seq: Seq) -> bool {
        let part = self.slots.partition_point(|(end, _)| *end <= slot);
        self.slots.get(part).is_some_and(|(_, at)| seq <= *at)
    }
}
