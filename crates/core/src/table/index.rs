//! Indexes: orders of a table's rows by columns, which follow every change of a row.
//!
//! A key is the row's cells under the index' terms and what breaks ties, so that no two rows have the same. Of a long key only
//! the beginning is kept; where that is the same, the rows themselves decide.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::order::{MOST_KEY, Order};
use super::rows::RowRef;
use super::{CHUNK, Slot, Table};
use crate::record::Body;
use crate::table::text::TextIndex;
use crate::vista::query::{JsonRow, KeyMaker, Path};
use crate::vista::{Error, OrderTerm, Result, Schema};

/// What an index sorts by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Columns, or paths into them.
    pub terms: Vec<OrderTerm>,
    /// What comes first of rows that are equal in all of them.
    pub tie: TieBreak,
}

/// What breaks ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TieBreak {
    /// The natural order.
    Natural,
    /// The id, from low to high or from high to low.
    Id {
        /// From high to low.
        descending: bool,
    },
    /// Nothing: it is no order, but the rows by the words in them. Without terms.
    Words,
}

/// As [`Spec::parse`] reads it.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tie == TieBreak::Words {
            return f.write_str(WORDS);
        }
        for (at, term) in self.terms.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            f.write_str(&term.column)?;
            let by_id = at + 1 == self.terms.len() && self.tie != TieBreak::Natural;
            f.write_str(match term.descending {
                true => ".desc",
                false if by_id => ".asc",
                false => "",
            })?;
            f.write_str(if term.nulls_first { ".nullsfirst" } else { "" })?;
        }
        // Only made for orders whose last column is the same in all rows.
        let along = self.terms.last().map(|term| TieBreak::Id { descending: term.descending });
        let turned = self.tie != TieBreak::Natural && along != Some(self.tie);
        f.write_str(if turned { " (ids the other way)" } else { "" })
    }
}

/// The index that searches are answered from, by the name of their parameter.
const WORDS: &str = "q";

impl Spec {
    /// Rows by the words in them.
    pub fn words() -> Spec {
        Spec { terms: Vec::new(), tie: TieBreak::Words }
    }

    /// Reads `category`, `category,price.desc`, `meta->size.asc.nullsfirst`: columns, each with a direction and a place of
    /// nulls if need be; and `q` (unless it is a column) for searches. If the last one has a direction, rows that are equal are sorted by id, as lists that ask for an order
    /// have them; if not, they come in natural order, as lists that only filter have them.
    ///
    /// # Errors
    /// [`Error::Config`] for a column that does not exist, and for what cannot be read.
    pub fn parse(text: &str, schema: &Schema) -> Result<Spec> {
        let wrong = |detail: &str| Error::Config(format!("index {text:?}: {detail}"));
        if text.trim() == WORDS && !known(WORDS, schema) {
            return Ok(Spec::words());
        }
        let (mut terms, mut tie) = (Vec::new(), TieBreak::Natural);
        for part in text.split(',') {
            let mut term = OrderTerm::new(part.trim(), false);
            tie = TieBreak::Natural;
            while let Some((column, word)) = term.column.rsplit_once('.').filter(|_| !known(&term.column, schema)) {
                match word {
                    "asc" | "desc" => {
                        term.descending = word == "desc";
                        tie = TieBreak::Id { descending: term.descending };
                    }
                    "nullsfirst" | "nullslast" => term.nulls_first = word == "nullsfirst",
                    _ => return Err(wrong(&format!("{word:?} is neither asc, desc, nullsfirst nor nullslast"))),
                }
                term.column = column.to_string();
            }
            Path::checked(&term.column, schema).map_err(|detail| wrong(&detail))?;
            terms.push(term);
        }
        Ok(Spec { terms, tie })
    }
}

fn known(column: &str, schema: &Schema) -> bool {
    Path::checked(column, schema).is_ok()
}

/// Rows of a table in one order.
#[derive(Clone)]
pub struct Index {
    shape: Arc<Shape>,
    /// Empty beside a text index.
    order: Order,
    text: Option<TextIndex>,
}

struct Shape {
    spec: Spec,
    keys: KeyMaker,
    /// What searches look at.
    searchable: Vec<Arc<str>>,
    uses: AtomicU64,
    /// When it was used last, in the milliseconds of whoever uses it.
    used_at: AtomicU64,
}

/// An index and the table that it was built over.
#[derive(Debug)]
pub struct BuiltIndex {
    index: Index,
    from: Table,
}

