//! Builder of a table from rows in slot order.

use std::fmt;
use std::sync::Arc;

use super::ids::Cell;
use super::rows::{CHUNK, ChunkBuilder, NewRow};
use super::{Ordinal, Slot, Table};
use crate::record::Body;

/// Builds a table bottom-up from rows in slot order, as when a source is seeded or a cache is loaded.
pub struct TableBuilder {
    table: Table,
    draft: ChunkBuilder,
    cells: Vec<Cell>,
    /// The last ordinal, while slot order is natural order.
    ascending: Option<Ordinal>,
    /// Rows whose slots did not ascend.
    late: Vec<(Slot, Box<str>, Body, Ordinal)>,
}

impl Default for TableBuilder {
    fn default() -> Self {
        TableBuilder::new()
    }
}

impl fmt::Debug for TableBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableBuilder").field("len", &self.cells.len()).finish_non_exhaustive()
    }
}

impl TableBuilder {
    /// A builder without rows.
    pub fn new() -> TableBuilder {
        TableBuilder {
            table: Table::new(),
            draft: ChunkBuilder::default(),
            cells: Vec::new(),
            ascending: Some(0),
            late: Vec::new(),
        }
    }

    /// Adds a row in the next slot.
    pub fn push(&mut self, id: &str, body: &Body, ordinal: Ordinal) -> Slot {
        let slot = self.table.next_slot;
        self.push_at(slot, id, body, ordinal);
        slot
    }

    /// Adds a row in a given slot. Slots should ascend: of two rows with one id the higher slot stays, and rows out
    /// of turn are put last, one by one.
    pub fn push_at(&mut self, slot: Slot, id: &str, body: &Body, ordinal: Ordinal) {
        let next = self.table.next_slot;
        if slot < next || slot == Slot::MAX {
            self.late.push((slot, id.into(), body.clone(), ordinal));
            return;
        }
        if next > 0 && slot / CHUNK != (next - 1) / CHUNK {
            self.flush();
        }
        self.draft.push(slot, NewRow { id, body, ordinal });
        self.cells.push(Cell { hash: self.table.ids.hash(id), slot });
        self.ascending = self.ascending.filter(|last| *last <= ordinal).map(|_| ordinal);
        self.table.next_slot = slot + 1;
    }

    /// The table.
    pub fn finish(mut self) -> Table {
        self.flush();
        let TableBuilder { mut table, cells, ascending, late, .. } = self;
        let same = |a, b| match (table.at(a), table.at(b)) {
            (Some(a), Some(b)) => a.id() == b.id(),
            _ => false,
        };
        let mut ids = table.ids.clone();
        let beaten = ids.fill(&cells, same);
        table.ids = ids;
        for slot in beaten {
            table.replace(slot, None);
        }
        if ascending.is_none() {
            table.order = Some(table.build_order());
        }
        for (slot, id, body, ordinal) in late {
            table.put(slot, &id, &body, ordinal);
        }
        table
    }

    /// Hangs the chunk in progress into the table.
    fn flush(&mut self) {
        if let Some(chunk) = self.draft.take_chunk() {
            self.table.chunk_bytes += chunk.heap();
            let number = (self.table.next_slot - 1) / CHUNK;
            self.table.rows.edit(number, |place| *place = Some(Arc::new(chunk)));
        }
    }
}
