//! Indexes: orders of a table's rows by columns, which follow every change of a row.
//!
//! A key is the row's cells under the index' terms and what breaks ties, so that no two rows have the same. Of a long key only
//! the beginning is kept; where that is the same, the rows themselves decide.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::order::{MOST_KEY, Order};
use super::rows::RowRef;
use super::{CHUNK, Slot, Table};
use crate::vista::query::{JsonRow, KeyMaker};
use crate::vista::{OrderTerm, Schema};

/// What an index sorts by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Columns, or paths into them.
    pub terms: Vec<OrderTerm>,
    /// What comes first of rows that are equal in all of them.
    pub tie: Tie,
}

/// What breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tie {
    /// The natural order.
    Natural,
    /// The id, from low to high or from high to low.
    Id {
        /// From high to low.
        descending: bool,
    },
}

/// As it is written in a configuration: `category,price.desc`; ` + id` or ` + id.desc` if ties break by id.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            f.write_str(&term.column)?;
            f.write_str(if term.descending { ".desc" } else { "" })?;
            f.write_str(if term.nulls_first { ".nullsfirst" } else { "" })?;
        }
        f.write_str(match self.tie {
            Tie::Natural => "",
            Tie::Id { descending: false } => " + id",
            Tie::Id { descending: true } => " + id.desc",
        })
    }
}

/// Rows of a table in one order.
#[derive(Clone)]
pub struct Index {
    shape: Arc<Shape>,
    order: Order,
}

struct Shape {
    spec: Spec,
    keys: KeyMaker,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("spec", &self.spec()).field("len", &self.order.len()).finish_non_exhaustive()
    }
}

/// Indexes are the same if they sort by the same.
impl PartialEq for Index {
    fn eq(&self, other: &Index) -> bool {
        self.spec() == other.spec()
    }
}

impl Eq for Index {}

impl Index {
    /// An index of all rows of `table`.
    pub fn build(spec: Spec, table: &Table, schema: &Schema) -> Index {
        let keys = KeyMaker::new(&spec.terms, schema);
        Shape::filled(Arc::new(Shape { spec, keys }), table)
    }

    /// What it sorts by.
    pub fn spec(&self) -> &Spec {
        &self.shape.spec
    }

    /// Its entries.
    pub(crate) fn order(&self) -> &Order {
        &self.order
    }

    pub(crate) fn keys(&self) -> &KeyMaker {
        &self.shape.keys
    }

    /// Heap bytes, about.
    pub fn bytes(&self) -> usize {
        self.order.bytes()
    }

    /// How many entries come before `key`, which need not be a row's.
    pub(crate) fn rank(&self, key: &[u8], table: &Table) -> usize {
        self.order.rank(key, |slot| self.shape.tie(key, table.at(slot)))
    }

    /// How many entries come before everything that does not begin with `key` and is after it.
    pub(crate) fn rank_end(&self, key: &[u8], table: &Table) -> usize {
        let end = crate::vista::query::after_all_with(key.to_vec());
        if end.is_empty() { self.order.len() } else { self.rank(&end, table) }
    }

    /// The whole key of a row.
    pub(crate) fn key_of(&self, row: &RowRef<'_>) -> Vec<u8> {
        self.shape.key(row)
    }

    /// Makes an index of `from`'s rows one of `table`'s. Says how many rows were different.
    pub(crate) fn follow(&mut self, from: &Table, table: &Table, changed: &[Slot]) -> usize {
        let shape = Arc::clone(&self.shape);
        if changed.len() > table.len() / MOST_SINGLY {
            *self = Shape::filled(shape, table);
            return changed.len();
        }
        let mut moved = 0;
        let mut added = Vec::new();
        // All that go first, while every entry's row is in `from`.
        for slot in changed {
            let (old, new) = (from.at(*slot).map(|row| shape.key(&row)), table.at(*slot).map(|row| shape.key(&row)));
            if old == new {
                continue;
            }
            moved += 1;
            if let Some(old) = old {
                self.order.remove(&old, *slot, |other| shape.tie(&old, from.at(other)));
            }
            added.extend(new.map(|new| (new, *slot)));
        }
        added.sort_unstable();
        for (new, slot) in added {
            self.order.insert(&new, slot, |other| shape.tie(&new, table.at(other)));
        }
        moved
    }
}

/// If more than one row in so many changed, an index is built anew.
const MOST_SINGLY: usize = 8;

impl Shape {
    fn key(&self, row: &RowRef<'_>) -> Vec<u8> {
        let mut key = Vec::with_capacity(48);
        self.key_into(row, &mut key);
        key
    }

