//! A Dio's part of a turn: commands decided and applied to a private successor of the State.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use super::capacity::QueueUsage;
use super::mark::FeedMark;
use crate::dio::clock::now;
use crate::dio::core::Core;
use crate::dio::counters::OpTransitions;
use crate::dio::events::ring::{RingItem, RowBefore};
use crate::dio::submission::{CommitOutcome, Submission, SubmittedWork};
use crate::journal::{Claim, Fence, LogBatch, LogEntry, Mark, StoredDelivery};
use crate::record::Body;
use crate::state::{Applied, Base, CacheChange, Command, Decision, Entry, Outcome, State};
use crate::vista::{Error, Result};

/// One Dio's part of a turn, on a private successor of its State.
pub(super) struct Stage {
    pub(super) core: Arc<Core>,
    /// The published State, on which the stage began.
    pub(super) before: Arc<State>,
    /// The private successor, with all decisions so far.
    pub(super) next: State,
    /// Submissions in the order in which they were decided, with their answers.
    pub(super) decided: Vec<DecidedCommand>,
    /// Changes for the cache file.
    pub(super) changes: Vec<CacheChange>,
    /// Events for the ring.
    pub(super) items: Vec<RingItem>,
    /// Claims for the journal.
    pub(super) claims: Vec<Claim>,
    /// Deliveries for the journal.
    pub(super) deliveries: Vec<StoredDelivery>,
    /// Newest mark of each feed.
    pub(super) marks: Vec<FeedMark>,
    /// Newest mark of each notification.
    pub(super) sent: Vec<Mark>,
    /// Entries for the journal.
    pub(super) entries: Vec<LogEntry>,
    pub(super) transitions: OpTransitions,
    /// True if a bulk entry is among the entries, whose rows are not in the log.
    pub(super) bulk: bool,
    /// True after applying a decision panicked: the successor may have only a part of it.
    pub(super) poisoned: bool,
}

/// A command with its result.
pub(super) struct DecidedCommand {
    pub(super) submission: Submission,
    pub(super) result: Result<CommitOutcome>,
    /// True if it has entries, claims, deliveries or a mark for the journal.
    pub(super) wrote: bool,
}

impl Stage {
    pub(super) fn new(core: Arc<Core>) -> Stage {
        let before = core.snapshot.load_full();
        Stage {
            next: (*before).clone(),
            before,
            core,
            decided: Vec::new(),
            changes: Vec::new(),
            items: Vec::new(),
            claims: Vec::new(),
            deliveries: Vec::new(),
            marks: Vec::new(),
            sent: Vec::new(),
            entries: Vec::new(),
            transitions: OpTransitions::default(),
            bulk: false,
            poisoned: false,
        }
    }

    /// Starts a new stage and decides the accepted commands again. Refused commands stay refused: a command that panicked
    /// is never tried twice.
    pub(super) fn redecided(self) -> Stage {
        let mut fresh = Stage::new(self.core);
        for command in self.decided {
            match command.result {
                Ok(_) => fresh.take(command.submission),
                Err(_) => fresh.decided.push(command),
            }
        }
        fresh
    }

    /// Decides one submission and applies the decisions to the successor.
    pub(super) fn take(&mut self, submission: Submission) {
        match &submission.work {
            SubmittedWork::One(command) => {
                let decided = match self.claim_conflict(&submission) {
                    Some(refused) => Err(refused),
                    None => decide(&self.next, command),
                };
                self.finish(submission, decided);
            }
            SubmittedWork::Invalidations(commands) => {
                let outcomes = self.decide_all(commands);
                self.conclude(submission, outcomes);
            }
            SubmittedWork::All(commands) => {
                let outcomes = match self.claim_conflict(&submission) {
                    Some(refused) => Err(refused),
                    None => self.decide_all(commands),
                };
                self.conclude(submission, outcomes);
            }
            SubmittedWork::TurnRequest => {
                let commands = self.core.commit.invalidations.lock().take();
                let outcomes = self.decide_all(&commands);
                self.conclude(Submission { work: SubmittedWork::Invalidations(commands), ..submission }, outcomes);
            }
        }
    }

    /// Error of a command whose key an earlier command of this turn has taken.
    pub(super) fn claim_conflict(&self, submission: &Submission) -> Option<Error> {
        let taken = |claim: &&Claim| self.claims.iter().any(|own| own.key == claim.key);
        let second = submission.claims.iter().find(taken)?;
        let first = self.claims.iter().find(|own| own.key == second.key)?;
        Some(super::write::replayed(Some(second), &first.value))
    }

