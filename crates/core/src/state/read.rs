//! Reading a State: rows, operations, what lies over what.

use std::sync::Arc;

use super::data::{BaseRow, Fold, NO_ROW, Rules, State};
use super::op::{Op, OpId, OpState};
use crate::record::{Body, Id, Seq};
use crate::table::{ORDINAL_STEP, Ordinal, RowRef, Table};

impl State {
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
    pub(super) fn beneath(&self, fold: &Fold) -> Option<u128> {
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
}
