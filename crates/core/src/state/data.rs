//! State of one Dio: visible rows, confirmed rows beneath open operations, the operations, and reads and deliveries in
//! progress.
//!
//! A [`State`] is persistent: a clone is O(1), and readers keep old ones while the committer prepares the next. Only two
//! functions change it: [`State::apply`] of an [`Entry`] (own commits, replay at start, entries of other instances) and
//! [`State::note`] of bookkeeping that does not outlive the process.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{HashMap, HashSet, OrdMap, Vector};
use indexmap::IndexMap;

use super::op::{Op, OpId};
use super::row_versions::RowVersions;
use crate::record::{Body, Id, Seq};
use crate::table::{BuiltIndex, Ordinal, Slot, Spec, Table};
use crate::vista::Schema;

/// Hash value for an absent row.
pub(crate) const NO_ROW: u128 = 0;

/// Settings that do not change while a Dio is open.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Shape of the rows.
    pub schema: Arc<Schema>,
    /// Column with a row's version, if the master has one: the newest wins.
    pub version: Option<Arc<str>>,
    /// True to show a full row of an unversioned upstream event at once when no read, delivery or write is in progress.
    pub trust_payload: bool,
    /// Maximum number of finished operations that are remembered, for a day.
    pub keep_finished: usize,
    /// Maximum number of routed operations of one row before the oldest are merged.
    pub keep_routed: usize,
    /// Milliseconds after which a routed operation is rolled back if the master does not show it.
    pub routed_ttl: Option<u64>,
}

impl Rules {
    /// Creates rules for an unversioned master.
    pub fn new(schema: Arc<Schema>) -> Rules {
        Rules { schema, version: None, trust_payload: true, keep_finished: 10_000, keep_routed: 32, routed_ttl: None }
    }
}

/// A confirmed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseRow {
    /// Encoded row.
    pub body: Body,
    /// Ordinal in the master's order.
    pub ordinal: Ordinal,
    /// Slot in the table.
    pub slot: Slot,
}

/// A row with open operations.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// Row as the master last confirmed it.
    pub base: Option<BaseRow>,
    /// Open operations, oldest first.
    pub ops: Vector<OpId>,
    /// Operations beneath which the confirmed row has changed since their first delivery.
    pub(super) rebased: Vec<OpId>,
    /// Waiting operations that a reported row has confirmed before their route answered.
    pub(super) seen: Vec<OpId>,
}

/// State of one Dio. See the module documentation.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) rules: Arc<Rules>,
    pub(super) epoch: Arc<str>,
    pub(super) seq: Seq,
    pub(super) rows_seq: Seq,
    pub(super) table: Table,
    pub(super) folds: HashMap<Id, Fold>,
    pub(super) ops: OrdMap<OpId, Op>,
    pub(super) queue: OrdMap<Seq, OpId>,
    pub(super) ended: OrdMap<(Seq, OpId), ()>,
    pub(super) queued_bytes: usize,
    /// Number of parked operations, and their size in bytes.
    pub(super) parked: (usize, usize),
    /// Logical clock, the source of marks. Counts every change of a confirmed row, journaled or only reported.
    pub(super) clock: u64,
    pub(super) guards: OrdMap<u64, u32>,
    /// Marks of guards for one row only.
    pub(super) row_guards: HashMap<u64, Id>,
    /// Number of open guards per row that are for this row only.
    pub(super) row_guard_counts: HashMap<Id, u32>,
    /// Number of all open guards.
    pub(super) open_guards: u32,
    pub(super) touched: HashMap<Id, TouchMarks>,
    /// Clock value since which each row is dirty. Only a read that began later settles it.
    pub(super) dirty: HashMap<Id, u64>,
    /// Dirty rows without a waiting write, which are worth reading now.
    pub(super) rereadable: HashSet<Id>,
    /// Known versions that the confirmed rows do not contain.
    pub(super) versions: HashMap<Id, RowVersions>,
    /// Deleted rows with remembered versions, by the position of the deletion.
    pub(super) tombstones: OrdMap<(Seq, Id), ()>,
    /// True if the versions came from the cache file.
    pub(super) versions_kept: bool,
    /// Rows with open operations whose confirmed row was lost with a cache file.
    pub(super) lost: HashSet<Id>,
    /// True if the log lacked entries, or rows of entries, when it was read: confirmed rows may be outdated.
    pub(super) gap: bool,
    /// True if every entry is applied to the State on which it was decided, so that its visible row is correct. False while a
    /// log with gaps is read.
    pub(super) sequential: bool,
    /// True if visible rows changed without row events since the last `Invalidated`.
    pub(super) silent: bool,
    /// Rows whose changes the next `Invalidated` announces.
    pub(super) untold: HashSet<Id>,
    /// True if it announces changes of all rows.
    pub(super) untold_all: bool,
    /// Purges with rows that may still be in older entries of the log, by position.
    pub(super) purges: OrdMap<Seq, Arc<[Id]>>,
    /// Rows to fold after the entries before the position of the cache have been read, each once regardless of its number of
    /// operations. The value is the last visible ordinal of a row that the master does not have.
    pub(super) unfolded: Option<IndexMap<Id, Option<Ordinal>>>,
}

