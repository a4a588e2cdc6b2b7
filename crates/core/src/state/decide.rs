//! Decisions: [`State::decide`] checks a command and returns entries or an error, without changing the State.

use std::sync::Arc;

use super::command::{Command, Condition, NewWrite, Notice};
use super::data::{Note, State};
use super::decision::{Decision, DecisionBuilder, Outcome, cause, check_size, frame_between};
use super::entry::{Base, Frame, OpChange, Origin, VisibleChange};
use super::op::{Assumption, Effect, Op, OpState};
use super::reported_row::{ReportSource, ReportedRow};
use crate::record::{Body, Id};
use crate::vista::query::JsonRow;
use crate::vista::{Error, Result, WriteBounds};

impl State {
    /// Decides `command` at `now` (Unix milliseconds).
    ///
    /// # Errors
    /// The reason for the rejection. A rejected command changes nothing and needs no entry.
    pub fn decide(&self, command: &Command, now: u64) -> Result<Decision> {
        let mut draft = DecisionBuilder::new(self, now);
        match command {
            Command::Write(write) => self.decide_write(&mut draft, write)?,
            Command::Open => {
                draft.note(Note::Open);
                draft.decision.outcome = Outcome::Mark(self.next_mark());
            }
            Command::OpenFor(id) => {
                draft.note(Note::OpenFor(Arc::clone(id)));
                draft.decision.outcome = Outcome::Mark(self.clock + 1);
            }
            Command::Close(mark) => draft.note(Note::Close(*mark)),
            Command::Settle { op, mark, answer } => self.decide_settle(&mut draft, *op, *mark, answer),
            Command::ReadRows { items, mark, notice } => {
                for item in items {
                    let reported_row =
                        ReportedRow { ordinal: item.ordinal, ..ReportedRow::of(&item.id, item.row.as_ref()) };
                    self.reconcile(
                        &mut draft,
                        &reported_row,
                        ReportSource::Read { mark: *mark },
                        &cause(Origin::Refresh),
                    );
                }
                if *notice != Notice::RowEvents {
                    draft.silence(*notice);
                }
            }
            Command::Bulk { items, mark, notice } => self.decide_bulk(&mut draft, items, *mark, *notice),
            Command::Seed { table, mark, notice } => self.decide_seed(&mut draft, table, *mark, *notice)?,
            Command::Upstream(event) => self.decide_upstream(&mut draft, event),
            Command::Statement { rows, notify } => {
                for (id, row) in rows {
                    self.apply_statement(&mut draft, id, row.as_ref(), *notify);
                }
            }
            Command::Invalidate(ids) => {
                for id in ids {
                    draft.entry(Some(id), &cause(Origin::Program)).frame = Frame::Changed;
                }
            }
            Command::InvalidateAll { covered, origin } => {
                let covered = *covered && !self.silent && !self.has_untold();
                draft.entry(None, &cause(*origin)).frame = Frame::Invalidated { covered };
            }
            Command::Retry { op, new } => self.decide_retry(&mut draft, *op, *new)?,
            Command::Discard(op) => self.decide_discard(&mut draft, *op)?,
            Command::Attach(built) if self.table.is_far_from(built.from()) => {}
            Command::Attach(built) => {
                draft.note(Note::Attach(Arc::clone(built)));
                draft.decision.outcome = Outcome::Applied { inserted: 0, changed: 0, removed: 0 };
            }
            Command::Detach(spec) => draft.note(Note::Detach(spec.clone())),
            Command::Purge(ids) => self.decide_purge(&mut draft, ids)?,
            Command::Purged(seq) => draft.note(Note::Purged(*seq)),
        }
        for entry in &mut draft.decision.entries {
            self.withhold(entry);
            let row = match &entry.base {
                Base::Set { body, .. } => Some(body),
                Base::Gone => None,
                Base::Keep | Base::Many { .. } => continue,
            };
            // Record this in the log: a replay no longer knows the earlier row, or that it was lost.
            entry.found = entry.id.as_ref().is_some_and(|id| self.is_lost_row(id, row) || self.equals_base(id, row));
            entry.tried = entry.id.as_ref().is_some_and(|id| self.first_queued(id).is_some_and(|op| op.tried));
        }
        Ok(draft.decision)
    }

