//! Indexes: orders of a table's rows by columns, updated with every change of a row.
//!
//! A key consists of the row's cells under the index's terms and a tie-breaker, so that keys are unique. Long keys are stored
//! truncated; if the stored parts are equal, the rows themselves are compared.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::order::{MAX_KEY, Order};
use super::rows::RowRef;
use super::{CHUNK, Slot, Table};
use crate::record::Body;
use crate::table::text::TextIndex;
use crate::vista::query::{JsonRow, KeyMaker, Path};
use crate::vista::{Error, OrderTerm, Result, Schema};

/// Specification of an index: its columns and its tie-breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Columns, or paths into them.
    pub terms: Vec<OrderTerm>,
    /// Order of rows that are equal in all terms.
    pub tie: TieBreak,
}

/// Tie-breaker of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TieBreak {
    /// The natural order.
    Natural,
    /// The id, ascending or descending.
    Id {
        /// Sorts from high to low.
        descending: bool,
    },
    /// None: the index is a word index for searches, without an order and without terms.
    Words,
}

/// The form that [`Spec::parse`] accepts.
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
        // Such indexes are only made for orders whose last column is equal in all rows.
        let along = self.terms.last().map(|term| TieBreak::Id { descending: term.descending });
        let turned = self.tie != TieBreak::Natural && along != Some(self.tie);
        f.write_str(if turned { " (ids reversed)" } else { "" })
    }
}

/// Name of the word index in configurations: the parameter of searches.
const WORDS: &str = "q";

impl Spec {
    /// Specification of a word index.
    pub fn words() -> Spec {
        Spec { terms: Vec::new(), tie: TieBreak::Words }
    }

