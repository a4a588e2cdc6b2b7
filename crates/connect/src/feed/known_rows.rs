//! Rows that a Dio knows, for a sender that reports the removal of all rows at once.

use std::sync::Arc;

use diorama_core::state::State;

/// Ids of the confirmed rows of a state.
pub(crate) struct KnownRows {
    state: Arc<State>,
    /// Rows under writes that wait, which may not be visible.
    under_operations: Vec<String>,
    /// Index of the next visible row.
    next: usize,
}

impl KnownRows {
    pub(super) fn new(state: Arc<State>) -> KnownRows {
        let under_operations = state.folds().filter(|(_, fold)| fold.base.is_some()).map(|(id, _)| id.to_string());
        KnownRows { under_operations: under_operations.collect(), state, next: 0 }
    }

    /// Returns the ids of at most about `most` further rows.
    pub(crate) fn next(&mut self, most: usize) -> Vec<String> {
        let rows = self.state.table().natural(self.next).take(most).map(|row| row.id().to_string());
        let mut ids: Vec<String> = rows.collect();
        self.next += ids.len();
        ids.retain(|id| self.state.fold(id).is_none());
        let left = self.under_operations.len().saturating_sub(most - ids.len());
        ids.extend(self.under_operations.drain(left..));
        ids
    }

    /// Returns true if all ids were returned.
    pub(crate) fn is_at_end(&self) -> bool {
        self.next >= self.state.table().len() && self.under_operations.is_empty()
    }
}
