//! Settlement of an operation (confirmed, routed, failed or parked) and the resulting row.

use std::sync::Arc;

use super::command::Answer;
use super::data::{NO_ROW, Note, State};
use super::decision::{DecisionBuilder, Outcome, frame_between, op_cause};
use super::entry::{Base, Cause, Frame, OpChange, Versions, VisibleChange};
use super::op::{Assumption, Op, OpError, OpId, OpState};
use super::row_versions::version_of;
use crate::record::{Body, CborValue, Id};

impl State {
    pub(super) fn decide_settle(&self, draft: &mut DecisionBuilder<'_>, op: OpId, mark: u64, answer: &Answer) {
        draft.note(Note::Close(mark));
        let Some(record) = self.ops.get(&op) else { return };
        if record.state != OpState::Queued {
            // Already settled, by a commit whose notes were lost with its answer.
            record.targets.iter().for_each(|id| draft.note(Note::Dirty(Arc::clone(id))));
            return;
        }
        match answer {
            Answer::Routed => {
                let beneath = match &*record.targets {
                    [id] if !self.lost.contains(id) => Some(self.base(id).map_or(NO_ROW, |base| base.body.hash())),
                    _ => None,
                };
                let entry = draft.entry(record.targets.first(), &op_cause(record));
                entry.op = OpChange::Settle { state: OpState::Routed, error: None, beneath };
                entry.frame = Frame::WriteCommitted;
                match self.is_seen(record) {
                    true => self.end_seen(draft, record),
                    false => self.condense(draft, record),
                }
            }
            Answer::Reported => self.end_reported(draft, record),
            Answer::Confirmed { row, id } => self.confirm(draft, record, mark, row.as_ref(), id.as_ref()),
            Answer::Failed(error) => self.roll_back(draft, record, OpState::Failed, error),
            Answer::Parked(error) => self.roll_back(draft, record, OpState::Parked, error),
        }
        draft.decision.outcome.add(&Outcome::Applied { inserted: 0, changed: 0, removed: 0 });
    }

    /// Returns true if a reported row has confirmed the operation before its route accepted it.
    fn is_seen(&self, op: &Op) -> bool {
        op.targets.iter().any(|id| self.folds.get(id).is_some_and(|fold| fold.seen.contains(&op.id)))
    }

    /// Ends an operation, which its route has just accepted, for those of its rows whose report has confirmed it already.
    fn end_seen(&self, draft: &mut DecisionBuilder<'_>, op: &Op) {
        let cause = op_cause(op);
        for id in op.targets.iter() {
            let Some(fold) = self.folds.get(id).filter(|fold| fold.seen.contains(&op.id)) else { continue };
            let rest = fold.ops.iter().filter(|other| **other != op.id);
            let after = self.folded(id, fold.base.as_ref().map(|base| &base.body), rest);
            self.show_confirmed(draft, id, after, Base::Keep, &cause, vec![op.id], None);
        }
    }

    /// Handles a write that the master has: its row becomes the confirmed one, unless something newer arrived meanwhile.
    fn confirm(&self, draft: &mut DecisionBuilder<'_>, op: &Op, mark: u64, row: Option<&Body>, new_id: Option<&Id>) {
        let cause = op_cause(op);
        let drafted = draft.decision.entries.len();
        // The worker's own guard is open. A second guard means that a read may not have seen this write.
        for id in op.targets.iter() {
            let reading = self.active_guards(id) > 1;
            let Some(fold) = self.folds.get(id) else { continue };
            let version = row.filter(|_| new_id.is_none_or(|new_id| new_id == id)).and_then(|row| self.version_in(row));
            if self.changed_after(id, mark) && !self.is_newer(id, version.as_ref()) {
                // The order at the master is unknown: keep the confirmed row and read it again.
                let base = fold.base.as_ref().map(|base| base.body.clone());
                let rest: Vec<OpId> = fold.ops.iter().copied().filter(|other| *other != op.id).collect();
                self.show_fold(draft, id, base.as_ref(), &rest, Base::Keep, &cause);
                draft.note(Note::Dirty(Arc::clone(id)));
                continue;
            }
            let upto = fold.ops.iter().position(|other| *other == op.id).map_or(0, |at| at + 1);
            let done: Vec<OpId> = fold.ops.iter().take(upto).copied().collect();
            let confirmed = match (row, new_id) {
                (_, Some(new_id)) if new_id != id => None,
                (Some(row), _) => Some(row.clone()),
                (None, _) => self.folded(id, fold.base.as_ref().map(|base| &base.body), &done),
            };
            // The master's row usually equals the visible row. Then the operations need not be applied again.
            let expected = row.is_none() && new_id.is_none_or(|new_id| new_id == id)
                || self.folded(id, fold.base.as_ref().map(|base| &base.body), &done) == confirmed;
            let after = match expected {
                true => self.table.get(id).map(|row| row.body()),
                false => self.folded(id, confirmed.as_ref(), fold.ops.iter().skip(upto)),
            };
            let base = match (&confirmed, &fold.base) {
                (Some(body), _) => Base::Set { body: body.clone(), ordinal: draft.ordinal_of(id) },
                (None, Some(_)) => Base::Gone,
                (None, None) => Base::Keep,
            };
            // Earlier routed operations are part of the confirmed row.
            let routed = done.into_iter().filter(|other| *other != op.id).collect();
            self.show_confirmed(draft, id, after, base, &cause, routed, version.clone());
            let unclear = self.rules.version.is_some() && version.is_none();
            if reading || unclear || self.lost.contains(id) || self.touched_after(id, mark) {
                draft.note(Note::Dirty(Arc::clone(id)));
            }
        }
        if let (Some(new_id), Some(row)) = (new_id.filter(|new| !op.targets.contains(new)), row) {
            let rest = self.folds.get(new_id).map(|fold| fold.ops.clone()).unwrap_or_default();
            let base = Base::Set { body: row.clone(), ordinal: draft.ordinal_of(new_id) };
            let version = self.version_in(row);
            let after = self.folded(new_id, Some(row), &rest);
            self.show_confirmed(draft, new_id, after, base, &cause, Vec::new(), version);
        }
        let settle = OpChange::Settle { state: OpState::Applied, error: None, beneath: None };
        let entry = match &mut draft.decision.entries[drafted..] {
            // The confirmed row is already visible: one entry confirms it and settles the operation.
            [only] if only.id.as_ref() == op.targets.first() && only.only_confirms() && op.targets.len() == 1 => only,
            _ => draft.entry(op.targets.first(), &cause),
        };
        (entry.op, entry.frame) = (settle, Frame::WriteCommitted);
    }

