//! A Dio's part of a turn: commands decided and applied to a private successor of the State.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use super::capacity::QueueUsage;
use crate::dio::clock::now;
use crate::dio::core::Core;
use crate::dio::counters::OpTransitions;
use crate::dio::events::ring::{RingItem, RowBefore};
use crate::dio::submission::{CommitOutcome, Submission, SubmittedWork};
use crate::journal::{Claim, Fence, LogBatch, LogEntry, StoredDelivery};
use crate::record::Body;
use crate::state::{Base, CacheChange, Command, Decision, Entry, Outcome, State};
use crate::vista::{Error, Result};

/// A Dio's part of a turn.
pub(super) struct Stage {
    pub(super) core: Arc<Core>,
    pub(super) before: Arc<State>,
    pub(super) next: State,
    pub(super) done: Vec<Done>,
    pub(super) changes: Vec<CacheChange>,
    pub(super) items: Vec<RingItem>,
    pub(super) claims: Vec<Claim>,
    pub(super) kept: Vec<StoredDelivery>,
    pub(super) entries: Vec<LogEntry>,
    pub(super) moves: OpTransitions,
    pub(super) bulk: bool,
    /// Applying a decision panicked: the successor may hold half of it.
    pub(super) spoilt: bool,
}

/// A command that was decided.
pub(super) struct Done {
    pub(super) submission: Submission,
    pub(super) result: Result<CommitOutcome>,
    pub(super) wrote: bool,
}

impl Stage {
    pub(super) fn new(core: Arc<Core>) -> Stage {
        let before = core.root.load_full();
        Stage {
            next: (*before).clone(),
            before,
            core,
            done: Vec::new(),
            changes: Vec::new(),
            items: Vec::new(),
            claims: Vec::new(),
            kept: Vec::new(),
            entries: Vec::new(),
            moves: OpTransitions::default(),
            bulk: false,
            spoilt: false,
        }
    }

    /// Begins anew and decides again what was taken, but for what was refused: what panicked is never tried twice.
    pub(super) fn redone(self) -> Stage {
        let mut fresh = Stage::new(self.core);
        for done in self.done {
            match done.result {
                Ok(_) => fresh.take(done.submission),
                Err(_) => fresh.done.push(done),
            }
        }
        fresh
    }

    /// Decides one command and applies what follows to the successor.
    pub(super) fn take(&mut self, submission: Submission) {
        match &submission.work {
            SubmittedWork::One(command) => {
                let decided = match self.twice(&submission) {
                    Some(refused) => Err(refused),
                    None => decide(&self.next, command),
                };
                self.finish(submission, decided);
            }
            SubmittedWork::Told(commands) => {
                let done = self.take_all(commands);
                self.conclude(submission, done);
            }
            SubmittedWork::All(commands) => {
                let done = match self.twice(&submission) {
                    Some(refused) => Err(refused),
                    None => self.take_all(commands),
                };
                self.conclude(submission, done);
            }
            SubmittedWork::Poke => {
                let commands = self.core.commit.invalidations.lock().take();
                let done = self.take_all(&commands);
                self.conclude(Submission { work: SubmittedWork::Told(commands), ..submission }, done);
            }
        }
    }

    /// The refusal of a command whose key an earlier one of this turn has taken.
    pub(super) fn twice(&self, submission: &Submission) -> Option<Error> {
        let taken = |claim: &&Claim| self.claims.iter().any(|own| own.key == claim.key);
        let second = submission.claims.iter().find(taken)?;
        let first = self.claims.iter().find(|own| own.key == second.key)?;
        Some(super::write::replayed(Some(second), &first.value))
    }

