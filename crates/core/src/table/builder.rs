//! Builder of a table from rows in slot order.

use std::fmt;
use std::sync::Arc;

use super::ids::Cell;
use super::rows::{CHUNK, Chunk, ChunkBuilder, NewRow};
use super::{ORDINAL_STEP, Ordinal, Slot, Table};
use crate::record::{Body, PACK, Pack, Rows};

/// Builds a table bottom-up from rows in slot order, for example from a source's first list or a stored cache.
pub struct TableBuilder {
    table: Table,
    draft: ChunkBuilder,
    cells: Vec<Cell>,
    /// The last ordinal, `None` once slot order differs from natural order.
    ascending: Option<Ordinal>,
    /// Rows whose slots were not ascending.
    unordered: Vec<(Slot, Box<str>, Body, Ordinal)>,
}

const _: () = assert!(PACK == CHUNK as usize, "a pack becomes a chunk");

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
    /// Creates a builder without rows.
    pub fn new() -> TableBuilder {
        TableBuilder {
            table: Table::new(),
            draft: ChunkBuilder::default(),
            cells: Vec::new(),
            ascending: Some(0),
            unordered: Vec::new(),
        }
    }

    /// Adds a row in the next slot.
    pub fn push(&mut self, id: &str, body: &Body, ordinal: Ordinal) -> Slot {
        let slot = self.table.next_slot;
        self.push_at(slot, id, body, ordinal);
        slot
    }

    /// Adds a row in a given slot. Slots should be ascending: rows out of order are inserted one by one at the end. If two rows
    /// have the same id, the one in the higher slot is kept.
    pub fn push_at(&mut self, slot: Slot, id: &str, body: &Body, ordinal: Ordinal) {
        let next = self.table.next_slot;
        if slot < next || slot == Slot::MAX {
            self.unordered.push((slot, id.into(), body.clone(), ordinal));
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

    /// Builds a table of the rows of a list, whose buffers become those of the table. The list refers to the table afterwards.
    pub fn take_over(rows: &mut Rows) -> Table {
        let count = rows.len();
        let mut builder = TableBuilder::new();
        builder.cells.reserve_exact(count);
        rows.take_packs().for_each(|pack| builder.push_pack(pack));
        let table = builder.finish();
        rows.refer_to(Arc::new(table.without_indexes()), count);
        table
    }

    /// Adds a pack of rows, each of which but the last is full.
    fn push_pack(&mut self, pack: Pack) {
        let first = self.table.next_slot;
        let chunk = Chunk::of_pack(pack, (Ordinal::from(first) + 1).saturating_mul(ORDINAL_STEP), ORDINAL_STEP);
        let rows = (0..chunk.len()).map(|at| chunk.row(first / CHUNK, at));
        self.cells.extend(rows.map(|row| Cell { hash: self.table.ids.hash(row.id()), slot: row.slot() }));
        self.table.next_slot += chunk.len() as Slot;
        self.table.chunk_bytes += chunk.heap();
        self.table.rows.edit(first / CHUNK, |entry| *entry = Some(Arc::new(chunk)));
    }

    /// Builds the table.
    pub fn finish(mut self) -> Table {
        self.flush();
        let TableBuilder { mut table, cells, ascending, unordered, .. } = self;
        let same = |a, b| match (table.at(a), table.at(b)) {
            (Some(a), Some(b)) => a.id() == b.id(),
            _ => false,
        };
        let mut ids = table.ids.clone();
        let superseded = ids.fill(&cells, same);
        table.ids = ids;
        for slot in superseded {
            table.replace(slot, None);
        }
        if ascending.is_none() {
            table.order = Some(table.build_order());
        }
        for (slot, id, body, ordinal) in unordered {
            table.put(slot, &id, &body, ordinal);
        }
        table
    }

    /// Moves the chunk in progress into the table.
    fn flush(&mut self) {
        if let Some(chunk) = self.draft.take_chunk() {
            self.table.chunk_bytes += chunk.heap();
            let number = (self.table.next_slot - 1) / CHUNK;
            self.table.rows.edit(number, |entry| *entry = Some(Arc::new(chunk)));
        }
    }
}