    /// Handles a write that the master's feed has reported: the confirmed row includes it. A row in doubt may not: it keeps the
    /// effect until it was read.
    fn end_reported(&self, draft: &mut DecisionBuilder<'_>, op: &Op) {
        let cause = op_cause(op);
        for id in op.targets.iter() {
            let Some(fold) = self.folds.get(id) else { continue };
            let known = fold.base.as_ref().map(|base| base.body.clone());
            let rest: Vec<OpId> = fold.ops.iter().copied().filter(|other| *other != op.id).collect();
            let (body, base) = match self.dirty.contains_key(id) {
                false => (known, Base::Keep),
                true => match self.folded(id, known.as_ref(), &[op.id]) {
                    Some(body) => (Some(body.clone()), Base::Set { body, ordinal: draft.ordinal_of(id) }),
                    None if known.is_some() => (None, Base::Gone),
                    None => (None, Base::Keep),
                },
            };
            self.show_fold(draft, id, body.as_ref(), &rest, base, &cause);
        }
        let entry = draft.entry(op.targets.first(), &cause);
        entry.op = OpChange::Settle { state: OpState::Applied, error: None, beneath: None };
        entry.frame = Frame::WriteCommitted;
    }

    /// Returns the version in a row of the master.
    fn version_in(&self, row: &Body) -> Option<CborValue> {
        version_of(row, self.rules.version.as_deref()?)
    }

    /// Drafts [`State::show_row`] for a row that the master confirmed, with its versions and absorbed operations.
    #[expect(clippy::too_many_arguments, reason = "they are the parts of one entry")]
    fn show_confirmed(
        &self,
        draft: &mut DecisionBuilder<'_>,
        id: &Id,
        after: Option<Body>,
        base: Base,
        cause: &Cause,
        routed: Vec<OpId>,
        version: Option<CborValue>,
    ) {
        let before = draft.decision.entries.len();
        self.show_row(draft, id, after, base, cause);
        if draft.decision.entries.len() == before && routed.is_empty() {
            return;
        }
        if draft.decision.entries.len() == before {
            draft.entry(Some(id), cause);
        }
        let entry = &mut draft.decision.entries[before];
        entry.versions = Versions::of_column(version);
        if !routed.is_empty() {
            entry.op = OpChange::Absorb(routed);
        }
    }

    /// Merges two routed writes of the row of `op`, which is now routed, if there are many, so that a frequently written row
    /// does not accumulate them while the master is silent. The oldest are merged, because a master that lags behind is more
    /// likely to show the result of a newer one.
    fn condense(&self, draft: &mut DecisionBuilder<'_>, op: &Op) {
        let [id] = &*op.targets else { return };
        let Some(fold) = self.folds.get(id).filter(|fold| fold.rebased.is_empty()) else { return };
        let routed = fold.ops.iter().filter_map(|op| self.ops.get(op));
        let routed: Vec<&Op> = routed.take_while(|op| op.state == OpState::Routed && op.targets.len() == 1).collect();
        if routed.len() < self.rules.keep_routed {
            return;
        }
        let layout = self.rules.schema.layout();
        let merged =
            routed.windows(2).find_map(|pair| Some((pair[0], pair[1], pair[0].effect.then(&pair[1].effect, layout)?)));
        if let Some((older, newer, effect)) = merged {
            draft.entry(Some(id), &op_cause(newer)).op = OpChange::Merge { older: older.id, effect };
        }
    }

