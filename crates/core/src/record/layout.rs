//! The canonical order of a row's members and which of them is the id.

use std::collections::HashMap;
use std::sync::Arc;

/// Member order of canonical rows: the schema's columns first, in schema order, then all others bytewise.
///
/// Two equal rows under one layout have equal bytes, which is what ETags, checksums and diffs compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    id_column: Arc<str>,
    integer_id: bool,
    ranks: HashMap<Arc<str>, usize>,
}

impl Layout {
    /// A layout with `columns` in this order. `integer_id` says that ids which read as integers are stored as numbers.
    pub fn new(id_column: &str, integer_id: bool, columns: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let ranks = columns.into_iter().enumerate().map(|(rank, column)| (Arc::from(column.as_ref()), rank)).collect();
        Layout { id_column: Arc::from(id_column), integer_id, ranks }
    }

    /// The column that holds the id.
    pub fn id_column(&self) -> &str {
        &self.id_column
    }

    /// Whether ids that read as integers are stored as numbers.
    pub fn integer_id(&self) -> bool {
        self.integer_id
    }

    /// The place of a declared column, `None` for others.
    pub fn rank(&self, column: &str) -> Option<usize> {
        self.ranks.get(column).copied()
    }
}
