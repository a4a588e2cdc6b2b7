//! Reconciliation of reported rows with known rows: rules that keep a confirmed row from going back to an older state.
//!
//! With a versioned master, the newest version wins. With an unversioned one, a read counts only for rows that nothing has
//! touched since it began and that have no waiting write. An upstream event is accepted at once only when no read, delivery or
//! write is in progress. In doubt the row is marked dirty and read again. Routed operations stay applied to the row until a
//! reported row confirms them. The report may come before the answer of the route: the operation then ends with the answer.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use super::command::{UpstreamChange, UpstreamEvent};
use super::data::{BaseRow, Note, State};
use super::decision::{DecisionBuilder, Outcome, frame_between};
use super::entry::{Base, COLUMN_CLOCK, Cause, Entry, OpChange, VisibleChange};
use super::op::{Effect, OpId, OpState};
use super::reported_row::{ReportSource, ReportedRow};
use super::row_versions::{EventVersion, OwnVersion};
use crate::record::{Body, CborValue, Id, Record, id_from_value};
use crate::table::Ordinal;

impl State {
    pub(super) fn decide_upstream(&self, draft: &mut DecisionBuilder<'_>, event: &UpstreamEvent) {
        let cause = Cause { origin: event.origin, delivery: event.delivery.clone(), ..Cause::default() };
        let row = match &event.change {
            UpstreamChange::Row(body) => Some(body.clone()),
            UpstreamChange::Gone => None,
            UpstreamChange::Cells(cells) => {
                match self.base(&event.id).and_then(|base| self.with_cells(&base.body, cells)) {
                    Some(row) => Some(row),
                    None => return self.defer_to_read(draft, (&event.id, event.version.as_ref()), &cause),
                }
            }
            UpstreamChange::Part(part) => match self.base(&event.id) {
                Some(base) => {
                    let effect = Effect::Patch(part.clone());
                    effect.on(Some(&base.body), &event.id, self.rules.schema.layout())
                }
                None => return self.defer_to_read(draft, (&event.id, event.version.as_ref()), &cause),
            },
            UpstreamChange::Thin => return self.defer_to_read(draft, (&event.id, event.version.as_ref()), &cause),
        };
        if event.in_order {
            return self.adopt_in_order(draft, &event.id, row.as_ref(), &cause);
        }
        let (sent, part) = match &event.change {
            UpstreamChange::Row(row) => (Some(row), false),
            UpstreamChange::Cells(_) => (row.as_ref(), false),
            UpstreamChange::Part(part) => (Some(part), true),
            UpstreamChange::Gone | UpstreamChange::Thin => (None, false),
        };
        let reported_row = ReportedRow {
            id: &event.id,
            row: row.as_ref(),
            ordinal: None,
            version: event.version.as_ref(),
            sent,
            part,
        };
        self.reconcile(draft, &reported_row, ReportSource::Push, &cause);
    }

    /// Adopts the row of an event from a feed that reports all changes of the master in their order: no read can know more.
    fn adopt_in_order(&self, draft: &mut DecisionBuilder<'_>, id: &Id, row: Option<&Body>, cause: &Cause) {
        self.adopt(draft, &ReportedRow::of(id, row), u64::MAX, cause);
        // A read that began before may have seen an older row.
        draft.note(Note::Touch(Arc::clone(id)));
    }

    /// Returns `row` with its cells replaced by `cells`; `None` if either cannot be decoded.
    fn with_cells(&self, row: &Body, cells: &Body) -> Option<Body> {
        let layout = self.rules.schema.layout();
        let mut record = row.decode().ok()?;
        for (column, value) in cells.decode().ok()? {
            record.insert(column, value);
        }
        let id = id_from_value(record.get(layout.id_column())?)?;
        Some(Body::encode(&id, &record, layout))
    }

