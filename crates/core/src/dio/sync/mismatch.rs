//! Rows of the source that are not as its schema says: they are kept as they are, and counted by column.
//!
//! Beside them, the columns that upstream events brought and the schema does not declare, where they are left out.

use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::record::Body;
use crate::vista::query::JsonRow;
use crate::vista::{ColumnType, Kinds, Schema, expected};

/// Names of dropped columns that are remembered, at most: others choose them.
const MOST_NAMES: usize = 100;

/// A column in which rows of the source hold something else than its type says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The column.
    pub column: String,
    /// Number of such rows taken in since the start; a row that changes counts again.
    pub rows: u64,
    /// The id of the first of them.
    pub first: String,
    /// Description of what the column should hold.
    pub expected: &'static str,
}

/// A column that upstream events brought, that the schema does not declare, and that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedColumn {
    /// Its name.
    pub column: String,
    /// Number of rows that had it since the start.
    pub rows: u64,
    /// The id of the first of them.
    pub first: String,
}

/// Counts mismatches of one Dio.
#[derive(Debug)]
pub(crate) struct Mismatches {
    pub(super) kinds: Kinds,
    columns: Vec<(String, ColumnType)>,
    found: Mutex<MismatchCounts>,
}

#[derive(Debug, Default)]
struct MismatchCounts {
    /// By number of the column.
    columns: IndexMap<usize, Count>,
    dropped: IndexMap<String, Count>,
}

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
        Mismatches { kinds: Kinds::new(schema), columns, found: Mutex::default() }
    }

    /// Looks at rows that the source says, and counts cells that are not of their column's kind.
    pub(crate) fn look<'r>(&self, dio: &str, rows: impl IntoIterator<Item = (&'r str, &'r Body)>) {
        let mut new: IndexMap<usize, Count> = IndexMap::new();
        for (id, body) in rows {
            self.kinds.differences(JsonRow::from(body), |column| {
                new.entry(column).or_insert_with(|| Count { rows: 0, first: id.to_string() }).add(1);
            });
        }
        if new.is_empty() {
            return;
        }
        let mut found = self.found.lock();
        for (at, count) in new {
            match found.columns.get_mut(&at) {
                Some(known) => known.add(count.rows),
                None => {
                    if let Some((column, ty)) = self.columns.get(at) {
                        let (record, expected) = (&count.first, expected(*ty));
                        tracing::warn!(
                            dio,
                            column,
                            record,
                            expected,
                            "a row of the source is not as its schema says; it is kept as it is"
                        );
                    }
                    found.columns.insert(at, count);
                }
            }
        }
    }

    /// Counts columns that were left out of the row `id`.
    pub(crate) fn note_dropped(&self, id: &str, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let dropped = &mut self.found.lock().dropped;
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
        let found = self.found.lock();
        let mut columns: Vec<_> = found.columns.iter().collect();
        columns.sort_by_key(|(at, _)| **at);
        let one = |(at, count): (&usize, &Count)| {
            let (column, ty) = self.columns.get(*at)?;
            let Count { rows, first } = count.clone();
            Some(Mismatch { column: column.clone(), rows, first, expected: expected(*ty) })
        };
        columns.into_iter().filter_map(one).collect()
    }

    pub(crate) fn dropped(&self) -> Vec<DroppedColumn> {
        let found = self.found.lock();
        let one = |(column, count): (&String, &Count)| DroppedColumn {
            column: column.clone(),
            rows: count.rows,
            first: count.first.clone(),
        };
        found.dropped.iter().map(one).collect()
    }
}
