//! What the master says about a row meets what is known of it: the rules that keep a confirmed row from going back.
//!
//! Versioned masters: the newest version wins. Unversioned ones: a read speaks only of rows that nothing has touched since it
//! began and that no write waits for (R2, R6); an upstream event is believed at once only when nothing else is in motion (R3);
//! in doubt the row is dirty and read again (R5). Routed operations stay over the row until the master's news speak of them.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use super::cmd::{Upstream, UpstreamChange};
use super::data::{BaseRow, Note, State};
use super::decision::{Draft, Outcome, frame_between};
use super::entry::{Base, COLUMN_CLOCK, Cause, Entry, OpChange, Visible};
use super::news::{News, Source};
use super::op::{OpId, OpState};
use super::row_versions::{Own, Stamped};
use crate::record::{Body, Id};
use crate::table::Ordinal;

impl State {
    pub(super) fn decide_upstream(&self, draft: &mut Draft<'_>, event: &Upstream) {
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
        let news = News { id: &event.id, row: row.as_ref(), ordinal: None, told: event.version.as_ref(), sent, part };
        self.reconcile(draft, &news, Source::Push, &cause);
    }

    /// Whether everything that `event` says is so already, and nothing under way could still say otherwise. An event about which
    /// the master has to be asked is always news.
    pub fn says_nothing_new(&self, event: &Upstream) -> bool {
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
    fn ask(&self, draft: &mut Draft<'_>, (id, told): (&Id, Option<&Stamped>), cause: &Cause) {
        if let Some(told) = told.filter(|told| *told.clock != *COLUMN_CLOCK && !self.has_noted(id, told)) {
            draft.entry(Some(id), cause).versions.set(&told.clock, told.version.clone());
        }
        draft.note(Note::Touch(Arc::clone(id)));
        draft.note(Note::Dirty(Arc::clone(id)));
        draft.decision.outcome = Outcome::Deferred;
    }

    /// Judges `news` and drafts what follows from it.
    pub(super) fn reconcile(&self, draft: &mut Draft<'_>, news: &News<'_>, source: Source, cause: &Cause) {
        let versions = self.compare_versions(news);
        match (versions, source) {
            (Some(Order::Less), _) | (Some(Order::Equal), Source::Push) => {
                if let Source::Read { mark } = source {
                    self.clean(draft, news.id, mark);
                }
                if draft.decision.outcome == Outcome::Unchanged {
                    draft.decision.outcome = Outcome::Stale;
                }
            }
            (Some(Order::Greater), Source::Read { mark }) => {
                self.clean(draft, news.id, mark);
                self.overrule(draft, news, mark, cause);
            }
            (Some(Order::Greater), Source::Push) => {
                self.overrule(draft, news, u64::MAX, cause);
                if news.part {
                    // A change that was missed may have set other columns.
                    draft.note(Note::Dirty(Arc::clone(news.id)));
                }
            }
            // Also rows of one version that differ: what is known was pieced together, or the version does not tell all.
            (_, Source::Read { mark }) => {
                if self.lost.contains(news.id) && self.touched_or_queued(news.id, mark) {
                    // What the writes lie over is not known at all: rather an old row until the next read than none.
                    draft.note(Note::Clean(Arc::clone(news.id)));
                    self.overrule(draft, news, mark, cause);
                    draft.note(Note::Dirty(Arc::clone(news.id)));
                    return;
                }
                if self.touched_or_queued(news.id, mark) {
                    draft.note(Note::Dirty(Arc::clone(news.id)));
                    return;
                }
                self.clean(draft, news.id, mark);
                let entries = draft.decision.entries.len();
                self.overrule(draft, news, mark, cause);
                let others = self.motions(news.id) > 1;
                if others && draft.decision.entries.len() == entries {
                    // Nothing changed, but a read that saw the row before this one did must not change it any more.
                    draft.note(Note::Touch(Arc::clone(news.id)));
                }
                if draft.decision.entries.len() == entries {
                    self.expire(draft, news.id, mark);
                }
            }
            (None, Source::Push) => {
                let moving = self.has_queued(news.id) || self.motions(news.id) > 0 || self.dirty.contains_key(news.id);
                if moving || !self.rules.trust_payload || self.needs_read(news.id) {
                    self.ask(draft, (news.id, news.told), cause);
                    if self.base(news.id).as_ref().map(|base| &base.body) == news.row {
                        draft.decision.outcome = Outcome::Unchanged;
                    }
                    return;
                }
                self.overrule(draft, news, u64::MAX, cause);
                // It may be late, and older than what it replaced.
                draft.note(Note::Dirty(Arc::clone(news.id)));
            }
        }
    }

    /// Whether a read that began at `mark` cannot speak of the row: something happened to it since, or a write waits for it.
    fn touched_or_queued(&self, id: &Id, mark: u64) -> bool {
        self.has_queued(id) || self.touched_after(id, mark)
    }

    /// A read that began at `mark` has settled what was in doubt, unless the doubt is newer.
    fn clean(&self, draft: &mut Draft<'_>, id: &Id, mark: u64) {
        if self.settled_by(id, mark) {
            draft.note(Note::Clean(Arc::clone(id)));
        }
    }

    /// Makes the news the confirmed row. Routed operations that they speak of, or that were delivered before `mark`, are done.
    pub(super) fn overrule(&self, draft: &mut Draft<'_>, news: &News<'_>, mark: u64, cause: &Cause) {
        let fold = self.folds.get(news.id);
        let base = self.base(news.id);
        // What is known is nothing, if the cache file lost it.
        let lost = self.lost.contains(news.id) && !self.finds(news.id, news.row);
        let same = !lost && base.as_ref().map(|base| &base.body) == news.row;
        let read = mark != u64::MAX;
        let noted = self.versions_to_note(news);
        let new_version = news.told.is_some_and(|told| !self.has_noted(news.id, told));
        let versions = new_version && noted.column().is_some()
            || read
                && match self.versions.get(news.id).map(|known| &known.own) {
                    Some(Own::Told(_)) => news.row.is_none(),
                    Some(Own::Unknown) => news.row.is_some(),
                    None | Some(Own::InRow) => false,
                };
        let outdated = |op: &&OpId| {
            let delivered = self.ops.get(*op).is_some_and(|op| op.delivered <= mark);
            read && delivered && fold.is_some_and(|fold| fold.rebased.contains(*op))
        };
        let moves = fold.is_none() && moved(base.as_ref(), news.ordinal);
        let noting = new_version && !noted.is_empty();
        if same && !versions && !noting && !moves && !fold.is_some_and(|fold| fold.ops.iter().any(|op| outdated(&op))) {
            return;
        }
        let (done, rest) = match fold {
            // No news; but not what the row was when these were delivered.
            Some(fold) if same => fold.ops.iter().partition(outdated),
            Some(fold) => self.absorbed(news, &fold.ops.iter().copied().collect::<Vec<_>>(), base.as_ref(), mark),
            None => (Vec::new(), Vec::new()),
        };
        let after = self.folded(news.id, news.row, &rest);
        let before = self.table.get(news.id).map(|row| row.body());
        let ordinal = match news.ordinal {
            Some(ordinal) => ordinal,
            None => draft.ordinal_of(news.id),
        };
        let entry = draft.entry(Some(news.id), cause);
        entry.base = match news.row {
            _ if same && !versions && !moves => Base::Keep,
            Some(body) => Base::Set { body: body.clone(), ordinal },
            None => Base::Gone,
        };
        // Noted beside a row that is the same: it was not this event that made it so.
        entry.versions = noted;
        if !done.is_empty() {
            entry.op = OpChange::Absorb(done);
        }
        show(entry, before.as_ref(), after, news.row, ordinal);
        let frame = entry.frame.clone();
        draft.count(&frame);
    }

    /// Which routed operations the news end, and which still lie over the row.
    fn absorbed(&self, news: &News<'_>, ops: &[OpId], base: Option<&BaseRow>, mark: u64) -> (Vec<OpId>, Vec<OpId>) {
        let routed =
            ops.iter().take_while(|op| self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed)).count();
        let lost = self.lost.contains(news.id);
        let base = if lost { news.row } else { base.map(|base| &base.body) };
        let seen = (1..=routed).rev().find(|upto| self.speaks_of(news, &ops[..*upto], base));
        match seen {
            Some(upto) => (ops[..upto].to_vec(), ops[upto..].to_vec()),
            None if self.finds(news.id, news.row) => (Vec::new(), ops.to_vec()),
            None => ops.iter().partition(|op| {
                self.ops.get(*op).is_some_and(|op| op.state == OpState::Routed && op.delivered <= mark)
            }),
        }
    }

    /// Whether the news equal what `ops` made of the row, on the columns that they set.
    fn speaks_of(&self, news: &News<'_>, ops: &[OpId], base: Option<&Body>) -> bool {
        let made = self.folded(news.id, base, ops);
        let (Some(made), Some(row)) = (&made, news.row) else { return made.is_none() && news.row.is_none() };
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
            entry.visible = Visible::Base;
        }
        return;
    }
    entry.frame = frame_between(before.is_some(), after.is_some());
    entry.visible = match after {
        None => Visible::Gone,
        Some(body) if Some(&body) == confirmed => Visible::Base,
        Some(body) => Visible::Row { body, ordinal },
    };
}