    /// Decides and applies the commands in order. If one is refused, the changes of all are rolled back.
    pub(super) fn decide_all(&mut self, commands: &[Command]) -> Result<(Vec<Outcome>, bool)> {
        let (before, bulk) = (self.next.clone(), self.bulk);
        let lengths = (self.entries.len(), self.changes.len(), self.items.len(), self.transitions);
        let mut each = Vec::with_capacity(commands.len());
        for command in commands {
            let decided = decide(&self.next, command);
            let outcome = decided.as_ref().map_or(Outcome::Unchanged, |decision| decision.outcome.clone());
            if let Err(error) = decided.and_then(|decision| self.apply_all(decision)) {
                (self.next, self.bulk, self.transitions) = (before, bulk, lengths.3);
                self.entries.truncate(lengths.0);
                self.changes.truncate(lengths.1);
                self.items.truncate(lengths.2);
                return Err(error);
            }
            each.push(outcome);
        }
        Ok((each, self.entries.len() > lengths.0))
    }

    pub(super) fn finish(&mut self, submission: Submission, decided: Result<Decision>) {
        let outcomes = decided.and_then(|decision| {
            let (outcome, wrote) = (decision.outcome.clone(), !decision.entries.is_empty());
            self.apply_all(decision)?;
            Ok((vec![outcome], wrote))
        });
        self.conclude(submission, outcomes);
    }

    /// Notes the claims, the delivery, the mark and the answer of a submission.
    pub(super) fn conclude(&mut self, submission: Submission, outcomes: Result<(Vec<Outcome>, bool)>) {
        let mut wrote = false;
        let result = outcomes.map(|(each, some)| {
            let outcome = each.first().cloned().unwrap_or_default();
            // A write of identical values makes no operation that its key could refer to.
            let claims = if outcome == Outcome::Identical { &[] } else { &submission.claims[..] };
            let delivery = submission.keep.as_ref().map(|delivery| super::reconciled::concluded(delivery, &each));
            let progress = submission.sending.as_ref();
            wrote = some || !claims.is_empty() || delivery.is_some() || submission.mark.is_some() || progress.is_some();
            self.claims.extend_from_slice(claims);
            self.deliveries.extend(delivery);
            if let Some(mark) = &submission.mark {
                self.marks.retain(|older| older.feed != mark.feed);
                self.marks.push(mark.clone());
            }
            if let Some(progress) = progress {
                self.deliveries.extend_from_slice(&progress.deliveries);
                self.sent.retain(|older| older.key != progress.mark.key);
                self.sent.push(progress.mark.clone());
            }
            CommitOutcome { outcome, each, seq: self.next.seq() }
        });
        self.decided.push(DecidedCommand { submission, result, wrote });
    }

    /// Applies a whole decision in place, so that data that several commands of a turn change is copied once.
    ///
    /// After a panic the stage is poisoned, and only this command is refused.
    pub(super) fn apply_all(&mut self, decision: Decision) -> Result<()> {
        let work = AssertUnwindSafe(|| {
            for entry in decision.entries {
                self.transitions.add(OpTransitions::of(&entry.op));
                let (stored, change, item) = record(&mut self.next, entry, &mut self.bulk);
                self.entries.push(stored);
                self.changes.push(change);
                self.items.extend(item);
            }
            decision.notes.iter().for_each(|note| self.next.note(note));
        });
        std::panic::catch_unwind(work).map_err(|_| {
            tracing::error!(dio = %self.core.name, "applying a decision panicked");
            self.poisoned = true;
            Error::permanent("an internal error; nothing was changed")
        })
    }

    /// Returns true if the stage has anything for the journal.
    pub(super) fn appends(&self) -> bool {
        let bare =
            self.claims.is_empty() && self.deliveries.is_empty() && self.marks.is_empty() && self.sent.is_empty();
        !self.entries.is_empty() || !bare
    }

    /// Marks for the journal. Those of feeds contain the rows in doubt after all commands of the stage.
    pub(super) fn journal_marks(&self) -> Vec<Mark> {
        let feeds = self.marks.iter().map(|mark| mark.on(&self.core.name, &self.next));
        feeds.chain(self.sent.iter().cloned()).collect()
    }

    /// Builds the stage's part of the append.
    pub(super) fn batch(&self) -> LogBatch {
        LogBatch {
            log: Arc::clone(&self.core.name),
            expect: self.before.seq(),
            fence: Fence::LOCAL,
            entries: self.entries.clone(),
            claims: self.claims.clone(),
            deliveries: self.deliveries.clone(),
            marks: self.journal_marks(),
        }
    }

