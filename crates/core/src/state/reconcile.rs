//! What the master says about a row meets what is known of it: the rules that keep a confirmed row from going back.
//!
//! Versioned masters: the newest version wins. Unversioned ones: a read speaks only of rows that nothing has touched since it
//! began and that no write waits for (R2, R6); an upstream event is believed at once only when nothing else is in motion (R3);
//! in doubt the row is dirty and read again (R5). Routed operations stay over the row until the master's news speak of them.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use super::command::{UpstreamChange, UpstreamEvent};
use super::data::{BaseRow, Note, State};
use super::decision::{DecisionBuilder, Outcome, frame_between};
use super::entry::{Base, COLUMN_CLOCK, Cause, Entry, OpChange, VisibleChange};
use super::op::{OpId, OpState};
use super::reported_row::{News, ReportSource};
use super::row_versions::{EventVersion, OwnVersion};
use crate::record::{Body, Id};
use crate::table::Ordinal;

impl State {
    pub(super) fn decide_upstream(&self, draft: &mut DecisionBuilder<'_>, event: &UpstreamEvent) {
        let cause = Cause { origin: event.origin, delivery: event.delivery.clone(), ..Cause::default() };
        let row = match &event.change {
            UpstreamChange::Row(body) => Some(body.clone()),
            UpstreamChange::Gone => None,
            UpstreamChange::Part(part) => match self.base(&event.id) {
                Some(base) => {
                    let effect = super::Effect::Patch(part.clone());
                    effect.on(Some(&base.body), &event.id, self.rules.schema.layout())
                }
                None => return self.ask(draft, (&event.id, event.version.as_ref()), &cause),
            },
            UpstreamChange::Thin => return self.ask(draft, (&event.id, event.version.as_ref()), &cause),
        };
        let (sent, part) = match &event.change {
            UpstreamChange::Row(row) => (Some(row), false),
            UpstreamChange::Part(part) => (Some(part), true),
            UpstreamChange::Gone | UpstreamChange::Thin => (None, false),
        };
        let reported_row =
            News { id: &event.id, row: row.as_ref(), ordinal: None, told: event.version.as_ref(), sent, part };
        self.reconcile(draft, &reported_row, ReportSource::Push, &cause);
    }

    /// Whether everything that `event` says is so already, and nothing under way could still say otherwise. An event about which
    /// the master has to be asked is always news.
    pub fn says_nothing_new(&self, event: &UpstreamEvent) -> bool {
        let id = &event.id;
        let settled = self.motions(id) == 0 && !self.dirty.contains_key(id) && self.fold(id).is_none();
        let base = self.base(id);
        let base = base.as_ref().map(|base| &base.body);
        settled
            && event.version.as_ref().is_none_or(|told| self.has_noted(id, told))
            && match (&event.change, base) {
                (UpstreamChange::Row(row), Some(base)) => row == base,
                (UpstreamChange::Part(part), Some(base)) => {
                    let effect = super::Effect::Patch(part.clone());
                    effect.on(Some(base), id, self.rules.schema.layout()).as_ref() == Some(base)
                }
                (UpstreamChange::Gone, base) => base.is_none(),
                (UpstreamChange::Thin, _) | (_, None) => false,
            }
    }

    /// The row is read from the master before anything is believed. That the sender has told of this version is noted: what it
    /// tells of older ones later is stale.
    fn ask(&self, draft: &mut DecisionBuilder<'_>, (id, told): (&Id, Option<&EventVersion>), cause: &Cause) {
        if let Some(told) = told.filter(|told| *told.clock != *COLUMN_CLOCK && !self.has_noted(id, told)) {
            draft.entry(Some(id), cause).versions.set(&told.clock, told.version.clone());
        }
        draft.note(Note::Touch(Arc::clone(id)));
        draft.note(Note::Dirty(Arc::clone(id)));
        draft.decision.outcome = Outcome::Deferred;
    }

