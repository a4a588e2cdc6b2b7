//! Queue of the indexes that queries have requested.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
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
    /// True while the indexes of the last process are built again.
    pub(crate) restoring: AtomicBool,
    /// Number of indexes that wait or are being built.
    pending: watch::Sender<usize>,
}

/// Requested indexes that are not built yet, and those that were refused.
#[derive(Debug, Default)]
struct IndexQueue {
    waiting: IndexSet<Spec>,
    building: Option<Spec>,
    refused: HashMap<Spec, Refused>,
}

/// An index that was not built.
#[derive(Debug)]
struct Refused {
    at: Instant,
    because: String,
}

impl IndexQueue {
    /// Makes room for another refusal.
    fn forget_oldest_refusal(&mut self) {
        let oldest = self.refused.iter().min_by_key(|(_, refused)| refused.at).map(|(spec, _)| spec.clone());
        if let Some(oldest) = oldest.filter(|_| self.refused.len() >= MOST_REFUSED) {
            self.refused.remove(&oldest);
        }
    }
}

impl Indexer {
    /// Requests an index, which is built in the background.
    pub(super) fn request(&self, spec: &Spec, rest: Duration) {
        let mut queue = self.queue.lock();
        let known = queue.building.as_ref() == Some(spec) || queue.waiting.contains(spec);
        let refused = queue.refused.get(spec).is_some_and(|refused| refused.at.elapsed() < rest);
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

    /// Notes that the index being built is finished, or why it was `refused`. Returns true if this reason is new.
    pub(super) fn done(&self, refused: Option<String>) -> bool {
        let mut queue = self.queue.lock();
        let mut is_new = false;
        if let Some(spec) = queue.building.take() {
            let before = queue.refused.remove(&spec);
            if let Some(because) = refused {
                is_new = before.is_none();
                queue.forget_oldest_refusal();
                queue.refused.insert(spec, Refused { at: Instant::now(), because });
            }
        }
        self.publish_pending(&queue);
        is_new
    }

    /// Waits until every requested index is built or refused.
    pub(super) async fn all_built(&self) {
        let mut pending = self.pending.subscribe();
        // The sender lives as long as the Dio.
        let _ = pending.wait_for(|pending| *pending == 0).await;
    }

    /// Indexes that queries have asked for and that were not built, with the reasons, in the order of their names.
    pub(crate) fn refused(&self) -> Vec<(String, String)> {
        let queue = self.queue.lock();
        let mut refused: Vec<_> =
            queue.refused.iter().map(|(spec, refused)| (spec.to_string(), refused.because.clone())).collect();
        refused.sort_unstable();
        refused
    }

    fn publish_pending(&self, queue: &IndexQueue) {
        self.pending.send_replace(queue.waiting.len() + usize::from(queue.building.is_some()));
    }
}
