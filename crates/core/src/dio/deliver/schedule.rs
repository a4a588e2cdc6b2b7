//! Schedule of operations that are ordered by row only: selects those that may be delivered next.
//!
//! Pure: time is an argument. The schedule is updated incrementally, so that its cost does not depend on the number of
//! waiting writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use crate::journal::Seq;
use crate::record::Id;
use crate::state::{Op, OpId, State};

/// Stage of an operation that is the oldest of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadStage {
    /// Not tried yet.
    Fresh,
    /// Tried, and may be retried now.
    Due,
    /// Tried, and waits until that instant.
    Resting(Instant),
    /// Being delivered.
    Running,
}

/// The oldest waiting operation of each row, by position in the log.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Position up to which the queue was read.
    seen: Seq,
    stages: HashMap<OpId, (Seq, HeadStage)>,
    /// All operations except the running ones.
    waiting: BTreeMap<Seq, OpId>,
    fresh: BTreeSet<Seq>,
    due: BTreeSet<Seq>,
    resting: BTreeSet<(Instant, Seq)>,
}

impl Schedule {
    /// Adds the operations that were accepted since the last update, and makes those due whose delay is over.
    pub(crate) fn update(&mut self, state: &State, now: Instant) {
        let new: Vec<(Seq, OpId)> = state
            .queue_after(self.seen)
            .map(|op| {
                self.seen = op.staged;
                (op, may_start(state, op))
            })
            .filter(|(_, may)| *may)
            .map(|(op, _)| (op.staged, op.id))
            .collect();
        new.into_iter().for_each(|(seq, op)| self.offer(seq, op));
        while let Some((until, seq)) = self.resting.first().copied().filter(|(until, _)| *until <= now) {
            self.resting.remove(&(until, seq));
            if let Some(op) = self.waiting.get(&seq).copied() {
                self.put(seq, op, HeadStage::Due);
            }
        }
    }

    /// Adds an operation that may start, unless it is in the schedule.
    fn offer(&mut self, seq: Seq, op: OpId) {
        if !self.stages.contains_key(&op) {
            self.put(seq, op, HeadStage::Fresh);
        }
    }

    fn put(&mut self, seq: Seq, op: OpId, stage: HeadStage) {
        self.stages.insert(op, (seq, stage));
        self.waiting.insert(seq, op);
        match stage {
            HeadStage::Fresh => drop(self.fresh.insert(seq)),
            HeadStage::Due => drop(self.due.insert(seq)),
            HeadStage::Resting(until) => drop(self.resting.insert((until, seq))),
            HeadStage::Running => drop(self.waiting.remove(&seq)),
        }
    }

    /// Removes an operation from the schedule.
    fn remove(&mut self, op: OpId) -> Option<Seq> {
        let (seq, stage) = self.stages.remove(&op)?;
        self.waiting.remove(&seq);
        match stage {
            HeadStage::Fresh => drop(self.fresh.remove(&seq)),
            HeadStage::Due => drop(self.due.remove(&seq)),
            HeadStage::Resting(until) => drop(self.resting.remove(&(until, seq))),
            HeadStage::Running => {}
        }
        Some(seq)
    }

    /// The oldest operation that may start now, with true if it was tried before. With `tried` false, only untried ones.
    pub(crate) fn next(&self, tried: bool) -> Option<(OpId, bool)> {
        let fresh = self.fresh.first().map(|seq| (*seq, false));
        let due = self.due.first().filter(|_| tried).map(|seq| (*seq, true));
        let (seq, tried) = match (fresh, due) {
            (Some(fresh), Some(due)) => fresh.min(due),
            (fresh, due) => fresh.or(due)?,
        };
        Some((*self.waiting.get(&seq)?, tried))
    }

    /// The oldest untried operations, at most `most`.
    pub(crate) fn fresh(&self, most: usize) -> Vec<OpId> {
        self.fresh.iter().take(most).filter_map(|seq| self.waiting.get(seq).copied()).collect()
    }

    /// The best operation for a probe of the master: an untried one, else the oldest.
    pub(crate) fn probe(&self) -> Option<OpId> {
        let seq = self.fresh.first().or_else(|| self.due.first())?;
        self.waiting.get(seq).copied()
    }

    /// The oldest operation that is not being delivered.
    pub(crate) fn oldest(&self) -> Option<OpId> {
        self.waiting.first_key_value().map(|(_, op)| *op)
    }

    /// Time at which the next delay is over.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// Notes that an operation is being delivered.
    pub(crate) fn start(&mut self, op: OpId) {
        if let Some(seq) = self.remove(op) {
            self.put(seq, op, HeadStage::Running);
        }
    }

