//! Rows of a table in slot order and in natural order.

use super::Table;
use super::order::Entries;
use super::rows::{CHUNK, Chunk, RowRef};

/// Rows in slot order: along a chunk, then on to the next.
pub(super) struct Slots<'a> {
    pub(super) table: &'a Table,
    pub(super) row: Option<RowRef<'a>>,
}

impl<'a> Iterator for Slots<'a> {
    type Item = RowRef<'a>;

    fn next(&mut self) -> Option<RowRef<'a>> {
        let row = self.row?;
        self.row = row.after().or_else(|| {
            let (number, chunk) = self.table.rows.next(row.slot() / CHUNK + 1)?;
            Some(chunk.row(number, 0))
        });
        Some(row)
    }
}

/// Rows in natural order.
pub(super) enum NaturalRows<'a> {
    Slots(Slots<'a>),
    /// Keeps the chunk it was in last: neighbours in natural order mostly are neighbours by slot.
    Ordered {
        table: &'a Table,
        entries: Entries<'a>,
        chunk: Option<(u32, &'a Chunk)>,
    },
}

impl<'a> Iterator for NaturalRows<'a> {
    type Item = RowRef<'a>;

    fn next(&mut self) -> Option<RowRef<'a>> {
        match self {
            NaturalRows::Slots(slots) => slots.next(),
            NaturalRows::Ordered { table, entries, chunk } => {
                let slot = entries.next()?.slot;
                let number = slot / CHUNK;
                if chunk.is_none_or(|(known, _)| known != number) {
                    *chunk = table.rows.get(number).map(|found| (number, found));
                }
                chunk.as_ref().and_then(|(_, chunk)| chunk.find(slot))
            }
        }
    }
}
