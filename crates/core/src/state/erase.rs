//! Erasure of all stored data of some rows from the log, from operations and from events.
//!
//! A purge is one [`Command::Purge`](super::Command::Purge): one entry with all ids ([`Entry::purge`]), then one entry per
//! existing row, which removes it. Older entries of the rows are rewritten after that. [`State::purges`] lists the unfinished
//! purges, also after a restart, until the entry with the ids is rewritten without them.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::data::{Note, State};
use super::decision::{DecisionBuilder, cause};
use super::entry::{Base, Entry, Frame, OpChange, Origin, VisibleChange};
use super::former_row::FormerRow;
use super::op::{Effect, Op, OpError, OpId, OpState};
use crate::record::{Body, Id, Seq};
use crate::vista::{Error, Result};

/// Replacement for the detail of an error that may quote an erased row.
const ERASED: &str = "erased";

/// Erases rows from entries, which must be passed in log order.
#[derive(Clone, Debug)]
pub struct Eraser {
    ids: Arc<HashSet<Id>>,
    /// Operations on several rows, some of which are erased: their errors may quote them.
    many: HashSet<OpId>,
}

impl Eraser {
    /// Creates an eraser of the rows `ids`.
    pub fn new(ids: impl IntoIterator<Item = Id>) -> Eraser {
        Eraser { ids: Arc::new(ids.into_iter().collect()), many: HashSet::new() }
    }

    /// Returns true if this row is erased.
    pub fn erases(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }

    /// Returns true if an entry may contain data of the rows.
    pub fn concerns(&self, entry: &Entry) -> bool {
        let many = matches!(&entry.op, OpChange::Stage(op) if op.targets.len() > 1);
        let of_many = entry.cause.op.is_some_and(|op| self.many.contains(&op));
        many || of_many || entry.id.as_ref().is_none_or(|id| self.ids.contains(id))
    }

    /// Removes the values of the rows from an entry, which keeps its position, operation and time. Events about a change of
    /// such a row become events about its removal. Returns true if the entry changed.
    pub fn erase(&mut self, entry: &mut Entry) -> bool {
        if let OpChange::Stage(op) = &entry.op
            && op.targets.len() > 1
            && op.targets.iter().any(|id| self.ids.contains(id))
        {
            self.many.insert(op.id);
        }
        if entry.id.as_ref().is_some_and(|id| self.ids.contains(id)) {
            return erase_own(entry);
        }
        let errors = entry.cause.op.is_some_and(|op| self.many.contains(&op)) && erase_errors(entry);
        erase_carried(entry, &self.ids) || errors
    }
}

/// Erases an entry of an erased row.
fn erase_own(entry: &mut Entry) -> bool {
    if entry.erased {
        return false;
    }
    let mut changed =
        entry.frame != Frame::Silent || !matches!(entry.former_row, FormerRow::Unknown | FormerRow::Absent);
    if let Base::Set { .. } = entry.base {
        (entry.base, changed) = (Base::Gone, true);
    }
    if let VisibleChange::Row { .. } | VisibleChange::Staged(_) | VisibleChange::Base = entry.visible {
        (entry.visible, changed) = (VisibleChange::Gone, true);
    }
    changed |= match &mut entry.op {
        OpChange::Stage(op) => erase_effect(&mut op.effect),
        OpChange::Merge { effect, .. } => erase_effect(effect),
        OpChange::Settle { beneath, .. } => beneath.take().is_some(),
        OpChange::None | OpChange::Join | OpChange::Absorb(_) => false,
    };
    changed |= erase_errors(entry);
    if let Frame::Inserted | Frame::Changed = entry.frame {
        entry.frame = Frame::Removed;
    }
    entry.former_row = FormerRow::Unknown;
    entry.erased = changed;
    changed
}

fn erase_errors(entry: &mut Entry) -> bool {
    let settled = match &mut entry.op {
        OpChange::Settle { error: Some(error), .. } => erase_error(error),
        _ => false,
    };
    let event = match &mut entry.frame {
        Frame::WriteFailed(error) => erase_error(error),
        _ => false,
    };
    settled || event
}

