//! Tables: rows by id and in natural order, as a persistent data structure. A clone is O(1); a change copies only the nodes that
//! it touches.
//!
//! A table has three structures behind `Arc`s: chunks of rows by slot (`rows`), slots by id (`ids`) and, only if slot order
//! differs from natural order, an [`Order`] of slots by ordinal. Readers hold a clone; the single writer changes its own.

mod builder;
mod columns;
mod ids;
pub(crate) mod index;
mod iter;
pub mod order;
mod rows;
pub mod text;
mod trie;

#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod list_tests;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use self::builder::TableBuilder;
pub use self::columns::ColumnCache;
pub(crate) use self::columns::ColumnScan;
use self::ids::{Cell, Ids};
pub use self::index::{BuiltIndex, Index, Spec, TieBreak};
use self::iter::{NaturalRows, Slots};
use self::order::Order;
pub use self::rows::RowRef;
use self::rows::{CHUNK, Chunk, NewRow, copy_joined};
use self::trie::Trie;
use crate::record::{Baseline, Body, BodyRef};

/// A row's slot in a table: stable for the row's lifetime and never reused.
pub type Slot = u32;

/// A row's position in natural order, as a key with gaps. Rows with equal ordinals are in slot order.
pub type Ordinal = u64;

/// Gap between the ordinals of appended rows.
pub const ORDINAL_STEP: u64 = 1 << 32;

/// Rows by id and in natural order. Cheap to clone: clones share their common parts.
#[derive(Clone)]
pub struct Table {
    rows: Trie<Chunk, columns::Kept>,
    ids: Ids,
    /// Natural order; `None` while it equals slot order.
    order: Option<Order>,
    next_slot: Slot,
    /// Heap bytes of all chunks.
    chunk_bytes: usize,
    /// Orders by columns, each updated with every change of a row.
    indexes: Arc<Vec<Index>>,
    columns: Arc<ColumnCache>,
}

impl Default for Table {
    fn default() -> Self {
        Table::new()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("len", &self.len()).field("next_slot", &self.next_slot).finish_non_exhaustive()
    }
}

impl Table {
    /// An empty table.
    pub fn new() -> Table {
        Table {
            rows: Trie::new(),
            ids: Ids::new(),
            order: None,
            next_slot: 0,
            chunk_bytes: 0,
            indexes: Arc::default(),
            columns: Arc::default(),
        }
    }

    /// Clones the rows without their indexes, for a copy that is kept for longer.
    pub fn without_indexes(&self) -> Table {
        Table { indexes: Arc::default(), ..self.clone() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row with this id.
    pub fn get(&self, id: &str) -> Option<RowRef<'_>> {
        self.ids.find(self.ids.hash(id), |slot| self.at(slot).filter(|row| row.id() == id))
    }

    /// True if there is a row with this id.
    pub fn contains(&self, id: &str) -> bool {
        self.slot_of(id).is_some()
    }

    /// Slot of the row with this id.
    pub fn slot_of(&self, id: &str) -> Option<Slot> {
        self.get(id).map(|row| row.slot())
    }

    /// The row in `slot`.
    pub fn at(&self, slot: Slot) -> Option<RowRef<'_>> {
        self.rows.get(slot / CHUNK)?.find(slot)
    }

    /// Slot of the next new row.
    pub fn next_slot(&self) -> Slot {
        self.next_slot
    }

    /// The highest ordinal, `None` if there are no rows.
    pub fn last_ordinal(&self) -> Option<Ordinal> {
        match &self.order {
            Some(order) => self.at(order.nth(order.len().checked_sub(1)?)?.slot).map(|row| row.ordinal()),
            None => self.rows.last().map(|(_, chunk)| chunk.ordinal(chunk.len() - 1)),
        }
    }

    /// Ordinal of the next appended row: a whole step after the last.
    pub fn next_ordinal(&self) -> Ordinal {
        let last = self.last_ordinal().unwrap_or(0);
        let next = last.checked_add(ORDINAL_STEP).and_then(|next| next.checked_next_multiple_of(ORDINAL_STEP));
        next.unwrap_or(Ordinal::MAX)
    }

    /// Approximate heap memory in bytes. Parts shared with clones are counted in full.
    pub fn bytes(&self) -> usize {
        let ids = self.len() * size_of::<Cell>() * 9 / 8;
        let indexes: usize = self.indexes.iter().map(Index::bytes).sum();
        self.chunk_bytes + ids + self.order.as_ref().map_or(0, Order::bytes) + indexes + self.columns.bytes()
    }

    /// Inserts or replaces the row of `id` and returns its slot. Without `ordinal` an existing row keeps its position and a new row
    /// is appended.
    pub fn upsert(&mut self, id: &str, body: &Body, ordinal: Option<Ordinal>) -> Slot {
        let Some(slot) = self.slot_of(id) else {
            let ordinal = ordinal.unwrap_or_else(|| self.next_ordinal());
            let slot = self.reserve(1);
            self.ids.insert(self.ids.hash(id), slot);
            self.write(slot, NewRow { id, body, ordinal });
            return slot;
        };
        let current = || self.at(slot).map_or(0, |row| row.ordinal());
        let ordinal = ordinal.unwrap_or_else(current);
        self.write(slot, NewRow { id, body, ordinal });
        slot
    }