    /// Parses `category`, `category,price.desc`, `meta->size.asc.nullsfirst`: columns, each with an optional direction and an
    /// optional position of nulls; and `q` (unless it is a column) for searches. If the last column has a direction, equal rows
    /// are sorted by id, as in lists with an order. If not, they are in natural order, as in lists with filters only.
    ///
    /// # Errors
    /// [`Error::Config`] for a column that does not exist, and for invalid syntax.
    pub fn parse(text: &str, schema: &Schema) -> Result<Spec> {
        let wrong = |detail: &str| Error::Config(format!("index {text:?}: {detail}"));
        if text.trim() == WORDS && !column_exists(WORDS, schema) {
            return Ok(Spec::words());
        }
        let (mut terms, mut tie) = (Vec::new(), TieBreak::Natural);
        for part in text.split(',') {
            let mut term = OrderTerm::new(part.trim(), false);
            tie = TieBreak::Natural;
            while let Some((column, word)) =
                term.column.rsplit_once('.').filter(|_| !column_exists(&term.column, schema))
            {
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

fn column_exists(column: &str, schema: &Schema) -> bool {
    Path::checked(column, schema).is_ok()
}

/// An index of a table: its rows in one order, or by the words in them.
#[derive(Clone)]
pub struct Index {
    shape: Arc<Shape>,
    /// Empty if there is a text index.
    order: Order,
    text: Option<TextIndex>,
}

/// Properties of an index that do not depend on its rows.
struct Shape {
    spec: Spec,
    keys: KeyMaker,
    /// Columns covered by searches.
    searchable: Vec<Arc<str>>,
    uses: AtomicU64,
    /// Time of last use in milliseconds of the caller's clock.
    used_at: AtomicU64,
}

/// An index and the table that it was built over.
#[derive(Debug)]
pub struct BuiltIndex {
    index: Index,
    from: Table,
}

impl BuiltIndex {
    /// Pairs an index with the table `from` that it was built over.
    pub fn new(index: Index, from: Table) -> BuiltIndex {
        BuiltIndex { index, from }
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The table that the index was built over.
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

/// Indexes are equal if their specifications are.
impl PartialEq for Index {
    fn eq(&self, other: &Index) -> bool {
        self.spec() == other.spec()
    }
}

impl Eq for Index {}

impl Index {
    /// Builds an index of all rows of `table`.
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

    /// Estimated size in bytes of an index of all rows of `table`, from a sample of rows.
    pub fn estimate(spec: &Spec, table: &Table, schema: &Schema) -> usize {
        let keys = KeyMaker::new(&spec.terms, schema);
        let (step, mut key) = (table.len() / SAMPLE_SIZE + 1, Vec::new());
        let sampled = (0..table.len()).step_by(step).filter_map(|at| table.natural(at).next());
        if spec.tie == TieBreak::Words {
            // Words take a third of the JSON; what an index really takes is judged when it is built.
            let (rows, bytes) = sampled.fold((0, 0), |(rows, bytes), row| (rows + 1, bytes + row.json().len()));
            return table.len() * bytes / rows.max(1) / 3;
        }
        let count = sampled.map(|row| keys.row(&fields(&row), &mut key)).count();
        // Half of a key is shared with its neighbours; the tie-breaker, a slot and an end are added.
        table.len() * (key.len() / count.max(1) / 2 + 20)
    }

    /// Records a use of the index at a time in milliseconds.
    pub fn touch(&self, at: u64) {
        self.shape.uses.fetch_add(1, Relaxed);
        self.shape.used_at.store(at, Relaxed);
    }

    /// Number of uses.
    pub fn uses(&self) -> u64 {
        self.shape.uses.load(Relaxed)
    }

    /// Time of last use in milliseconds, as given to [`Index::touch`].
    pub fn used_at(&self) -> u64 {
        self.shape.used_at.load(Relaxed)
    }

    /// Specification of the index.
    pub fn spec(&self) -> &Spec {
        &self.shape.spec
    }

    /// Entries of the index.
    pub(crate) fn order(&self) -> &Order {
        &self.order
    }

    pub(crate) fn keys(&self) -> &KeyMaker {
        &self.shape.keys
    }

    /// True if both have the same rows in the same order.
    pub fn holds_the_same(&self, other: &Index) -> bool {
        let slots = |index: &Index| index.order.range(0..usize::MAX).map(|entry| entry.slot).collect::<Vec<_>>();
        slots(self) == slots(other)
    }

    /// Approximate heap memory in bytes.
    pub fn bytes(&self) -> usize {
        self.order.bytes() + self.text.as_ref().map_or(0, TextIndex::bytes)
    }

    /// True if the table has grown so much since the index was built that it should be rebuilt.
    pub fn is_outgrown(&self) -> bool {
        self.text.as_ref().is_some_and(TextIndex::is_outgrown)
    }

    /// The text index, if this is a word index over the searchable columns of `schema`.
    pub(crate) fn text(&self, schema: &Schema) -> Option<&TextIndex> {
        self.text.as_ref().filter(|_| self.shape.searchable == schema.searchable())
    }

    /// Number of entries before `key`, which need not be the key of a row.
    pub(crate) fn rank(&self, key: &[u8], table: &Table) -> usize {
        self.order.rank(key, |slot| self.shape.tie(key, table.at(slot)))
    }

    /// Number of entries before or with the prefix `key`: the end of the range of that prefix.
    pub(crate) fn rank_end(&self, key: &[u8], table: &Table) -> usize {
        let end = crate::vista::query::after_all_with(key.to_vec());
        if end.is_empty() { self.order.len() } else { self.rank(&end, table) }
    }

    /// The full key of a row.
    pub(crate) fn key_of(&self, row: &RowRef<'_>) -> Vec<u8> {
        self.shape.key(row)
    }

    /// Updates an index of `from` to the rows of `table`, given the `changed` slots. Returns the number of entries that changed.
    pub(crate) fn follow(&mut self, from: &Table, table: &Table, changed: &[Slot]) -> usize {
        let shape = Arc::clone(&self.shape);
        if let Some(text) = &mut self.text {
            for slot in changed {
                let row = |table: &'_ Table| table.at(*slot).map(|row| row.body());
                text.change(*slot, row(from).as_ref(), row(table).as_ref());
            }
            return changed.len();
        }
        if changed.len() > table.len() / REBUILD_RATIO {
            *self = Shape::filled(shape, table);
            return changed.len();
        }
        let mut moved = 0;
        let mut added = Vec::new();
        // Removals first, while every entry's row is still in `from`.
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

/// Number of rows sampled to estimate the size of an index.
const SAMPLE_SIZE: usize = 200;

/// Number of changed rows up to which an index is always updated and never rebuilt.
const ALWAYS_UPDATED: usize = 1_000;

/// Share of changed rows above which an index is rebuilt: one in this many.
const REBUILD_RATIO: usize = 8;

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
            TieBreak::Natural => position_into(row.ordinal(), row.slot(), key),
            TieBreak::Id { descending } => self.keys.id(row.id(), descending, key),
        }
    }

    /// Order of a row relative to `key`, given that their stored keys are equal.
    fn tie(&self, key: &[u8], row: Option<RowRef<'_>>) -> Ordering {
        match row {
            Some(row) if key.len() >= MAX_KEY => (*self.key(&row)).cmp(key),
            _ => Ordering::Equal,
        }
    }

    fn filled(shape: Arc<Shape>, table: &Table) -> Index {
        // All keys are in one buffer, which saves an allocation per row.
        let (mut bytes, mut spans) = (Vec::new(), Vec::with_capacity(table.len()));
        for row in table.iter_slots() {
            let start = bytes.len();
            shape.key_into(&row, &mut bytes);
            spans.push((start, bytes.len(), row.slot()));
        }
        spans.sort_unstable_by(|a, b| bytes[a.0..a.1].cmp(&bytes[b.0..b.1]));
        let order = Order::from_sorted(spans.iter().map(|(start, end, slot)| (&bytes[*start..*end], *slot)));
        Index { shape, order, text: None }
    }
}

fn fields<'a>(row: &RowRef<'a>) -> JsonRow<'a> {
    JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))
}

/// Appends a position in natural order.
pub(crate) fn position_into(ordinal: super::Ordinal, slot: Slot, key: &mut Vec<u8>) {
    key.extend_from_slice(&ordinal.to_be_bytes());
    key.extend_from_slice(&slot.to_be_bytes());
}

/// Entries of a row in all indexes.
pub(super) struct IndexedKeys {
    /// The row's key in each index.
    keys: Vec<Vec<u8>>,
    /// The row, if there is a text index.
    body: Option<Body>,
}

impl Table {
    /// Indexes of the table.
    pub fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// The index with this specification.
    pub fn index(&self, spec: &Spec) -> Option<&Index> {
        self.indexes.iter().find(|index| index.spec() == spec)
    }