impl BuiltIndex {
    /// An index of the rows of `from`.
    pub fn new(index: Index, from: Table) -> BuiltIndex {
        BuiltIndex { index, from }
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The table whose rows it has.
    pub fn from(&self) -> &Table {
        &self.from
    }
}

impl PartialEq for BuiltIndex {
    fn eq(&self, other: &BuiltIndex) -> bool {
        self.index == other.index
    }
}

impl Eq for BuiltIndex {}

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
        let searchable = schema.searchable();
        let shape = Arc::new(Shape { spec, keys, searchable, uses: AtomicU64::new(0), used_at: AtomicU64::new(0) });
        if shape.spec.tie != TieBreak::Words {
            return Shape::filled(shape, table);
        }
        let rows = || table.iter_slots().map(|row| (row.slot(), fields(&row)));
        let text = Some(TextIndex::build(schema, table.len(), rows));
        Index { shape, order: Order::new(), text }
    }

    /// About how many bytes an index of all rows of `table` would have, judged by some of them.
    pub fn estimate(spec: &Spec, table: &Table, schema: &Schema) -> usize {
        let keys = KeyMaker::new(&spec.terms, schema);
        let (step, mut key) = (table.len() / SAMPLED + 1, Vec::new());
        let sampled = (0..table.len()).step_by(step).filter_map(|at| table.natural(at).next());
        if spec.tie == TieBreak::Words {
            let (rows, bytes) = sampled.fold((0, 0), |(rows, bytes), row| (rows + 1, bytes + row.json().len()));
            return table.len() * bytes / rows.max(1);
        }
        let count = sampled.map(|row| keys.row(&fields(&row), &mut key)).count();
        // Half of a key is shared with its neighbours; a tie, a slot and an end are added.
        table.len() * (key.len() / count.max(1) / 2 + 20)
    }

    /// Notes that it was used, at a time in milliseconds.
    pub fn touch(&self, at: u64) {
        self.shape.uses.fetch_add(1, Relaxed);
        self.shape.used_at.store(at, Relaxed);
    }

    /// How often it was used.
    pub fn uses(&self) -> u64 {
        self.shape.uses.load(Relaxed)
    }

    /// When it was used last.
    pub fn used_at(&self) -> u64 {
        self.shape.used_at.load(Relaxed)
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

    /// Whether both have the same rows in the same order.
    pub fn holds_the_same(&self, other: &Index) -> bool {
        let slots = |index: &Index| index.order.range(0..usize::MAX).map(|entry| entry.slot).collect::<Vec<_>>();
        slots(self) == slots(other)
    }

    /// Heap bytes, about.
    pub fn bytes(&self) -> usize {
        self.order.bytes() + self.text.as_ref().map_or(0, TextIndex::bytes)
    }

    /// Whether the table has grown so much since it was built that one made anew would be better.
    pub fn is_outgrown(&self) -> bool {
        self.text.as_ref().is_some_and(TextIndex::is_outgrown)
    }

    /// The words, if it is an index of them that looks at what searches of `schema` look at.
    pub(crate) fn text(&self, schema: &Schema) -> Option<&TextIndex> {
        self.text.as_ref().filter(|_| self.shape.searchable == schema.searchable())
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
        if let Some(text) = &mut self.text {
            for slot in changed {
                let row = |table: &'_ Table| table.at(*slot).map(|row| row.body());
                text.change(*slot, row(from).as_ref(), row(table).as_ref());
            }
            return changed.len();
        }
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

/// Rows that are looked at to guess the size of an index.
const SAMPLED: usize = 200;

/// So many rows are brought up to date at once, whatever part of all they are.
const FEW: usize = 1_000;

/// If more than one row in so many changed, an index is built anew.
const MOST_SINGLY: usize = 8;

impl Shape {
    fn key(&self, row: &RowRef<'_>) -> Vec<u8> {
        let mut key = Vec::with_capacity(48);
        self.key_into(row, &mut key);
        key
    }

    fn key_into(&self, row: &RowRef<'_>, key: &mut Vec<u8>) {
        self.keys.row(&fields(row), key);
        match self.spec.tie {
            TieBreak::Words => {}
            TieBreak::Natural => place_into(row.ordinal(), row.slot(), key),
            TieBreak::Id { descending } => self.keys.id(row.id(), descending, key),
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
        Index { shape, order, text: None }
    }
}

fn fields<'a>(row: &RowRef<'a>) -> JsonRow<'a> {
    JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))
}

/// Appends a place in natural order.
pub(crate) fn place_into(ordinal: super::Ordinal, slot: Slot, key: &mut Vec<u8>) {
    key.extend_from_slice(&ordinal.to_be_bytes());
    key.extend_from_slice(&slot.to_be_bytes());
}

/// What indexes know of a row.
pub(super) struct IndexedKeys {
    /// Its key in each.
    keys: Vec<Vec<u8>>,
    /// The row, if there is a text index.
    body: Option<Body>,
}

impl Table {
    /// The indexes there are.
    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// The index that sorts by `spec`.
    pub fn index(&self, spec: &Spec) -> Option<&Index> {
        self.indexes.iter().find(|index| index.spec() == spec)
    }

    /// Whether an index that was built over `from` is better built again than brought up to date.
    pub(crate) fn is_far_from(&self, from: &Table) -> bool {
        let changed = self.changed_since(from).len();
        changed > FEW && changed > self.len() / MOST_SINGLY
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
    pub(crate) fn release_indexes(&mut self, before: &Table) {
        if before.indexes.is_empty() {
            return;
        }
        let changed = self.changed_since(before);
        let mut indexes = Arc::clone(&before.indexes);
        for index in Arc::make_mut(&mut indexes) {
            index.follow(before, self, &changed);
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

    /// What indexes have to forget when the row in `slot` changes.
    pub(super) fn known_of(&self, slot: Slot) -> Option<IndexedKeys> {
        let row = self.at(slot).filter(|_| !self.indexes.is_empty())?;
        let keys = self.indexes.iter().map(|index| index.key_of(&row)).collect();
        let words = self.indexes.iter().any(|index| index.text.is_some());
        Some(IndexedKeys { keys, body: words.then(|| row.body()) })
    }

    /// Brings indexes up to date after the row in `slot` changed; `known` is of the row that was there, if there was one.
    pub(super) fn reindex_row(&mut self, slot: Slot, known: Option<&IndexedKeys>) {
        if self.indexes.is_empty() {
            return;
        }
        let mut indexes = std::mem::take(&mut self.indexes);
        let row = self.at(slot);
        for (at, index) in Arc::make_mut(&mut indexes).iter_mut().enumerate() {
            if let Some(text) = &mut index.text {
                let old = known.and_then(|known| known.body.as_ref());
                let new = row.map(|row| fields(&row));
                text.change(slot, old, new.as_ref());
                continue;
            }
            let (old, new) = (known.and_then(|known| known.keys.get(at)), row.map(|row| index.key_of(&row)));
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
