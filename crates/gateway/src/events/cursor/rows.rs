//! Rows of the snapshot before the events, if one is requested.

use super::{BATCH_BYTES, CursorWork, EventCursor, OutgoingFrame};
use crate::events::frame;
use diorama_core::table::Slot;
use diorama_core::vista::query::JsonRow;

/// Maximum number of rows that are visited for one batch of a snapshot.
const LOOKED_AT: usize = 4_096;
/// Maximum number of rows in one frame of a snapshot.
const ROWS: u64 = 500;

/// Rows that are still to be sent.
pub(super) enum Remaining {
    /// All rows in these slots. Rows that are added later get slots behind them, and are sent by their events.
    Slots(std::ops::Range<Slot>),
    /// Rows with these ids.
    Ids(std::vec::IntoIter<String>),
}

impl EventCursor {
    pub(super) fn begin_snapshot(&mut self) -> OutgoingFrame {
        self.work = CursorWork::Rows(match &self.ids {
            Some(ids) => Remaining::Ids(ids.iter().cloned().collect::<Vec<_>>().into_iter()),
            None => Remaining::Slots(0..self.log.state().table().next_slot()),
        });
        self.ahead = None;
        let all = self.ids.is_none() && self.view.is_unfiltered();
        let count = all.then(|| self.log.state().table().len());
        OutgoingFrame::event(frame::snapshot_begin(self.encoding(), &self.position, count), None)
    }

    /// Builds the next frame of rows. Rows are looked up when they are sent, so that a slow reader keeps no old State in
    /// memory, and the events that such a row shows already are left out later. The slot of a row never changes.
    pub(super) fn rows(&mut self, mut remaining: Remaining) -> Vec<OutgoingFrame> {
        let state = self.log.state();
        let (table, mut rows) = (state.table(), frame::Rows::new(self.encoding()));
        let mut over = false;
        for _ in 0..LOOKED_AT {
            let row = match &mut remaining {
                Remaining::Slots(slots) => match slots.next() {
                    Some(slot) => table.at(slot),
                    None => {
                        over = true;
                        break;
                    }
                },
                Remaining::Ids(ids) => match ids.next() {
                    Some(id) => {
                        let row = table.get(&id);
                        self.ahead.get_or_insert_default().add_id(id.into(), state.seq());
                        row
                    }
                    None => {
                        over = true;
                        break;
                    }
                },
            };
            if let Some(row) =
                row.filter(|row| self.view.matches(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))))
            {
                rows.push(row.id(), self.view.shown(&row).as_deref());
            }
            if rows.len() >= ROWS || rows.bytes() >= BATCH_BYTES {
                break;
            }
        }
        if let Remaining::Slots(slots) = &remaining {
            self.ahead.get_or_insert_default().add_slots(slots.start, state.seq());
        }
        let mut out = Vec::new();
        if rows.len() > 0 {
            out.push(OutgoingFrame::event(rows.finish(), None));
        }
        if over {
            let end = frame::snapshot_end(self.encoding(), &self.position);
            out.push(OutgoingFrame::event(end, Some(self.position.seq)));
        } else {
            self.work = CursorWork::Rows(remaining);
        }
        out
    }
}
