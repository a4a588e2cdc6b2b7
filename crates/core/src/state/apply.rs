//! Application of entries, which alone changes rows and operations.

use std::sync::Arc;

use super::data::{Applied, BaseRow, CacheChange, Fold, NO_ROW, State};
use super::entry::{Base, BulkRow, BulkRows, Entry, OpChange, VisibleChange};
use super::op::{Effect, Op, OpError, OpId, OpState};
use crate::record::{Body, Id, Seq};
use crate::table::{Ordinal, RowRef};

impl State {
    /// Continues in another epoch of the log, at the same position.
    pub fn begin_epoch(&mut self, epoch: impl Into<Arc<str>>) {
        self.epoch = epoch.into();
    }

    /// Advances to `seq`, the end of the log that was read, even if its newest entries are missing.
    pub fn advance(&mut self, seq: Seq) {
        self.fold_known();
        self.sequential = true;
        self.gap |= seq > self.seq;
        self.seq = self.seq.max(seq);
        self.clock = self.clock.max(seq);
        // An earlier process may have delivered what waits.
        for op in self.queue.values() {
            if let Some(op) = self.ops.get_mut(op) {
                op.tried = true;
            }
        }
    }

    /// Records that confirmed rows may be missing, because the cache file was lost or differs from the log. The first report
    /// of such a row then does not contradict its operations. If the log was trimmed, now or (`gap`) for an earlier process
    /// that lost rows, the remaining rows may be older than the lost ones.
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

    /// Applies `entry`. Entries come in order. For an already known entry, only its effect on operations counts, so that a log
    /// may be read from before the position of the cache. Readers see the effects of such entries once a later one is applied,
    /// or after [`State::advance`].
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        let mut applied = Applied::default();
        if !entry.purge.is_empty() {
            self.purges.insert(entry.seq, Arc::clone(&entry.purge));
        }
        self.note_told(entry);
        if entry.seq <= self.seq {
            self.note_known_change(entry);
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
        (applied.old, applied.slot) = (old.map(|row| row.body()), old.map(|row| row.slot()));
        applied.cache = self.apply_base(id, &entry.base, entry);
        self.apply_op(id, entry);
        self.apply_visible(id, entry, beneath);
        self.note_change(id, entry, applied.old.as_ref());
        let now = self.table.get(id);
        applied.slot = applied.slot.or(now.map(|row| row.slot()));
        if now.map(|row| row.ordinal()) != place {
            self.rows_seq = entry.seq;
        }
        applied
    }

