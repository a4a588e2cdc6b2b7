//! A turn of the committer: takes what waits, has it decided, appends it and publishes it.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use indexmap::IndexMap;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::journal_failure::{JournalFailure, lost, storage};
use super::stage::Stage;
use crate::dio::core::Core;
use crate::dio::submission::Submission;
use crate::journal::{Journal, LogBatch};

/// Commands of one Dio in one turn, at most.
const TURN: usize = 256;

/// How long a turn may decide before it appends what it has: about what an append takes.
const TURN_TIME: Duration = Duration::from_millis(4);

/// How often a journal that failed is tried while nobody writes.
const PROBE: Duration = Duration::from_secs(1);
/// How long a turn lets others go first, at most.
const GATHER: Duration = Duration::from_millis(5);

pub(super) struct CommitLoop {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) submissions: mpsc::UnboundedReceiver<Submission>,
    pub(super) waiting: VecDeque<Submission>,
    /// Every Dio that ever sent something.
    pub(super) dios: IndexMap<Arc<str>, Weak<Core>>,
    /// What the journal said when it failed; it is opened again before the next append.
    pub(super) broken: Option<String>,
    /// The same for others, until an append has gone through.
    pub(super) journal_failure: JournalFailure,
}

impl CommitLoop {
    /// Runs until every sender is gone.
    pub(super) async fn run(mut self) {
        while let Some(submission) = self.next().await {
            self.waiting.push_front(submission);
            self.turn().await;
            tokio::task::yield_now().await;
        }
    }

    async fn next(&mut self) -> Option<Submission> {
        loop {
            if let Some(submission) = self.waiting.pop_front() {
                return Some(submission);
            }
            if self.journal_failure.now().is_none() {
                return self.submissions.recv().await;
            }
            tokio::select! {
                submission = self.submissions.recv() => return submission,
                () = tokio::time::sleep(PROBE) => self.probe().await,
            }
        }
    }

    /// Takes what waits. Tasks that are ready to run may be about to write: they go first, as long as that brings something, so
    /// that more writes share an append. Where nothing else is ready this takes no time.
    async fn gather(&mut self) {
        let started = Instant::now();
        loop {
            let before = self.waiting.len();
            while let Ok(submission) = self.submissions.try_recv() {
                self.waiting.push_back(submission);
            }
            tokio::task::yield_now().await;
            let came = self.waiting.len() > before || !self.submissions.is_empty();
            if !came || self.waiting.len() >= TURN || started.elapsed() > GATHER {
                return;
            }
        }
    }

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
        let mut results = self.journal.append(batches).await.into_iter();
        let took = started.elapsed();
        let mut failed = Vec::new();
        for stage in stages {
            let appends = stage.appends();
            let result = if appends { results.next().unwrap_or_else(lost) } else { Ok(()) };
            match result {
                Ok(()) => {
                    if appends {
                        stage.core.tally.appends.add(took);
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

    /// Decides what waits, in order, at most [`TURN`] commands of a Dio; the others keep waiting.
    fn stage(&mut self) -> Vec<Stage> {
        let started = std::time::Instant::now();
        // By Core and not by name: one that is ending may still speak when its successor does.
        let mut stages: IndexMap<*const Core, Stage> = IndexMap::new();
        let mut later = VecDeque::new();
        while let Some(submission) = self.waiting.pop_front() {
            let stage =
                stages.entry(Arc::as_ptr(&submission.core)).or_insert_with(|| Stage::new(Arc::clone(&submission.core)));
            let late = started.elapsed() > TURN_TIME && !stage.done.is_empty();
            if stage.done.len() >= TURN || late || stage.bulk {
                later.push_back(submission);
                continue;
            }
            stage.take(submission);
            while stage.spoilt {
                let fresh = Stage::new(Arc::clone(&stage.core));
                *stage = std::mem::replace(stage, fresh).redone();
            }
        }
        self.waiting = later;
        stages.into_values().collect()
    }

    /// Commands that are decided once more, before all others.
    pub(super) fn again(&mut self, submissions: VecDeque<Submission>) {
        for submission in submissions.into_iter().rev() {
            self.waiting.push_front(submission);
        }
    }
}
