//! Queue of the indexes that queries have asked for.

use std::collections::HashMap;
use std::time::Duration;

use indexmap::IndexSet;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::table::Spec;

/// Indexes that wait to be built, at most; more are asked for again by the next query.
const MOST_ASKED: usize = 16;

/// Specs that are remembered as refused, at most.
const MOST_REFUSED: usize = 64;

/// What is to be built.
#[derive(Debug, Default)]
pub(crate) struct Indexer {
    asked: Mutex<IndexQueue>,
    pub(super) wake: Notify,
    /// How many are asked for or being built.
    pub(super) pending: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct IndexQueue {
    waiting: IndexSet<Spec>,
    building: Option<Spec>,
    refused: HashMap<Spec, Instant>,
}

impl Indexer {
    /// Has an index built in the background.
    pub(super) fn ask(&self, spec: &Spec, rest: Duration) {
        let mut asked = self.asked.lock();
        let known = asked.building.as_ref() == Some(spec) || asked.waiting.contains(spec);
        let refused = asked.refused.get(spec).is_some_and(|at| at.elapsed() < rest);
        if known || refused || asked.waiting.len() >= MOST_ASKED {
            return;
        }
        asked.waiting.insert(spec.clone());
        self.tell(&asked);
        drop(asked);
        self.wake.notify_one();
    }

    pub(super) fn take(&self) -> Option<Spec> {
        let mut asked = self.asked.lock();
        asked.building = asked.waiting.shift_remove_index(0);
        asked.building.clone()
    }

    pub(super) fn done(&self, refused: bool, rest: Duration) {
        let mut asked = self.asked.lock();
        let built = asked.building.take();
        if let Some(spec) = built.filter(|_| refused) {
            asked.refused.retain(|_, at| at.elapsed() < rest);
            if asked.refused.len() < MOST_REFUSED {
                asked.refused.insert(spec, Instant::now());
            }
        }
        self.tell(&asked);
    }

    fn tell(&self, asked: &IndexQueue) {
        self.pending.send_replace(asked.waiting.len() + usize::from(asked.building.is_some()));
    }
}