    /// Decides and applies one command after the other; what they did is taken back if one is refused.
    pub(super) fn take_all(&mut self, commands: &[Command]) -> Result<(Vec<Outcome>, bool)> {
        let (before, bulk) = (self.next.clone(), self.bulk);
        let lengths = (self.entries.len(), self.changes.len(), self.items.len(), self.moves);
        let mut each = Vec::with_capacity(commands.len());
        for command in commands {
            let decided = decide(&self.next, command);
            let outcome = decided.as_ref().map_or(Outcome::Unchanged, |decision| decision.outcome.clone());
            if let Err(error) = decided.and_then(|decision| self.apply_all(decision)) {
                (self.next, self.bulk, self.moves) = (before, bulk, lengths.3);
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
        let done = decided.and_then(|decision| {
            let (outcome, wrote) = (decision.outcome.clone(), !decision.entries.is_empty());
            self.apply_all(decision)?;
            Ok((vec![outcome], wrote))
        });
        self.conclude(submission, done);
    }

    /// Takes note of the keys and the delivery of a command, and of its answer.
    pub(super) fn conclude(&mut self, submission: Submission, done: Result<(Vec<Outcome>, bool)>) {
        let mut wrote = false;
        let result = done.map(|(each, some)| {
            let outcome = each.first().cloned().unwrap_or_default();
            // A write of what is there already made no operation that its key could stand for.
            let claims = if outcome == Outcome::Identical { &[] } else { &submission.claims[..] };
            let kept = submission.keep.as_ref().map(|kept| super::reconciled::concluded(kept, &each));
            wrote = some || !claims.is_empty() || kept.is_some();
            self.claims.extend_from_slice(claims);
            self.kept.extend(kept);
            CommitOutcome { outcome, each, seq: self.next.seq() }
        });
        self.done.push(Done { submission, result, wrote });
    }

    /// Applies a decision whole, in place: what several commands of a turn touch is copied once. After a panic the stage is
    /// spoilt, and only this command is refused.
    pub(super) fn apply_all(&mut self, decision: Decision) -> Result<()> {
        let work = AssertUnwindSafe(|| {
            for entry in decision.entries {
                self.moves.add(OpTransitions::of(&entry.op));
                let (stored, change, item) = record(&mut self.next, entry, &mut self.bulk);
                self.entries.push(stored);
                self.changes.push(change);
                self.items.extend(item);
            }
            decision.notes.iter().for_each(|note| self.next.note(note));
        });
        std::panic::catch_unwind(work).map_err(|_| {
            tracing::error!(dio = %self.core.name, "applying a decision panicked");
            self.spoilt = true;
            Error::permanent("an internal error; nothing was changed")
        })
    }

    pub(super) fn appends(&self) -> bool {
        !self.entries.is_empty() || !self.claims.is_empty() || !self.kept.is_empty()
    }

    pub(super) fn batch(&self) -> LogBatch {
        LogBatch {
            log: Arc::clone(&self.core.name),
            expect: self.before.seq(),
            fence: Fence::LOCAL,
            entries: self.entries.clone(),
            claims: self.claims.clone(),
            deliveries: self.kept.clone(),
            marks: Vec::new(),
        }
    }

    /// Hands over the places of writers whose operations are in the queue now.
    pub(super) fn keep_places(&mut self) -> QueueUsage {
        let mut held = QueueUsage::default();
        for done in &mut self.done {
            if matches!(done.result, Ok(CommitOutcome { outcome: Outcome::Staged { .. }, .. })) {
                held += done.submission.place.keep();
            }
        }
        held
    }

    /// The append is durable: readers first, then subscribers, then the senders.
    pub(super) async fn publish(mut self) {
        let kept = self.keep_places();
        let seq = self.next.seq();
        let dirty = self.next.dirty().next().is_some();
        self.core.store.learn(self.changes, seq);
        if self.bulk {
            // Rows of a bulk entry are not in the log: they go to disk before anybody sees them. If they cannot, a restart
            // knows from the entry that it has to read the master again.
            self.core.store.flush_or_tell(&self.core.name).await;
        }
        let next = Arc::new(self.next);
        self.core.root.store(Arc::clone(&next));
        self.core.commit.capacity.settle(kept, &next);
        self.core.tally.moved(self.moves);
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
        for done in self.done {
            done.submission.answer(done.result);
        }
        self.core.poke_again();
    }

    /// Answers everything that wanted to write with an error; gives back what only keeps books, to be done again.
    pub(super) fn refuse(self, error: impl Fn(Option<String>) -> Error) -> Vec<Submission> {
        let mut again = Vec::new();
        let core = self.core;
        for done in self.done {
            if done.wrote || done.result.is_err() {
                let op = match &done.submission.work {
                    SubmittedWork::One(Command::Write(write)) => Some(write.op.to_string()),
                    _ => None,
                };
                if let SubmittedWork::Told(commands) = &done.submission.work {
                    core.keep_invalid(commands);
                }
                // A refusal was judged on a State that never came to be.
                done.submission.answer(Err(error(op)));
            } else {
                again.push(done.submission);
            }
        }
        again
    }

    pub(super) fn into_commands(self) -> VecDeque<Submission> {
        self.done.into_iter().map(|done| done.submission).collect()
    }
}

/// Decides; a panic in there refuses the command and harms nobody else.
fn decide(state: &State, command: &Command) -> Result<Decision> {
    std::panic::catch_unwind(AssertUnwindSafe(|| state.decide(command, now()))).unwrap_or_else(|_| {
        tracing::error!(?command, "deciding a command panicked");
        Err(Error::permanent("an internal error; nothing was changed"))
    })
}

/// A row that cannot be applied.
#[cfg(test)]
pub(crate) const PANICS: &str = "panics";

/// Applies a new entry and completes it with the row that readers saw before; gives what journal, cache file and ring get.
fn record(state: &mut State, mut entry: Entry, bulk: &mut bool) -> (LogEntry, CacheChange, Option<RingItem>) {
    let (cache, old, new) = step(state, &entry, bulk);
    entry.remember(old.as_ref(), new.as_ref(), state.rules().schema.layout());
    let stored = LogEntry { seq: entry.seq, bytes: entry.encode() };
    (stored, cache, RingItem::of(entry, old.map_or(RowBefore::Absent, RowBefore::Known), new))
}

/// Applies an entry of the log; gives what the cache file and the ring have to know.
pub(crate) fn apply(state: &mut State, entry: Entry, bulk: &mut bool) -> (CacheChange, Option<RingItem>) {
    let (cache, old, new) = step(state, &entry, bulk);
    (cache, RingItem::of(entry, old.map_or(RowBefore::Absent, RowBefore::Known), new))
}

/// Applies an entry; gives what the cache file has to know, and the visible row before and after.
fn step(state: &mut State, entry: &Entry, bulk: &mut bool) -> (CacheChange, Option<Body>, Option<Body>) {
    let applied = state.apply(entry);
    #[cfg(test)]
    assert_ne!(entry.id.as_deref(), Some(PANICS), "as a test wants it");
    *bulk |= matches!(entry.base, Base::Many { .. });
    let new = entry.id.as_deref().and_then(|id| state.get(id)).map(|row| row.body());
    (applied.cache, applied.old, new)
}