fn erase_error(error: &mut OpError) -> bool {
    let changed = error.detail != ERASED;
    error.detail = ERASED.into();
    changed
}

/// Keeps only the kind of the write.
fn erase_effect(effect: &mut Effect) -> bool {
    let (Effect::Insert(body) | Effect::Replace(body) | Effect::Patch(body)) = effect else { return false };
    let empty = Body::from_parts(Bytes::from_static(b"{}"), None);
    let changed = *body != empty;
    *body = empty;
    changed
}

/// Removes erased rows from a bulk entry that carries them.
fn erase_carried(entry: &mut Entry, ids: &HashSet<Id>) -> bool {
    let Base::Many { carried, .. } = &mut entry.base else { return false };
    let mut changed = false;
    for row in carried.iter_mut().filter(|row| ids.contains(&row.id)) {
        changed |= row.row.take().is_some();
    }
    changed
}

/// Returns true if an operation is finished, so that its values are not needed any more.
fn is_settled(op: &Op) -> bool {
    matches!(op.state, OpState::Applied | OpState::Failed | OpState::Discarded)
}

fn is_about(op: &Op, ids: &HashSet<Id>) -> bool {
    op.targets.iter().any(|id| ids.contains(id))
}

impl State {
    /// Purges with rows that may still be in older entries of the log, by position.
    pub fn purges(&self) -> impl Iterator<Item = (Seq, Arc<[Id]>)> + '_ {
        self.purges.iter().map(|(seq, ids)| (*seq, Arc::clone(ids)))
    }

    /// Returns the number of settled operations on these rows that still have values.
    pub fn settled_with_values(&self, ids: &HashSet<Id>) -> usize {
        let with_values = |op: &&Op| is_settled(op) && is_about(op, ids) && erase_effect(&mut op.effect.clone());
        self.ops.values().filter(with_values).count()
    }

    /// Returns true if the row is not visible and has no open operation.
    pub fn is_absent(&self, id: &str) -> bool {
        !self.table.contains(id) && !self.folds.contains_key(id)
    }

    /// Removes rows with all their data. Rejected while an operation on one of them is not settled.
    pub(super) fn decide_purge(&self, draft: &mut DecisionBuilder<'_>, ids: &Arc<[Id]>) -> Result<()> {
        let set: HashSet<Id> = ids.iter().cloned().collect();
        if let Some(op) = self.ops.values().find(|op| !is_settled(op) && is_about(op, &set)) {
            let id = op.targets.iter().find(|id| set.contains(*id)).map(ToString::to_string).unwrap_or_default();
            let detail = match op.state {
                OpState::Parked => format!("has a parked write, {}", op.id),
                _ => format!("has a write that the source has not confirmed, {}", op.id),
            };
            return Err(Error::Conflict { id, detail });
        }
        let cause = cause(Origin::Program);
        // Before the removals, so that data derived from older positions is known to be older.
        draft.entry(None, &cause).purge = Arc::clone(ids);
        for id in ids.iter().filter(|id| self.table.contains(id)) {
            let entry = draft.entry(Some(id), &cause);
            (entry.base, entry.visible, entry.frame) = (Base::Gone, VisibleChange::Gone, Frame::Removed);
            entry.erased = true;
            draft.count(&Frame::Removed);
        }
        draft.note(Note::Forget(Arc::new(set)));
        Ok(())
    }

    /// Erases the values that settled operations wrote to these rows.
    pub(super) fn forget_values(&mut self, ids: &HashSet<Id>) {
        let about = |op: &&Op| is_settled(op) && is_about(op, ids);
        let ops: Vec<OpId> = self.ops.values().filter(about).map(|op| op.id).collect();
        for id in ops {
            let Some(op) = self.ops.get_mut(&id) else { continue };
            erase_effect(&mut op.effect);
            op.beneath = None;
            if let Some(error) = &mut op.error {
                erase_error(error);
            }
        }
    }
}
