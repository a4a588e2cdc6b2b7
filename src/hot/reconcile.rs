//! What the master says about a row meets what is known of it: the rules that keep a confirmed row from going back.
//!
//! Versioned masters: the newest version wins. Unversioned ones: a read speaks only of rows that nothing has touched since it
//! began and that no write waits for (R2, R6); an upstream event is believed at once only when nothing else is in motion (R3);
//! in doubt the row is dirty and read again (R5). Routed operations stay over the row until the master's news speak of them.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use super::decide::{Draft, Outcome, Upstream, UpstreamChange, frame_between};
use super::entry::{Base, Cause, Entry, OpChange, Visible};
use super::op::{OpId, OpState};
use super::state::{BaseRow, Note, State};
use super::table::Ordinal;
use crate::record::{Body, CborValue, Id};
use crate::vista::query::Key;

/// What somebody says a row is.
pub(super) struct News<'a> {
    pub(super) id: &'a Id,
    /// The row, `None` if it is not there.
    pub(super) row: Option<&'a Body>,
    /// Its place in the master's order, if known.
    pub(super) ordinal: Option<Ordinal>,
    /// Its version, if told beside the row.
    pub(super) version: Option<&'a CborValue>,
}

/// How the news came.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// By a read of the master that began at `mark`.
    Read { mark: u64 },
    /// By itself.
    Push,
}

/// The version that a row carries in `column`.
pub(super) fn version_of(body: &Body, column: &str) -> Option<CborValue> {
    body.decode().ok()?.remove(column).filter(|version| !version.is_null())
}

impl State {
    pub(super) fn decide_upstream(&self, draft: &mut Draft<'_>, event: &Upstream) {
        let cause = Cause { origin: event.origin, op: None, delivery: event.delivery.clone() };
        let merged;
        let row = match &event.change {
            UpstreamChange::Row(body) => Some(body),
            UpstreamChange::Gone => None,
            UpstreamChange::Part(part) => match self.base(&event.id) {
                Some(base) => {
                    let effect = super::Effect::Patch(part.clone());
                    merged = effect.on(Some(&base.body), &event.id, self.rules.schema.layout());
                    merged.as_ref()
                }
                None => return self.ask(draft, &event.id),
            },
            UpstreamChange::Thin => return self.ask(draft, &event.id),
        };
        let news = News { id: &event.id, row, ordinal: None, version: event.version.as_ref() };
        self.reconcile(draft, &news, Source::Push, &cause);
    }

    /// The row is read from the master before anything is believed.
    fn ask(&self, draft: &mut Draft<'_>, id: &Id) {
        draft.note(Note::Touch(Arc::clone(id)));
        draft.note(Note::Dirty(Arc::clone(id)));
        draft.decision.outcome = Outcome::Deferred;
    }

    /// Judges `news` and drafts what follows from it.
    pub(super) fn reconcile(&self, draft: &mut Draft<'_>, news: &News<'_>, source: Source, cause: &Cause) {
        match self.compare_versions(news) {
            Some(Order::Greater) => return self.overrule(draft, news, u64::MAX, cause),
            Some(_) => {
                draft.note(Note::Clean(Arc::clone(news.id)));
                if draft.decision.outcome == Outcome::Unchanged {
                    draft.decision.outcome = Outcome::Stale;
                }
                return;
            }
            None => {}
        }
        match source {
            Source::Read { mark } => {
                if self.has_queued(news.id) || self.touched_after(news.id, mark) {
                    draft.note(Note::Dirty(Arc::clone(news.id)));
                    return;
                }
                draft.note(Note::Clean(Arc::clone(news.id)));
                self.overrule(draft, news, mark, cause);
            }
            Source::Push => {
                if self.has_queued(news.id) || self.in_motion() || !self.rules.trust_payload {
                    return self.ask(draft, news.id);
                }
                self.overrule(draft, news, u64::MAX, cause);
            }
        }
    }

    /// How the news' version stands to the known one, `None` when either is missing and the unversioned rules apply.
    fn compare_versions(&self, news: &News<'_>) -> Option<Order> {
        let column = self.rules.version.as_deref()?;
        let incoming = match (news.version, news.row) {
            (Some(version), _) => version.clone(),
            (None, Some(row)) => version_of(row, column)?,
            (None, None) => return None,
        };
        let known = match self.base(news.id) {
            Some(base) => version_of(&base.body, column)?,
            None => match self.tombstones.get(news.id) {
                Some(version) => version.clone(),
                None => return Some(Order::Greater),
            },
        };
        Some(compare_values(&incoming, &known))
    }

    /// Makes the news the confirmed row. Routed operations that they speak of, or that were delivered before `mark`, are done.
    pub(super) fn overrule(&self, draft: &mut Draft<'_>, news: &News<'_>, mark: u64, cause: &Cause) {
        let fold = self.folds.get(news.id);
        let base = self.base(news.id);
        let same = base.as_ref().map(|base| &base.body) == news.row;
        if same && (fold.is_some() || !moved(base.as_ref(), news.ordinal)) {
            return;
        }
        let (done, rest) = match fold {
            Some(fold) => self.absorbed(news, &fold.ops, base.as_ref(), mark),
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
            Some(body) => Base::Set { body: body.clone(), ordinal },
            None => Base::Gone,
        };
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
            None if lost => (Vec::new(), ops.to_vec()),
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

fn compare_values(a: &CborValue, b: &CborValue) -> Order {
    Key::of(a, false).cmp(&Key::of(b, false))
}