    /// Returns true if everything in `event` is already known and nothing in progress can contradict it. An event that requires
    /// a read of the master is never known.
    pub fn is_already_known(&self, event: &UpstreamEvent) -> bool {
        let id = &event.id;
        let settled = self.active_guards(id) == 0 && !self.dirty.contains_key(id) && self.fold(id).is_none();
        let base = self.base(id);
        let base = base.as_ref().map(|base| &base.body);
        settled
            && event.version.as_ref().is_none_or(|version| self.has_noted(id, version))
            && match (&event.change, base) {
                (UpstreamChange::Row(row), Some(base)) => row == base,
                (UpstreamChange::Part(part), Some(base)) => {
                    let effect = Effect::Patch(part.clone());
                    effect.on(Some(base), id, self.rules.schema.layout()).as_ref() == Some(base)
                }
                (UpstreamChange::Cells(cells), Some(base)) => self.with_cells(base, cells).as_ref() == Some(base),
                (UpstreamChange::Gone, base) => base.is_none(),
                (UpstreamChange::Thin, _) | (_, None) => false,
            }
    }

    /// Defers to a read of the master. The version of the event is recorded, so that older versions from the sender count as
    /// stale.
    fn defer_to_read(
        &self,
        draft: &mut DecisionBuilder<'_>,
        (id, version): (&Id, Option<&EventVersion>),
        cause: &Cause,
    ) {
        if let Some(version) = version.filter(|version| *version.clock != *COLUMN_CLOCK && !self.has_noted(id, version))
        {
            draft.entry(Some(id), cause).versions.set(&version.clock, version.version.clone());
        }
        draft.note(Note::Touch(Arc::clone(id)));
        draft.note(Note::Dirty(Arc::clone(id)));
        draft.decision.outcome = Outcome::Deferred;
    }

    /// Reconciles `reported_row` and drafts the resulting entries.
    pub(super) fn reconcile(
        &self,
        draft: &mut DecisionBuilder<'_>,
        reported_row: &ReportedRow<'_>,
        source: ReportSource,
        cause: &Cause,
    ) {
        let versions = self.compare_versions(reported_row);
        match (versions, source) {
            (Some(Order::Less), _) | (Some(Order::Equal), ReportSource::Push) => {
                if let ReportSource::Read { mark } = source {
                    self.clean(draft, reported_row.id, mark);
                }
                if draft.decision.outcome == Outcome::Unchanged {
                    draft.decision.outcome = Outcome::Stale;
                }
            }
            (Some(Order::Greater), ReportSource::Read { mark }) => {
                self.clean(draft, reported_row.id, mark);
                self.adopt(draft, reported_row, mark, cause);
            }
            (Some(Order::Greater), ReportSource::Push) => {
                self.adopt(draft, reported_row, u64::MAX, cause);
                if reported_row.part {
                    // A missed change may have set other columns.
                    draft.note(Note::Dirty(Arc::clone(reported_row.id)));
                }
            }
            // This includes rows of equal version that differ: the known row was assembled from parts, or the version is
            // incomplete.
            (_, ReportSource::Read { mark }) => {
                if self.lost.contains(reported_row.id) && self.touched_or_queued(reported_row.id, mark) {
                    // The confirmed row is unknown: an old row until the next read is better than none.
                    draft.note(Note::Clean(Arc::clone(reported_row.id)));
                    self.adopt(draft, reported_row, mark, cause);
                    draft.note(Note::Dirty(Arc::clone(reported_row.id)));
                    return;
                }
                if self.touched_or_queued(reported_row.id, mark) {
                    draft.note(Note::Dirty(Arc::clone(reported_row.id)));
                    return;
                }
                self.clean(draft, reported_row.id, mark);
                let entries = draft.decision.entries.len();
                self.adopt(draft, reported_row, mark, cause);
                let others = self.active_guards(reported_row.id) > 1;
                if others && draft.decision.entries.len() == entries {
                    // Nothing changed, but a read that saw the row earlier than this one must not change it any more.
                    draft.note(Note::Touch(Arc::clone(reported_row.id)));
                }
                if draft.decision.entries.len() == entries {
                    self.expire(draft, reported_row.id, mark);
                }
            }
            (None, ReportSource::Push) => {
                let moving = self.has_queued(reported_row.id)
                    || self.active_guards(reported_row.id) > 0
                    || self.dirty.contains_key(reported_row.id);
                // The newest version counts, and nothing tells which of the two rows that is.
                let unordered = self.rules.version.is_some() && self.base(reported_row.id).is_some();
                if moving || unordered || !self.rules.trust_payload || self.needs_read(reported_row.id) {
                    self.defer_to_read(draft, (reported_row.id, reported_row.version), cause);
                    if self.base(reported_row.id).as_ref().map(|base| &base.body) == reported_row.row {
                        draft.decision.outcome = Outcome::Unchanged;
                    }
                    return;
                }
                self.adopt(draft, reported_row, u64::MAX, cause);
                // The event may be late, and older than the row that it replaced.
                draft.note(Note::Dirty(Arc::clone(reported_row.id)));
            }
        }
    }

