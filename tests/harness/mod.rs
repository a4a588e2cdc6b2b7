//! The test harness: a scripted master, doubles of caches and journals, tables of rows, an application over HTTP, and ways to
//! wait without sleeping.
//!
//! Include it with `#[path = "../harness/mod.rs"] mod harness;`. Not every binary uses all of it.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "shared by test binaries that each use a part")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test that cannot go on ends")]

#[cfg(feature = "command")]
mod answer;
#[cfg(feature = "command")]
mod app;
mod gate;
mod journal;
mod map_cache;
pub mod pairs;
mod remote;
mod scripted;
#[cfg(feature = "sqlite")]
mod sqlite_cache;

#[cfg(feature = "command")]
pub use answer::{Answer, get_at};
#[cfg(feature = "command")]
pub use app::{App, products, rows};
pub use diorama_core::journal::disk::Random;
pub use gate::Gate;
pub use journal::GatedJournal;
pub use map_cache::MapCache;
pub use remote::RemoteCache;
pub use scripted::{Calls, Scripted, Verdict};
#[cfg(feature = "sqlite")]
pub use sqlite_cache::SqliteCache;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use diorama::cache::MemoryCache;
use diorama::dio::EventReceiver;
use diorama::{CborValue, Column, ColumnType, Dio, DioEvent, Error, Lens, LensBuilder, Record, Rows, Schema};
use tempfile::TempDir;

/// Nothing in a test takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

// --- the bakery --------------------------------------------------------------------------------------------------------

/// Columns of the bakery's products.
pub fn schema() -> Schema {
    Schema::new(
        "id",
        vec![
            Column::new("id", ColumnType::String),
            Column::new("name", ColumnType::String),
            Column::new("price", ColumnType::Integer),
            Column::new("category_id", ColumnType::Integer),
        ],
    )
}

/// A record of these cells.
pub fn cells<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

/// A whole product, as the cache gives it.
pub fn product(id: &str, name: &str, price: i64, category: i64) -> Record {
    cells([("id", id.into()), ("name", name.into()), ("price", price.into()), ("category_id", category.into())])
}

/// The muffin that tests insert, as the cache gives it.
pub fn muffin() -> Record {
    product("muffin", "Muffin", 175, 2)
}

/// Seven products.
pub fn bakery() -> Vec<(String, Record)> {
    [
        ("1", "Rye bread", 320, 1),
        ("2", "Cherry tart", 450, 2),
        ("3", "Sugar", 2, 3),
        ("4", "Apple Tart", 430, 2),
        ("5", "Bread roll", 10, 1),
        ("6", "Tartlet", 90, 2),
        ("7", "Blueberry muffin", 175, 2),
    ]
    .into_iter()
    .map(|(id, name, price, category)| (id.to_string(), product(id, name, price, category)))
    .collect()
}

/// The bakery as a CSV file in `dir`.
pub fn bakery_csv(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("products.csv");
    let mut text = String::from("id,name,price,category_id\n");
    for (_, row) in bakery() {
        let cell = |column: &str| match &row[column] {
            CborValue::Text(text) => text.clone(),
            CborValue::Integer(number) => i128::from(*number).to_string(),
            other => panic!("{other:?}"),
        };
        text += &format!("{},{},{},{}\n", cell("id"), cell("name"), cell("price"), cell("category_id"));
    }
    std::fs::write(&path, text).unwrap();
    path
}

/// Ids in their order.
pub fn ids(rows: &Rows) -> Vec<&str> {
    rows.ids().collect()
}

// --- lenses --------------------------------------------------------------------------------------------------------------

/// A Lens on memory: with a paused clock nothing in it takes real time.
pub fn memory() -> LensBuilder {
    Lens::new().cache_source(MemoryCache::new())
}

/// A Lens on `cache.redb` in `dir`, with its journal beside it.
pub fn on_file(dir: &TempDir) -> LensBuilder {
    Lens::new().cache_at(dir.path().join("cache.redb"))
}

/// An `on_start` that lists the master into the cache.
pub fn seeding(lens: LensBuilder) -> LensBuilder {
    lens.on_start(|dio| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?;
            dio.cache().insert_values(rows).await?;
            Ok(())
        }
    })
}

/// An `on_refresh` that makes the cache equal to the master.
pub fn reconciling(lens: LensBuilder) -> LensBuilder {
    lens.on_refresh(|dio| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?;
            dio.reconcile(rows).await.map(drop)
        }
    })
}

