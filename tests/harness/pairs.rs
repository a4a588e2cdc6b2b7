//! Rows of two numbers and a version: the tables of tests that step their master, crash it and compare every state.

use std::collections::BTreeMap;
use std::time::Duration;

use diorama::cache::{CacheBackend, CachedRow, RedbCache};
use diorama::dio::Dio;
use diorama::{Capabilities, CborValue, Column, ColumnType, Record, Result, Schema, WriteOp};
use diorama_core::state::State;

pub use super::{Scripted, Verdict};

/// The columns `v` and `w` of a row.
pub type Cells = (i64, i64);

/// Columns of a row: its id, two numbers and its version.
pub fn schema() -> Schema {
    let integer = |name: &str| Column::new(name, ColumnType::Integer);
    Schema::new("id", vec![Column::new("id", ColumnType::String), integer("v"), integer("w"), integer("ver")])
}

fn number(record: &Record, column: &str) -> i64 {
    let value = record.get(column).and_then(CborValue::as_integer);
    value.and_then(|value| i64::try_from(value).ok()).unwrap_or(-1)
}

/// The two numbers of a row.
pub fn cells(record: &Record) -> Cells {
    (number(record, "v"), number(record, "w"))
}

/// A row of these numbers.
pub fn record(cells: Cells) -> Record {
    Record::from_iter([("v".to_string(), cells.0.into()), ("w".to_string(), cells.1.into())])
}

// --- its master ----------------------------------------------------------------------------------------------------------

impl Scripted {
    /// An empty master of pairs. With `reads_one` it can be asked for a single row; with `tells` it answers writes with their
    /// rows.
    pub fn of_pairs(reads_one: bool, tells: bool) -> Scripted {
        let mut capabilities = Capabilities::default();
        capabilities.can_insert = true;
        capabilities.can_update = true;
        capabilities.can_delete = true;
        Scripted::versioned(schema(), "ver").able(capabilities).reading_one(reads_one).telling(tells)
    }

    /// Somebody else puts a row, or takes it away.
    pub fn set_pair(&self, id: &str, cells: Option<Cells>) {
        match cells {
            Some(cells) => self.consume(&replace(id, cells)),
            None => self.consume(&delete(id)),
        }
    }

    /// Its rows.
    pub fn pairs(&self) -> BTreeMap<String, Cells> {
        self.rows_now().into_iter().map(|(id, record)| (id, cells(&record))).collect()
    }

    /// The row as an event would carry it, with its version.
    pub fn event_row(&self, id: &str) -> Option<Record> {
        let mut row = self.row_now(id)?;
        row.remove("id");
        Some(row)
    }

    /// Every state that a row has had, the oldest first.
    pub fn pair_history(&self, id: &str) -> Vec<Option<Cells>> {
        self.history(id).iter().map(|row| row.as_ref().map(cells)).collect()
    }
}

/// Lists the master into the cache, as hooks do.
pub async fn relist(dio: Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.reconcile(rows).await.map(drop)
}

// --- what is known of it -------------------------------------------------------------------------------------------------

/// Rows that readers see.
pub fn visible(state: &State) -> BTreeMap<String, Cells> {
    state.table().natural(0).map(|row| (row.id().to_string(), cells(&row.decode().unwrap()))).collect()
}

/// Rows that the master has confirmed.
pub fn confirmed(state: &State) -> BTreeMap<String, Cells> {
    let folded = state.folds().map(|(id, _)| id.to_string());
    let shown = state.table().natural(0).map(|row| row.id().to_string());
    folded
        .chain(shown)
        .filter_map(|id| Some((cells(&state.base(&id)?.body.decode().unwrap()), id)))
        .map(|(c, id)| (id, c))
        .collect()
}

/// Rows that a backend has stored for a Dio.
pub async fn stored(cache: &dyn CacheBackend, name: &str) -> BTreeMap<String, Cells> {
    let mut all: Vec<CachedRow> = Vec::new();
    let table = cache.open_table(name).await.unwrap();
    table.load(&mut |rows| all.extend(rows)).await.unwrap();
    let count = all.len();
    let rows: BTreeMap<_, _> =
        all.into_iter().map(|row| (row.id().to_string(), cells(&row.record().unwrap()))).collect();
    assert_eq!(rows.len(), count, "an id is stored twice");
    rows
}

/// Rows that the cache file has stored for the Dio `d`, with its position.
pub async fn stored_in_file(cache: &RedbCache) -> (BTreeMap<String, Cells>, u64) {
    let stored = cache.stored("d").await.unwrap();
    assert_eq!(stored.damaged, 0);
    let count = stored.rows.len();
    let rows: BTreeMap<_, _> =
        stored.rows.into_iter().map(|(id, body)| (id.to_string(), cells(&body.decode().unwrap()))).collect();
    assert_eq!(rows.len(), count, "an id is stored twice");
    (rows, stored.watermark)
}

/// Waits until `holds`, at most 20 s.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}

// --- writes --------------------------------------------------------------------------------------------------------------

/// An insert of `cells` under `id`.
pub fn insert(id: &str, cells: Cells) -> WriteOp {
    WriteOp::Insert { id: id.into(), record: record(cells) }
}

/// A replacement of the row by `cells`.
pub fn replace(id: &str, cells: Cells) -> WriteOp {
    WriteOp::Replace { id: id.into(), record: record(cells) }
}

/// A change of one number.
pub fn patch(id: &str, column: &str, value: i64) -> WriteOp {
    WriteOp::Patch { id: id.into(), record: Record::from_iter([(column.to_string(), value.into())]) }
}

/// A deletion of the row.
pub fn delete(id: &str) -> WriteOp {
    WriteOp::Delete { id: id.into() }
}