    /// Returns true if a read that began at `mark` does not count for the row: it was touched since, or has a waiting write.
    fn touched_or_queued(&self, id: &Id, mark: u64) -> bool {
        self.has_queued(id) || self.touched_after(id, mark)
    }

    /// Settles the doubt about a row with a read that began at `mark`, unless the doubt is newer.
    fn clean(&self, draft: &mut DecisionBuilder<'_>, id: &Id, mark: u64) {
        if self.settled_by(id, mark) {
            draft.note(Note::Clean(Arc::clone(id)));
        }
    }

    /// Adopts the reported row as the confirmed one. Routed operations that it confirms, or that were delivered before `mark`,
    /// are done.
    pub(super) fn adopt(
        &self,
        draft: &mut DecisionBuilder<'_>,
        reported_row: &ReportedRow<'_>,
        mark: u64,
        cause: &Cause,
    ) {
        let fold = self.folds.get(reported_row.id);
        let base = self.base(reported_row.id);
        // If the cache file lost the row, nothing is known of it.
        let lost = self.lost.contains(reported_row.id) && !self.is_lost_row(reported_row.id, reported_row.row);
        let same = !lost && base.as_ref().map(|base| &base.body) == reported_row.row;
        let read = mark != u64::MAX;
        let noted = self.versions_to_note(reported_row);
        let new_version = reported_row.version.is_some_and(|version| !self.has_noted(reported_row.id, version));
        let versions = new_version && noted.column().is_some()
            || read
                && match self.versions.get(reported_row.id).map(|known| &known.own) {
                    Some(OwnVersion::Stated(_)) => reported_row.row.is_none(),
                    Some(OwnVersion::Unknown) => reported_row.row.is_some(),
                    None | Some(OwnVersion::InRow) => false,
                };
        let outdated = |op: &&OpId| {
            let delivered = self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed && op.delivered <= mark);
            read && delivered && fold.is_some_and(|fold| fold.rebased.contains(*op))
        };
        let moves = fold.is_none() && moved(base.as_ref(), reported_row.ordinal);
        let noting = new_version && !noted.is_empty();
        if same && !versions && !noting && !moves && !fold.is_some_and(|fold| fold.ops.iter().any(|op| outdated(&op))) {
            return;
        }
        let (done, rest) = match fold {
            // The row is unchanged, but it differs from the row at the time of these deliveries.
            Some(fold) if same => fold.ops.iter().partition(outdated),
            Some(fold) => {
                self.split_absorbed(reported_row, &fold.ops.iter().copied().collect::<Vec<_>>(), base.as_ref(), mark)
            }
            None => (Vec::new(), Vec::new()),
        };
        let after = self.folded(reported_row.id, reported_row.row, &rest);
        let before = self.table.get(reported_row.id).map(|row| row.body());
        let ordinal = match reported_row.ordinal {
            Some(ordinal) => ordinal,
            None => draft.ordinal_of(reported_row.id),
        };
        let entry = draft.entry(Some(reported_row.id), cause);
        entry.base = match reported_row.row {
            _ if same && !versions && !moves => Base::Keep,
            Some(body) => Base::Set { body: body.clone(), ordinal },
            None => Base::Gone,
        };
        // Record the version even if the row is unchanged: this event did not change it.
        entry.versions = noted;
        if !done.is_empty() {
            entry.op = OpChange::Absorb(done);
        }
        show(entry, before.as_ref(), after, reported_row.row, ordinal);
        let frame = entry.frame.clone();
        draft.count(&frame);
    }

    /// Splits the operations into those that the reported row confirms or ends and those that still apply. One that is being
    /// delivered is confirmed and applies until its route answers.
    fn split_absorbed(
        &self,
        reported_row: &ReportedRow<'_>,
        ops: &[OpId],
        base: Option<&BaseRow>,
        mark: u64,
    ) -> (Vec<OpId>, Vec<OpId>) {
        let routed =
            ops.iter().take_while(|op| self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed)).count();
        let lost = self.lost.contains(reported_row.id);
        let base = if lost { reported_row.row } else { base.map(|base| &base.body) };
        // Only the oldest waiting operation can have been delivered.
        let tried = ops.get(routed).is_some_and(|op| self.may_have_arrived(reported_row.id, *op));
        let candidates = 1..=routed + usize::from(tried);
        match candidates.rev().find(|upto| self.confirms(reported_row, &ops[..*upto], base)) {
            Some(upto) => (ops[..upto].to_vec(), ops[upto.min(routed)..].to_vec()),
            None if self.is_lost_row(reported_row.id, reported_row.row) => (Vec::new(), ops.to_vec()),
            None => ops.iter().partition(|op| {
                self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed && op.delivered <= mark)
            }),
        }
    }

    /// Returns true if the master may have a waiting operation on row `id`, and no report has shown it yet. One on all rows counts
    /// from the beginning.
    fn may_have_arrived(&self, id: &Id, op: OpId) -> bool {
        let delivered = self.ops.get(&op).is_some_and(|op| op.tried || op.targets.len() > 1);
        delivered && self.folds.get(id).is_some_and(|fold| !fold.seen.contains(&op))
    }

    /// Returns true if the reported row equals the result of `ops`, in the columns that they set. The source may fill in or keep
    /// others.
    fn confirms(&self, reported_row: &ReportedRow<'_>, ops: &[OpId], base: Option<&Body>) -> bool {
        let made = self.folded(reported_row.id, base, ops);
        let (Some(made), Some(row)) = (&made, reported_row.row) else {
            return made.is_none() && reported_row.row.is_none();
        };
        let mut columns = Vec::new();
        for op in ops.iter().filter_map(|op| self.ops.get(op)) {
            if matches!(op.effect, Effect::Delete | Effect::DeleteAll) {
                columns.clear();
            }
            match op.effect.columns() {
                Some(set) => columns.extend(set),
                None => return made == row,
            }
        }
        let (Ok(made), Ok(row)) = (made.decode(), row.decode()) else { return false };
        columns.iter().all(|column| cell(&made, column) == cell(&row, column))
    }
}

