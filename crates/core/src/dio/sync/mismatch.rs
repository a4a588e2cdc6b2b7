//! Rows of the source that are not as its schema says: they are kept as they are, and counted by column.
//!
//! Beside them, the columns that upstream events brought and the schema does not declare, where they are left out.

use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::dio::core::Core;
use crate::record::{Body, Rows};
use crate::state::Item;
use crate::vista::query::JsonRow;
use crate::vista::{ColumnType, Kinds, Result, RowCheck, Schema, Shape, expected};

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
    kinds: Kinds,
    columns: Vec<(String, ColumnType)>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
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
            let room = dropped.len() < MOST_NAMES;
            if let Some(count) = dropped.get_mut(name) {
                count.add(1);
            } else if room {
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

impl Core {
    /// [`Mismatches::look`] at one row of the source.
    pub(crate) fn look_at(&self, id: &str, row: Option<&Body>) {
        self.mismatches.look(&self.name, row.map(|row| (id, row)));
    }

    /// [`Mismatches::look`] at the rows of a list.
    pub(crate) fn look_at_rows(&self, rows: &Rows) {
        self.mismatches.look(&self.name, rows.bodies().map(|(id, body)| (&**id, body)));
    }

    /// [`Mismatches::look`] at the rows of a read that differ from what is known.
    pub(crate) fn look_at_items(&self, items: &[Item]) {
        self.mismatches.look(&self.name, items.iter().filter_map(|item| Some((&*item.id, item.row.as_ref()?))));
    }

    /// A list that the program made: cells that convert are converted, the others are kept as they are and counted.
    pub(crate) async fn converted(self: &Arc<Self>, rows: Rows) -> Result<Rows> {
        let (core, count) = (Arc::clone(self), rows.len());
        let convert = move || {
            let rows = convert_all(rows, &core.vista.schema(), &core.mismatches.kinds);
            core.look_at_rows(&rows);
            rows
        };
        self.heavy(count, convert).await
    }
}

fn convert_all(rows: Rows, schema: &Schema, kinds: &Kinds) -> Rows {
    let check = RowCheck::new(schema, Shape::Whole);
    let converted = |id: &str, body: &Body| {
        let mut differs = false;
        kinds.differences(JsonRow::from(body), |_| differs = true);
        let record = if differs { body.decode().ok()? } else { return None };
        check.convert(&record).map(|record| Body::encode(id, &record, schema.layout()))
    };
    rows.map_bodies(converted)
}
