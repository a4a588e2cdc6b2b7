//! Read access to a State: rows, operations, and rows with operations applied.

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

    /// True if no operation waits or is shown instead of a confirmed row, and no row has to be read again.
    pub fn is_settled(&self) -> bool {
        self.folds.is_empty() && self.queue.is_empty() && self.dirty.is_empty() && self.lost.is_empty()
    }

    /// The log's epoch.
    pub fn epoch(&self) -> &Arc<str> {
        &self.epoch
    }

    /// Visible rows.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Shape of the rows and rules for their reconciliation.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns a visible row.
    pub fn get(&self, id: &str) -> Option<RowRef<'_>> {
        self.table.get(id)
    }

    /// Returns the row as the master last confirmed it.
    pub fn base(&self, id: &str) -> Option<BaseRow> {
        match self.folds.get(id) {
            Some(fold) => fold.base.clone(),
            None => {
                self.table.get(id).map(|row| BaseRow { body: row.body(), ordinal: row.ordinal(), slot: row.slot() })
            }
        }
    }

    /// Returns the ordinal of a confirmed row.
    pub fn base_ordinal(&self, id: &str) -> Option<Ordinal> {
        match self.folds.get(id) {
            Some(fold) => fold.base.as_ref().map(|base| base.ordinal),
            None => self.table.get(id).map(|row| row.ordinal()),
        }
    }

    /// Returns the open operations of a row, if there are any.
    pub fn fold(&self, id: &str) -> Option<&Fold> {
        self.folds.get(id)
    }

    /// Returns true if a row should be read again.
    pub fn is_dirty(&self, id: &str) -> bool {
        self.dirty.contains_key(id)
    }

    /// Iterates over the rows with open operations.
    pub fn folds(&self) -> impl Iterator<Item = (&Id, &Fold)> {
        self.folds.iter()
    }

    /// Returns an operation that is open, parked or recently finished.
    pub fn op(&self, id: OpId) -> Option<&Op> {
        self.ops.get(&id)
    }

    /// Iterates over all of these operations, oldest first.
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

    /// Returns the oldest operation that waits for delivery to row `id`.
    pub fn first_queued(&self, id: &str) -> Option<&Op> {
        let ops = self.folds.get(id)?.ops.iter();
        ops.filter_map(|op| self.ops.get(op)).find(|op| op.state == OpState::Queued)
    }

    /// Returns the number of waiting operations and their size in bytes.
    pub fn backlog(&self) -> (usize, usize) {
        (self.queue.len(), self.queued_bytes)
    }

    /// Returns the number of parked operations and their size in bytes.
    pub fn parked(&self) -> (usize, usize) {
        self.parked
    }

    /// Returns true if `op` is the oldest waiting operation of each of its rows, so that it may be delivered.
    pub fn is_next(&self, op: &Op) -> bool {
        op.targets.iter().all(|id| self.first_queued(id).is_some_and(|first| first.id == op.id))
    }

    /// Ids of the rows that should be read again.
    pub fn dirty(&self) -> impl Iterator<Item = &Id> {
        self.dirty.keys()
    }

    /// Returns the number of rows that should be read again.
    pub fn dirty_count(&self) -> usize {
        self.dirty.len()
    }

    /// Ids of the dirty rows without a waiting write.
    pub fn rereadable(&self) -> impl Iterator<Item = &Id> {
        self.rereadable.iter()
    }

    /// Returns true if `id` has operations that wait for delivery.
    pub fn has_queued(&self, id: &str) -> bool {
        self.first_queued(id).is_some()
    }

    /// Returns true if a read of the master or a delivery is in progress.
    pub fn in_motion(&self) -> bool {
        !self.guards.is_empty()
    }

    /// Returns the ordinal after all others.
    pub fn next_ordinal(&self) -> Ordinal {
        self.table.last_ordinal().map_or(ORDINAL_STEP, |last| (last / ORDINAL_STEP + 1).saturating_mul(ORDINAL_STEP))
    }

    /// Returns the positions of entries that must survive a trim: unfinished purges, and the entries that determine the state
    /// of operations. Finished operations are included as long as they are remembered, because one may have been open at the
    /// position of the cache.
    pub fn kept_entries(&self) -> Vec<Seq> {
        let mut keep: Vec<Seq> =
            self.ops.values().flat_map(|op| std::iter::once(op.staged).chain(op.log.iter().copied())).collect();
        keep.extend(self.purges.keys().copied());
        keep.sort_unstable();
        keep.dedup();
        keep
    }

    /// Returns true if the reported `row` is the row lost with the cache file, and so not a change. If no hash was recorded,
    /// the row counts as the lost one: showing an old write too long is better than not showing a new one.
    pub(super) fn is_lost_row(&self, id: &Id, row: Option<&Body>) -> bool {
        if !self.lost.contains(id) {
            // The common case. The code below searches all operations of the row.
            return false;
        }
        let beneath = self.folds.get(id).and_then(|fold| self.beneath(fold));
        beneath.is_none_or(|beneath| beneath == row.map_or(NO_ROW, Body::hash))
    }

    /// Returns true if `row` equals the known confirmed row of a row with open operations.
    pub(super) fn equals_base(&self, id: &Id, row: Option<&Body>) -> bool {
        let known = |fold: &Fold| fold.base.as_ref().map(|base| &base.body) == row;
        !self.lost.contains(id) && self.folds.get(id).is_some_and(known)
    }

    /// Hash of the confirmed row when the route accepted the row's newest routed operation.
    pub(super) fn beneath(&self, fold: &Fold) -> Option<u128> {
        fold.ops.iter().rev().find_map(|op| self.ops.get(op)?.beneath)
    }

    /// Returns true if rows with open operations are missing: see [`State::doubt_missing`].
    pub fn lacks_rows(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Returns true if the confirmed row of `id` is missing.
    pub(super) fn is_lost(&self, id: &str) -> bool {
        self.lost.contains(id)
    }

    /// Returns true if the log lacked entries, or rows of entries, when it was read.
    pub fn has_gap(&self) -> bool {
        self.gap
    }

    /// Applies `ops` to `base`.
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

    /// Returns the row after the open operation `op`: the confirmed row with all writes up to this one applied.
    pub fn row_after(&self, op: OpId) -> Option<Body> {
        let [id] = &*self.ops.get(&op)?.targets else { return None };
        let fold = self.folds.get(id)?;
        let upto = fold.ops.iter().position(|other| *other == op)? + 1;
        self.folded(id, fold.base.as_ref().map(|base| &base.body), fold.ops.iter().take(upto))
    }

    /// Returns the row before the open operation `op`: the confirmed row with all earlier writes applied.
    pub fn row_before(&self, op: OpId) -> Option<Body> {
        let [id] = &*self.ops.get(&op)?.targets else { return None };
        let fold = self.folds.get(id)?;
        let before = fold.ops.iter().take_while(|other| **other != op);
        self.folded(id, fold.base.as_ref().map(|base| &base.body), before)
    }
}
