//! Commands: what a State is asked to decide.

use std::sync::Arc;

use super::entry::{Cause, Origin};
use super::op::{Effect, OpError, OpId};
use super::row_versions::EventVersion;
use crate::record::{Body, Id, Seq};
use crate::table::{BuiltIndex, Ordinal, Spec, Table};
use crate::vista::Narrowing;

/// Something that wants to change a Dio. Can be decided again after a failed append.
#[derive(Clone, Debug)]
pub enum Command {
    /// A write by a user of the facade.
    Write(NewWrite),
    /// A worker takes up an operation; or somebody begins to read the master. Answers the mark.
    Open,
    /// [`Command::Open`] for a read or a delivery of one row, which does not keep news of other rows waiting.
    OpenFor(Id),
    /// What began at this mark has ended without news.
    Close(u64),
    /// The route or the master has answered for an operation.
    Settle {
        /// The operation.
        op: OpId,
        /// The mark that was opened for its delivery.
        mark: u64,
        /// The answer.
        answer: Answer,
    },
    /// Rows read from the master by a read that began at `mark`.
    News {
        /// The rows that may differ from what is known.
        items: Vec<ReadRow>,
        /// When the read began.
        mark: u64,
        /// Whether subscribers are told.
        told: bool,
    },
    /// As [`Command::News`], for more rows than the log should carry: one entry without bodies.
    Bulk {
        /// The rows that may differ.
        items: Vec<ReadRow>,
        /// When the read began.
        mark: u64,
    },
    /// A table built aside from a complete list, for a Dio that has shown nothing yet.
    Seed {
        /// The table.
        table: Table,
        /// When the read began.
        mark: u64,
    },
    /// An upstream event.
    Upstream(UpstreamEvent),
    /// What the program says about rows: taken as given.
    Statement {
        /// The rows; `None` for a row that is gone.
        rows: Vec<(Id, Option<Body>)>,
        /// Whether subscribers are told (`RecordChanged`, whether new or not).
        told: bool,
    },
    /// Subscribers are told that these rows changed, whatever is known of them.
    Invalidate(Vec<Id>),
    /// Subscribers are told to read everything again, or (covered) that they have seen everything.
    InvalidateAll {
        /// Whether all differences were told as row events.
        covered: bool,
        /// Who says so.
        origin: Origin,
    },
    /// A person gives a parked operation another try, as a new operation.
    Retry {
        /// The parked operation.
        op: OpId,
        /// The id of the new one.
        new: OpId,
    },
    /// A person gives a parked operation up.
    Discard(OpId),
    /// An index was built aside. Refused without harm ([`Outcome::Unchanged`](super::Outcome::Unchanged)) if too much has changed since.
    Attach(Arc<BuiltIndex>),
    /// An index is not worth its memory.
    Detach(Spec),
    /// Everything that is known of these rows goes; see [`Entry::purge`](super::Entry::purge).
    Purge(Arc<[Id]>),
    /// The purge at this position has ended.
    Purged(Seq),
}

/// A write as it enters the State.
#[derive(Clone, Debug)]
pub struct NewWrite {
    /// The id of the operation it becomes.
    pub op: OpId,
    /// The row, `None` for [`Effect::DeleteAll`].
    pub id: Option<Id>,
    /// What it does.
    pub effect: Effect,
    /// What must hold of the visible row.
    pub condition: Condition,
    /// The operation it repeats.
    pub retry_of: Option<OpId>,
    /// The rows that it may see and make; `None` for all.
    pub within: Option<Arc<Narrowing>>,
    /// The identity of whoever asked for it, if the caller says so.
    pub principal: Option<Arc<str>>,
}

impl NewWrite {
    /// A write without conditions.
    pub fn new(op: OpId, id: Option<Id>, effect: Effect) -> NewWrite {
        NewWrite { op, id, effect, condition: Condition::None, retry_of: None, within: None, principal: None }
    }

    /// What its entries say brought them about.
    pub(super) fn cause(&self) -> Cause {
        Cause { op: Some(self.op), principal: self.principal.clone(), ..Cause::default() }
    }
}

/// A condition on the visible row, judged in commit order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// None.
    #[default]
    None,
    /// There is a row with one of these hashes (`If-Match`).
    Matches(Vec<u128>),
    /// There is a row (`If-Match: *`).
    Exists,
    /// There is no row (`If-None-Match: *`).
    Absent,
    /// There is a row with none of these hashes, or there is none and there need not be (`If-None-Match`).
    Differs {
        /// What it must not be.
        from: Vec<u128>,
        /// Whether no row will do.
        or_absent: bool,
    },
}

impl Condition {
    /// Tells whether it holds of the row that is visible.
    pub(super) fn holds(&self, row: Option<&Body>) -> bool {
        match self {
            Condition::None => true,
            Condition::Exists => row.is_some(),
            Condition::Absent => row.is_none(),
            Condition::Differs { from, or_absent } => row.map_or(*or_absent, |row| !from.contains(&row.hash())),
            Condition::Matches(hashes) => row.is_some_and(|row| hashes.contains(&row.hash())),
        }
    }
}

/// How a delivery ended.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The master has it; perhaps it says what the row is now, and under which id.
    Confirmed {
        /// The row as the master stores it.
        row: Option<Body>,
        /// Its id at the master, if another.
        id: Option<Id>,
    },
    /// The write route took it.
    Routed,
    /// Refused for good.
    Failed(OpError),
    /// Given up until a person decides.
    Parked(OpError),
}

/// One row of a read.
#[derive(Clone, Debug)]
pub struct ReadRow {
    /// Its id.
    pub id: Id,
    /// The row, `None` if the read shows that it is not there.
    pub row: Option<Body>,
    /// Its place in the master's order, if the read tells.
    pub ordinal: Option<Ordinal>,
}

/// An upstream event, encoded.
#[derive(Clone, Debug)]
pub struct UpstreamEvent {
    /// The row.
    pub id: Id,
    /// What it says.
    pub change: UpstreamChange,
    /// The row's version after the change, if the sender gives one.
    pub version: Option<EventVersion>,
    /// The sender's id of the delivery.
    pub delivery: Option<Arc<str>>,
    /// Through what it came.
    pub origin: Origin,
}

/// What an upstream event says of its row.
#[derive(Clone, Debug)]
pub enum UpstreamChange {
    /// It is this.
    Row(Body),
    /// These columns are this.
    Part(Body),
    /// It is gone.
    Gone,
    /// It changed: read it again.
    Thin,
}
