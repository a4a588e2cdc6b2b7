//! Which operations may be delivered next where only writes of one row follow each other.
//!
//! Pure: time is an argument. The schedule is kept up to date by what changes, so that a look at it costs the same however many
//! writes wait.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use crate::journal::Seq;
use crate::record::Id;
use crate::state::{Op, OpId, State};

/// Where an operation stands that is the oldest of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeadStage {
    /// It was not tried yet.
    Fresh,
    /// It was tried and may be tried again.
    Due,
    /// It was tried and waits until then.
    Resting(Instant),
    /// It is being delivered.
    Running,
}

/// The oldest waiting operation of each row, by position in the log.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Position up to which the queue was looked through.
    seen: Seq,
    places: HashMap<OpId, (Seq, HeadStage)>,
    /// All but those that run.
    waiting: BTreeMap<Seq, OpId>,
    fresh: BTreeSet<Seq>,
    due: BTreeSet<Seq>,
    resting: BTreeSet<(Instant, Seq)>,
}

impl Schedule {
    /// Takes in what was accepted since the last look, and what has rested long enough.
    pub(crate) fn look(&mut self, state: &State, now: Instant) {
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

    /// The operation is not known yet and may start.
    fn offer(&mut self, seq: Seq, op: OpId) {
        if !self.places.contains_key(&op) {
            self.put(seq, op, HeadStage::Fresh);
        }
    }

    fn put(&mut self, seq: Seq, op: OpId, place: HeadStage) {
        self.places.insert(op, (seq, place));
        self.waiting.insert(seq, op);
        match place {
            HeadStage::Fresh => drop(self.fresh.insert(seq)),
            HeadStage::Due => drop(self.due.insert(seq)),
            HeadStage::Resting(until) => drop(self.resting.insert((until, seq))),
            HeadStage::Running => drop(self.waiting.remove(&seq)),
        }
    }

    /// Takes an operation out of what waits.
    fn lift(&mut self, op: OpId) -> Option<Seq> {
        let (seq, place) = self.places.remove(&op)?;
        self.waiting.remove(&seq);
        match place {
            HeadStage::Fresh => drop(self.fresh.remove(&seq)),
            HeadStage::Due => drop(self.due.remove(&seq)),
            HeadStage::Resting(until) => drop(self.resting.remove(&(until, seq))),
            HeadStage::Running => {}
        }
        Some(seq)
    }

    /// The oldest that may be started now, and whether it was tried before; without `tried` only one that was not.
    pub(crate) fn next(&self, tried: bool) -> Option<(OpId, bool)> {
        let fresh = self.fresh.first().map(|seq| (*seq, false));
        let due = self.due.first().filter(|_| tried).map(|seq| (*seq, true));
        let (seq, tried) = match (fresh, due) {
            (Some(fresh), Some(due)) => fresh.min(due),
            (fresh, due) => fresh.or(due)?,
        };
        Some((*self.waiting.get(&seq)?, tried))
    }

    /// The oldest that were not tried yet, at most so many.
    pub(crate) fn fresh(&self, most: usize) -> Vec<OpId> {
        self.fresh.iter().take(most).filter_map(|seq| self.waiting.get(seq).copied()).collect()
    }

    /// One whose delivery tells most of the master: one that was not tried yet, else the oldest.
    pub(crate) fn probe(&self) -> Option<OpId> {
        let seq = self.fresh.first().or_else(|| self.due.first())?;
        self.waiting.get(seq).copied()
    }

    /// The oldest that is not being delivered.
    pub(crate) fn oldest(&self) -> Option<OpId> {
        self.waiting.first_key_value().map(|(_, op)| *op)
    }

    /// When the next one has rested long enough.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.resting.first().map(|(until, _)| *until)
    }

    /// An operation is being delivered.
    pub(crate) fn start(&mut self, op: OpId) {
        if let Some(seq) = self.lift(op) {
            self.put(seq, op, HeadStage::Running);
        }
    }

    /// A delivery ended without an answer for good: the operation waits until `next`, or may be tried at once.
    pub(crate) fn back(&mut self, op: OpId, tried: bool, next: Option<Instant>) {
        if let Some(seq) = self.lift(op) {
            let place = match (tried, next) {
                (false, _) => HeadStage::Fresh,
                (true, None) => HeadStage::Due,
                (true, Some(until)) => HeadStage::Resting(until),
            };
            self.put(seq, op, place);
        }
    }

    /// An operation waits no longer: those behind it on its rows may start.
    pub(crate) fn ended(&mut self, state: &State, op: OpId, rows: &[Id]) {
        self.lift(op);
        let next = rows.iter().filter_map(|row| state.first_queued(row)).chain(state.queue().next());
        let next: Vec<(Seq, OpId)> = next.filter(|op| may_start(state, op)).map(|op| (op.staged, op.id)).collect();
        next.into_iter().for_each(|(seq, op)| self.offer(seq, op));
    }

    /// The master is back: nobody rests any longer.
    pub(crate) fn wake_all(&mut self) {
        for (_, seq) in std::mem::take(&mut self.resting) {
            if let Some(op) = self.waiting.get(&seq).copied() {
                self.put(seq, op, HeadStage::Due);
            }
        }
    }
}

/// Whether nothing that was accepted earlier has to be delivered before: to the same row; before a write to all rows, anything.
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
        schedule.look(&state, now);
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
    fn what_failed_rests_and_lets_others_go_first_when_the_master_is_to_be_probed() {
        let (mut state, mut schedule, now) = (state(), Schedule::default(), Instant::now());
        let (a, b) = (put(&mut state, 1, "a"), put(&mut state, 2, "b"));
        schedule.look(&state, now);
        schedule.start(a);
        schedule.back(a, true, Some(now + Duration::from_secs(5)));
        assert_eq!((schedule.next(true), schedule.oldest()), (Some((b, false)), Some(a)));
        assert_eq!(schedule.next_due(), Some(now + Duration::from_secs(5)));
        schedule.look(&state, now + Duration::from_secs(5));
        assert_eq!(schedule.next(true), Some((a, true)));
        assert_eq!((schedule.next(false), schedule.probe()), (Some((b, false)), Some(b)));
        schedule.start(a);
        schedule.back(a, true, Some(now + Duration::from_secs(60)));
        schedule.wake_all();
        assert_eq!((schedule.next(true), schedule.next_due()), (Some((a, true)), None));
    }
}
