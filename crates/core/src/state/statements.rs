//! Decisions of operators, statements of the program, and bulk changes.

use std::sync::Arc;

use super::command::{NewWrite, Notice, ReadRow};
use super::data::{Note, State};
use super::decision::{DecisionBuilder, Outcome, cause, frame_between, op_cause};
use super::entry::{Base, BulkRow, BulkRows, Frame, OpChange, Origin};
use super::op::{Effect, Op, OpId, OpState};
use super::reported_row::ReportedRow;
use crate::record::{Body, Id};
use crate::table::Table;
use crate::vista::{Error, Result};

impl State {
    fn parked_op(&self, op: OpId) -> Result<&Op> {
        let record = self.ops.get(&op).ok_or_else(|| Error::NotFound { id: op.to_string() })?;
        if record.state != OpState::Parked {
            let detail = "is not parked: only parked operations can be retried or discarded".to_string();
            return Err(Error::Conflict { id: op.to_string(), detail });
        }
        Ok(record)
    }

    pub(super) fn decide_retry(&self, draft: &mut DecisionBuilder<'_>, op: OpId, new: OpId) -> Result<()> {
        let parked = self.parked_op(op)?.clone();
        let id = if parked.effect == Effect::DeleteAll { None } else { parked.targets.first().cloned() };
        let effect = parked.effect.clone();
        let (retry_of, principal) = (Some(op), parked.principal.clone());
        let again = NewWrite { retry_of, principal, ..NewWrite::new(new, id, effect) };
        self.decide_write(draft, &again).map_err(|error| match error {
            // The operation exists, but its row does not.
            Error::NotFound { id } => Error::Conflict { id, detail: "no longer exists".into() },
            error => error,
        })?;
        if draft.decision.outcome == Outcome::Identical {
            let detail = "has no effect any more: all rows already have its values; discard it".to_string();
            return Err(Error::Conflict { id: op.to_string(), detail });
        }
        let entry = draft.entry(parked.targets.first(), &op_cause(&parked));
        entry.op = OpChange::Settle { state: OpState::Discarded, error: None, beneath: None };
        Ok(())
    }

    pub(super) fn decide_discard(&self, draft: &mut DecisionBuilder<'_>, op: OpId) -> Result<()> {
        let parked = self.parked_op(op)?;
        let entry = draft.entry(parked.targets.first(), &op_cause(parked));
        entry.op = OpChange::Settle { state: OpState::Discarded, error: None, beneath: None };
        Ok(())
    }

    /// Applies `patched` and raw cache writes: the confirmed row is as given. Routed operations that it confirms are done.
    pub(super) fn apply_statement(&self, draft: &mut DecisionBuilder<'_>, id: &Id, row: Option<&Body>, notify: bool) {
        let cause = cause(Origin::Program);
        let before = draft.decision.entries.len();
        self.adopt(draft, &ReportedRow::of(id, row), u64::MAX, &cause);
        let frame = if notify { Frame::Changed } else { Frame::Silent };
        match draft.decision.entries[before..].first_mut() {
            Some(entry) => entry.frame = frame,
            None if notify => draft.entry(Some(id), &cause).frame = Frame::Changed,
            None => {}
        }
        draft.note(Note::Touch(Arc::clone(id)));
        if self.has_queued(id) || self.active_guards(id) > 0 {
            draft.note(Note::Dirty(Arc::clone(id)));
        }
    }

    /// Drafts one entry for all rows that may be applied. The others become dirty, as in [`Command::ReadRows`].
    pub(super) fn decide_bulk(&self, draft: &mut DecisionBuilder<'_>, items: &[ReadRow], mark: u64, notice: Notice) {
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let known = self.folds.get(&item.id).map(|fold| fold.base.as_ref().map(|base| &base.body));
            if known == Some(item.row.as_ref()) && !self.has_queued(&item.id) && self.settled_by(&item.id, mark) {
                continue;
            }
            if known.is_some() || self.touched_after(&item.id, mark) {
                draft.note(Note::Dirty(Arc::clone(&item.id)));
                continue;
            }
            let reported_row = ReportedRow { ordinal: item.ordinal, ..ReportedRow::of(&item.id, item.row.as_ref()) };
            if self.compare_versions(&reported_row) == Some(std::cmp::Ordering::Less) {
                continue;
            }
            let (old, new) = (self.table.contains(&item.id), item.row.is_some());
            draft.count(&frame_between(old, new));
            let ordinal = item.ordinal.or_else(|| self.table.get(&item.id).map(|row| row.ordinal()));
            let ordinal = ordinal.unwrap_or_else(|| draft.append_ordinal());
            let row = item.row.clone().map(|body| (body, ordinal));
            rows.push(BulkRow { id: Arc::clone(&item.id), row });
            if notice == Notice::Invalidated {
                draft.note(Note::Untold(Arc::clone(&item.id)));
            }
            if self.settled_by(&item.id, mark) {
                draft.note(Note::Clean(Arc::clone(&item.id)));
            }
        }
        if !rows.is_empty() {
            let entry = draft.entry(None, &cause(Origin::Refresh));
            entry.base = Base::Many { rows: Arc::new(BulkRows::Rows(rows)), carried: Vec::new() };
        }
    }

    pub(super) fn decide_seed(
        &self,
        draft: &mut DecisionBuilder<'_>,
        table: &Table,
        mark: u64,
        notice: Notice,
    ) -> Result<()> {
        let confirmed = self.folds.values().any(|fold| fold.base.is_some());
        let visible = self.table.iter_slots().any(|row| !self.folds.contains_key(row.id()));
        // A listed row may confirm routed writes or override them: it is reconciled by itself.
        let routed = self.ops.values().any(|op| op.state == OpState::Routed);
        if confirmed || visible || routed || self.clock != mark && !self.touched.is_empty() {
            return Err(Error::Conflict {
                id: String::new(),
                detail: "rows arrived before the first copy was complete".into(),
            });
        }
        // Waiting writes may have been delivered before, during or after the read.
        self.folds.keys().for_each(|id| draft.note(Note::Dirty(Arc::clone(id))));
        if notice == Notice::Invalidated {
            draft.note(Note::UntoldAll);
        }
        draft.decision.outcome = Outcome::Applied { inserted: table.len() as u64, changed: 0, removed: 0 };
        let entry = draft.entry(None, &cause(Origin::Refresh));
        entry.base = Base::Many { rows: Arc::new(BulkRows::Table(table.clone())), carried: Vec::new() };
        Ok(())
    }
}
