//! Rows of the source that do not match its schema: they are kept as they are, and counted by column.
//!
//! Also counts the undeclared columns that were dropped from upstream events.

use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::record::BodyRef;
use crate::vista::query::JsonRow;
use crate::vista::{ColumnType, Kinds, Schema, expected};

/// Maximum number of dropped columns that are remembered, because senders choose their names.
const MOST_NAMES: usize = 100;

/// Column in which rows of the source have values of another type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// Name of the column.
    pub column: String,
    /// Number of such rows since the start. A row that changes counts again.
    pub rows: u64,
    /// Id of the first such row.
    pub first: String,
    /// Description of what the column should hold.
    pub expected: &'static str,
}

/// Undeclared column that was dropped from upstream events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedColumn {
    /// Name of the column.
    pub column: String,
    /// Number of rows with it since the start.
    pub rows: u64,
    /// Id of the first such row.
    pub first: String,
}

/// Counts mismatches of one Dio.
#[derive(Debug)]
pub(crate) struct Mismatches {
    pub(super) kinds: Kinds,
    columns: Vec<(String, ColumnType)>,
    counts: Mutex<MismatchCounts>,
}

/// Counts by column.
#[derive(Debug, Default)]
struct MismatchCounts {
    /// Mismatches by index of the column.
    columns: IndexMap<usize, Count>,
    dropped: IndexMap<String, Count>,
}

/// Number of rows, and the id of the first one.
#[derive(Clone, Debug)]
struct Count {
    rows: u64,
    first: String,
}

impl Count {
    fn add(&mut self, rows: u64) {
        self.rows += rows;
    }
}

impl Mismatches {
    pub(crate) fn new(schema: &Schema) -> Mismatches {
        let columns = schema.columns().iter().map(|column| (column.name.to_string(), column.ty)).collect();
        Mismatches { kinds: Kinds::new(schema), columns, counts: Mutex::default() }
    }

    /// Checks rows of the source, and counts values that are not of their column's type.
    pub(crate) fn check<'r>(&self, dio: &str, rows: impl IntoIterator<Item = (&'r str, BodyRef<'r>)>) {
        let mut new: IndexMap<usize, Count> = IndexMap::new();
        for (id, body) in rows {
            self.kinds.differences(JsonRow::from(body), |column| {
                new.entry(column).or_insert_with(|| Count { rows: 0, first: id.to_string() }).add(1);
            });
        }
        if new.is_empty() {
            return;
        }
        let mut counts = self.counts.lock();
        for (at, count) in new {
            match counts.columns.get_mut(&at) {
                Some(known) => known.add(count.rows),
                None => {
                    if let Some((column, ty)) = self.columns.get(at) {
                        let (record, expected) = (&count.first, expected(*ty));
                        tracing::warn!(
                            dio,
                            column,
                            record,
                            expected,
                            "a row of the source does not match its schema; it is kept as it is"
                        );
                    }
                    counts.columns.insert(at, count);
                }
            }
        }
    }

    /// Counts columns that were dropped from the row `id`.
    pub(crate) fn note_dropped(&self, id: &str, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let dropped = &mut self.counts.lock().dropped;
        for name in names {
            let capacity = dropped.len() < MOST_NAMES;
            if let Some(count) = dropped.get_mut(name) {
                count.add(1);
            } else if capacity {
                dropped.insert(name.clone(), Count { rows: 1, first: id.to_string() });
            }
        }
    }

    pub(crate) fn list(&self) -> Vec<Mismatch> {
        let counts = self.counts.lock();
        let mut columns: Vec<_> = counts.columns.iter().collect();
        columns.sort_by_key(|(at, _)| **at);
        let one = |(at, count): (&usize, &Count)| {
            let (column, ty) = self.columns.get(*at)?;
            let Count { rows, first } = count.clone();
            Some(Mismatch { column: column.clone(), rows, first, expected: expected(*ty) })
        };
        columns.into_iter().filter_map(one).collect()
    }

    pub(crate) fn dropped(&self) -> Vec<DroppedColumn> {
        let counts = self.counts.lock();
        let one = |(column, count): (&String, &Count)| DroppedColumn {
            column: column.clone(),
            rows: count.rows,
            first: count.first.clone(),
        };
        counts.dropped.iter().map(one).collect()
    }
}
