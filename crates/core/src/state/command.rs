//! Commands that a State decides.

use std::sync::Arc;

use super::entry::{Cause, Origin};
use super::op::{Effect, OpError, OpId};
use super::row_versions::EventVersion;
use crate::record::{Body, Id, Seq};
use crate::table::{BuiltIndex, Ordinal, Spec, Table};
use crate::vista::WriteBounds;
use crate::vista::query::JsonRow;

/// Request to change a Dio. Can be decided again after a failed append.
#[derive(Clone, Debug)]
pub enum Command {
    /// A write by a user of the facade.
    Write(NewWrite),
    /// A delivery or a read of the master begins. The outcome is its mark.
    Open,
    /// [`Command::Open`] for a read or a delivery of one row, which does not delay reports of other rows.
    OpenFor(Id),
    /// The read or delivery that began at this mark has ended without a result.
    Close(u64),
    /// The route or the master has answered an operation.
    Settle {
        /// The operation.
        op: OpId,
        /// The mark of its delivery.
        mark: u64,
        /// The answer.
        answer: Answer,
    },
    /// Rows from a read of the master that began at `mark`.
    ReadRows {
        /// The rows that may differ from the known ones.
        items: Vec<ReadRow>,
        /// Mark at which the read began.
        mark: u64,
        /// How subscribers learn of the changes.
        notice: Notice,
    },
    /// Variant of [`Command::ReadRows`] for more rows than the log should carry: one entry without bodies.
    Bulk {
        /// The rows that may differ from the known ones.
        items: Vec<ReadRow>,
        /// Mark at which the read began.
        mark: u64,
        /// How subscribers learn of the changes; without row events.
        notice: Notice,
    },
    /// A table built separately from a complete list, for a Dio that has no visible rows yet.
    Seed {
        /// The table.
        table: Table,
        /// Mark at which the read began.
        mark: u64,
        /// How subscribers learn of the rows; without row events.
        notice: Notice,
    },
    /// An upstream event.
    Upstream(UpstreamEvent),
    /// Rows stated by the program, accepted without a check.
    Statement {
        /// The rows; `None` for a row that no longer exists.
        rows: Vec<(Id, Option<Body>)>,
        /// True if subscribers are notified (`RecordChanged`, for new rows as well).
        notify: bool,
    },
    /// Notifies subscribers that these rows changed, without comparing them.
    Invalidate(Vec<Id>),
    /// Notifies subscribers to read everything again or, if covered, that they have received all changes.
    InvalidateAll {
        /// True if all differences were reported as row events. The event says so only if no other rows changed without one.
        covered: bool,
        /// Origin of the invalidation.
        origin: Origin,
    },
    /// An operator retries a parked operation, as a new operation.
    Retry {
        /// The parked operation.
        op: OpId,
        /// The id of the new one.
        new: OpId,
    },
    /// An operator discards a parked operation.
    Discard(OpId),
    /// Attaches an index that was built separately. Has no effect ([`Outcome::Unchanged`](super::Outcome::Unchanged)) if too
    /// much has changed since.
    Attach(Arc<BuiltIndex>),
    /// Removes an index that is not worth its memory.
    Detach(Spec),
    /// Erases all data of these rows; see [`Entry::purge`](super::Entry::purge).
    Purge(Arc<[Id]>),
    /// The purge at this position has ended.
    Purged(Seq),
}

/// How subscribers learn of the rows that a read has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// By row events.
    RowEvents,
    /// By an `Invalidated` that follows. Until then, other changes of these rows have no row events either.
    Invalidated,
    /// By the program, if at all.
    Program,
}

/// A write submitted to the State.
#[derive(Clone, Debug)]
pub struct NewWrite {
    /// Id of the resulting operation.
    pub op: OpId,
    /// Id of the row; `None` for [`Effect::DeleteAll`].
    pub id: Option<Id>,
    /// Effect of the write.
    pub effect: Effect,
    /// Condition on the visible row.
    pub condition: Condition,
    /// Operation that this one repeats.
    pub retry_of: Option<OpId>,
    /// Bounds of the rows and columns that it may see and change; `None` for all of them.
    pub within: Option<Arc<WriteBounds>>,
    /// Identity of the requester, if the caller provides it.
    pub principal: Option<Arc<str>>,
}