/// Returns a value of a row; `None` also for null, which some sources report for columns without a value.
fn cell<'a>(row: &'a Record, column: &str) -> Option<&'a CborValue> {
    row.get(column).filter(|value| !value.is_null())
}

fn moved(base: Option<&BaseRow>, ordinal: Option<Ordinal>) -> bool {
    match (base, ordinal) {
        (Some(base), Some(ordinal)) => base.ordinal != ordinal,
        _ => false,
    }
}

/// Sets the visible row after `entry` to `after`, which is the confirmed row itself if no operation is open.
fn show(entry: &mut Entry, before: Option<&Body>, after: Option<Body>, confirmed: Option<&Body>, ordinal: Ordinal) {
    if before == after.as_ref() {
        // A row that only moved gets its new ordinal without an event.
        if after.is_some() && after.as_ref() == confirmed {
            entry.visible = VisibleChange::Base;
        }
        return;
    }
    entry.frame = frame_between(before.is_some(), after.is_some());
    entry.visible = match after {
        None => VisibleChange::Gone,
        // An entry that keeps the confirmed row does not contain its body, which readers of the journal need.
        Some(body) if Some(&body) == confirmed && entry.base.changes() => VisibleChange::Base,
        Some(body) => VisibleChange::Row { body, ordinal },
    };
}
