//! A turn of the committer: takes the submissions that wait, decides them, appends and publishes.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use indexmap::IndexMap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::journal_failure::{JournalFailure, no_answer, storage};
use super::stage::Stage;
use crate::dio::clock::wait_until;
use crate::dio::core::Core;
use crate::dio::submission::{Submission, UnpublishedClaims};
use crate::journal::{Journal, LogBatch};

/// Maximum number of submissions of one Dio in one turn.
const TURN: usize = 256;

/// Time after which a turn stops deciding and appends. It is about the duration of an append.
const TURN_TIME: Duration = Duration::from_millis(4);

/// Interval between tests of a journal that failed, while there are no writes.
const PROBE: Duration = Duration::from_secs(1);
/// Maximum time for which a turn waits for more submissions.
const GATHER: Duration = Duration::from_millis(5);
/// Maximum time for which a patient submission waits for another one that it shares an append with. It is several times what an
/// append takes, and little beside what a delivery takes.
const PATIENCE: Duration = Duration::from_millis(2);

/// State of the committer's task.
pub(super) struct CommitLoop {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) submissions: mpsc::UnboundedReceiver<Submission>,
    /// Submissions for the next turn.
    pub(super) waiting: VecDeque<Submission>,
    /// Time of the next turn if all of them are patient.
    pub(super) due: Option<Instant>,
    /// Every Dio that has sent a submission.
    pub(super) dios: IndexMap<Arc<str>, Weak<Core>>,
    /// Error of the journal after a failure; it is opened again before the next append.
    pub(super) broken: Option<String>,
    /// The same error for other tasks, until an append succeeds.
    pub(super) journal_failure: JournalFailure,
    /// Claims that the journal may have while readers do not see their effect.
    pub(super) unpublished: UnpublishedClaims,
}

impl CommitLoop {
    /// Runs until every sender is dropped.
    pub(super) async fn run(mut self) {
        while self.has_work().await {
            self.turn().await;
            self.forget_published();
            tokio::task::yield_now().await;
        }
    }

    /// Waits until a turn has something to do. Returns false once every sender is dropped and nothing waits.
    async fn has_work(&mut self) -> bool {
        loop {
            if self.waiting.iter().any(|waiting| !waiting.is_patient) {
                return true;
            }
            let due = match self.waiting.is_empty() {
                true => None,
                false => Some(*self.due.get_or_insert_with(|| Instant::now() + PATIENCE)),
            };
            let has_failed = self.journal_failure.now().is_some();
            tokio::select! {
                submission = self.submissions.recv() => match submission {
                    Some(submission) => self.waiting.push_back(submission),
                    None => return !self.waiting.is_empty(),
                },
                () = wait_until(due) => return true,
                () = tokio::time::sleep(PROBE), if has_failed => {
                    self.probe().await;
                    self.forget_published();
                }
            }
        }
    }

    /// Returns true if every submission that waits is patient, and none has waited for long.
    fn may_wait(&self) -> bool {
        let is_early = self.due.is_none_or(|due| Instant::now() < due);
        is_early && self.waiting.iter().all(|waiting| waiting.is_patient)
    }

    /// Takes the submissions that wait.
    ///
    /// Yields to other tasks as long as that brings more submissions, so that more writes share an append. If no other
    /// task is ready, this takes no time.
    async fn gather(&mut self) {
        let started = Instant::now();
        loop {
            let before = self.waiting.len();
            while let Ok(submission) = self.submissions.try_recv() {
                self.waiting.push_back(submission);
            }
            tokio::task::yield_now().await;
            let more = self.waiting.len() > before || !self.submissions.is_empty();
            if !more || self.waiting.len() >= TURN || started.elapsed() > GATHER {
                return;
            }
        }
    }

    /// Forgets unpublished claims. After a failed append they are kept until the journal has been opened again, because it may
    /// have stored them.
    fn forget_published(&self) {
        if self.broken.is_none() {
            self.unpublished.clear();
        }
    }

    /// Runs one turn: decides the waiting submissions, appends, and publishes.
    async fn turn(&mut self) {
        self.gather().await;
        for submission in &self.waiting {
            self.dios.insert(Arc::clone(&submission.core.name), Arc::downgrade(&submission.core));
        }
        if self.broken.is_some()
            && let Err(error) = self.heal().await
        {
            self.journal_failure.begin(&error.to_string());
            self.broken = Some(error.to_string());
        }
        self.publish_first().await;
        if self.may_wait() {
            return;
        }
        self.due = None;
        let stages = self.stage();
        let batches: Vec<LogBatch> = stages.iter().filter(|stage| stage.appends()).map(Stage::batch).collect();
        if batches.is_empty() {
            for stage in stages {
                stage.publish().await;
            }
            return;
        }
        if let Some(why) = &self.broken {
            for stage in stages {
                self.waiting.extend(stage.refuse(|_| storage(why, false)));
            }
            return;
        }
        let started = std::time::Instant::now();
        self.unpublished.add(&batches);
        let mut results = self.journal.append(batches).await.into_iter();
        let took = started.elapsed();
        let mut failed = Vec::new();
        for stage in stages {
            let appends = stage.appends();
            let result = if appends { results.next().unwrap_or_else(no_answer) } else { Ok(()) };
            match result {
                Ok(()) => {
                    if appends {
                        stage.core.counters.appends.add(took);
                        self.journal_failure.end();
                    }
                    stage.publish().await;
                }
                Err(error) => failed.push((stage, error)),
            }
        }
        let mut unknown = Vec::new();
        for (stage, error) in failed {
            self.failed(stage, error, &mut unknown);
        }
        self.unknown(unknown).await;
    }

    /// Decides, publishes and answers the submissions that have nothing for the journal and are not to wait for it.
    async fn publish_first(&mut self) {
        let (first, others) = std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.comes_first);
        self.waiting = first;
        for stage in self.stage() {
            stage.publish().await;
        }
        self.waiting.extend(others);
    }

    /// Decides the waiting submissions in order, at most [`TURN`] of each Dio; the others keep waiting.
    fn stage(&mut self) -> Vec<Stage> {
        let started = std::time::Instant::now();
        // Keyed by Core and not by name: a closing Dio may still send submissions when its successor does.
        let mut stages: IndexMap<*const Core, Stage> = IndexMap::new();
        let mut later = VecDeque::new();
        while let Some(submission) = self.waiting.pop_front() {
            let stage =
                stages.entry(Arc::as_ptr(&submission.core)).or_insert_with(|| Stage::new(Arc::clone(&submission.core)));
            let late = started.elapsed() > TURN_TIME && !stage.decided.is_empty();
            if stage.decided.len() >= TURN || late || stage.bulk {
                later.push_back(submission);
                continue;
            }
            stage.take(submission);
            while stage.poisoned {
                let fresh = Stage::new(Arc::clone(&stage.core));
                *stage = std::mem::replace(stage, fresh).redecided();
            }
        }
        self.waiting = later;
        stages.into_values().collect()
    }

    /// Puts submissions back, to be decided again before all others.
    pub(super) fn requeue(&mut self, submissions: VecDeque<Submission>) {
        for submission in submissions.into_iter().rev() {
            self.waiting.push_front(submission);
        }
    }
}
