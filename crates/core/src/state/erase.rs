//! Erasure: what is left of the log, of operations and of what is told once everything that is kept of some rows goes.
//!
//! A purge is one [`Command::Purge`](super::Command::Purge): one entry that names all ids ([`Entry::purge`]), then an entry per row that
//! is there, which removes it. Older entries of the rows are rewritten after that; [`State::purges`] lists what is not finished,
//! also after a restart, until the entry with the ids is rewritten without them.

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

/// Detail of an error that may have quoted an erased row.
const ERASED: &str = "erased";

/// Erases rows from entries, which are given in their order.
#[derive(Clone, Debug)]
pub struct Eraser {
    ids: Arc<HashSet<Id>>,
    /// Operations over several rows, some of which are erased: their errors may quote them.
    many: HashSet<OpId>,
}

impl Eraser {
    /// Erases the rows `ids`.
    pub fn new(ids: impl IntoIterator<Item = Id>) -> Eraser {
        Eraser { ids: Arc::new(ids.into_iter().collect()), many: HashSet::new() }
    }

    /// Whether rows of this id are erased.
    pub fn erases(&self, id: &Id) -> bool {
        self.ids.contains(id)
    }

    /// Whether an entry may have to do with the rows.
    pub fn concerns(&self, entry: &Entry) -> bool {
        let many = matches!(&entry.op, OpChange::Stage(op) if op.targets.len() > 1);
        let of_many = entry.cause.op.is_some_and(|op| self.many.contains(&op));
        many || of_many || entry.id.as_ref().is_none_or(|id| self.ids.contains(id))
    }

    /// Takes the values of the rows out of an entry, which keeps its position, its operation and its time. Entries that told of a
    /// change of such a row tell of its removal from now on. Says whether the entry is another than before.
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
    let mut held = entry.frame != Frame::Silent || !matches!(entry.former_row, FormerRow::Unknown | FormerRow::Absent);
    if let Base::Set { .. } = entry.base {
        (entry.base, held) = (Base::Gone, true);
    }
    if let VisibleChange::Row { .. } | VisibleChange::Staged(_) | VisibleChange::Base = entry.visible {
        (entry.visible, held) = (VisibleChange::Gone, true);
    }
    held |= match &mut entry.op {
        OpChange::Stage(op) => erase_effect(&mut op.effect),
        OpChange::Merge { effect, .. } => erase_effect(effect),
        OpChange::Settle { beneath, .. } => beneath.take().is_some(),
        OpChange::None | OpChange::Join | OpChange::Absorb(_) => false,
    };
    held |= erase_errors(entry);
    if let Frame::Inserted | Frame::Changed = entry.frame {
        entry.frame = Frame::Removed;
    }
    entry.former_row = FormerRow::Unknown;
    entry.erased = held;
    held
}

fn erase_errors(entry: &mut Entry) -> bool {
    let settled = match &mut entry.op {
        OpChange::Settle { error: Some(error), .. } => erase_error(error),
        _ => false,
    };
    let told = match &mut entry.frame {
        Frame::WriteFailed(error) => erase_error(error),
        _ => false,
    };
    settled || told
}

fn erase_error(error: &mut OpError) -> bool {
    let held = error.detail != ERASED;
    error.detail = ERASED.into();
    held
}

/// Leaves the kind of write and nothing of its row.
fn erase_effect(effect: &mut Effect) -> bool {
    let (Effect::Insert(body) | Effect::Replace(body) | Effect::Patch(body)) = effect else { return false };
    let empty = Body::from_parts(Bytes::from_static(b"{}"), None);
    let held = *body != empty;
    *body = empty;
    held
}

/// Takes erased rows out of a bulk entry that carries them.
fn erase_carried(entry: &mut Entry, ids: &HashSet<Id>) -> bool {
    let Base::Many { carried, .. } = &mut entry.base else { return false };
    let mut held = false;
    for row in carried.iter_mut().filter(|row| ids.contains(&row.id)) {
        held |= row.row.take().is_some();
    }
    held
}

/// Whether an operation is settled for good: nobody needs what it would write any more.
fn is_settled(op: &Op) -> bool {
    matches!(op.state, OpState::Applied | OpState::Failed | OpState::Discarded)
}

fn is_about(op: &Op, ids: &HashSet<Id>) -> bool {
    op.targets.iter().any(|id| ids.contains(id))
}

impl State {
    /// Purges whose rows may still be in older entries of the log, by position.
    pub fn purges(&self) -> impl Iterator<Item = (Seq, Arc<[Id]>)> + '_ {
        self.purges.iter().map(|(seq, ids)| (*seq, Arc::clone(ids)))
    }

    /// Settled operations on these rows whose values are remembered.
    pub fn settled_with_values(&self, ids: &HashSet<Id>) -> usize {
        let with_values = |op: &&Op| is_settled(op) && is_about(op, ids) && erase_effect(&mut op.effect.clone());
        self.ops.values().filter(with_values).count()
    }

    /// Whether nothing is shown of a row and no operation waits on it.
    pub fn is_absent(&self, id: &str) -> bool {
        !self.table.contains(id) && !self.folds.contains_key(id)
    }

    /// Removes rows with all that is known of them. Refused while an operation on one of them is not settled.
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
        // Before the removals, so that what was made of older positions is known to be from before.
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

    /// Forgets what settled operations wrote to these rows.
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
