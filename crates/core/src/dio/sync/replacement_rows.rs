//! Rows that a callback has collected for a replacement.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::dio::guard::Guard;
use crate::record::{Body, Id, Layout, Rows};

/// Rows of a replacement so far.
#[derive(Debug)]
pub(crate) struct ReplacementRows {
    /// Rows in the order of their first insertion; `None` for a row that was removed again.
    pub(super) rows: IndexMap<Id, Option<Body>>,
    pub(super) present: usize,
    /// True if a complete list of the master is among them.
    pub(super) whole: bool,
    /// True if rows are missing because they could not be decoded.
    pub(super) undecodable: bool,
    /// Guard of a read that began with the clear. While it is open, other reads record the rows that they find unchanged, so
    /// that possibly older rows of the callback do not replace them.
    _guard: Guard,
}

impl ReplacementRows {
    pub(super) fn new(guard: Guard) -> ReplacementRows {
        ReplacementRows { rows: IndexMap::new(), present: 0, whole: false, undecodable: false, _guard: guard }
    }

    pub(super) fn put(&mut self, id: Id, row: Option<Body>) {
        let now = usize::from(row.is_some());
        let before = self.rows.insert(id, row).flatten();
        self.present = self.present + now - usize::from(before.is_some());
    }

    pub(super) fn forget(&mut self) {
        self.rows.clear();
        (self.present, self.whole, self.undecodable) = (0, false, false);
    }

    /// The row with `id`.
    pub(crate) fn get(&self, id: &str) -> Option<&Body> {
        self.rows.get(id)?.as_ref()
    }

    /// Number of rows, without removed ones.
    pub(crate) fn len(&self) -> usize {
        self.present
    }

    /// Builds the rows, without removed ones.
    pub(crate) fn rows(&self, layout: &Arc<Layout>) -> Rows {
        let mut rows = Rows::with_layout(Arc::clone(layout));
        for (id, row) in &self.rows {
            if let Some(body) = row {
                rows.push_body(id, body);
            }
        }
        rows
    }
}