    /// Rolls back a write. Writes whose condition depended on it are rolled back first, newest first.
    fn roll_back(&self, draft: &mut DecisionBuilder<'_>, op: &Op, state: OpState, error: &OpError) {
        let mut rest = self.clone();
        for later in self.dependents(op).into_iter().rev() {
            let detail = format!("its condition depended on {}, which failed: {}", op.id, error.detail);
            rest.roll_back_one(draft, later, OpState::Failed, &OpError { code: "precondition-failed".into(), detail });
        }
        rest.roll_back_one(draft, op, state, error);
    }

    /// Returns the writes whose condition held only because of `op`, oldest first.
    fn dependents(&self, op: &Op) -> Vec<&Op> {
        let layout = self.rules.schema.layout();
        let mut found: Vec<&Op> = Vec::new();
        for id in op.targets.iter() {
            let Some(fold) = self.folds.get(id) else { continue };
            let Some(at) = fold.ops.iter().position(|own| *own == op.id) else { continue };
            let conditional = |later: &OpId| self.ops.get(later).is_some_and(|later| later.assumed.is_some());
            if !fold.ops.iter().skip(at + 1).any(conditional) {
                continue;
            }
            let mut without = self.folded(id, fold.base.as_ref().map(|base| &base.body), fold.ops.iter().take(at));
            let mut with = op.effect.on(without.as_ref(), id, layout);
            for later in fold.ops.iter().skip(at + 1).filter_map(|later| self.ops.get(later)) {
                let broken = match later.assumed {
                    None => false,
                    Some(Assumption::Version) => with != without,
                    Some(Assumption::Present) => with.is_some() && without.is_none(),
                    Some(Assumption::Absent) => with.is_none() && without.is_some(),
                };
                with = later.effect.on(with.as_ref(), id, layout);
                if broken {
                    found.push(later);
                } else {
                    without = later.effect.on(without.as_ref(), id, layout);
                }
            }
        }
        found.sort_by_key(|op| op.staged);
        found
    }

    /// Rolls back overdue routed writes: a read that began at `mark` shows the row without them.
    pub(super) fn expire(&self, draft: &mut DecisionBuilder<'_>, id: &Id, mark: u64) {
        let (Some(ttl), Some(fold)) = (self.rules.routed_ttl, self.folds.get(id)) else { return };
        let now = draft.now;
        let is_due =
            |op: &&Op| op.state == OpState::Routed && op.delivered <= mark && now.saturating_sub(op.updated) >= ttl;
        let detail = format!("the source does not show the write {} s after the write route accepted it", ttl / 1_000);
        let error = OpError { code: "unconfirmed".into(), detail };
        let mut rest = self.clone();
        for op in fold.ops.iter().rev().filter_map(|op| self.ops.get(op)).filter(is_due) {
            rest.roll_back_one(draft, op, OpState::Failed, &error);
        }
    }

    /// Drafts the confirmed row with the other writes applied, then exactly one `WriteFailed`. The drafted entries are applied
    /// to this State, for the next rollback.
    fn roll_back_one(&mut self, draft: &mut DecisionBuilder<'_>, op: &Op, state: OpState, error: &OpError) {
        let cause = op_cause(op);
        let drafted = draft.decision.entries.len();
        for id in op.targets.iter() {
            let Some(fold) = self.folds.get(id) else { continue };
            let rest: Vec<OpId> = fold.ops.iter().copied().filter(|other| *other != op.id).collect();
            let base = fold.base.as_ref().map(|base| base.body.clone());
            self.show_fold(draft, id, base.as_ref(), &rest, Base::Keep, &cause);
        }
        let entry = draft.entry(op.targets.first(), &cause);
        entry.op = OpChange::Settle { state, error: Some(error.clone()), beneath: None };
        entry.frame = Frame::WriteFailed(error.clone());
        draft.decision.entries[drafted..].iter().for_each(|entry| drop(self.apply(entry)));
    }

    /// Drafts an entry that makes `base` the confirmed row and shows it with `rest` applied, if either changes anything.
    fn show_fold(
        &self,
        draft: &mut DecisionBuilder<'_>,
        id: &Id,
        body: Option<&Body>,
        rest: &[OpId],
        base: Base,
        cause: &Cause,
    ) {
        self.show_row(draft, id, self.folded(id, body, rest), base, cause);
    }

    /// Drafts an entry that makes `base` the confirmed row and shows `after`, if either changes anything.
    fn show_row(&self, draft: &mut DecisionBuilder<'_>, id: &Id, after: Option<Body>, base: Base, cause: &Cause) {
        let before = self.table.get(id).map(|row| row.body());
        if before == after && !base.changes() {
            return;
        }
        let ordinal = draft.ordinal_of(id);
        let entry = draft.entry(Some(id), cause);
        entry.base = base;
        if before != after {
            entry.frame = frame_between(before.is_some(), after.is_some());
            entry.visible = match after {
                None => VisibleChange::Gone,
                Some(body) => match &entry.base {
                    Base::Set { body: confirmed, .. } if *confirmed == body => VisibleChange::Base,
                    _ => VisibleChange::Row { body, ordinal },
                },
            };
        }
    }
}
