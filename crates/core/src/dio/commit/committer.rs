//! The committer: the one task of a Lens that makes every change of its Dios, in one order.
//!
//! A turn takes the submissions that wait, decides and applies them on private successors of the States, appends to the
//! journal (all Dios in one call), publishes the new States, pushes the events to the rings, and answers. Readers see
//! durable States only. Every answer, also a refusal, comes after the append that it depends on. No callback, driver or other
//! user code runs here.

use std::collections::VecDeque;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::journal_failure::JournalFailure;
use super::turn::CommitLoop;
use crate::dio::submission::{CommitterHandle, UnpublishedClaims};
use crate::journal::Journal;

/// Owner of the committer's task.
#[derive(Default)]
pub(crate) struct Committer {
    started: Mutex<Option<(CommitterHandle, JoinHandle<()>)>>,
}

impl Committer {
    /// Handle of the committer, which is started by the first call.
    pub(crate) fn handle(&self, journal: &Arc<dyn Journal>) -> CommitterHandle {
        let mut started = self.started.lock();
        if let Some((handle, task)) = &*started
            && !task.is_finished()
        {
            return handle.clone();
        }
        let (inbox, submissions) = mpsc::unbounded_channel();
        let journal_failure = JournalFailure::default();
        let unpublished = UnpublishedClaims::default();
        let handle =
            CommitterHandle { inbox, journal_failure: journal_failure.clone(), unpublished: unpublished.clone() };
        let turns = CommitLoop {
            journal: Arc::clone(journal),
            submissions,
            waiting: VecDeque::new(),
            due: None,
            dios: IndexMap::new(),
            broken: None,
            journal_failure,
            unpublished,
        };
        #[expect(clippy::disallowed_methods, reason = "this is the owner: it keeps the handle")]
        let task = tokio::spawn(turns.run());
        *started = Some((handle.clone(), task));
        handle
    }
}

impl Committer {
    /// Stops the task. Commands that still wait are answered with `Closed`.
    pub(crate) async fn stop(&self) {
        let started = self.started.lock().take();
        if let Some((_, task)) = started {
            task.abort();
            // The only error is the abort above.
            let _ = task.await;
        }
    }
}
