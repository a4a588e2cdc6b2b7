//! What one Dio knows: visible rows, confirmed rows beneath pending operations, the operations, and what is in motion.
//!
//! A [`State`] is persistent: a clone is O(1), readers hold old ones while the committer prepares the next. Only two things
//! change it: [`State::apply`] of an [`Entry`] (own commits, replay at start, entries of other instances) and [`State::note`] of
//! bookkeeping that does not outlive the process.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{HashMap, HashSet, OrdMap, Vector};
use indexmap::IndexMap;

use super::entry::{Base, BulkRow, Entry, Many, OpChange, Visible};
use super::op::{Effect, Op, OpError, OpId, OpState};
use super::versions::RowVersions;
use crate::record::{Body, Id, Seq};
use crate::table::{Built, ORDINAL_STEP, Ordinal, RowRef, Slot, Spec, Table};
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

/// How long finished operations are remembered, in milliseconds.
const REMEMBERED: u64 = 24 * 3_600_000;

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
    narrow: HashMap<u64, Id>,
    /// How many guards are open about each row alone, and how many in all.
    narrow_of: HashMap<Id, u32>,
    open_guards: u32,
    pub(super) touched: HashMap<Id, Touched>,
    /// Since when each row is in doubt; only a read that began later settles it.
    pub(super) dirty: HashMap<Id, u64>,
    /// Rows in doubt that no write waits for: those that are worth reading now.
    rereadable: HashSet<Id>,
    /// What the confirmed rows themselves do not say about their versions.
    pub(super) versions: HashMap<Id, RowVersions>,
    /// Those of rows that are gone, by when they went.
    pub(super) tombstones: OrdMap<(Seq, Id), ()>,
    /// Whether they came from the cache file.
    pub(super) versions_kept: bool,
    /// Rows under operations whose confirmed row was in a cache file that is gone.
    pub(super) lost: HashSet<Id>,
    /// Whether the log, when it was read back, lacked entries or the rows of some: confirmed rows may be older than they were.
    gap: bool,
    /// Whether every entry is applied to the State that it was decided on, so that what it says of the visible row holds: not while
    /// a log with gaps is read back.
    sequential: bool,
    /// Purges whose rows may still be in older entries of the log, by position.
    pub(super) purges: OrdMap<Seq, Arc<[Id]>>,
    /// While entries from before the position of the cache are read: rows to be folded when they are through, each once however
    /// many operations lie over it, and where those that the master does not have were shown last.
    unfolded: Option<IndexMap<Id, Option<Ordinal>>>,
}