/// An `on_event` that applies updates, deletions and invalidations.
pub fn listening(lens: LensBuilder) -> LensBuilder {
    use diorama::ChangeEvent;
    lens.on_event(|dio, event| {
        let dio = dio.clone();
        async move {
            match event {
                ChangeEvent::Updated { id, new: Some(row) } => {
                    dio.patched(id, row).await?;
                }
                ChangeEvent::Deleted { id } => {
                    dio.cache().delete_value(&id).await?;
                    dio.invalidate_record(id);
                }
                ChangeEvent::Invalidated => {
                    dio.invalidate_all();
                }
                _ => {}
            }
            Ok(())
        }
    })
}

/// Builds `lens` and makes a Dio called `products` of `master`, seeded unless the builder does something else at start.
pub async fn open(lens: LensBuilder, master: &Scripted) -> (Arc<Lens>, Dio) {
    let lens = Arc::new(lens.build().unwrap());
    let dio = lens.make_dio(master.vista("products")).await.unwrap();
    (lens, dio)
}

/// A seeded Dio of the bakery on memory, with its master.
pub async fn bakery_dio() -> (Scripted, Dio) {
    let master = Scripted::bakery();
    let (_, dio) = open(seeding(memory()), &master).await;
    (master, dio)
}

// --- waiting -------------------------------------------------------------------------------------------------------------

/// `future`, which must be ready soon.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this did not happen in time")
}

/// Waits until no write of `dio` waits for its master and no row is in doubt.
pub async fn settle(dio: &Dio) {
    soon(async {
        loop {
            let open = dio.operations().into_iter().find(|op| !op.state.is_final());
            if let Some(op) = open {
                dio.settled(op.id, PATIENCE).await;
            } else if dio.state().dirty().next().is_some() {
                // Reading again is not told when it changes nothing.
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                return;
            }
        }
    })
    .await;
}

/// True while some operation, queued or routed, is shown instead of a confirmed row.
pub fn is_covered(dio: &Dio) -> bool {
    dio.state().folds().any(|(_, fold)| !fold.ops.is_empty())
}

/// Lets other tasks run until `done` says so. For what tells nobody; needs a runtime that does not wait for a disk.
pub async fn eventually(mut done: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("this did not happen");
}

/// Lets every task that can go on go on, without time passing.
pub async fn breathe() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

// --- events --------------------------------------------------------------------------------------------------------------

/// The next event.
pub async fn next(bus: &mut EventReceiver) -> DioEvent {
    soon(bus.recv()).await.unwrap()
}

/// Every event that is there already.
pub fn events(bus: &mut EventReceiver) -> Vec<DioEvent> {
    std::iter::from_fn(|| bus.try_recv()).collect()
}

/// Events up to the first that `is_last`, included.
pub async fn until(bus: &mut EventReceiver, is_last: impl Fn(&DioEvent) -> bool) -> Vec<DioEvent> {
    let mut seen = Vec::new();
    loop {
        let event = next(bus).await;
        seen.push(event);
        if seen.last().is_some_and(&is_last) {
            return seen;
        }
    }
}

/// `RecordInserted`
pub fn inserted(id: &str) -> DioEvent {
    DioEvent::RecordInserted { id: id.into() }
}

/// `RecordChanged`
pub fn changed(id: &str) -> DioEvent {
    DioEvent::RecordChanged { id: id.into() }
}

/// `RecordRemoved`
pub fn removed(id: &str) -> DioEvent {
    DioEvent::RecordRemoved { id: id.into() }
}

/// True for a `WriteCommitted`.
pub fn is_committed(event: &DioEvent) -> bool {
    matches!(event, DioEvent::WriteCommitted { .. })
}

/// True for a `WriteFailed`.
pub fn is_failed(event: &DioEvent) -> bool {
    matches!(event, DioEvent::WriteFailed { .. })
}

// --- errors --------------------------------------------------------------------------------------------------------------

/// The variant's name.
pub fn kind(error: &Error) -> &'static str {
    match error {
        Error::Unsupported { .. } => "Unsupported",
        Error::NotFound { .. } => "NotFound",
        Error::Conflict { .. } => "Conflict",
        Error::Invalid { .. } => "Invalid",
        Error::QueueFull => "QueueFull",
        Error::Closed => "Closed",
        Error::Reentrant { .. } => "Reentrant",
        Error::Storage { .. } => "Storage",
        Error::Source { .. } => "Source",
        Error::Suspicious { .. } => "Suspicious",
        Error::Config(_) => "Config",
        _ => "another",
    }
}

/// True for a refusal of what the Vista cannot do.
pub fn is_unsupported<T>(result: &diorama::Result<T>) -> bool {
    matches!(result, Err(Error::Unsupported { .. }))
}
