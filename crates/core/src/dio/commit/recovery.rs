//! Recovery of the committer after a failed append: opens the journal again and compares its entries with the append.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::capacity::QueueUsage;
use super::journal_failure::{no_answer, storage};
use super::stage::{Stage, apply};
use super::turn::CommitLoop;
use crate::dio::backoff::Backoff;
use crate::dio::clock::now;
use crate::dio::core::Core;
use crate::dio::counters::OpTransitions;
use crate::journal::{AppendError, Claim, Fence, JournalError, LogBatch, LogEntry, StoredDelivery};
use crate::state::Entry;
use crate::vista::{Error, Result};

/// Time for which answers are held back while the journal is opened again after an error.
const HOLD: Duration = Duration::from_secs(5);

/// Contents of the journal after the append of a stage has failed.
struct JournalContents {
    /// True if the append is in the journal.
    stored: bool,
    /// All entries after the State that the stage was decided on.
    entries: Vec<LogEntry>,
}

impl CommitLoop {
    /// Tests a journal that failed by appending a claim that has expired already.
    ///
    /// This is done without a writer: writers with a key fail before they get here, because their key cannot be looked up.
    pub(super) async fn probe(&mut self) {
        if self.broken.is_some()
            && let Err(error) = self.heal().await
        {
            return self.journal_failure.begin(&error.to_string());
        }
        let Some(core) = self.dios.values().find_map(Weak::upgrade) else { return };
        let claim = Claim { key: "probe".into(), value: now().to_le_bytes().to_vec().into(), expires: 0 };
        let (log, expect) = (Arc::clone(&core.name), core.snapshot.load().seq());
        let batch = LogBatch {
            log,
            expect,
            fence: Fence::LOCAL,
            entries: Vec::new(),
            claims: vec![claim],
            deliveries: Vec::new(),
            marks: Vec::new(),
        };
        match self.journal.append(vec![batch]).await.pop().unwrap_or_else(no_answer) {
            Ok(()) => self.journal_failure.end(),
            Err(AppendError::Full(detail)) => self.journal_failure.begin(&full(&detail)),
            Err(AppendError::Unknown(detail) | AppendError::Io(detail)) => {
                self.journal_failure.begin(&detail);
                self.broken = Some(detail);
            }
            Err(AppendError::Moved { missed }) => catch_up(&core, &missed),
            Err(AppendError::Claimed { .. } | AppendError::Fenced) => {}
        }
    }

    /// Handles a stage whose append failed. Stages whose append may be on disk are added to `unknown`.
    pub(super) fn failed(&mut self, stage: Stage, error: AppendError, unknown: &mut Vec<(Stage, String)>) {
        match error {
            AppendError::Moved { missed } => {
                catch_up(&stage.core, &missed);
                self.requeue(stage.into_commands());
            }
            AppendError::Claimed { key, by } => {
                let mut rest = VecDeque::new();
                for command in stage.decided {
                    let own = command.submission.claims.iter().find(|claim| claim.key == key);
                    if let Some(own) = own {
                        let result = Err(super::write::replayed(Some(own), &by));
                        command.submission.answer(result);
                    } else {
                        rest.push_back(command.submission);
                    }
                }
                self.requeue(rest);
            }
            AppendError::Fenced => self.waiting.extend(stage.refuse(|_| Error::Closed)),
            AppendError::Full(detail) => {
                stage.core.counters.append_failed();
                self.journal_failure.begin(&full(&detail));
                self.waiting.extend(stage.refuse(|_| storage(&detail, true)));
            }
            AppendError::Unknown(detail) | AppendError::Io(detail) => {
                stage.core.counters.append_failed();
                unknown.push((stage, detail));
            }
        }
    }

