//! Shared state of the committer and its senders.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::capacity::{QueueCapacity, QueueUsage};
use super::invalidations::Invalidations;
use super::retention::Retention;
use crate::dio::settings::Settings;
use crate::state::State;

/// Maximum number of submissions other than operations that wait for the committer.
const INBOX: usize = 256;

/// State of one Dio that belongs to `commit/`.
pub(crate) struct CommitState {
    /// Capacity of the queue of operations that wait for the master.
    pub(super) capacity: QueueCapacity,
    /// Permits of all other submissions that wait for the committer.
    pub(super) inbox: Arc<Semaphore>,
    /// Set once the Dio refuses new writes.
    pub(super) closed: AtomicBool,
    /// Calls of `invalidate_*` that the next turn publishes.
    pub(super) invalidations: Mutex<Invalidations>,
    /// Entries of the journal before this position are trimmed.
    pub(in crate::dio) trimmed: tokio::sync::Mutex<u64>,
    /// Age and size of the entries that the journal holds.
    pub(super) retention: Mutex<Retention>,
    /// Lock that is held by the purge under way: purges finish in the order in which they began.
    pub(in crate::dio) purging: tokio::sync::Mutex<()>,
}

impl CommitState {
    /// State of a Dio that opens with `state` and a log of the size in `retention`.
    pub(in crate::dio) fn new(settings: &Settings, state: &State, retention: Retention) -> CommitState {
        let Settings { write_queue_capacity, max_pending_bytes, count_parked, .. } = *settings;
        let capacity = QueueCapacity::new(write_queue_capacity, max_pending_bytes, count_parked);
        capacity.settle(QueueUsage::default(), state);
        CommitState {
            capacity,
            inbox: Arc::new(Semaphore::new(INBOX)),
            closed: AtomicBool::new(false),
            invalidations: Mutex::default(),
            trimmed: tokio::sync::Mutex::new(0),
            retention: Mutex::new(retention),
            purging: tokio::sync::Mutex::default(),
        }
    }
}