    /// Judges `reported_row` and drafts what follows from it.
    pub(super) fn reconcile(
        &self,
        draft: &mut DecisionBuilder<'_>,
        reported_row: &News<'_>,
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
                self.overrule(draft, reported_row, mark, cause);
            }
            (Some(Order::Greater), ReportSource::Push) => {
                self.overrule(draft, reported_row, u64::MAX, cause);
                if reported_row.part {
                    // A change that was missed may have set other columns.
                    draft.note(Note::Dirty(Arc::clone(reported_row.id)));
                }
            }
            // Also rows of one version that differ: what is known was pieced together, or the version does not tell all.
            (_, ReportSource::Read { mark }) => {
                if self.lost.contains(reported_row.id) && self.touched_or_queued(reported_row.id, mark) {
                    // What the writes lie over is not known at all: rather an old row until the next read than none.
                    draft.note(Note::Clean(Arc::clone(reported_row.id)));
                    self.overrule(draft, reported_row, mark, cause);
                    draft.note(Note::Dirty(Arc::clone(reported_row.id)));
                    return;
                }
                if self.touched_or_queued(reported_row.id, mark) {
                    draft.note(Note::Dirty(Arc::clone(reported_row.id)));
                    return;
                }
                self.clean(draft, reported_row.id, mark);
                let entries = draft.decision.entries.len();
                self.overrule(draft, reported_row, mark, cause);
                let others = self.motions(reported_row.id) > 1;
                if others && draft.decision.entries.len() == entries {
                    // Nothing changed, but a read that saw the row before this one did must not change it any more.
                    draft.note(Note::Touch(Arc::clone(reported_row.id)));
                }
                if draft.decision.entries.len() == entries {
                    self.expire(draft, reported_row.id, mark);
                }
            }
            (None, ReportSource::Push) => {
                let moving = self.has_queued(reported_row.id)
                    || self.motions(reported_row.id) > 0
                    || self.dirty.contains_key(reported_row.id);
                if moving || !self.rules.trust_payload || self.needs_read(reported_row.id) {
                    self.ask(draft, (reported_row.id, reported_row.told), cause);
                    if self.base(reported_row.id).as_ref().map(|base| &base.body) == reported_row.row {
                        draft.decision.outcome = Outcome::Unchanged;
                    }
                    return;
                }
                self.overrule(draft, reported_row, u64::MAX, cause);
                // It may be late, and older than what it replaced.
                draft.note(Note::Dirty(Arc::clone(reported_row.id)));
            }
        }
    }

    /// Whether a read that began at `mark` cannot speak of the row: something happened to it since, or a write waits for it.
    fn touched_or_queued(&self, id: &Id, mark: u64) -> bool {
        self.has_queued(id) || self.touched_after(id, mark)
    }

    /// A read that began at `mark` has settled what was in doubt, unless the doubt is newer.
    fn clean(&self, draft: &mut DecisionBuilder<'_>, id: &Id, mark: u64) {
        if self.settled_by(id, mark) {
            draft.note(Note::Clean(Arc::clone(id)));
        }
    }

    /// Makes the news the confirmed row. Routed operations that they speak of, or that were delivered before `mark`, are done.
    pub(super) fn overrule(&self, draft: &mut DecisionBuilder<'_>, reported_row: &News<'_>, mark: u64, cause: &Cause) {
        let fold = self.folds.get(reported_row.id);
        let base = self.base(reported_row.id);
        // What is known is nothing, if the cache file lost it.
        let lost = self.lost.contains(reported_row.id) && !self.finds(reported_row.id, reported_row.row);
        let same = !lost && base.as_ref().map(|base| &base.body) == reported_row.row;
        let read = mark != u64::MAX;
        let noted = self.versions_to_note(reported_row);
        let new_version = reported_row.told.is_some_and(|told| !self.has_noted(reported_row.id, told));
        let versions = new_version && noted.column().is_some()
            || read
                && match self.versions.get(reported_row.id).map(|known| &known.own) {
                    Some(OwnVersion::Told(_)) => reported_row.row.is_none(),
                    Some(OwnVersion::Unknown) => reported_row.row.is_some(),
                    None | Some(OwnVersion::InRow) => false,
                };
        let outdated = |op: &&OpId| {
            let delivered = self.ops.get(*op).is_some_and(|op| op.delivered <= mark);
            read && delivered && fold.is_some_and(|fold| fold.rebased.contains(*op))
        };
        let moves = fold.is_none() && moved(base.as_ref(), reported_row.ordinal);
        let noting = new_version && !noted.is_empty();
        if same && !versions && !noting && !moves && !fold.is_some_and(|fold| fold.ops.iter().any(|op| outdated(&op))) {
            return;
        }
        let (done, rest) = match fold {
            // No news; but not what the row was when these were delivered.
            Some(fold) if same => fold.ops.iter().partition(outdated),
            Some(fold) => {
                self.absorbed(reported_row, &fold.ops.iter().copied().collect::<Vec<_>>(), base.as_ref(), mark)
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
        // Noted beside a row that is the same: it was not this event that made it so.
        entry.versions = noted;
        if !done.is_empty() {
            entry.op = OpChange::Absorb(done);
        }
        show(entry, before.as_ref(), after, reported_row.row, ordinal);
        let frame = entry.frame.clone();
        draft.count(&frame);
    }

    /// Which routed operations the news end, and which still lie over the row.
    fn absorbed(
        &self,
        reported_row: &News<'_>,
        ops: &[OpId],
        base: Option<&BaseRow>,
        mark: u64,
    ) -> (Vec<OpId>, Vec<OpId>) {
        let routed =
            ops.iter().take_while(|op| self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed)).count();
        let lost = self.lost.contains(reported_row.id);
        let base = if lost { reported_row.row } else { base.map(|base| &base.body) };
        let seen = (1..=routed).rev().find(|upto| self.speaks_of(reported_row, &ops[..*upto], base));
        match seen {
            Some(upto) => (ops[..upto].to_vec(), ops[upto..].to_vec()),
            None if self.finds(reported_row.id, reported_row.row) => (Vec::new(), ops.to_vec()),
            None => ops.iter().partition(|op| {
                self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed && op.delivered <= mark)
            }),
        }
    }

    /// Whether the news equal what `ops` made of the row, on the columns that they set.
    fn speaks_of(&self, reported_row: &News<'_>, ops: &[OpId], base: Option<&Body>) -> bool {
        let made = self.folded(reported_row.id, base, ops);
        let (Some(made), Some(row)) = (&made, reported_row.row) else {
            return made.is_none() && reported_row.row.is_none();
        };
        let mut columns = Vec::new();
        for op in ops.iter().filter_map(|op| self.ops.get(op)) {
            match op.effect.columns() {
                Some(set) => columns.extend(set),
                None => return made == row,
            }
        }
        match (made.decode(), row.decode()) {
            (Ok(made), Ok(row)) => columns.iter().all(|column| made.get(column) == row.get(column)),
            _ => false,
        }
    }
}

fn moved(base: Option<&BaseRow>, ordinal: Option<Ordinal>) -> bool {
    match (base, ordinal) {
        (Some(base), Some(ordinal)) => base.ordinal != ordinal,
        _ => false,
    }
}

/// What readers see after `entry`: `after`, which is the confirmed row itself when nothing lies over it.
fn show(entry: &mut Entry, before: Option<&Body>, after: Option<Body>, confirmed: Option<&Body>, ordinal: Ordinal) {
    if before == after.as_ref() {
        // A row that only moved is shown at its new place, without a frame.
        if after.is_some() && after.as_ref() == confirmed {
            entry.visible = VisibleChange::Base;
        }
        return;
    }
    entry.frame = frame_between(before.is_some(), after.is_some());
    entry.visible = match after {
        None => VisibleChange::Gone,
        Some(body) if Some(&body) == confirmed => VisibleChange::Base,
        Some(body) => VisibleChange::Row { body, ordinal },
    };
}