    fn key_into(&self, row: &RowRef<'_>, key: &mut Vec<u8>) {
        self.keys.row(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])), key);
        match self.spec.tie {
            Tie::Natural => place_into(row.ordinal(), row.slot(), key),
            Tie::Id { descending } => self.keys.id(row.id(), descending, key),
        }
    }

    /// How a row whose kept key is the same as that of `key` stands to it.
    fn tie(&self, key: &[u8], row: Option<RowRef<'_>>) -> Ordering {
        match row {
            Some(row) if key.len() >= MOST_KEY => (*self.key(&row)).cmp(key),
            _ => Ordering::Equal,
        }
    }

    fn filled(shape: Arc<Shape>, table: &Table) -> Index {
        // Keys lie in one piece of memory: a million allocations less.
        let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(table.len()));
        for row in table.iter_slots() {
            let start = bytes.len();
            shape.key_into(&row, &mut bytes);
            places.push((start, bytes.len(), row.slot()));
        }
        places.sort_unstable_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
        let order = Order::from_sorted(places.iter().map(|(start, end, slot)| (&bytes[*start..*end], *slot)));
        Index { shape, order }
    }
}

/// Appends a place in natural order.
pub(crate) fn place_into(ordinal: super::Ordinal, slot: Slot, key: &mut Vec<u8>) {
    key.extend_from_slice(&ordinal.to_be_bytes());
    key.extend_from_slice(&slot.to_be_bytes());
}

impl Table {
    /// The indexes there are.
    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// Takes an index on that was built over `from`, an earlier state of this table. Says how many rows have changed since.
    pub fn attach(&mut self, mut index: Index, from: &Table) -> usize {
        let moved = index.follow(from, self, &self.changed_since(from));
        self.detach(index.spec());
        Arc::make_mut(&mut self.indexes).push(index);
        moved
    }

    /// Drops an index.
    pub fn detach(&mut self, spec: &Spec) {
        if self.indexes.iter().any(|index| index.spec() == spec) {
            Arc::make_mut(&mut self.indexes).retain(|index| index.spec() != spec);
        }
    }

    /// Begins a change of many rows, at whose end indexes follow all of them at once.
    pub(crate) fn hold_indexes(&mut self) -> Table {
        let before = self.clone();
        self.indexes = Arc::default();
        before
    }

    /// Ends what [`Table::hold_indexes`] began.
    pub(crate) fn release_indexes(&mut self, before: Table) {
        if before.indexes.is_empty() {
            return;
        }
        let changed = self.changed_since(&before);
        let mut indexes = Arc::clone(&before.indexes);
        for index in Arc::make_mut(&mut indexes) {
            index.follow(&before, self, &changed);
        }
        self.indexes = indexes;
    }

    /// Slots whose rows or places are different from those in `from`, about: a change of one row is one of its chunk.
    pub(crate) fn changed_since(&self, from: &Table) -> Vec<Slot> {
        let mut slots = Vec::new();
        from.rows.differences(&self.rows, &mut |number, old, new| {
            for slot in number * CHUNK..(number + 1) * CHUNK {
                let (old, new) = (old.and_then(|old| old.find(slot)), new.and_then(|new| new.find(slot)));
                let same = match (old, new) {
                    (None, None) => true,
                    (Some(old), Some(new)) => {
                        let place = |row: &RowRef<'_>| (row.ordinal(), row.cbor().cloned());
                        old.json() == new.json() && old.id() == new.id() && place(&old) == place(&new)
                    }
                    _ => false,
                };
                if !same {
                    slots.push(slot);
                }
            }
        });
        slots
    }

    /// The keys that the row in `slot` has in each index.
    pub(super) fn keys_at(&self, slot: Slot) -> Vec<Vec<u8>> {
        match self.at(slot) {
            Some(row) => self.indexes.iter().map(|index| index.key_of(&row)).collect(),
            None => Vec::new(),
        }
    }

    /// Brings indexes up to date after the row in `slot` changed; `old` are the keys it had, if there was one.
    pub(super) fn reindex_row(&mut self, slot: Slot, old: &[Vec<u8>]) {
        if self.indexes.is_empty() {
            return;
        }
        let mut indexes = std::mem::take(&mut self.indexes);
        let row = self.at(slot);
        for (at, index) in Arc::make_mut(&mut indexes).iter_mut().enumerate() {
            let (old, new) = (old.get(at), row.map(|row| index.key_of(&row)));
            if old == new.as_ref() {
                continue;
            }
            let shape = Arc::clone(&index.shape);
            if let Some(old) = old {
                // The row itself has another key already.
                let tie = |other| if other == slot { Ordering::Equal } else { shape.tie(old, self.at(other)) };
                index.order.remove(old, slot, tie);
            }
            if let Some(new) = new {
                index.order.insert(&new, slot, |other| shape.tie(&new, self.at(other)));
            }
        }
        self.indexes = indexes;
    }
}