/// Clock values at which a row was last touched while a read or delivery was in progress.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TouchMarks {
    /// Any touch, including a hint that the row changed at the master.
    pub(super) at: u64,
    /// Change of the confirmed row.
    pub(super) row: u64,
}

/// Bookkeeping that is not journaled and not visible to readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A read or a delivery begins at the current clock.
    Open,
    /// A read or a delivery of one row begins; its mark is the clock after this note.
    OpenFor(Id),
    /// The read or delivery that began at this mark has ended.
    Close(u64),
    /// The row may differ at the master and must be read again.
    Dirty(Id),
    /// The row was read.
    Clean(Id),
    /// The row changed at the master; reads in progress may not have seen the change.
    Touch(Id),
    /// The row changed without a row event, and an `Invalidated` follows.
    Untold(Id),
    /// All rows changed without row events, and an `Invalidated` follows.
    UntoldAll,
    /// Attach an index.
    Attach(Arc<BuiltIndex>),
    /// Remove an index.
    Detach(Spec),
    /// Erase the values that settled operations wrote to these rows.
    Forget(Arc<std::collections::HashSet<Id>>),
    /// The purge at this position has ended.
    Purged(Seq),
}

/// Result of [`State::apply`].
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Visible row before the entry.
    pub old: Option<Body>,
    /// Slot of the visible row before the entry, or after it if there was none.
    pub slot: Option<Slot>,
    /// Change for the cache file.
    pub cache: CacheChange,
}

/// A change of confirmed rows for the cache, by slot.
#[derive(Clone, Debug, Default)]
pub enum CacheChange {
    /// No change.
    #[default]
    None,
    /// A new or changed row.
    Upsert(Id, BaseRow),
    /// The row with this id in this slot was removed.
    Delete(Id, Slot),
    /// New versions of this row that are stored beside it; `None` removes them.
    Versions(Id, Option<Bytes>),
    /// Several changes.
    Many(Vec<CacheChange>),
}

impl State {
    /// Creates an empty State. `seq` is the journal's head.
    pub fn new(rules: Arc<Rules>, epoch: impl Into<Arc<str>>, seq: Seq) -> State {
        State::restore(rules, epoch, seq, Table::new())
    }

    /// Restores a State from a cache file: `table` holds the confirmed rows at position `seq`. The entries that the cache has
    /// not seen must be applied next.
    pub fn restore(rules: Arc<Rules>, epoch: impl Into<Arc<str>>, seq: Seq, table: Table) -> State {
        State {
            rules,
            epoch: epoch.into(),
            seq,
            rows_seq: seq,
            table,
            folds: HashMap::new(),
            ops: OrdMap::new(),
            queue: OrdMap::new(),
            ended: OrdMap::new(),
            queued_bytes: 0,
            parked: (0, 0),
            clock: seq,
            guards: OrdMap::new(),
            row_guards: HashMap::new(),
            row_guard_counts: HashMap::new(),
            open_guards: 0,
            touched: HashMap::new(),
            dirty: HashMap::new(),
            rereadable: HashSet::new(),
            versions: HashMap::new(),
            tombstones: OrdMap::new(),
            versions_kept: false,
            lost: HashSet::new(),
            gap: false,
            sequential: false,
            silent: false,
            untold: HashSet::new(),
            untold_all: false,
            purges: OrdMap::new(),
            unfolded: None,
        }
    }
}