    /// Notes that a delivery ended without settling the operation, which waits until `next`, or is due at once.
    pub(crate) fn requeue(&mut self, op: OpId, tried: bool, next: Option<Instant>) {
        if let Some(seq) = self.remove(op) {
            let stage = match (tried, next) {
                (false, _) => HeadStage::Fresh,
                (true, None) => HeadStage::Due,
                (true, Some(until)) => HeadStage::Resting(until),
            };
            self.put(seq, op, stage);
        }
    }

    /// Notes that an operation no longer waits: the next ones of its rows may start.
    pub(crate) fn ended(&mut self, state: &State, op: OpId, rows: &[Id]) {
        self.remove(op);
        let next = rows.iter().filter_map(|row| state.first_queued(row)).chain(state.queue().next());
        let next: Vec<(Seq, OpId)> = next.filter(|op| may_start(state, op)).map(|op| (op.staged, op.id)).collect();
        next.into_iter().for_each(|(seq, op)| self.offer(seq, op));
    }

    /// Makes all waiting operations due, after the master has recovered.
    pub(crate) fn wake_all(&mut self) {
        for (_, seq) in std::mem::take(&mut self.resting) {
            if let Some(op) = self.waiting.get(&seq).copied() {
                self.put(seq, op, HeadStage::Due);
            }
        }
    }
}

/// Returns true if no earlier operation has to be delivered first: none on the same row or, for a write to all rows, none
/// at all.
fn may_start(state: &State, op: &Op) -> bool {
    match op.targets.len() {
        1 => state.is_next(op),
        _ => state.queue().next().is_some_and(|first| first.id == op.id),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::record::{Body, Record};
    use crate::state::{Answer, Command, Effect, NewWrite, Rules};
    use crate::vista::Schema;

    fn run(state: &mut State, command: &Command) {
        let decision = state.decide(command, 1).unwrap();
        decision.entries.iter().for_each(|entry| drop(state.apply(entry)));
        decision.notes.iter().for_each(|note| state.note(note));
    }

    fn put(state: &mut State, n: u128, row: &str) -> OpId {
        let op = OpId::from_u128(n);
        let body = Body::encode(row, &Record::new(), state.rules().schema.layout());
        let effect = Effect::Replace(body);
        let id = Some(Id::from(row));
        run(state, &Command::Write(NewWrite::new(op, id, effect)));
        op
    }

    fn settle(state: &mut State, op: OpId) {
        run(state, &Command::Settle { op, mark: 0, answer: Answer::Confirmed { row: None, id: None } });
    }

    fn state() -> State {
        State::new(Arc::new(Rules::new(Arc::new(Schema::new("id", Vec::new())))), "epoch", 0)
    }

    #[test]
    fn the_oldest_write_of_each_row_may_start_and_the_next_one_after_it() {
        let (mut state, mut schedule, now) = (state(), Schedule::default(), Instant::now());
        let (a1, a2, b1) = (put(&mut state, 1, "a"), put(&mut state, 2, "a"), put(&mut state, 3, "b"));
        schedule.update(&state, now);
        assert_eq!(schedule.next(true), Some((a1, false)));
        schedule.start(a1);
        assert_eq!(schedule.next(true), Some((b1, false)), "the second of a row waits");
        schedule.start(b1);
        assert_eq!(schedule.next(true), None);
        settle(&mut state, a1);
        schedule.ended(&state, a1, &[Id::from("a")]);
        assert_eq!(schedule.next(true), Some((a2, false)));
    }

    #[test]
    fn a_failed_operation_waits_and_an_untried_one_is_the_better_probe() {
        let (mut state, mut schedule, now) = (state(), Schedule::default(), Instant::now());
        let (a, b) = (put(&mut state, 1, "a"), put(&mut state, 2, "b"));
        schedule.update(&state, now);
        schedule.start(a);
        schedule.requeue(a, true, Some(now + Duration::from_secs(5)));
        assert_eq!((schedule.next(true), schedule.oldest()), (Some((b, false)), Some(a)));
        assert_eq!(schedule.next_due(), Some(now + Duration::from_secs(5)));
        schedule.update(&state, now + Duration::from_secs(5));
        assert_eq!(schedule.next(true), Some((a, true)));
        assert_eq!((schedule.next(false), schedule.probe()), (Some((b, false)), Some(b)));
        schedule.start(a);
        schedule.requeue(a, true, Some(now + Duration::from_secs(60)));
        schedule.wake_all();
        assert_eq!((schedule.next(true), schedule.next_due()), (Some((a, true)), None));
    }
}
