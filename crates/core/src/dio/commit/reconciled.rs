//! Outcome of an upstream change, and of a delivery with several of them.

use crate::journal::{Changes, DeliveryState, StoredDelivery};
use crate::state::Outcome;

/// What an upstream event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reconciled {
    /// It changed something (or the program's `on_event` took it).
    Applied,
    /// Everything was so already.
    Unchanged,
    /// It will be, once the row was read from the master.
    Deferred,
    /// It was older than what is known.
    Stale,
    /// The same delivery was applied before.
    Duplicate,
}

impl Reconciled {
    pub(crate) fn of(outcome: &Outcome) -> Reconciled {
        match outcome {
            Outcome::Applied { .. } => Reconciled::Applied,
            Outcome::Deferred => Reconciled::Deferred,
            Outcome::Stale => Reconciled::Stale,
            _ => Reconciled::Unchanged,
        }
    }
}

impl Changes {
    /// Adds what became of one change.
    pub(crate) fn count(&mut self, outcome: Reconciled) {
        *match outcome {
            Reconciled::Applied => &mut self.applied,
            Reconciled::Unchanged => &mut self.unchanged,
            Reconciled::Deferred => &mut self.deferred,
            Reconciled::Stale => &mut self.stale,
            Reconciled::Duplicate => &mut self.duplicates,
        } += 1;
    }

    /// What became of the whole.
    pub(crate) fn state(&self) -> DeliveryState {
        match self {
            _ if self.applied + self.unchanged + self.deferred > 0 => DeliveryState::Applied,
            _ if self.stale > 0 => DeliveryState::Stale,
            _ if self.duplicates > 0 => DeliveryState::Duplicate,
            _ if self.skipped > 0 => DeliveryState::Undecodable,
            _ => DeliveryState::Ignored,
        }
    }
}

/// `kept` with what became of its changes, if that is not known yet.
pub(crate) fn concluded(kept: &StoredDelivery, each: &[Outcome]) -> StoredDelivery {
    let mut kept = kept.clone();
    let delivery = &mut kept.delivery;
    if delivery.state == DeliveryState::Applied {
        each.iter().for_each(|outcome| delivery.changes.count(Reconciled::of(outcome)));
        delivery.state = delivery.changes.state();
    }
    kept
}