    /// Resolves stages whose appends may be on disk: holds their answers back, opens the journal again and reads it.
    pub(super) async fn unknown(&mut self, stages: Vec<(Stage, String)>) {
        let Some((stage, detail)) = stages.first() else { return };
        tracing::debug!(dio = %stage.core.name, error = %detail, "the journal failed; opening it again");
        self.journal_failure.begin(detail);
        self.broken = Some(detail.clone());
        let deadline = Instant::now() + HOLD;
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        let contents = loop {
            let wait = backoff.rest();
            match self.inspect(&stages).await {
                Ok(contents) => break contents,
                Err(error) if Instant::now() + wait > deadline => {
                    self.broken = Some(error.to_string());
                    for (stage, detail) in stages {
                        self.waiting.extend(stage.refuse(|op| match op {
                            Some(operation) => Error::OutcomeUnknown { operation },
                            None => storage(&detail, false),
                        }));
                    }
                    return;
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
        };
        self.broken = None;
        for ((stage, detail), contents) in stages.into_iter().zip(contents) {
            let core = Arc::clone(&stage.core);
            if contents.stored {
                // Publishes the successor instead of the log's entries, because rows of bulk entries are only in the successor.
                stage.publish().await;
            } else {
                self.waiting.extend(stage.refuse(|_| storage(&detail, false)));
            }
            catch_up(&core, &contents.entries);
        }
    }

    /// Opens the journal again and reads what it has of each stage.
    async fn inspect(&self, stages: &[(Stage, String)]) -> Result<Vec<JournalContents>> {
        let failed = |error: JournalError| storage(&error.to_string(), false);
        self.journal.reopen().await.map_err(failed)?;
        let mut all = Vec::with_capacity(stages.len());
        for (stage, _) in stages {
            let name = &stage.core.name;
            let entries = self.journal.read(name, stage.before.seq(), usize::MAX).await.map_err(failed)?;
            let stored = match (&stage.entries[..], stage.claims.first(), stage.deliveries.first()) {
                ([], Some(claim), _) => {
                    self.journal.claim(&claim.key).await.map_err(failed)?.is_some_and(|by| by == claim.value)
                }
                ([], None, Some(StoredDelivery { delivery, .. })) => {
                    let kept = self.journal.delivery(delivery.id).await.map_err(failed)?;
                    kept.is_some_and(|(kept, _)| kept == *delivery)
                }
                ([], None, None) => self.has_marks(stage).await.map_err(failed)?,
                (own, ..) => entries.starts_with(own),
            };
            all.push(JournalContents { stored, entries });
        }
        Ok(all)
    }

    /// Returns true if the journal has the marks of `stage`.
    async fn has_marks(&self, stage: &Stage) -> Result<bool, JournalError> {
        for own in stage.journal_marks() {
            if self.journal.mark(&own.key).await?.is_none_or(|stored| stored != own.value) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Opens the journal again and applies its entries that are not published yet.
    pub(super) async fn heal(&mut self) -> Result<()> {
        self.journal.reopen().await.map_err(|error| storage(&error.to_string(), false))?;
        self.dios.retain(|_, core| core.strong_count() > 0);
        for core in self.dios.values().filter_map(Weak::upgrade).collect::<Vec<_>>() {
            let missed = self.journal.read(&core.name, core.snapshot.load().seq(), usize::MAX).await;
            catch_up(&core, &missed.map_err(|error| storage(&error.to_string(), false))?);
            core.request_turn_again();
        }
        self.broken = None;
        Ok(())
    }
}

fn full(detail: &str) -> String {
    format!("the disk is full: {detail}")
}

/// Applies and publishes entries of the journal that the Dio has not applied yet.
fn catch_up(core: &Arc<Core>, missed: &[LogEntry]) {
    let mut next = (**core.snapshot.load()).clone();
    let (mut changes, mut items, mut transitions) = (Vec::new(), Vec::new(), OpTransitions::default());
    for entry in missed.iter().filter(|entry| entry.seq > next.seq()).cloned().collect::<Vec<_>>() {
        match Entry::decode(&entry.bytes) {
            Ok(entry) => {
                transitions.add(OpTransitions::of(&entry.op));
                let (change, item) = apply(&mut next, entry, &mut false);
                changes.push(change);
                items.extend(item);
            }
            Err(error) => {
                tracing::error!(dio = %core.name, seq = entry.seq, %error, "an entry of the journal cannot be read");
                next.advance(entry.seq);
            }
        }
    }
    let seq = next.seq();
    core.store.add(changes, seq);
    core.commit.capacity.settle(QueueUsage::default(), &next);
    core.snapshot.store(Arc::new(next));
    core.counters.add_transitions(transitions);
    core.ring.push(items);
    core.published.send_replace(seq);
}
