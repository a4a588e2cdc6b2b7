//! Queue of the indexes that queries have requested.

use std::collections::HashMap;
use std::time::Duration;

use indexmap::IndexSet;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::table::Spec;

/// Maximum number of indexes that wait to be built. The next query requests further ones again.
const MOST_WAITING: usize = 16;

/// Maximum number of specs that are remembered as refused.
const MOST_REFUSED: usize = 64;

/// Requests for indexes.
#[derive(Debug, Default)]
pub(crate) struct Indexer {
    queue: Mutex<IndexQueue>,
    pub(super) wake: Notify,
    /// Number of indexes that wait or are being built.
    pub(super) pending: watch::Sender<usize>,
}

/// Requested indexes that are not built yet, and those that were refused.
#[derive(Debug, Default)]
struct IndexQueue {
    waiting: IndexSet<Spec>,
    building: Option<Spec>,
    refused: HashMap<Spec, Instant>,
}

impl Indexer {
    /// Requests an index, which is built in the background.
    pub(super) fn request(&self, spec: &Spec, rest: Duration) {
        let mut queue = self.queue.lock();
        let known = queue.building.as_ref() == Some(spec) || queue.waiting.contains(spec);
        let refused = queue.refused.get(spec).is_some_and(|at| at.elapsed() < rest);
        if known || refused || queue.waiting.len() >= MOST_WAITING {
            return;
        }
        queue.waiting.insert(spec.clone());
        self.publish_pending(&queue);
        drop(queue);
        self.wake.notify_one();
    }

    pub(super) fn take(&self) -> Option<Spec> {
        let mut queue = self.queue.lock();
        queue.building = queue.waiting.shift_remove_index(0);
        queue.building.clone()
    }

    pub(super) fn done(&self, refused: bool, rest: Duration) {
        let mut queue = self.queue.lock();
        let built = queue.building.take();
        if let Some(spec) = built.filter(|_| refused) {
            queue.refused.retain(|_, at| at.elapsed() < rest);
            if queue.refused.len() < MOST_REFUSED {
                queue.refused.insert(spec, Instant::now());
            }
        }
        self.publish_pending(&queue);
    }

    fn publish_pending(&self, queue: &IndexQueue) {
        self.pending.send_replace(queue.waiting.len() + usize::from(queue.building.is_some()));
    }
}