/// When a row was last touched while a read or delivery was under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Touched {
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
    Attach(Arc<Built>),
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

    // --- what readers ask ----------------------------------------------------------------------------------------------

    /// Position of the newest entry.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Position of the newest entry that changed a visible row or the order of rows.
    pub fn rows_seq(&self) -> Seq {
        self.rows_seq
    }

    /// The log's epoch.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// The rows that readers see.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The shape of the rows and how they are reconciled.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// One visible row.
    pub fn get(&self, id: &str) -> Option<RowRef<'_>> {
        self.table.get(id)
    }

    /// The row as the master last confirmed it.
    pub fn base(&self, id: &str) -> Option<BaseRow> {
        match self.folds.get(id) {
            Some(fold) => fold.base.clone(),
            None => {
                self.table.get(id).map(|row| BaseRow { body: row.body(), ordinal: row.ordinal(), slot: row.slot() })
            }
        }
    }

    /// The operations over one row, if there are any.
    pub fn fold(&self, id: &str) -> Option<&Fold> {
        self.folds.get(id)
    }

    /// Whether a row should be read again.
    pub fn is_dirty(&self, id: &str) -> bool {
        self.dirty.contains_key(id)
    }

    /// Rows with operations over them.
    pub fn folds(&self) -> impl Iterator<Item = (&Id, &Fold)> {
        self.folds.iter()
    }

    /// An operation that is open, parked or remembered.
    pub fn op(&self, id: OpId) -> Option<&Op> {
        self.ops.get(&id)
    }

    /// All of them, oldest first.
    pub fn ops(&self) -> impl DoubleEndedIterator<Item = &Op> {
        self.ops.values()
    }

    /// Operations that wait for delivery, oldest first.
    pub fn queue(&self) -> impl Iterator<Item = &Op> {
        self.queue.values().filter_map(|id| self.ops.get(id))
    }

    /// Operations that wait for delivery and were accepted after position `after`, oldest first.
    pub fn queue_after(&self, after: Seq) -> impl Iterator<Item = &Op> {
        self.queue.range(after.saturating_add(1)..).filter_map(|(_, id)| self.ops.get(id))
    }

    /// The oldest operation that waits for delivery to row `id`.
    pub fn first_queued(&self, id: &str) -> Option<&Op> {
        let ops = self.folds.get(id)?.ops.iter();
        ops.filter_map(|op| self.ops.get(op)).find(|op| op.state == OpState::Queued)
    }

    /// How many operations wait, and their bytes.
    pub fn backlog(&self) -> (usize, usize) {
        (self.queue.len(), self.queued_bytes)
    }

    /// How many operations are parked, and their bytes.
    pub fn parked(&self) -> (usize, usize) {
        self.parked
    }

    /// Whether `op` is the oldest that waits for each of its rows, so that it may be delivered.
    pub fn is_next(&self, op: &Op) -> bool {
        op.targets.iter().all(|id| self.first_queued(id).is_some_and(|first| first.id == op.id))
    }

    /// Ids whose rows should be read again.
    pub fn dirty(&self) -> impl Iterator<Item = &Id> {
        self.dirty.keys()
    }

    /// Those of them that no write waits for.
    pub fn rereadable(&self) -> impl Iterator<Item = &Id> {
        self.rereadable.iter()
    }

    /// Whether `id` has operations that wait for delivery.
    pub fn has_queued(&self, id: &str) -> bool {
        self.first_queued(id).is_some()
    }

    /// Whether a read of the master or a delivery is under way.
    pub fn in_motion(&self) -> bool {
        !self.guards.is_empty()
    }

    /// How many reads and deliveries under way are about this row, those about all rows among them.
    pub(super) fn motions(&self, id: &str) -> u32 {
        let about_others = self.narrow.len() as u32 - self.narrow_of.get(id).copied().unwrap_or(0);
        self.open_guards.saturating_sub(about_others)
    }

    /// The mark of a guard that is opened now: no guard about one row has the same.
    pub(super) fn next_mark(&self) -> u64 {
        self.clock + u64::from(self.narrow.contains_key(&self.clock))
    }

    /// What a guard opened now would carry.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The ordinal after every other.
    pub fn next_ordinal(&self) -> Ordinal {
        self.table.last_ordinal().map_or(ORDINAL_STEP, |last| (last / ORDINAL_STEP + 1).saturating_mul(ORDINAL_STEP))
    }

    /// Positions of entries that must outlive a trim: purges that have not ended, and those that made the operations what they
    /// are. Operations that have ended are among them as long as they are remembered: one may have been open at the position of
    /// the cache.
    pub fn kept_entries(&self) -> Vec<Seq> {
        let mut keep: Vec<Seq> =
            self.ops.values().flat_map(|op| std::iter::once(op.staged).chain(op.log.iter().copied())).collect();
        keep.extend(self.purges.keys().copied());
        keep.sort_unstable();
        keep.dedup();
        keep
    }

    /// Goes on in another epoch of the log, at the same position.
    pub fn begin_epoch(&mut self, epoch: impl Into<Arc<str>>) {
        self.epoch = epoch.into();
    }

    /// Moves to `seq`, the end of the log that was read back, also where its newest entries are not there any more.
    pub fn advance(&mut self, seq: Seq) {
        self.fold_known();
        self.sequential = true;
        self.gap |= seq > self.seq;
        self.seq = self.seq.max(seq);
        self.clock = self.clock.max(seq);
    }

    /// Notes that confirmed rows may be missing, because the cache file was lost or is not what the log says: the first news
    /// of such a row are no contradiction to the operations over it. Where the log was trimmed, now or (`gap`) for an earlier
    /// process that lost them, the rows that it still has may be older than those that were lost.
    pub fn doubt_missing(&mut self, gap: bool) {
        self.gap |= gap;
        let inserts = |fold: &Fold| {
            let first = fold.ops.front().and_then(|op| self.ops.get(op));
            first.is_some_and(|op| matches!(op.effect, Effect::Insert(_)))
        };
        let missing = |fold: &Fold| match fold.base {
            None => !inserts(fold) && self.beneath(fold) != Some(NO_ROW),
            Some(_) => self.gap,
        };
        let lost = self.folds.iter().filter(|(_, fold)| missing(fold));
        self.lost = lost.map(|(id, _)| Arc::clone(id)).collect();
    }

    /// Whether `row`, now told, is the one that was lost with the cache file, and no news. What was not written down is taken
    /// for it: rather an old write is shown too long than a new one not at all.
    pub(super) fn finds(&self, id: &Id, row: Option<&Body>) -> bool {
        if !self.lost.contains(id) {
            // Mostly; what follows looks through all writes that wait for the row.
            return false;
        }
        let beneath = self.folds.get(id).and_then(|fold| self.beneath(fold));
        beneath.is_none_or(|beneath| beneath == row.map_or(NO_ROW, Body::hash))
    }

    /// Whether `row` is the confirmed row beneath operations as it is known.
    pub(super) fn lies_beneath(&self, id: &Id, row: Option<&Body>) -> bool {
        let known = |fold: &Fold| fold.base.as_ref().map(|base| &base.body) == row;
        !self.lost.contains(id) && self.folds.get(id).is_some_and(known)
    }

    /// Hash of the confirmed row when the newest routed operation over it was taken by the route.
    fn beneath(&self, fold: &Fold) -> Option<u128> {
        fold.ops.iter().rev().find_map(|op| self.ops.get(op)?.beneath)
    }

    /// Whether operations lie over rows that are missing: see [`State::doubt_missing`].
    pub fn lacks_rows(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether the row beneath the operations on `id` is missing.
    pub(super) fn is_lost(&self, id: &str) -> bool {
        self.lost.contains(id)
    }

    /// Whether the log lacked entries or the rows of some when it was read.
    pub fn has_gap(&self) -> bool {
        self.gap
    }

    // --- folding -------------------------------------------------------------------------------------------------------

    /// `base` with `ops` laid over it.
    pub(super) fn folded<'o>(
        &self,
        id: &str,
        base: Option<&Body>,
        ops: impl IntoIterator<Item = &'o OpId>,
    ) -> Option<Body> {
        let layout = self.rules.schema.layout();
        ops.into_iter()
            .filter_map(|op| self.ops.get(op))
            .fold(base.cloned(), |row, op| op.effect.on(row.as_ref(), id, layout))
    }

    /// The row as the open operation `op` leaves it: the confirmed row with every write up to this one laid over.
    pub fn row_after(&self, op: OpId) -> Option<Body> {
        let [id] = &*self.ops.get(&op)?.targets else { return None };
        let fold = self.folds.get(id)?;
        let upto = fold.ops.iter().position(|other| *other == op)? + 1;
        self.folded(id, fold.base.as_ref().map(|base| &base.body), fold.ops.iter().take(upto))
    }

    /// The row as the open operation `op` finds it: the confirmed row with every write before this one laid over.
    pub fn row_before(&self, op: OpId) -> Option<Body> {
        let [id] = &*self.ops.get(&op)?.targets else { return None };
        let fold = self.folds.get(id)?;
        let before = fold.ops.iter().take_while(|other| **other != op);
        self.folded(id, fold.base.as_ref().map(|base| &base.body), before)
    }

    // --- changing ------------------------------------------------------------------------------------------------------

    /// Does what `entry` says. Entries come in order; one that is known already only has its effect on operations looked at,
    /// so that a log may be read from before the position of the cache. Readers see what such entries did once a later one is
    /// applied, or after [`State::advance`].
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        let mut applied = Applied::default();
        if !entry.purge.is_empty() {
            self.purges.insert(entry.seq, Arc::clone(&entry.purge));
        }
        if entry.seq <= self.seq {
            self.apply_known(entry);
            return applied;
        }
        self.fold_known();
        if entry.seq > self.seq + 1 {
            self.gap = true;
            self.sequential = false;
        }
        self.seq = entry.seq;
        self.clock += 1;
        let Some(id) = &entry.id else {
            if let Base::Many { rows, carried } = &entry.base {
                applied.cache = CacheChange::Many(self.apply_many(rows, carried, entry));
            }
            return applied;
        };
        let beneath = self.folds.contains_key(id);
        let old = self.table.get(id);
        let place = old.map(|row| row.ordinal());
        applied.old = old.map(|row| row.body());
        applied.cache = self.apply_base(id, &entry.base, entry);
        self.apply_op(id, entry);
        self.apply_visible(id, entry, beneath);
        if self.table.get(id).map(|row| row.ordinal()) != place {
            self.rows_seq = entry.seq;
        }
        applied
    }

    /// An entry from before the position of the cache: its operation is laid over the rows, or taken off them.
    fn apply_known(&mut self, entry: &Entry) {
        let Some(id) = &entry.id else { return };
        let unfolded = self.unfolded.get_or_insert_default();
        match entry.visible {
            Visible::Row { ordinal, .. } | Visible::Staged(ordinal) => {
                unfolded.insert(Arc::clone(id), Some(ordinal));
            }
            Visible::Gone => drop(unfolded.insert(Arc::clone(id), None)),
            Visible::Same | Visible::Base => {}
        }
        if entry.base.changes() && !entry.found {
            self.rebase(id, entry.seq);
        }
        if !self.versions_kept {
            self.note_versions(id, &entry.base, entry);
        }
        self.apply_op(id, entry);
        self.refold(id, None);
        if let OpChange::Stage(op) = &entry.op {
            op.targets.iter().for_each(|other| self.refold(other, None));
        }
    }

    /// Folds the rows that entries from before the position of the cache were about.
    fn fold_known(&mut self) {
        for (id, place) in self.unfolded.take().unwrap_or_default() {
            self.refold(&id, place);
        }
    }

    /// Keeps a book that is not journaled.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Open => {
                self.clock = self.next_mark();
                self.open_guard();
            }
            Note::OpenFor(id) => {
                self.clock += 1;
                self.open_guard();
                self.narrow.insert(self.clock, Arc::clone(id));
                *self.narrow_of.entry(Arc::clone(id)).or_insert(0) += 1;
            }
            Note::Close(mark) => self.close_guard(*mark),
            Note::Dirty(id) => {
                self.clock += 1;
                self.dirty.insert(Arc::clone(id), self.clock);
                self.sort_doubt(id);
            }
            Note::Clean(id) => {
                self.dirty.remove(id);
                self.rereadable.remove(id);
                self.lost.remove(id);
            }
            Note::Touch(id) => {
                self.clock += 1;
                self.touch(id, false);
            }
            Note::Attach(built) => {
                self.table.attach(built.index().clone(), built.from());
            }
            Note::Detach(spec) => self.table.detach(spec),
            Note::Forget(ids) => self.forget_values(ids),
            Note::Purged(seq) => drop(self.purges.remove(seq)),
        }
    }

    fn open_guard(&mut self) {
        *self.guards.entry(self.clock).or_insert(0) += 1;
        self.open_guards += 1;
    }

    fn close_guard(&mut self, mark: u64) {
        let Some(count) = self.guards.get_mut(&mark) else { return };
        *count -= 1;
        let last = *count == 0;
        self.open_guards = self.open_guards.saturating_sub(1);
        if let Some(id) = self.narrow.remove(&mark) {
            match self.narrow_of.get_mut(&id) {
                Some(open) if *open > 1 => *open -= 1,
                _ => drop(self.narrow_of.remove(&id)),
            }
        }
        if !last {
            return;
        }
        let was_oldest = self.guards.get_min().is_some_and(|(oldest, _)| *oldest == mark);
        self.guards.remove(&mark);
        match self.guards.get_min().map(|(oldest, _)| *oldest) {
            None => self.touched = HashMap::new(),
            // Only the oldest guard holds on to what was touched before the next one began.
            Some(oldest) if was_oldest => self.touched.retain(|_, touched| touched.at > oldest),
            Some(_) => {}
        }
    }

    /// Keeps [`State::rereadable`] up to date after a change of the row's doubt or of its queue.
    fn sort_doubt(&mut self, id: &Id) {
        if self.dirty.contains_key(id) && !self.has_queued(id) {
            self.rereadable.insert(Arc::clone(id));
        } else {
            self.rereadable.remove(id);
        }
    }

    pub(super) fn touch(&mut self, id: &Id, row: bool) {
        if self.guards.is_empty() {
            return;
        }
        let touched = self.touched.entry(Arc::clone(id)).or_default();
        touched.at = self.clock;
        if row {
            touched.row = self.clock;
        }
    }

    /// Whether the row changed after `mark`, or may have.
    pub(super) fn touched_after(&self, id: &str, mark: u64) -> bool {
        self.touched.get(id).is_some_and(|touched| touched.at > mark)
    }

    /// How many confirmed rows there are that changed after `mark`, while a reading that began there is under way.
    pub(super) fn confirmed_since(&self, mark: u64) -> usize {
        let changed = self.touched.iter().filter(|(_, touched)| touched.row > mark);
        changed.filter(|(id, _)| self.base(id).is_some()).count()
    }

    /// Whether the confirmed row changed after `mark`.
    pub(super) fn changed_after(&self, id: &str, mark: u64) -> bool {
        self.touched.get(id).is_some_and(|touched| touched.row > mark)
    }

    /// Whether a read that began at `mark` settles what was in doubt about the row.
    pub(super) fn settled_by(&self, id: &str, mark: u64) -> bool {
        self.dirty.get(id).is_none_or(|since| *since <= mark)
    }

    fn apply_base(&mut self, id: &Id, base: &Base, entry: &Entry) -> CacheChange {
        let mut versions = self.note_versions(id, base, entry);
        if base.changes() {
            self.touch(id, true);
            self.lost.remove(id);
            if !entry.found {
                self.rebase(id, entry.seq);
            }
        }
        let row = match base {
            Base::Keep | Base::Many { .. } => CacheChange::None,
            Base::Set { body, ordinal } => {
                let row = self.set_base(id, body.clone(), *ordinal);
                CacheChange::Upsert(Arc::clone(id), row)
            }
            Base::Gone => {
                let old = self.base(id);
                match self.folds.get_mut(id) {
                    Some(fold) => fold.base = None,
                    None => drop(self.table.remove(id)),
                }
                old.map_or(CacheChange::None, |old| CacheChange::Delete(Id::clone(id), old.slot))
            }
        };
        if versions.is_empty() {
            return row;
        }
        versions.push(row);
        CacheChange::Many(versions)
    }

    /// The confirmed row beneath routed operations has changed.
    fn rebase(&mut self, id: &Id, seq: Seq) {
        let Some(fold) = self.folds.get_mut(id) else { return };
        // Routed ones come first: a row's operations are delivered in their order.
        let is_routed = |op: &&OpId| self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed);
        let new = fold.ops.iter().take_while(is_routed).filter(|op| !fold.rebased.contains(op));
        let new: Vec<OpId> = new.copied().collect();
        for op in new {
            fold.rebased.push(op);
            if let Some(record) = self.ops.get_mut(&op) {
                record.log.push(seq);
            }
        }
    }

    /// Stores a confirmed row: beneath its operations if it has any, else as what readers see.
    fn set_base(&mut self, id: &Id, body: Body, ordinal: Ordinal) -> BaseRow {
        let known = self.folds.get(id).and_then(|fold| fold.base.as_ref().map(|row| row.slot));
        let slot = known.or_else(|| self.table.slot_of(id)).unwrap_or_else(|| self.table.reserve(1));
        let row = BaseRow { body, ordinal, slot };
        match self.folds.get_mut(id) {
            Some(fold) => fold.base = Some(row.clone()),
            None => self.table.put(slot, id, &row.body, ordinal),
        }
        row
    }

    fn apply_many(&mut self, many: &Many, carried: &[BulkRow], entry: &Entry) -> Vec<CacheChange> {
        self.rows_seq = entry.seq;
        match many {
            Many::Unknown if !carried.is_empty() => self.apply_bulk_rows(carried, entry),
            Many::Unknown => {
                self.gap = true;
                Vec::new()
            }
            Many::Table(table) => {
                let folds = self.folds.clone();
                let place = |id: &Id| self.table.get(id).map(|row| (Arc::clone(id), row.ordinal()));
                let places: std::collections::HashMap<Id, Ordinal> = folds.keys().filter_map(place).collect();
                self.table = table.clone();
                for id in folds.keys() {
                    let base = self.table.get(id).map(|row| BaseRow {
                        body: row.body(),
                        ordinal: row.ordinal(),
                        slot: row.slot(),
                    });
                    if let Some(fold) = self.folds.get_mut(id) {
                        fold.base = base;
                    }
                    self.touch(id, true);
                    self.refold(id, places.get(id).copied());
                }
                Vec::new()
            }
            Many::Rows(rows) => self.apply_bulk_rows(rows, entry),
        }
    }

    fn apply_bulk_rows(&mut self, rows: &[BulkRow], entry: &Entry) -> Vec<CacheChange> {
        // Indexes follow all of them at once.
        let held = self.table.hold_indexes();
        let changes = rows.iter().map(|row| self.apply_bulk_row(row, entry)).collect();
        self.table.release_indexes(&held);
        changes
    }

    fn apply_bulk_row(&mut self, row: &BulkRow, entry: &Entry) -> CacheChange {
        let base = match &row.row {
            Some((body, ordinal)) => Base::Set { body: body.clone(), ordinal: *ordinal },
            None => Base::Gone,
        };
        let change = self.apply_base(&row.id, &base, entry);
        self.refold(&row.id, None);
        change
    }

    fn apply_op(&mut self, id: &Id, entry: &Entry) {
        match &entry.op {
            // The entry that stages an operation is the one that a trim keeps: it lays the operation over all its rows.
            OpChange::None | OpChange::Join => {}
            OpChange::Stage(op) => self.stage(op, entry),
            OpChange::Settle { state, error, beneath } => self.settle(entry, *state, error.as_ref(), *beneath),
            OpChange::Merge { older, effect } => self.merge(entry, *older, effect),
            OpChange::Absorb(ops) => ops.iter().for_each(|op| self.absorb(id, *op, entry)),
        }
    }

    fn stage(&mut self, op: &Op, entry: &Entry) {
        if self.ops.contains_key(&op.id) {
            return;
        }
        let mut op = op.clone();
        op.staged = entry.seq;
        op.state = OpState::Queued;
        op.updated = entry.at;
        op.over = op.targets.len();
        self.queued_bytes += op.size();
        self.queue.insert(entry.seq, op.id);
        for id in op.targets.iter() {
            let base = self.base(id);
            self.folds.entry(Arc::clone(id)).or_insert_with(|| Fold { base, ..Fold::default() }).ops.push_back(op.id);
            self.rereadable.remove(id);
        }
        self.ops.insert(op.id, op);
    }

    /// The master has spoken of one row of an operation; the operation has ended when it has of all.
    fn absorb(&mut self, id: &Id, op: OpId, entry: &Entry) {
        let lies_over = self.folds.get(id).is_some_and(|fold| fold.ops.contains(&op));
        let Some(record) = self.ops.get_mut(&op).filter(|_| lies_over) else { return };
        if record.over <= 1 {
            return self.end(op, OpState::Applied, None, entry);
        }
        record.over -= 1;
        record.log.push(entry.seq);
        self.lift_off(id, op, entry);
    }

    fn settle(&mut self, entry: &Entry, state: OpState, error: Option<&OpError>, beneath: Option<u128>) {
        let Some(op) = entry.cause.op else { return };
        if state == OpState::Routed {
            let clock = self.clock;
            if let Some(op) = self.ops.get_mut(&op).filter(|op| op.state == OpState::Queued) {
                op.state = OpState::Routed;
                op.delivered = clock;
                op.beneath = beneath;
                op.updated = entry.at;
                op.log.push(entry.seq);
                self.queue.remove(&op.staged);
                self.queued_bytes = self.queued_bytes.saturating_sub(op.size());
                let targets = Arc::clone(&op.targets);
                targets.iter().for_each(|id| self.sort_doubt(id));
            }
            return;
        }
        self.end(op, state, error.cloned(), entry);
    }

    /// Of two routed operations the newer one does from now on what both did.
    fn merge(&mut self, entry: &Entry, older: OpId, effect: &Effect) {
        let Some(newer) = entry.cause.op.and_then(|op| self.ops.get_mut(&op)) else { return };
        if newer.state == OpState::Routed {
            newer.effect = effect.clone();
            newer.log.push(entry.seq);
            self.end(older, OpState::Applied, None, entry);
        }
    }

    /// Takes an operation off its rows and remembers how it ended.
    fn end(&mut self, op: OpId, state: OpState, error: Option<OpError>, entry: &Entry) {
        let standing = |op: &&mut Op| op.is_open() || op.state == OpState::Parked;
        let Some(record) = self.ops.get_mut(&op).filter(standing) else { return };
        let was = std::mem::replace(&mut record.state, state);
        record.error = error.or_else(|| record.error.take());
        record.updated = entry.at;
        record.over = 0;
        record.log.push(entry.seq);
        let (staged, size, targets) = (record.staged, record.size(), Arc::clone(&record.targets));
        if was == OpState::Queued {
            self.queue.remove(&staged);
            self.queued_bytes = self.queued_bytes.saturating_sub(size);
        }
        if was == OpState::Parked {
            self.parked = (self.parked.0.saturating_sub(1), self.parked.1.saturating_sub(size));
        }
        if state == OpState::Parked {
            self.parked = (self.parked.0 + 1, self.parked.1 + size);
        }
        for id in targets.iter() {
            self.lift_off(id, op, entry);
        }
        self.remember(op, state, entry);
    }

    fn lift_off(&mut self, id: &Id, op: OpId, entry: &Entry) {
        let Some(fold) = self.folds.get_mut(id) else { return };
        // Mostly the first; the list may be long.
        match fold.ops.front() {
            Some(first) if *first == op => drop(fold.ops.pop_front()),
            _ => fold.ops.retain(|other| *other != op),
        }
        fold.rebased.retain(|other| *other != op);
        if fold.ops.is_empty() {
            self.unfold(id);
        } else if !self.sequential || entry.id.as_ref() != Some(id) {
            self.refold(id, None);
        }
        // Else the entry itself says what readers see: laying many writes over the row again would cost as much as there are.
        self.sort_doubt(id);
    }

    /// Nothing lies over the row any more: readers see what is confirmed.
    fn unfold(&mut self, id: &Id) {
        let Some(fold) = self.folds.remove(id) else { return };
        match fold.base {
            Some(base) => {
                let same = self.table.get(id).is_some_and(|row| {
                    row.ordinal() == base.ordinal && row.slot() == base.slot && same_body(&row, &base.body)
                });
                if !same {
                    self.table.put(base.slot, id, &base.body, base.ordinal);
                }
            }
            None => drop(self.table.remove(id)),
        }
    }

    /// Parked operations stay until a person acts; of the others only the newest are remembered.
    fn remember(&mut self, op: OpId, state: OpState, entry: &Entry) {
        if state == OpState::Parked {
            return;
        }
        self.ended.insert((entry.seq, op), ());
        while let Some(oldest) = self.ended.get_min().map(|(key, ())| *key) {
            let old = self.ops.get(&oldest.1).is_none_or(|op| op.updated + REMEMBERED < entry.at);
            if !old && self.ended.len() <= self.rules.keep_finished {
                return;
            }
            self.ended.remove(&oldest);
            self.ops.remove(&oldest.1);
        }
    }

    /// Shows what the entry says. `beneath`: whether operations lay over the row before it.
    fn apply_visible(&mut self, id: &Id, entry: &Entry, beneath: bool) {
        let row = match &entry.visible {
            Visible::Same => {
                if entry.base.changes() && !beneath {
                    self.rows_seq = entry.seq;
                }
                self.follow(id);
                return;
            }
            Visible::Gone => None,
            Visible::Row { ordinal, .. } | Visible::Staged(ordinal) => {
                entry.visible_body().map(|body| (body.clone(), *ordinal))
            }
            Visible::Base if !self.folds.contains_key(id) => {
                // Storing the confirmed row has shown it already.
                self.rows_seq = entry.seq;
                return;
            }
            Visible::Base => self.base(id).map(|base| (base.body, base.ordinal)),
        };
        self.rows_seq = entry.seq;
        self.show(id, row);
    }

    /// Makes `row` what readers see, under the slot of the confirmed row if there is one.
    fn show(&mut self, id: &Id, row: Option<(Body, Ordinal)>) {
        match row {
            None => drop(self.table.remove(id)),
            Some((body, ordinal)) => {
                let confirmed = self.folds.get(id).and_then(|fold| fold.base.as_ref().map(|base| base.slot));
                match confirmed.or_else(|| self.table.slot_of(id)) {
                    Some(slot) => self.table.put(slot, id, &body, ordinal),
                    None => drop(self.table.upsert(id, &body, Some(ordinal))),
                }
            }
        }
    }

    /// Moves a row with operations over it to the place of its confirmed row.
    fn follow(&mut self, id: &Id) {
        if let Some(base) = self.folds.get(id).and_then(|fold| fold.base.as_ref()) {
            let place = base.ordinal;
            self.table.set_ordinal(id, place);
        }
    }

    /// Recomputes what readers see of a row from its confirmed row and its operations. A row that the master does not have yet
    /// stays where it is, or comes to `place`, or to the end.
    fn refold(&mut self, id: &Id, place: Option<Ordinal>) {
        if let Some(unfolded) = &mut self.unfolded {
            unfolded.entry(Arc::clone(id)).or_insert(place);
            return;
        }
        let Some(fold) = self.folds.get(id).cloned() else { return };
        let body = self.folded(id, fold.base.as_ref().map(|base| &base.body), &fold.ops);
        let confirmed = fold.base.as_ref().map(|base| base.ordinal);
        let ordinal = confirmed
            .or_else(|| self.table.get(id).map(|row| row.ordinal()))
            .or(place)
            .unwrap_or_else(|| self.next_ordinal());
        let same = match (&body, self.table.get(id)) {
            (Some(body), Some(row)) => row.ordinal() == ordinal && same_body(&row, body),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.show(id, body.map(|body| (body, ordinal)));
        }
    }
}

/// Whether a visible row has exactly these bytes.
pub(super) fn same_body(row: &RowRef<'_>, body: &Body) -> bool {
    row.json() == &body.json()[..] && row.cbor() == body.cbor()
}

impl Effect {
    /// The columns that this effect sets, `None` for all of the row.
    pub(super) fn columns(&self) -> Option<Vec<String>> {
        match self {
            Effect::Patch(body) => body.decode().ok().map(|patch| patch.columns().map(str::to_string).collect()),
            _ => None,
        }
    }
}
