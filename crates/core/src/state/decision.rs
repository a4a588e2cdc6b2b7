//! Decision: the entries and notes that a command produces, and its outcome.

use super::command::Notice;
use super::data::{Note, State};
use super::entry::{Cause, Entry, Frame, Origin};
use super::op::{Op, OpId};
use crate::record::{BodyRef, Id, Seq};
use crate::table::{ORDINAL_STEP, Ordinal};
use crate::vista::{Error, Result};

/// Result of an accepted command.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Entries to append and apply, in this order.
    pub entries: Vec<Entry>,
    /// Notes to apply after the entries.
    pub notes: Vec<Note>,
    /// Outcome for the sender of the command.
    pub outcome: Outcome,
}

/// Outcome of a command for its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing changed.
    #[default]
    Unchanged,
    /// Rows or operations changed.
    Applied {
        /// Number of new rows.
        inserted: u64,
        /// Number of changed rows.
        changed: u64,
        /// Number of removed rows.
        removed: u64,
    },
    /// A write was accepted as this operation.
    Staged {
        /// The operation.
        op: OpId,
        /// True if the row did not exist before.
        created: bool,
    },
    /// A write would change nothing.
    Identical,
    /// The event cannot be judged yet: the row will be read from the master.
    Deferred,
    /// The event is older than the known row.
    Stale,
    /// A read or delivery may begin with this mark.
    Mark(u64),
}

impl Outcome {
    /// Adds the counts of another part of the same work.
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

/// Maximum size of a row in bytes. The table packs 64 rows into one allocation.
const MAX_ROW_SIZE: usize = 16 << 20;

/// Rejects a row that is too large to store.
///
/// # Errors
/// [`Error::Invalid`] with its size and the maximum.
pub fn check_size<'b>(id: &str, body: impl Into<BodyRef<'b>>) -> Result<()> {
    let body = body.into();
    if body.size() <= MAX_ROW_SIZE {
        return Ok(());
    }
    let detail = format!("row {id:?} has {} bytes: the maximum is {} MiB", body.size(), MAX_ROW_SIZE >> 20);
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

    /// Returns an ordinal after all others, including those assigned by this decision.
    pub(super) fn append_ordinal(&mut self) -> Ordinal {
        let next = self.next_ordinal.unwrap_or_else(|| self.state.next_ordinal());
        self.next_ordinal = Some(next.saturating_add(ORDINAL_STEP));
        next
    }

    /// Returns the ordinal of a row that is or becomes visible.
    pub(super) fn ordinal_of(&mut self, id: &str) -> Ordinal {
        match self.state.base(id) {
            Some(base) => base.ordinal,
            None => match self.state.table.get(id) {
                Some(row) => row.ordinal(),
                None => self.append_ordinal(),
            },
        }
    }

    /// Removes the row events of a read. The results of writes are always reported.
    pub(super) fn silence(&mut self, notice: Notice) {
        for entry in self.decision.entries.iter_mut().filter(|entry| entry.cause.op.is_none()) {
            let is_row = matches!(entry.frame, Frame::Inserted | Frame::Changed | Frame::Removed);
            if let Some(id) = entry.id.as_ref().filter(|_| is_row && notice == Notice::Invalidated) {
                self.decision.notes.push(Note::Untold(Id::clone(id)));
            }
            entry.frame = Frame::Silent;
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

/// Returns the frame for a row that was visible (`old`) and is now visible (`new`).
pub(super) fn frame_between(old: bool, new: bool) -> Frame {
    match (old, new) {
        (false, true) => Frame::Inserted,
        (true, true) => Frame::Changed,
        (true, false) => Frame::Removed,
        (false, false) => Frame::Silent,
    }
}

/// Creates a cause without an operation.
pub(super) fn cause(origin: Origin) -> Cause {
    Cause { origin, ..Cause::default() }
}

/// Creates the cause of an entry about an operation, with its writer.
pub(super) fn op_cause(op: &Op) -> Cause {
    Cause { op: Some(op.id), principal: op.principal.clone(), ..Cause::default() }
}
