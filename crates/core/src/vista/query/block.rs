//! Blocks: neighbouring rows of a table, read column by column.
//!
//! A scan asks a [`Block`] for the [`Vector`]s of the columns that it reads, and works on those in place of the rows' JSON. What it
//! finds equals the row-by-row evaluator, which stays the definition: a cell that a vector does not represent is read from its row.

mod mask;
mod vector;

pub(crate) use mask::{BLOCK_ROWS, Mask};
pub(crate) use vector::{Vector, cells_bytes};

use std::sync::Arc;

use super::fields::{JsonRow, Path};

/// At most [`BLOCK_ROWS`] neighbouring rows of a table, numbered from 0.
pub(crate) trait Block {
    /// Number of rows.
    fn len(&self) -> usize;

    /// Id of the row with number `at`.
    fn id(&self, at: usize) -> &str;

    /// The row with number `at`.
    fn row(&self, at: usize) -> JsonRow<'_>;

    /// The cells under `path`.
    fn vector(&self, path: &Path) -> Arc<Vector>;
}
