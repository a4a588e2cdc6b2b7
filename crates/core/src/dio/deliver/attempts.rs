//! Attempts to deliver operations, as the worker tracks them. Not journaled.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::state::{OpError, OpId};

/// Hash of the row when an operation was accepted, [`NO_ROW`] if there was no row. `None` if the log does not have it.
pub(crate) type BaseHash = Option<u128>;

/// Deliveries of one operation. Not journaled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) count: u32,
    pub(crate) running: bool,
    pub(crate) unknown: bool,
    /// Row that it was accepted on, if an older journal brought the operation back.
    pub(crate) base_hash: Option<BaseHash>,
    pub(crate) next: Option<Instant>,
    pub(crate) error: Option<OpError>,
    /// Time of its first failed delivery.
    pub(crate) failing_since: Option<Instant>,
}

/// Maximum number of settled operations whose deliveries are remembered.
const MOST_ENDED: usize = 10_000;

/// Deliveries of all waiting operations, and of the newest settled ones.
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

    /// Notes that a delivery begins.
    pub(crate) fn begin(&mut self, op: OpId) {
        let attempt = self.all.entry(op).or_default();
        attempt.running = true;
        attempt.count += 1;
        attempt.next = None;
    }

    /// Blocks deliveries of the operation until [`Attempts::release`].
    pub(crate) fn hold(&mut self, op: OpId) {
        self.all.entry(op).or_default().running = true;
    }

    /// Undoes [`Attempts::begin`]: the delivery did not take place.
    pub(crate) fn not_tried(&mut self, op: OpId) {
        if let Some(attempt) = self.all.get_mut(&op) {
            attempt.running = false;
            attempt.count = attempt.count.saturating_sub(1);
        }
    }

    /// Notes that the delivery has ended, with any result.
    pub(crate) fn release(&mut self, op: OpId) {
        if let Some(attempt) = self.all.get_mut(&op) {
            attempt.running = false;
        }
    }

    /// Notes that an earlier process may have delivered the operation.
    pub(crate) fn doubt(&mut self, op: OpId) {
        self.all.entry(op).or_default().unknown = true;
    }

    /// Notes that an older journal brought the operation back.
    pub(crate) fn carry(&mut self, op: OpId, base_hash: BaseHash) {
        let attempt = self.all.entry(op).or_default();
        (attempt.unknown, attempt.base_hash) = (true, Some(base_hash));
    }

    /// Forgets the errors of these operations, because they may quote their rows.
    pub(crate) fn forget_errors(&mut self, ops: impl IntoIterator<Item = OpId>) {
        for op in ops {
            if let Some(attempt) = self.all.get_mut(&op) {
                attempt.error = None;
            }
        }
    }

    /// Makes all waiting operations due, after the route has recovered.
    pub(crate) fn wake_all(&mut self) {
        self.all.values_mut().filter(|attempt| !attempt.running).for_each(|attempt| attempt.next = None);
    }

    /// Notes that the operation is settled. Beyond the maximum, the oldest settled one is forgotten.
    pub(crate) fn ended(&mut self, op: OpId) {
        self.ended.push_back(op);
        while self.ended.len() > MOST_ENDED {
            if let Some(oldest) = self.ended.pop_front() {
                self.all.remove(&oldest);
            }
        }
    }
}