impl NewWrite {
    /// Creates a write without conditions.
    pub fn new(op: OpId, id: Option<Id>, effect: Effect) -> NewWrite {
        NewWrite { op, id, effect, condition: Condition::None, retry_of: None, within: None, principal: None }
    }

    /// Returns the cause of its entries.
    pub(super) fn cause(&self) -> Cause {
        Cause { op: Some(self.op), principal: self.principal.clone(), ..Cause::default() }
    }
}

/// A condition on the visible row, checked in commit order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// No condition.
    #[default]
    None,
    /// The row exists with one of these hashes (`If-Match`).
    Matches(Vec<u128>),
    /// The row exists (`If-Match: *`).
    Exists,
    /// The row does not exist (`If-None-Match: *`).
    Absent,
    /// The row exists with none of these hashes, or is optionally absent (`If-None-Match`).
    Differs {
        /// Hashes that the row must not have.
        from: Vec<u128>,
        /// True if an absent row satisfies the condition.
        or_absent: bool,
    },
}

impl Condition {
    /// Returns true if the condition holds for the visible row, as a writer with the bounds `within` sees it.
    pub(super) fn holds(&self, row: Option<&Body>, within: Option<&WriteBounds>) -> bool {
        let shown = within.and_then(|within| within.columns.as_ref()?.shown.as_ref());
        let hash = |row: &Body| match shown {
            Some(shown) => shown.hash(&JsonRow::from(row)),
            None => row.hash(),
        };
        match self {
            Condition::None => true,
            Condition::Exists => row.is_some(),
            Condition::Absent => row.is_none(),
            Condition::Differs { from, or_absent } => row.map_or(*or_absent, |row| !from.contains(&hash(row))),
            Condition::Matches(hashes) => row.is_some_and(|row| hashes.contains(&hash(row))),
        }
    }
}

/// Result of a delivery.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The master has the write. It may report the resulting row and its id.
    Confirmed {
        /// The row as the master stores it.
        row: Option<Body>,
        /// The row's id at the master, if it differs.
        id: Option<Id>,
    },
    /// The master has the write, and its feed has reported the row after it, which is the confirmed one.
    Reported,
    /// The write route accepted the write.
    Routed,
    /// Rejected permanently.
    Failed(OpError),
    /// Suspended until an operator decides.
    Parked(OpError),
}

/// One row of a read.
#[derive(Clone, Debug)]
pub struct ReadRow {
    /// Id of the row.
    pub id: Id,
    /// The row; `None` if the read shows that it does not exist.
    pub row: Option<Body>,
    /// Ordinal in the master's order, if the read provides it.
    pub ordinal: Option<Ordinal>,
}

/// An upstream event with encoded rows.
#[derive(Clone, Debug)]
pub struct UpstreamEvent {
    /// Id of the row.
    pub id: Id,
    /// Change of the row.
    pub change: UpstreamChange,
    /// The row's version after the change, if the sender provides one.
    pub version: Option<EventVersion>,
    /// The sender's id of the delivery.
    pub delivery: Option<Arc<str>>,
    /// Channel of the event.
    pub origin: Origin,
    /// True if the event comes from a feed of all changes of the master in their order.
    pub in_order: bool,
}

/// Change of a row in an upstream event.
#[derive(Clone, Debug)]
pub enum UpstreamChange {
    /// The complete row.
    Row(Body),
    /// The values of some columns, merged into the row.
    Part(Body),
    /// The values of some columns, which replace those of the row; the other columns have not changed.
    Cells(Body),
    /// The row was deleted.
    Gone,
    /// The row changed and must be read again.
    Thin,
}