    /// Hands over the queue permits of writers whose operations are in the queue now.
    pub(super) fn keep_places(&mut self) -> QueueUsage {
        let mut usage = QueueUsage::default();
        for command in &mut self.decided {
            if matches!(command.result, Ok(CommitOutcome { outcome: Outcome::Staged { .. }, .. })) {
                usage += command.submission.place.keep();
            }
        }
        usage
    }

    /// Publishes a stage whose append is durable: to readers first, then to subscribers, then to the senders.
    pub(super) async fn publish(mut self) {
        let kept = self.keep_places();
        let seq = self.next.seq();
        let dirty = self.next.dirty().next().is_some();
        self.core.store.add(self.changes, seq);
        if self.bulk {
            // Rows of a bulk entry are not in the log, so the cache file gets them before readers do. If that fails, the
            // entry makes a restart read the master again.
            self.core.store.flush_or_log(&self.core.name).await;
        }
        let next = Arc::new(self.next);
        self.core.snapshot.store(Arc::clone(&next));
        self.core.commit.capacity.settle(kept, &next);
        self.core.counters.add_transitions(self.transitions);
        if !self.entries.is_empty() {
            let bytes = self.entries.iter().map(|entry| entry.bytes.len()).sum();
            self.core.commit.retention.lock().note(seq, now(), bytes);
        }
        if !self.items.is_empty() {
            self.core.ring.push(self.items);
        }
        if seq != self.before.seq() || dirty {
            self.core.published.send_replace(seq);
        }
        for command in self.decided {
            command.submission.answer(command.result);
        }
        self.core.request_turn_again();
    }

    /// Answers all submissions that write to the log with an error. Returns the others, to be decided again.
    pub(super) fn refuse(self, error: impl Fn(Option<String>) -> Error) -> Vec<Submission> {
        let mut others = Vec::new();
        let core = self.core;
        for command in self.decided {
            if command.wrote || command.result.is_err() {
                let op = match &command.submission.work {
                    SubmittedWork::One(Command::Write(write)) => Some(write.op.to_string()),
                    _ => None,
                };
                if let SubmittedWork::Invalidations(commands) = &command.submission.work {
                    core.keep_invalid(commands);
                }
                // A refusal was decided on a State that is not published.
                command.submission.answer(Err(error(op)));
            } else {
                others.push(command.submission);
            }
        }
        others
    }

    pub(super) fn into_commands(self) -> VecDeque<Submission> {
        self.decided.into_iter().map(|command| command.submission).collect()
    }
}

/// Decides a command. A panic refuses this command only.
fn decide(state: &State, command: &Command) -> Result<Decision> {
    std::panic::catch_unwind(AssertUnwindSafe(|| state.decide(command, now()))).unwrap_or_else(|_| {
        tracing::error!(?command, "deciding a command panicked");
        Err(Error::permanent("an internal error; nothing was changed"))
    })
}

/// Id of a row that panics when it is applied.
#[cfg(test)]
pub(crate) const PANICS: &str = "panics";

/// Applies a new entry and completes it with the row that readers saw before. Returns the parts for the journal, the
/// cache file and the ring.
fn record(state: &mut State, mut entry: Entry, bulk: &mut bool) -> (LogEntry, CacheChange, Option<RingItem>) {
    let (applied, new) = step(state, &entry, bulk);
    entry.remember(applied.old.as_ref(), new.as_ref(), state.rules().schema.layout());
    let stored = LogEntry { seq: entry.seq, bytes: entry.encode() };
    let item = RingItem::of(entry, applied.old.map_or(RowBefore::Absent, RowBefore::Known), new);
    (stored, applied.cache, item.map(|item| RingItem { slot: applied.slot, ..item }))
}

/// Applies an entry of the log. Returns the parts for the cache file and the ring.
pub(crate) fn apply(state: &mut State, entry: Entry, bulk: &mut bool) -> (CacheChange, Option<RingItem>) {
    let (applied, new) = step(state, &entry, bulk);
    let item = RingItem::of(entry, applied.old.map_or(RowBefore::Absent, RowBefore::Known), new);
    (applied.cache, item.map(|item| RingItem { slot: applied.slot, ..item }))
}

/// Applies an entry. Returns what has changed, and the visible row after it.
fn step(state: &mut State, entry: &Entry, bulk: &mut bool) -> (Applied, Option<Body>) {
    let applied = state.apply(entry);
    #[cfg(test)]
    assert_ne!(entry.id.as_deref(), Some(PANICS), "the panic of a test");
    *bulk |= matches!(entry.base, Base::Many { .. });
    let new = entry.id.as_deref().and_then(|id| state.get(id)).map(|row| row.body());
    (applied, new)
}
