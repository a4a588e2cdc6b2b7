//! Layouts: the canonical order of a row's members, and its id column.

use std::collections::HashMap;
use std::sync::Arc;

/// Member order of canonical rows: the schema's columns first, in schema order, then all others in byte order.
///
/// Equal rows under the same layout have equal bytes. ETags, checksums and diffs rely on this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    id_column: Arc<str>,
    integer_id: bool,
    ranks: HashMap<Arc<str>, usize>,
}

impl Layout {
    /// Creates a layout with `columns` in this order. If `integer_id` is true, ids that are integers are stored as numbers.
    pub fn new(id_column: &str, integer_id: bool, columns: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let ranks = columns.into_iter().enumerate().map(|(rank, column)| (Arc::from(column.as_ref()), rank)).collect();
        Layout { id_column: Arc::from(id_column), integer_id, ranks }
    }

    /// Name of the column that holds the id.
    pub fn id_column(&self) -> &str {
        &self.id_column
    }

    /// True if ids that are integers are stored as numbers.
    pub fn integer_id(&self) -> bool {
        self.integer_id
    }

    /// Position of a declared column, `None` for others.
    pub fn rank(&self, column: &str) -> Option<usize> {
        self.ranks.get(column).copied()
    }
}
