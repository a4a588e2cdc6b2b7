//! Handling of readers that are too far behind: the newest state of every changed row, or a reset.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexSet;
use tokio::time::Instant;

use super::{BATCH, BATCH_BYTES, CursorEnd, CursorWork, EventCursor, OutgoingFrame, PIECE};
use crate::events::frame::{self, Kind, Reset};
use crate::events::request::SnapshotMode;
use diorama_core::dio::{CursorRead, RingItem};
use diorama_core::journal::Seq;
use diorama_core::record::Id;

/// Maximum number of rows whose newest state is sent in place of their events.
const MOST_IDS: usize = 10_000;
/// Maximum size of the frames that cannot be replaced by newest states, in bytes.
const MOST_REST: usize = 1 << 20;
/// Number of resets within [`RESET_SPAN`] at which a slow reader is disconnected.
const RESETS: usize = 3;
const RESET_SPAN: Duration = Duration::from_secs(60);

/// Newest states that are still to be sent.
pub(super) struct NewestStates {
    ids: indexmap::set::IntoIter<Id>,
    /// Frames that are sent in any case: failed writes and invalidations.
    rest: Vec<OutgoingFrame>,
    /// Position at which events continue afterwards.
    to: Seq,
    next: u64,
    weight: u64,
}

impl EventCursor {
    /// Reads all missed events and collects the ids of the changed rows, whose newest states are sent instead.
    pub(super) async fn conflate(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        let (mut ids, mut rest, mut bytes) = (IndexSet::new(), Vec::new(), 0);
        let (mut next, mut to) = (self.next, self.position.seq);
        let ring = Arc::clone(self.log.ring());
        let next = loop {
            match next {
                Some(at) => match ring.at(at) {
                    CursorRead::Item(item) if self.must_reset(&item) => return self.reset_because(Reset::Trimmed),
                    CursorRead::Item(item) => {
                        to = item.seq.unwrap_or(to).max(to);
                        bytes += self.sort(&item, Some(at), &mut ids, &mut rest);
                        next = Some(at + 1);
                    }
                    CursorRead::End | CursorRead::Closed => break at,
                    CursorRead::Gone { .. } => next = None,
                },
                None => {
                    let Ok(Some(past)) = self.log.past(to, PIECE).await else { return self.reset() };
                    if past.items.iter().any(|item| self.must_reset(item)) {
                        return self.reset_because(Reset::Trimmed);
                    }
                    for item in &past.items {
                        bytes += self.sort(item, None, &mut ids, &mut rest);
                    }
                    let stuck = past.reached == to;
                    to = past.reached;
                    next = ring.after(to);
                    if stuck && next.is_none() {
                        return self.reset();
                    }
                }
            }
            if ids.len() > MOST_IDS || bytes > MOST_REST {
                return self.reset();
            }
        };
        let weight = ring.weight_before(next).unwrap_or(self.mark);
        Ok(self.newest(NewestStates { ids: ids.into_iter(), rest, to, next, weight }))
    }

    /// Returns true if it is not known whether the subscriber may see an event, so that the id of the row must not be sent.
    fn must_reset(&self, item: &RingItem) -> bool {
        self.view.is_scoped() && self.lacks_prior_row(item)
    }

    /// Collects the id of an event, or its frame if that must be sent; returns the size of the frame.
    fn sort(&self, item: &RingItem, at: Option<u64>, ids: &mut IndexSet<Id>, rest: &mut Vec<OutgoingFrame>) -> usize {
        let is_sent = item.seq.is_none_or(|seq| seq <= self.position.seq);
        if is_sent || !self.concerns(item) || self.ahead.as_ref().is_some_and(|ahead| ahead.has(item)) {
            return 0;
        }
        match (self.event_of(item, at), item.entry.as_ref().and_then(|entry| entry.id.clone())) {
            (Some(event), _) if matches!(event.kind, Kind::Failed | Kind::Invalidated) => {
                let size = event.frame.len();
                rest.push(OutgoingFrame::event(event.frame, item.seq));
                size
            }
            (Some(_), Some(id)) => {
                ids.insert(id);
                0
            }
            _ => 0,
        }
    }

    pub(super) fn newest(&mut self, mut newest: NewestStates) -> Vec<OutgoingFrame> {
        let (mut out, mut bytes) = (Vec::new(), 0);
        let state = self.log.state();
        while bytes < BATCH_BYTES && out.len() < BATCH {
            let Some(id) = newest.ids.next() else {
                self.position.seq = newest.to;
                self.next = Some(newest.next);
                self.mark = newest.weight;
                out.append(&mut newest.rest);
                let bookmark = frame::heartbeat(self.encoding(), &self.position);
                out.push(OutgoingFrame::control(bookmark, Some(self.position.seq)));
                return out;
            };
            let row = state.get(&id).map(|row| row.body());
            if state.seq() > newest.to {
                self.ahead.get_or_insert_default().add_id(Arc::clone(&id), state.seq());
            }
            let event = self.view.newest(&id, self.position.seq, row.as_ref());
            if self.ops.is_none_or(|ops| ops.has_newest(event.kind)) {
                bytes += event.frame.len();
                out.push(OutgoingFrame::event(event.frame, None));
            }
        }
        self.work = CursorWork::Newest(newest);
        out
    }

    /// Resets a slow reader: the events that it has missed are skipped.
    pub(super) fn reset(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        self.reset_because(Reset::Overflow)
    }

    /// Resets the reader: the events that it has missed are skipped. Fails at too many resets of a
    /// slow reader.
    pub(super) fn reset_because(&mut self, reason: Reset) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        if reason == Reset::Overflow {
            let now = Instant::now();
            self.resets.retain(|at| now.duration_since(*at) < RESET_SPAN);
            self.resets.push_back(now);
            if self.resets.len() >= RESETS {
                return Err(CursorEnd::Slow);
            }
        }
        let ring = Arc::clone(self.log.ring());
        self.mark = ring.weight();
        self.position = self.log.position();
        self.ahead = None;
        self.next = Some(ring.after(self.position.seq).unwrap_or_else(|| ring.end()));
        let snapshot = self.snapshot != SnapshotMode::None;
        let reset = frame::reset(self.encoding(), reason, &self.position);
        let mut out = vec![OutgoingFrame::event(reset, (!snapshot).then_some(self.position.seq))];
        if snapshot {
            out.push(self.begin_snapshot());
        }
        Ok(out)
    }
}
