//! The committer: the one task of a Lens through which every change of its Dios passes, in one order.
//!
//! A turn: take what waits -> decide and apply on private successors of the States -> append to the journal, all Dios in one
//! call -> publish the new States -> tell the rings -> answer. Readers see durable States only, and every answer, refusals
//! too, comes after the append that made it true. No hook, driver or other user code runs here.

use std::collections::VecDeque;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::journal_failure::JournalFailure;
use super::turn::CommitLoop;
use crate::dio::submission::CommitterHandle;
use crate::journal::Journal;

/// The committer's task and its owner's end of it.
#[derive(Default)]
pub(crate) struct Committer {
    started: Mutex<Option<(CommitterHandle, JoinHandle<()>)>>,
}

impl Committer {
    /// The way to the committer, which is started by the first who asks.
    pub(crate) fn handle(&self, journal: &Arc<dyn Journal>) -> CommitterHandle {
        let mut started = self.started.lock();
        if let Some((handle, task)) = &*started
            && !task.is_finished()
        {
            return handle.clone();
        }
        let (inbox, submissions) = mpsc::unbounded_channel();
        let journal_failure = JournalFailure::default();
        let handle = CommitterHandle { inbox, journal_failure: journal_failure.clone() };
        let turns = CommitLoop {
            journal: Arc::clone(journal),
            submissions,
            waiting: VecDeque::new(),
            dios: IndexMap::new(),
            broken: None,
            journal_failure,
        };
        #[expect(clippy::disallowed_methods, reason = "this is the owner: it keeps the handle")]
        let task = tokio::spawn(turns.run());
        *started = Some((handle.clone(), task));
        handle
    }
}

impl Committer {
    /// Ends the task. Commands that still wait are answered with `Closed`.
    pub(crate) async fn stop(&self) {
        let started = self.started.lock().take();
        if let Some((_, task)) = started {
            task.abort();
            // It was aborted on purpose.
            let _ = task.await;
        }
    }
}
