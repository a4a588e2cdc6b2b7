//! Attempts: what the worker knows of the deliveries of operations. Not journaled.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::state::{OpError, OpId};

/// Hash of the row that an operation was accepted over, [`NO_ROW`] if there was none; `None` if the log does not say it.
pub(crate) type BaseHash = Option<u128>;

/// What the worker knows of an operation's deliveries; not journaled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) count: u32,
    pub(crate) running: bool,
    pub(crate) unknown: bool,
    /// What it was accepted over, if an older journal brought it back.
    pub(crate) base_hash: Option<BaseHash>,
    pub(crate) next: Option<Instant>,
    pub(crate) error: Option<OpError>,
    /// When the first of its deliveries failed.
    pub(crate) failing_since: Option<Instant>,
}

/// Operations that have ended whose deliveries are remembered.
const MOST_ENDED: usize = 10_000;

/// What the worker knows of the deliveries of all operations that wait, and of the newest that have ended.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    all: HashMap<OpId, Attempt>,
    /// Oldest first.
    ended: VecDeque<OpId>,
}

impl Attempts {
    pub(crate) fn get(&self, op: OpId) -> Option<&Attempt> {
        self.all.get(&op)
    }

    pub(crate) fn get_mut(&mut self, op: OpId) -> Option<&mut Attempt> {
        self.all.get_mut(&op)
    }

    /// A delivery begins.
    pub(crate) fn begin(&mut self, op: OpId) {
        let attempt = self.all.entry(op).or_default();
        attempt.running = true;
        attempt.count += 1;
        attempt.next = None;
    }

    /// Something else is done with the operation that no delivery may meet.
    pub(crate) fn hold(&mut self, op: OpId) {
        self.all.entry(op).or_default().running = true;
    }

    /// A delivery that had begun did not take place.
    pub(crate) fn not_tried(&mut self, op: OpId) {
        if let Some(attempt) = self.all.get_mut(&op) {
            attempt.running = false;
            attempt.count = attempt.count.saturating_sub(1);
        }
    }

    /// No delivery runs any more, however it ended.
    pub(crate) fn release(&mut self, op: OpId) {
        if let Some(attempt) = self.all.get_mut(&op) {
            attempt.running = false;
        }
    }

    /// An earlier process may have delivered the operation.
    pub(crate) fn doubt(&mut self, op: OpId) {
        self.all.entry(op).or_default().unknown = true;
    }

    /// An older journal brought the operation back.
    pub(crate) fn carry(&mut self, op: OpId, over: BaseHash) {
        let attempt = self.all.entry(op).or_default();
        (attempt.unknown, attempt.base_hash) = (true, Some(over));
    }

    /// What the source said of these operations is forgotten: it may quote their rows.
    pub(crate) fn forget_errors(&mut self, ops: impl IntoIterator<Item = OpId>) {
        for op in ops {
            if let Some(attempt) = self.all.get_mut(&op) {
                attempt.error = None;
            }
        }
    }

    /// The route is back: what waits is due.
    pub(crate) fn wake_all(&mut self) {
        self.all.values_mut().filter(|attempt| !attempt.running).for_each(|attempt| attempt.next = None);
    }

    /// The operation has ended; the oldest that had is forgotten in its place.
    pub(crate) fn ended(&mut self, op: OpId) {
        self.ended.push_back(op);
        while self.ended.len() > MOST_ENDED {
            if let Some(oldest) = self.ended.pop_front() {
                self.all.remove(&oldest);
            }
        }
    }
}