    /// Writes a row into a given slot, for loading stored rows. Removes another row in that slot, and the row of that id in
    /// another slot.
    pub fn put(&mut self, slot: Slot, id: &str, body: &Body, ordinal: Ordinal) {
        let before = self.slot_of(id);
        if before != Some(slot) {
            if let Some(before) = before {
                self.clear(before);
            }
            self.clear(slot);
            self.ids.insert(self.ids.hash(id), slot);
        }
        self.next_slot = self.next_slot.max(slot.saturating_add(1));
        self.write(slot, NewRow { id, body, ordinal });
    }

    /// Removes the row of `id` and returns its slot.
    pub fn remove(&mut self, id: &str) -> Option<Slot> {
        let slot = self.slot_of(id)?;
        self.clear(slot);
        Some(slot)
    }

    /// Moves the row of `id` in natural order. Returns true if the row exists.
    pub fn set_ordinal(&mut self, id: &str, ordinal: Ordinal) -> bool {
        let Some(row) = self.get(id) else { return false };
        let (slot, old) = (row.slot(), row.ordinal());
        if old != ordinal {
            let old_keys = self.indexed_keys(slot);
            self.rows.edit(slot / CHUNK, |entry| {
                if let Some(chunk) = entry
                    && let Ok(at) = chunk.position(slot)
                {
                    Arc::make_mut(chunk).set_ordinal(at, ordinal);
                }
            });
            self.reorder(slot, Some(old), Some(ordinal));
            self.reindex_row(slot, old_keys.as_ref());
        }
        true
    }

    /// Reserves `n` slots for [`Table::put`] and returns the first.
    ///
    /// # Panics
    /// Panics after 2^32 new rows since the last reload of the table, which starts at 0 again.
    pub fn reserve(&mut self, n: u32) -> Slot {
        let first = self.next_slot;
        self.next_slot = first.checked_add(n).expect("a table sees fewer than 2^32 new rows between two reloads");
        first
    }

    /// Rows in natural order, starting at index `offset`.
    pub fn natural(&self, offset: usize) -> impl Iterator<Item = RowRef<'_>> + '_ {
        match &self.order {
            Some(order) => NaturalRows::Ordered { table: self, entries: order.range(offset..usize::MAX), chunk: None },
            None => NaturalRows::Slots(self.rows_from(offset)),
        }
    }

