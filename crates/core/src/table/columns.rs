//! Columns beside rows: vectors of the columns that scans read, and groups of aggregations, kept for each 2,048 rows.
//!
//! They hang on the inner nodes of the rows, so that clones of a table share them, and a node whose rows change begins without. A
//! [`ColumnCache`] counts the bytes of all that are alive, those of old tables too, and drops the least recently used beyond its limit.

mod block;
mod cache;

pub(crate) use block::ColumnScan;
use block::RowBlock;
pub use cache::ColumnCache;
pub(super) use cache::Kept;

use super::Table;

impl Table {
    /// The cache of the table's columns.
    pub fn columns(&self) -> &ColumnCache {
        &self.columns
    }

    /// Blocks of rows in slot order, with the columns of `scan`.
    pub(crate) fn blocks<'a>(&'a self, scan: &'a ColumnScan<'_>) -> impl Iterator<Item = RowBlock<'a>> {
        self.rows.leaves().map(|leaf| RowBlock::new(&leaf, scan))
    }

    /// Drops what is kept under `entry`.
    fn forget(&self, entry: &cache::Entry) {
        self.rows.leaves().for_each(|leaf| leaf.notes.forget(entry));
    }
}
