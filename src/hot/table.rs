//! Rows by id and in natural order, persistent: a clone is O(1) and a change copies only what it touches.
/// A place in a table, stable for its row's life.
pub type Slot = u32;
/// Rows.
#[derive(Clone, Debug, Default)]
pub struct Table;
/// Builds a table bottom-up.
#[derive(Debug, Default)]
pub struct TableBuilder;
/// A row, borrowed.
#[derive(Debug)]
pub struct RowRef<'a>(&'a ());