    /// Rows in natural order with ordinals above `ordinal`.
    pub fn natural_after(&self, ordinal: Ordinal) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.natural(ordinal.checked_add(1).map_or(self.len(), |next| self.position_of(next)))
    }

    /// Number of rows before `ordinal` in natural order.
    pub fn position_of(&self, ordinal: Ordinal) -> usize {
        if let Some(order) = &self.order {
            return order.seek(&ordinal.to_be_bytes());
        }
        // The last chunk that begins before `ordinal` holds the position; binary search over chunk numbers.
        let (mut low, mut high) = (0, self.rows.last().map_or(0, |(number, _)| number + 1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.rows.next(middle) {
                Some((number, chunk)) if chunk.ordinal(0) < ordinal => low = number + 1,
                _ => high = middle,
            }
        }
        self.rows.prev(low).map_or(0, |(number, chunk)| self.rows.rank(number) + chunk.rank(ordinal))
    }

    /// Number of rows up to and including the position of `slot` at `ordinal`, in natural order.
    pub fn position_behind(&self, ordinal: Ordinal, slot: Slot) -> usize {
        let from = self.position_of(ordinal);
        let same = self.natural(from).take_while(|row| row.ordinal() == ordinal && row.slot() <= slot);
        from + same.count()
    }

    /// Appends up to `limit` rows in natural order as `row,row`. Returns their number.
    pub fn natural_page_into(&self, offset: usize, limit: usize, out: &mut Vec<u8>) -> usize {
        let count = self.len().saturating_sub(offset).min(limit);
        if self.order.is_some() {
            copy_joined(self.natural(offset).take(limit), out);
            return count;
        }
        let (mut left, mut next) = (count, self.rows.nth(offset));
        while left > 0
            && let Some((number, chunk, at)) = next
        {
            let rows = left.min(chunk.len() - at);
            out.extend_from_slice(chunk.run(at, at + rows - 1));
            left -= rows;
            if left > 0 {
                out.push(b',');
                next = self.rows.next(number + 1).map(|(number, chunk)| (number, chunk, 0));
            }
        }
        count
    }

    /// Appends the existing rows of `slots` as `row,row`.
    ///
    /// All rows are located before any is copied, so that memory fetches of one overlap with the lookup of the next.
    pub fn rows_into(&self, slots: &[Slot], out: &mut Vec<u8>) {
        let mut rows = Vec::with_capacity(slots.len());
        rows.extend(slots.iter().filter_map(|slot| self.at(*slot)).map(|row| row.json()));
        out.reserve(rows.iter().map(|row| row.len() + 1).sum());
        for (at, row) in rows.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(row);
        }
    }

    /// True if natural order equals slot order.
    pub(crate) fn is_in_slot_order(&self) -> bool {
        self.order.is_none()
    }

    /// Rows in slot order.
    pub fn iter_slots(&self) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.rows_from(0)
    }

    /// Rows in slot order, starting at index `offset`.
    fn rows_from(&self, offset: usize) -> Slots<'_> {
        let row = self.rows.nth(offset).map(|(number, chunk, at)| chunk.row(number, at));
        Slots { table: self, row }
    }

    /// Writes a row into the slot that the id table already has for it.
    fn write(&mut self, slot: Slot, new: NewRow<'_>) {
        let old = self.at(slot).map(|row| row.ordinal());
        let old_keys = self.indexed_keys(slot);
        self.replace(slot, Some(new));
        self.reorder(slot, old, Some(new.ordinal));
        self.reindex_row(slot, old_keys.as_ref());
    }

    /// Removes the row in `slot`, if there is one.
    fn clear(&mut self, slot: Slot) {
        let Some(row) = self.at(slot) else { return };
        let (hash, ordinal) = (self.ids.hash(row.id()), row.ordinal());
        let old_keys = self.indexed_keys(slot);
        self.ids.remove(hash, slot);
        self.replace(slot, None);
        self.reorder(slot, Some(ordinal), None);
        self.reindex_row(slot, old_keys.as_ref());
    }

    fn replace(&mut self, slot: Slot, new: Option<NewRow<'_>>) {
        let (before, after) = self.rows.edit(slot / CHUNK, |entry| {
            let before = entry.as_ref().map_or(0, |chunk| chunk.heap());
            let chunk = match entry {
                Some(chunk) => chunk.with(slot, new),
                None => Chunk::default().with(slot, new),
            };
            let after = if chunk.len() > 0 { chunk.heap() } else { 0 };
            *entry = Some(Arc::new(chunk));
            (before, after)
        });
        self.chunk_bytes = self.chunk_bytes + after - before;
    }

    /// Updates natural order after the ordinal of the row in `slot` changed.
    fn reorder(&mut self, slot: Slot, old: Option<Ordinal>, new: Option<Ordinal>) {
        if old == new {
            return;
        }
        match &mut self.order {
            Some(order) => {
                if let Some(old) = old {
                    order.remove(&old.to_be_bytes(), slot, |other| other.cmp(&slot));
                }
                if let Some(new) = new {
                    order.insert(&new.to_be_bytes(), slot, |other| other.cmp(&slot));
                } else if order.is_empty() {
                    self.order = None;
                }
            }
            None => {
                if new.is_some_and(|ordinal| !self.fits(slot, ordinal)) {
                    self.order = Some(self.build_order());
                }
            }
        }
    }

    /// True if slot order still equals natural order with `ordinal` in `slot`, given that it did before.
    fn fits(&self, slot: Slot, ordinal: Ordinal) -> bool {
        let (number, Some(chunk)) = (slot / CHUNK, self.rows.get(slot / CHUNK)) else { return false };
        let Ok(at) = chunk.position(slot) else { return false };
        let before = match at.checked_sub(1) {
            Some(before) => Some(chunk.ordinal(before)),
            None => self.rows.prev(number).map(|(_, chunk)| chunk.ordinal(chunk.len() - 1)),
        };
        let after = match at + 1 < chunk.len() {
            true => Some(chunk.ordinal(at + 1)),
            false => self.rows.next(number + 1).map(|(_, chunk)| chunk.ordinal(0)),
        };
        before.is_none_or(|before| before <= ordinal) && after.is_none_or(|after| ordinal <= after)
    }

    fn build_order(&self) -> Order {
        let entry = |row: RowRef<'_>| (row.ordinal().to_be_bytes(), row.slot());
        let mut entries: Vec<_> = self.iter_slots().map(entry).collect();
        entries.sort_unstable();
        Order::from_sorted(entries.iter().map(|(key, slot)| (&key[..], *slot)))
    }
}

impl Baseline for Table {
    fn slot_of(&self, id: &str) -> Option<Slot> {
        Table::slot_of(self, id)
    }

    fn row(&self, slot: Slot) -> Option<(&str, BodyRef<'_>)> {
        self.at(slot).map(|row| (row.id(), row.encoded()))
    }
}

/// Inserts without the capacity doubling of `Vec`, for vectors that are long-lived and numerous.
pub(in crate::table) fn insert_tight<T>(items: &mut Vec<T>, at: usize, item: T) {
    if items.len() == items.capacity() {
        items.reserve_exact(items.len() / 16 + 1);
    }
    items.insert(at, item);
}