    pub(super) fn decide_write(&self, draft: &mut DecisionBuilder<'_>, write: &NewWrite) -> Result<()> {
        let Some(id) = &write.id else { return self.decide_delete_all(draft, write) };
        let existing = self.table.get(id).map(|row| row.body());
        let within = write.within.as_deref();
        // A row outside the restriction counts as absent, until a write would replace it.
        let before = existing.as_ref().filter(|row| within.is_none_or(|within| within.sees(&JsonRow::from(*row))));
        if !write.condition.holds(before, within) {
            return Err(Error::Precondition { id: id.to_string() });
        }
        let kept = within.and_then(|within| self.keeping_columns(write, id, before?, within));
        let effect = kept.as_ref().unwrap_or(&write.effect);
        if let Some(within) = within {
            within.check_before(effect.kind(), id, existing.as_ref().map(JsonRow::from).as_ref())?;
            let after = effect.on(before, id, self.rules.schema.layout());
            after.map_or(Ok(()), |after| within.check_after(&JsonRow::from(&after), before.is_some()))?;
        }
        match (effect, before) {
            (Effect::Insert(body), Some(before)) if before == body => {
                draft.decision.outcome = Outcome::Identical;
                return Ok(());
            }
            (Effect::Insert(_), Some(_)) => {
                return Err(Error::Conflict { id: id.to_string(), detail: "already exists".into() });
            }
            (Effect::Patch(_) | Effect::Delete, None) => return Err(Error::NotFound { id: id.to_string() }),
            _ => {}
        }
        let after = effect.on(before, id, self.rules.schema.layout());
        if let Some(after) = &after {
            check_size(id, after)?;
        }
        let staged = matches!(effect, Effect::Insert(_) | Effect::Replace(_));
        let mut op = self.new_op(draft.now, write, Arc::from([Arc::clone(id)]));
        if let Some(effect) = kept {
            op.effect = effect;
        }
        let ordinal = draft.ordinal_of(id);
        let entry = draft.entry(Some(id), &write.cause());
        entry.op = OpChange::Stage(op);
        if before != after.as_ref() {
            entry.frame = frame_between(before.is_some(), after.is_some());
            entry.visible = match after {
                None => VisibleChange::Gone,
                Some(_) if staged => VisibleChange::Staged(ordinal),
                Some(body) => VisibleChange::Row { body, ordinal },
            };
        }
        draft.decision.outcome = Outcome::Staged { op: write.op, created: before.is_none() };
        Ok(())
    }

    /// Returns the replacement of the row `before` that keeps the columns which its writer may not write; `None` if the write
    /// replaces no row or every column.
    fn keeping_columns(&self, write: &NewWrite, id: &Id, before: &Body, within: &WriteBounds) -> Option<Effect> {
        let (Effect::Replace(body), Some(columns)) = (&write.effect, &within.columns) else { return None };
        let (mut row, before) = (body.decode().ok()?, before.decode().ok()?);
        let kept = |name: &str| !columns.writable.contains(name);
        let foreign: Vec<String> = row.columns().filter(|name| kept(name)).map(str::to_string).collect();
        foreign.iter().for_each(|name| drop(row.remove(name)));
        for (name, value) in before.iter().filter(|(name, _)| kept(name)) {
            row.insert(name, value.clone());
        }
        Some(Effect::Replace(Body::encode(id, &row, self.rules.schema.layout())))
    }

    fn decide_delete_all(&self, draft: &mut DecisionBuilder<'_>, write: &NewWrite) -> Result<()> {
        let targets: Arc<[Id]> = self.table.iter_slots().map(|row| Id::from(row.id())).collect();
        if targets.is_empty() {
            draft.decision.outcome = Outcome::Identical;
            return Ok(());
        }
        let op = self.new_op(draft.now, write, Arc::clone(&targets));
        let mut stage = Some(op);
        for id in targets.iter() {
            let entry = draft.entry(Some(id), &write.cause());
            entry.op = stage.take().map_or(OpChange::Join, OpChange::Stage);
            entry.visible = VisibleChange::Gone;
            entry.frame = Frame::Removed;
        }
        draft.decision.outcome = Outcome::Staged { op: write.op, created: false };
        Ok(())
    }

    fn new_op(&self, now: u64, write: &NewWrite, targets: Arc<[Id]>) -> Op {
        Op {
            id: write.op,
            effect: write.effect.clone(),
            targets,
            created: now,
            retry_of: write.retry_of,
            assumed: match write.condition {
                Condition::None => None,
                Condition::Exists => Some(Assumption::Present),
                Condition::Absent => Some(Assumption::Absent),
                Condition::Matches(_) | Condition::Differs { .. } => Some(Assumption::Version),
            },
            principal: write.principal.clone(),
            staged: 0,
            log: Vec::new(),
            over: 0,
            state: OpState::Queued,
            tried: false,
            delivered: 0,
            beneath: None,
            error: None,
            updated: now,
        }
    }
}
