//! Rows that a hook has gathered for a replacement.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::dio::guard::Guard;
use crate::record::{Body, Id, Layout, Rows};

/// The rows of a replacement so far.
#[derive(Debug)]
pub(crate) struct ReplacementRows {
    /// In the order in which they first came; `None` for a row that was taken away again.
    pub(super) rows: IndexMap<Id, Option<Body>>,
    pub(super) present: usize,
    /// Whether a complete list of the master is among them.
    pub(super) whole: bool,
    /// Whether rows are missing from them that could not be decoded.
    pub(super) undecodable: bool,
    /// Counts as a read under way from the clear on: other reads that find a row unchanged note it, so that the rows of the
    /// hook, which may be older, do not change it back.
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

    /// One row.
    pub(crate) fn get(&self, id: &str) -> Option<&Body> {
        self.rows.get(id)?.as_ref()
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.present
    }

    /// The rows.
    pub(crate) fn rows(&self, layout: &Arc<Layout>) -> Rows {
        let mut rows = Rows::with_layout(Arc::clone(layout));
        for (id, row) in &self.rows {
            if let Some(body) = row {
                rows.push_body(Arc::clone(id), body.clone());
            }
        }
        rows
    }
}