    /// True if rebuilding an index that was built over `from` is cheaper than updating it.
    pub(crate) fn is_far_from(&self, from: &Table) -> bool {
        let changed = self.changed_since(from).len();
        changed > ALWAYS_UPDATED && changed > self.len() / REBUILD_RATIO
    }

    /// Adds an index that was built over `from`, an earlier state of this table. Returns the number of rows changed since.
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

    /// Begins a change of many rows, after which indexes are updated for all of them at once. Returns the state before.
    pub(crate) fn hold_indexes(&mut self) -> Table {
        let before = self.clone();
        self.indexes = Arc::default();
        before
    }

    /// Ends the change that [`Table::hold_indexes`] began.
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

    /// Slots whose rows or positions differ from those in `from`. Only chunks that are not shared are compared.
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

    /// Index entries of the row in `slot`, which have to be removed when the row changes.
    pub(super) fn indexed_keys(&self, slot: Slot) -> Option<IndexedKeys> {
        let row = self.at(slot).filter(|_| !self.indexes.is_empty())?;
        let keys = self.indexes.iter().map(|index| index.key_of(&row)).collect();
        let words = self.indexes.iter().any(|index| index.text.is_some());
        Some(IndexedKeys { keys, body: words.then(|| row.body()) })
    }

    /// Updates the indexes after the row in `slot` changed; `old_keys` are the entries of the previous row, if there was one.
    pub(super) fn reindex_row(&mut self, slot: Slot, old_keys: Option<&IndexedKeys>) {
        if self.indexes.is_empty() {
            return;
        }
        let mut indexes = std::mem::take(&mut self.indexes);
        let row = self.at(slot);
        for (at, index) in Arc::make_mut(&mut indexes).iter_mut().enumerate() {
            if let Some(text) = &mut index.text {
                let old = old_keys.and_then(|keys| keys.body.as_ref());
                let new = row.map(|row| fields(&row));
                text.change(slot, old, new.as_ref());
                continue;
            }
            let (old, new) = (old_keys.and_then(|keys| keys.keys.get(at)), row.map(|row| index.key_of(&row)));
            if old == new.as_ref() {
                continue;
            }
            let shape = Arc::clone(&index.shape);
            if let Some(old) = old {
                // The row itself already has its new key.
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
