//! Decision: the entries and notes that a command leads to, and its outcome.

use super::data::{Note, State};
use super::entry::{Cause, Entry, Frame, Origin};
use super::op::OpId;
use crate::record::{Body, Id, Seq};
use crate::table::{ORDINAL_STEP, Ordinal};
use crate::vista::{Error, Result};

/// What became of an accepted command.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// What is to be appended and applied, in this order.
    pub entries: Vec<Entry>,
    /// What is to be noted after that.
    pub notes: Vec<Note>,
    /// What its sender is told.
    pub outcome: Outcome,
}

/// What the sender of a command is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing had to change.
    #[default]
    Unchanged,
    /// It changed something.
    Applied {
        /// Rows that are new.
        inserted: u64,
        /// Rows that are different.
        changed: u64,
        /// Rows that are gone.
        removed: u64,
    },
    /// A write is accepted as this operation.
    Staged {
        /// The operation.
        op: OpId,
        /// Whether the row was not there before.
        created: bool,
    },
    /// A write asks for what is there already.
    Identical,
    /// It cannot be judged yet: the row will be read from the master.
    Deferred,
    /// It is older than what is known.
    Stale,
    /// A read or delivery may begin with this mark.
    Mark(u64),
}

impl Outcome {
    /// Adds what another part of the same work did.
    pub fn add(&mut self, other: &Outcome) {
        let counts = |outcome: &Outcome| match outcome {
            Outcome::Applied { inserted, changed, removed } => (*inserted, *changed, *removed),
            _ => (0, 0, 0),
        };
        let (a, b) = (counts(self), counts(other));
        if matches!(other, Outcome::Applied { .. }) {
            *self = Outcome::Applied { inserted: a.0 + b.0, changed: a.1 + b.1, removed: a.2 + b.2 };
        }
    }
}

/// The largest row that is taken from anybody: the table packs 64 rows into one piece of memory.
const LARGEST_ROW: usize = 16 << 20;

/// Refuses a row that is too large to hold.
///
/// # Errors
/// [`Error::Invalid`] with its size and the bound.
pub fn check_size(id: &str, body: &Body) -> Result<()> {
    if body.size() <= LARGEST_ROW {
        return Ok(());
    }
    let detail = format!("row {id:?} has {} bytes: a row holds at most {} MiB", body.size(), LARGEST_ROW >> 20);
    Err(Error::invalid(detail))
}

/// Collects the entries of one decision.
pub(super) struct DecisionBuilder<'a> {
    pub(super) state: &'a State,
    pub(super) now: u64,
    pub(super) decision: Decision,
    next_ordinal: Option<Ordinal>,
}

impl<'a> DecisionBuilder<'a> {
    pub(super) fn new(state: &'a State, now: u64) -> DecisionBuilder<'a> {
        DecisionBuilder { state, now, decision: Decision::default(), next_ordinal: None }
    }

    pub(super) fn entry(&mut self, id: Option<&Id>, cause: &Cause) -> &mut Entry {
        let seq = self.state.seq + 1 + self.decision.entries.len() as Seq;
        self.decision.entries.push(Entry::new(seq, self.now, id.cloned(), cause.clone()));
        let last = self.decision.entries.len() - 1;
        &mut self.decision.entries[last]
    }

    pub(super) fn note(&mut self, note: Note) {
        self.decision.notes.push(note);
    }

    /// An ordinal after every other, also those given out by this decision.
    pub(super) fn append_ordinal(&mut self) -> Ordinal {
        let next = self.next_ordinal.unwrap_or_else(|| self.state.next_ordinal());
        self.next_ordinal = Some(next.saturating_add(ORDINAL_STEP));
        next
    }

    /// The place of a row that is or becomes visible.
    pub(super) fn ordinal_of(&mut self, id: &str) -> Ordinal {
        match self.state.base(id) {
            Some(base) => base.ordinal,
            None => match self.state.table.get(id) {
                Some(row) => row.ordinal(),
                None => self.append_ordinal(),
            },
        }
    }

    pub(super) fn count(&mut self, frame: &Frame) {
        let one = match frame {
            Frame::Inserted => (1, 0, 0),
            Frame::Changed => (0, 1, 0),
            Frame::Removed => (0, 0, 1),
            _ => return,
        };
        self.decision.outcome.add(&Outcome::Applied { inserted: one.0, changed: one.1, removed: one.2 });
    }
}

/// What subscribers are told when readers saw `old` and now see `new`.
pub(super) fn frame_between(old: bool, new: bool) -> Frame {
    match (old, new) {
        (false, true) => Frame::Inserted,
        (true, true) => Frame::Changed,
        (true, false) => Frame::Removed,
        (false, false) => Frame::Silent,
    }
}

/// A cause without an operation.
pub(super) fn cause(origin: Origin) -> Cause {
    Cause { origin, ..Cause::default() }
}

pub(super) fn op_cause(op: OpId) -> Cause {
    Cause { op: Some(op), ..Cause::default() }
}
