//! What one Dio knows: visible rows, confirmed rows beneath pending operations, the operations, and what is in motion.
//!
//! A [`State`] is persistent: a clone is O(1), readers hold old ones while the committer prepares the next. Only two things
//! change it: [`State::apply`] of an [`Entry`] (own commits, replay at start, entries of other instances) and [`State::note`] of
//! bookkeeping that does not outlive the process.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{HashMap, HashSet, OrdMap, Vector};
use indexmap::IndexMap;

use super::op::{Op, OpId};
use super::row_versions::RowVersions;
use crate::record::{Body, Id, Seq};
use crate::table::{BuiltIndex, Ordinal, Slot, Spec, Table};
use crate::vista::Schema;

/// Stands for the hash of a row that is not there.
pub(crate) const NO_ROW: u128 = 0;

/// What does not change while a Dio lives.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The shape of its rows.
    pub schema: Arc<Schema>,
    /// Column that holds a row's version, when the master has one: the newest wins.
    pub version: Option<Arc<str>>,
    /// Whether a full row in an unversioned upstream event is shown at once when nothing else is in motion.
    pub trust_payload: bool,
    /// Finished operations that are remembered, at most, for a day.
    pub keep_finished: usize,
    /// Routed operations that lie over one row, at most, before the oldest become one.
    pub keep_routed: usize,
    /// Milliseconds after which a routed operation that the master does not show is taken back.
    pub routed_ttl: Option<u64>,
}

impl Rules {
    /// Rules for an unversioned master.
    pub fn new(schema: Arc<Schema>) -> Rules {
        Rules { schema, version: None, trust_payload: true, keep_finished: 10_000, keep_routed: 32, routed_ttl: None }
    }
}

/// A confirmed row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseRow {
    /// Its bytes.
    pub body: Body,
    /// Its place in the master's order.
    pub ordinal: Ordinal,
    /// Its slot.
    pub slot: Slot,
}

/// A row with operations over it.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    /// The row as the master last confirmed it.
    pub base: Option<BaseRow>,
    /// The operations, oldest first.
    pub ops: Vector<OpId>,
    /// Those under which the confirmed row has changed since the route took them.
    pub(super) rebased: Vec<OpId>,
}

/// What one Dio knows. See the module's documentation.
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
    /// How many operations are parked, and their bytes.
    pub(super) parked: (usize, usize),
    /// Counts every change of a confirmed row, journaled or only hinted at; what marks are taken from.
    pub(super) clock: u64,
    pub(super) guards: OrdMap<u64, u32>,
    /// Marks of guards that are about one row only.
    pub(super) narrow: HashMap<u64, Id>,
    /// How many guards are open about each row alone, and how many in all.
    pub(super) narrow_of: HashMap<Id, u32>,
    pub(super) open_guards: u32,
    pub(super) touched: HashMap<Id, TouchMarks>,
    /// Since when each row is in doubt; only a read that began later settles it.
    pub(super) dirty: HashMap<Id, u64>,
    /// Rows in doubt that no write waits for: those that are worth reading now.
    pub(super) rereadable: HashSet<Id>,
    /// What the confirmed rows themselves do not say about their versions.
    pub(super) versions: HashMap<Id, RowVersions>,
    /// Those of rows that are gone, by when they went.
    pub(super) tombstones: OrdMap<(Seq, Id), ()>,
    /// Whether they came from the cache file.
    pub(super) versions_kept: bool,
    /// Rows under operations whose confirmed row was in a cache file that is gone.
    pub(super) lost: HashSet<Id>,
    /// Whether the log, when it was read back, lacked entries or the rows of some: confirmed rows may be older than they were.
    pub(super) gap: bool,
    /// Whether every entry is applied to the State that it was decided on, so that what it says of the visible row holds: not while
    /// a log with gaps is read back.
    pub(super) sequential: bool,
    /// Purges whose rows may still be in older entries of the log, by position.
    pub(super) purges: OrdMap<Seq, Arc<[Id]>>,
    /// While entries from before the position of the cache are read: rows to be folded when they are through, each once however
    /// many operations lie over it, and where those that the master does not have were shown last.
    pub(super) unfolded: Option<IndexMap<Id, Option<Ordinal>>>,
}

/// When a row was last touched while a read or delivery was under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TouchMarks {
    /// By anything, also a hint that it changed at the master.
    pub(super) at: u64,
    /// By a change of the confirmed row.
    pub(super) row: u64,
}

/// Bookkeeping that is neither journaled nor seen by readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A read or a delivery begins at the present clock.
    Open,
    /// The same, about one row; its mark is the clock after this.
    OpenFor(Id),
    /// The one that began at this mark has ended.
    Close(u64),
    /// The master may have another row than we know: read it again.
    Dirty(Id),
    /// It was read.
    Clean(Id),
    /// Something about the row changed at the master; reads in flight may not have seen it.
    Touch(Id),
    /// An index is there from now on.
    Attach(Arc<BuiltIndex>),
    /// An index is gone.
    Detach(Spec),
    /// What settled operations wrote to these rows is forgotten.
    Forget(Arc<std::collections::HashSet<Id>>),
    /// The purge at this position has ended.
    Purged(Seq),
}

/// What [`State::apply`] found and did, for those who tell others.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The row that readers saw before.
    pub old: Option<Body>,
    /// What the cache file has to learn.
    pub cache: CacheChange,
}

/// A confirmed row that changed, by slot.
#[derive(Clone, Debug, Default)]
pub enum CacheChange {
    /// None did.
    #[default]
    None,
    /// This one is new or different.
    Upsert(Id, BaseRow),
    /// The one of this id in this slot is gone.
    Delete(Id, Slot),
    /// What is known of this row's versions beside the row is this, or nothing any more.
    Versions(Id, Option<Bytes>),
    /// Many did; see the entry.
    Many(Vec<CacheChange>),
}

impl State {
    /// A Dio that knows nothing yet. `seq` is the journal's head.
    pub fn new(rules: Arc<Rules>, epoch: impl Into<Arc<str>>, seq: Seq) -> State {
        State::restore(rules, epoch, seq, Table::new())
    }

    /// A Dio as its cache file has it: `table` holds the confirmed rows at position `seq`. Entries that the cache has not seen
    /// are applied next.
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
            narrow: HashMap::new(),
            narrow_of: HashMap::new(),
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
            purges: OrdMap::new(),
            unfolded: None,
        }
    }
}
