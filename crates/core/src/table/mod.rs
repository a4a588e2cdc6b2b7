//! Rows by id and in natural order, persistent: a clone is O(1) and a change copies only what it touches.
//!
//! Three structures behind `Arc`s: chunks of rows by slot (`rows`), slots by id (`ids`) and, only once rows no longer come
//! in slot order, an [`Order`] of slots by ordinal. Readers hold a clone; the one writer changes its own.

mod builder;
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
mod tests;

use std::fmt;
use std::sync::Arc;

pub use self::builder::TableBuilder;
use self::ids::{Cell, Ids};
pub use self::index::{BuiltIndex, Index, Spec, TieBreak};
use self::iter::{NaturalRows, Slots};
use self::order::Order;
pub use self::rows::RowRef;
use self::rows::{CHUNK, Chunk, NewRow, copy_joined};
use self::trie::Trie;
use crate::record::Body;

/// A place in a table, stable for its row's life and never given to another row.
pub type Slot = u32;

/// A place in natural order: a key with gaps. Rows of equal ordinals come in slot order.
pub type Ordinal = u64;

/// The gap that appended rows leave.
pub const ORDINAL_STEP: u64 = 1 << 32;

/// Rows by id and in natural order. Cheap to clone: clones share all they have in common.
#[derive(Clone)]
pub struct Table {
    rows: Trie<Chunk>,
    ids: Ids,
    /// `None` while slot order is natural order.
    order: Option<Order>,
    next_slot: Slot,
    /// Heap bytes of all chunks.
    chunk_bytes: usize,
    /// Orders by columns; every change of a row is in all of them.
    indexes: Arc<Vec<Index>>,
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
        Table { rows: Trie::new(), ids: Ids::new(), order: None, next_slot: 0, chunk_bytes: 0, indexes: Arc::default() }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row of `id`.
    pub fn get(&self, id: &str) -> Option<RowRef<'_>> {
        self.ids.find(self.ids.hash(id), |slot| self.at(slot).filter(|row| row.id() == id))
    }

    /// Whether `id` has a row.
    pub fn contains(&self, id: &str) -> bool {
        self.slot_of(id).is_some()
    }

    /// The slot of `id`.
    pub fn slot_of(&self, id: &str) -> Option<Slot> {
        self.get(id).map(|row| row.slot())
    }

    /// The row in `slot`.
    pub fn at(&self, slot: Slot) -> Option<RowRef<'_>> {
        self.rows.get(slot / CHUNK)?.find(slot)
    }

    /// The slot that the next new row gets.
    pub fn next_slot(&self) -> Slot {
        self.next_slot
    }

    /// The highest ordinal there is.
    pub fn last_ordinal(&self) -> Option<Ordinal> {
        match &self.order {
            Some(order) => self.at(order.nth(order.len().checked_sub(1)?)?.slot).map(|row| row.ordinal()),
            None => self.rows.last().map(|(_, chunk)| chunk.ordinal(chunk.len() - 1)),
        }
    }

    /// The ordinal that a row appended now gets: a whole step after the last.
    pub fn next_ordinal(&self) -> Ordinal {
        let last = self.last_ordinal().unwrap_or(0);
        let next = last.checked_add(ORDINAL_STEP).and_then(|next| next.checked_next_multiple_of(ORDINAL_STEP));
        next.unwrap_or(Ordinal::MAX)
    }

    /// Heap bytes, about. Clones count what they share, each.
    pub fn bytes(&self) -> usize {
        let ids = self.len() * size_of::<Cell>() * 9 / 8;
        let indexes: usize = self.indexes.iter().map(Index::bytes).sum();
        self.chunk_bytes + ids + self.order.as_ref().map_or(0, Order::bytes) + indexes
    }

    /// Writes the row of `id` and returns its slot. Without `ordinal` a row keeps its place and a new row is appended.
    pub fn upsert(&mut self, id: &str, body: &Body, ordinal: Option<Ordinal>) -> Slot {
        let Some(slot) = self.slot_of(id) else {
            let ordinal = ordinal.unwrap_or_else(|| self.next_ordinal());
            let slot = self.reserve(1);
            self.ids.insert(self.ids.hash(id), slot);
            self.write(slot, NewRow { id, body, ordinal });
            return slot;
        };
        let kept = || self.at(slot).map_or(0, |row| row.ordinal());
        let ordinal = ordinal.unwrap_or_else(kept);
        self.write(slot, NewRow { id, body, ordinal });
        slot
    }

    /// Writes a row into a given slot, as when rows are loaded. Another row in that slot, or of that id elsewhere, goes.
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

    /// Takes the row of `id` out and returns the slot it had.
    pub fn remove(&mut self, id: &str) -> Option<Slot> {
        let slot = self.slot_of(id)?;
        self.clear(slot);
        Some(slot)
    }

    /// Moves the row of `id` in natural order; says whether there is such a row.
    pub fn set_ordinal(&mut self, id: &str, ordinal: Ordinal) -> bool {
        let Some(row) = self.get(id) else { return false };
        let (slot, old) = (row.slot(), row.ordinal());
        if old != ordinal {
            let known = self.known_of(slot);
            self.rows.edit(slot / CHUNK, |place| {
                if let Some(chunk) = place
                    && let Ok(at) = chunk.place(slot)
                {
                    Arc::make_mut(chunk).set_ordinal(at, ordinal);
                }
            });
            self.reorder(slot, Some(old), Some(ordinal));
            self.reindex_row(slot, known.as_ref());
        }
        true
    }

    /// Sets `n` slots aside for [`Table::put`] and returns the first.
    ///
    /// # Panics
    /// After four billion new rows; a reload of the table then starts at 0 again.
    pub fn reserve(&mut self, n: u32) -> Slot {
        let first = self.next_slot;
        self.next_slot = first.checked_add(n).expect("a table sees fewer than 2^32 new rows between two reloads");
        first
    }

    /// Rows in natural order, from the `offset`-th on.
    pub fn natural(&self, offset: usize) -> impl Iterator<Item = RowRef<'_>> + '_ {
        match &self.order {
            Some(order) => NaturalRows::Ordered { table: self, entries: order.range(offset..usize::MAX), chunk: None },
            None => NaturalRows::Slots(self.rows_from(offset)),
        }
    }

    /// Rows in natural order that come after `ordinal`.
    pub fn natural_after(&self, ordinal: Ordinal) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.natural(ordinal.checked_add(1).map_or(self.len(), |next| self.position_of(next)))
    }

    /// How many rows come before `ordinal` in natural order.
    pub fn position_of(&self, ordinal: Ordinal) -> usize {
        if let Some(order) = &self.order {
            return order.seek(&ordinal.to_be_bytes());
        }
        // The last chunk that begins before `ordinal` holds the place; find it by halving the chunk numbers.
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

    /// How many rows come before the place of `slot` at `ordinal`, or are there.
    pub fn position_behind(&self, ordinal: Ordinal, slot: Slot) -> usize {
        let from = self.position_of(ordinal);
        let same = self.natural(from).take_while(|row| row.ordinal() == ordinal && row.slot() <= slot);
        from + same.count()
    }

    /// Appends up to `limit` rows in natural order as `row,row`; says how many.
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

    /// Appends the rows of `slots` that are there as `row,row`.
    ///
    /// Their places are found first, so that the memory of one is fetched while the next is sought.
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

    /// Whether natural order is the order of slots.
    pub(crate) fn is_in_slot_order(&self) -> bool {
        self.order.is_none()
    }

    /// Rows in slot order.
    pub fn iter_slots(&self) -> impl Iterator<Item = RowRef<'_>> + '_ {
        self.rows_from(0)
    }

    /// Rows in slot order, from the `offset`-th on.
    fn rows_from(&self, offset: usize) -> Slots<'_> {
        let row = self.rows.nth(offset).map(|(number, chunk, at)| chunk.row(number, at));
        Slots { table: self, row }
    }

    /// Puts a row where the id table already says it is.
    fn write(&mut self, slot: Slot, new: NewRow<'_>) {
        let old = self.at(slot).map(|row| row.ordinal());
        let known = self.known_of(slot);
        self.replace(slot, Some(new));
        self.reorder(slot, old, Some(new.ordinal));
        self.reindex_row(slot, known.as_ref());
    }

    /// Takes the row in `slot` out, if there is one.
    fn clear(&mut self, slot: Slot) {
        let Some(row) = self.at(slot) else { return };
        let (hash, ordinal) = (self.ids.hash(row.id()), row.ordinal());
        let known = self.known_of(slot);
        self.ids.remove(hash, slot);
        self.replace(slot, None);
        self.reorder(slot, Some(ordinal), None);
        self.reindex_row(slot, known.as_ref());
    }

    fn replace(&mut self, slot: Slot, new: Option<NewRow<'_>>) {
        let (before, after) = self.rows.edit(slot / CHUNK, |place| {
            let before = place.as_ref().map_or(0, |chunk| chunk.heap());
            let chunk = match place {
                Some(chunk) => chunk.with(slot, new),
                None => Chunk::default().with(slot, new),
            };
            let after = if chunk.len() > 0 { chunk.heap() } else { 0 };
            *place = Some(Arc::new(chunk));
            (before, after)
        });
        self.chunk_bytes = self.chunk_bytes + after - before;
    }

    /// Keeps natural order up to date after the row of `slot` went from one ordinal to another.
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

    /// Whether slot order is still natural order with `ordinal` in `slot`, given that it was without.
    fn fits(&self, slot: Slot, ordinal: Ordinal) -> bool {
        let (number, Some(chunk)) = (slot / CHUNK, self.rows.get(slot / CHUNK)) else { return false };
        let Ok(at) = chunk.place(slot) else { return false };
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

/// Inserts without the doubling of `Vec`: these live long and in great numbers.
pub(in crate::table) fn insert_tight<T>(items: &mut Vec<T>, at: usize, item: T) {
    if items.len() == items.capacity() {
        items.reserve_exact(items.len() / 16 + 1);
    }
    items.insert(at, item);
}