    /// Applies an entry from before the position of the cache: only its operation is applied to the rows or removed from them.
    fn apply_known(&mut self, entry: &Entry) {
        let Some(id) = &entry.id else { return };
        let unfolded = self.unfolded.get_or_insert_default();
        match entry.visible {
            VisibleChange::Row { ordinal, .. } | VisibleChange::Staged(ordinal) => {
                unfolded.insert(Arc::clone(id), Some(ordinal));
            }
            VisibleChange::Gone => drop(unfolded.insert(Arc::clone(id), None)),
            VisibleChange::Same | VisibleChange::Base => {}
        }
        if entry.base.changes() && !entry.found {
            self.rebase(id, entry);
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

    /// Folds the rows of entries from before the position of the cache.
    fn fold_known(&mut self) {
        for (id, place) in self.unfolded.take().unwrap_or_default() {
            self.refold(&id, place);
        }
    }

    fn apply_base(&mut self, id: &Id, base: &Base, entry: &Entry) -> CacheChange {
        let mut versions = self.note_versions(id, base, entry);
        if base.changes() {
            self.touch(id, true);
            self.lost.remove(id);
            if !entry.found {
                self.rebase(id, entry);
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

    /// Records that the confirmed row beneath routed operations, and one that is being delivered, has changed.
    fn rebase(&mut self, id: &Id, entry: &Entry) {
        let Some(fold) = self.folds.get_mut(id) else { return };
        // Routed operations come first, because a row's operations are delivered in order.
        let is_routed = |op: &&OpId| self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed);
        let delivered = fold.ops.iter().take_while(is_routed).count() + usize::from(entry.tried);
        let new = fold.ops.iter().take(delivered).filter(|op| !fold.rebased.contains(op));
        let new: Vec<OpId> = new.copied().collect();
        for op in new {
            fold.rebased.push(op);
            if let Some(record) = self.ops.get_mut(&op) {
                record.log.push(entry.seq);
            }
        }
    }

    /// Stores a confirmed row: beneath its operations if it has any, otherwise as the visible row.
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

    fn apply_many(&mut self, many: &BulkRows, carried: &[BulkRow], entry: &Entry) -> Vec<CacheChange> {
        self.rows_seq = entry.seq;
        match many {
            BulkRows::Unknown if !carried.is_empty() => self.apply_bulk_rows(carried, entry),
            BulkRows::Unknown => {
                self.gap = true;
                Vec::new()
            }
            BulkRows::Table(table) => {
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
            BulkRows::Rows(rows) => self.apply_bulk_rows(rows, entry),
        }
    }

    fn apply_bulk_rows(&mut self, rows: &[BulkRow], entry: &Entry) -> Vec<CacheChange> {
        // Update the indexes once for all rows.
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
            // A trim keeps the entry that stages an operation, which applies the operation to all its rows.
            OpChange::None | OpChange::Join => {}
            OpChange::Stage(op) => self.stage(op, entry),
            OpChange::Settle { state: OpState::Routed, beneath, .. } => self.route(entry, *beneath),
            OpChange::Settle { state, error, .. } => {
                if let Some(op) = entry.cause.op {
                    self.end(op, *state, error.clone(), entry);
                }
            }
            OpChange::Merge { older, effect } => self.merge(entry, *older, effect),
            OpChange::Absorb(ops) => ops.iter().for_each(|op| self.absorb(id, *op, entry)),
        }
    }

    fn stage(&mut self, op: &Op, entry: &Entry) {
        if self.ops.contains_key(&op.id) {
            return;
        }
        let mut op = op.clone();
        op.principal.clone_from(&entry.cause.principal);
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

    /// Ends an operation for one row that the master has confirmed. The operation has ended after all its rows. One that still
    /// waits for the answer of its route ends with it.
    fn absorb(&mut self, id: &Id, op: OpId, entry: &Entry) {
        let Some(fold) = self.folds.get_mut(id).filter(|fold| fold.ops.contains(&op)) else { return };
        let Some(record) = self.ops.get_mut(&op) else { return };
        if record.state == OpState::Queued {
            fold.seen.push(op);
            record.log.push(entry.seq);
            return;
        }
        if record.over <= 1 {
            return self.end(op, OpState::Applied, None, entry);
        }
        record.over -= 1;
        record.log.push(entry.seq);
        self.remove_from_fold(id, op, entry);
    }

    /// Marks the operation of the entry as routed.
    fn route(&mut self, entry: &Entry, beneath: Option<u128>) {
        let clock = self.clock;
        let op = entry.cause.op.and_then(|op| self.ops.get_mut(&op));
        let Some(op) = op.filter(|op| op.state == OpState::Queued) else { return };
        op.state = OpState::Routed;
        op.delivered = clock;
        op.beneath = beneath;
        op.updated = entry.at;
        op.log.push(entry.seq);
        self.queue.remove(&op.staged);
        self.queued_bytes = self.queued_bytes.saturating_sub(op.size());
        let targets = Arc::clone(&op.targets);
        targets.iter().for_each(|id| self.update_rereadable(id));
    }

    /// Merges two routed operations: the newer one gets the combined effect.
    fn merge(&mut self, entry: &Entry, older: OpId, effect: &Effect) {
        let Some(newer) = entry.cause.op.and_then(|op| self.ops.get_mut(&op)) else { return };
        if newer.state == OpState::Routed {
            newer.effect = effect.clone();
            newer.log.push(entry.seq);
            self.end(older, OpState::Applied, None, entry);
        }
    }

    /// Ends an operation: removes it from its rows and remembers the result.
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
            self.remove_from_fold(id, op, entry);
        }
        self.remember(op, state, entry);
    }

    fn remove_from_fold(&mut self, id: &Id, op: OpId, entry: &Entry) {
        let Some(fold) = self.folds.get_mut(id) else { return };
        // Usually the first; the list may be long.
        match fold.ops.front() {
            Some(first) if *first == op => drop(fold.ops.pop_front()),
            _ => fold.ops.retain(|other| *other != op),
        }
        fold.rebased.retain(|other| *other != op);
        fold.seen.retain(|other| *other != op);
        if fold.ops.is_empty() {
            self.unfold(id);
        } else if !self.sequential || entry.id.as_ref() != Some(id) {
            self.refold(id, None);
        }
        // Otherwise the entry contains the visible row. Applying many writes again would cost as much as there are.
        self.update_rereadable(id);
    }

    /// Removes the fold of a row without open operations: the confirmed row becomes visible.
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

    /// Remembers a finished operation and drops the oldest ones. Parked operations stay until an operator acts.
    fn remember(&mut self, op: OpId, state: OpState, entry: &Entry) {
        if state == OpState::Parked {
            return;
        }
        self.ended.insert((entry.seq, op), ());
        while let Some(oldest) = self.ended.get_min().map(|(key, ())| *key) {
            let old = self.ops.get(&oldest.1).is_none_or(|op| op.updated + FINISHED_TTL < entry.at);
            if !old && self.ended.len() <= self.rules.keep_finished {
                return;
            }
            self.ended.remove(&oldest);
            self.ops.remove(&oldest.1);
        }
    }

    /// Applies the visible change of an entry. `beneath` is true if the row had open operations before it.
    fn apply_visible(&mut self, id: &Id, entry: &Entry, beneath: bool) {
        let row = match &entry.visible {
            VisibleChange::Same => {
                if entry.base.changes() && !beneath {
                    self.rows_seq = entry.seq;
                }
                self.follow(id);
                return;
            }
            VisibleChange::Gone => None,
            VisibleChange::Row { ordinal, .. } | VisibleChange::Staged(ordinal) => {
                entry.visible_body().map(|body| (body.clone(), *ordinal))
            }
            VisibleChange::Base if !self.folds.contains_key(id) => {
                // Storing the confirmed row has already shown it.
                self.rows_seq = entry.seq;
                return;
            }
            VisibleChange::Base => self.base(id).map(|base| (base.body, base.ordinal)),
        };
        self.rows_seq = entry.seq;
        self.show(id, row);
    }

    /// Makes `row` the visible row, in the slot of the confirmed row if there is one.
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

    /// Moves a row with open operations to the ordinal of its confirmed row.
    fn follow(&mut self, id: &Id) {
        if let Some(base) = self.folds.get(id).and_then(|fold| fold.base.as_ref()) {
            let place = base.ordinal;
            self.table.set_ordinal(id, place);
        }
    }

    /// Recomputes the visible row from its confirmed row and its operations. A row that the master does not have yet keeps its
    /// ordinal, or gets `place`, or comes last.
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

/// Returns true if a visible row has exactly these bytes.
pub(super) fn same_body(row: &RowRef<'_>, body: &Body) -> bool {
    row.json() == &body.json()[..] && row.cbor() == body.cbor()
}

/// Milliseconds for which finished operations are remembered.
const FINISHED_TTL: u64 = 24 * 3_600_000;
