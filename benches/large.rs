//! Long logs and large tables: what a purge costs while others write, and what windows of ten million rows cost through a Dio.
//!
//! `cargo bench --bench large`; `-- --entries 10000` and `-- --rows 1000000` for other sizes. Nothing is asserted.

#![expect(clippy::disallowed_methods, reason = "the purge is joined where it is spawned")]

use std::path::Path;
use std::time::{Duration, Instant};

use diorama::cache::MemoryCache;
use diorama::connect::{MemoryTable, Sqlite, SqliteOptions};
use diorama::{CborValue, Column, ColumnType, Dio, Filter, Lens, OrderTerm, Query, Record, Schema};
use futures_util::StreamExt as _;
use memchr::memmem;

/// Word of the row that is purged.
const MARK: &str = "Hidden";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let size = |name: &str, usual: u64| value(name).and_then(|size| size.parse().ok()).unwrap_or(usual);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(purge(size("--entries", 50_000)));
    runtime.block_on(windows(size("--rows", 10_000_000)));
}

fn record<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
    cells.into_iter().map(|(column, value)| (column.to_string(), value)).collect()
}

fn product(name: &str, n: u64) -> Record {
    record([("name", name.into()), ("price", n.into())])
}

/// Purges one row from a log of `entries`, half of which are about it, and writes meanwhile.
async fn purge(entries: u64) {
    println!("\na purge in a log of {entries} entries");
    let dir = tempfile::tempdir().expect("a folder");
    let columns = [("id", ColumnType::String), ("name", ColumnType::String), ("price", ColumnType::Integer)];
    let schema = Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec());
    let lens = Lens::new().cache_at(dir.path().join("cache.redb")).build().expect("a lens");
    let dio = lens.make_dio(MemoryTable::vista("products", schema, [])).await.expect("a dio");
    let change = async |n: u64| match n % 2 {
        0 => dio.patched("1", product(&format!("{MARK} {n}"), n)).await,
        _ => dio.patched(format!("r{}", n % 500), product(&format!("Plain {n}"), n)).await,
    };
    futures_util::stream::iter(0..entries).for_each_concurrent(256, async |n| change(n).await.expect("a change")).await;
    let began = Instant::now();
    let purge = tokio::spawn({
        let dio = dio.clone();
        async move { dio.purge(["1"]).await.expect("a purge") }
    });
    let (mut slowest, mut writes) = (Duration::ZERO, 0);
    while !purge.is_finished() {
        let asked = Instant::now();
        dio.patched("other", product("Plain", writes)).await.expect("a write");
        slowest = slowest.max(asked.elapsed());
        writes += 1;
    }
    let purged = purge.await.expect("the purge");
    println!(
        "  {} entries in {:?}; {writes} writes meanwhile, the slowest took {slowest:?}",
        purged.entries,
        began.elapsed()
    );
    marks("at once", dir.path());
    for n in 0..20_000 {
        dio.invalidate_record(format!("{n}"));
        if n % 64 == 0 {
            dio.patched("other", product("Plain", n)).await.expect("a write");
        }
    }
    marks("after more changes", dir.path());
}

/// Prints how often the purged word is still in the raw files.
fn marks(when: &str, folder: &Path) {
    let found = |file: &str| {
        let bytes = std::fs::read(folder.join(file)).expect("a file");
        memmem::find_iter(&bytes, MARK.as_bytes()).count()
    };
    println!(
        "  the word in the raw files {when}: journal {}, cache {}",
        found("cache.journal.redb"),
        found("cache.redb")
    );
}

/// Asks a SQLite table of so many rows, of which a part is cached, for pages, a count and single rows.
async fn windows(rows: u64) {
    println!("\nwindows of {rows} rows of SQLite");
    let dir = tempfile::tempdir().expect("a folder");
    let dio = shop(&dir.path().join("shop.db"), rows).await;
    let vista = dio.vista();
    let on_shelf = Query {
        filter: Filter::eq("shelf", 7.into()),
        order: vec![OrderTerm::new("price", true)],
        limit: Some(20),
        ..Query::default()
    };
    let far = Query { offset: rows / 10 * 9, limit: Some(50), ..Query::default() };
    for (what, query) in [("a filtered and sorted page", &on_shelf), ("a page far away", &far)] {
        let start = Instant::now();
        let page = vista.shell().list(query).await.expect("a page");
        println!("  {what}: {} rows in {:?}", page.len(), start.elapsed());
    }
    let start = Instant::now();
    let count = vista.shell().count(&on_shelf).await.expect("a count");
    println!("  a count: {count} rows in {:?}", start.elapsed());
    let start = Instant::now();
    for id in 1..1_000 {
        vista.get_value(&(id * (rows / 1_111)).to_string()).await.expect("a read");
    }
    println!("  a row not seen before: {:?}", start.elapsed() / 1_000);
    println!("  rows in the cache at the end: {}", dio.cache().count().await.expect("a count"));
}

/// A Dio that loads windows of a table of buns.
async fn shop(path: &Path, rows: u64) -> Dio {
    let database = rusqlite::Connection::open(path).expect("a database");
    let fill = format!(
        "PRAGMA synchronous = OFF;
         CREATE TABLE buns (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, shelf INTEGER);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {rows})
         INSERT INTO buns SELECT n, 'bun ' || n, (n * 7919) % 100003, n % 100 FROM n;
         CREATE INDEX by_shelf ON buns (shelf, price);"
    );
    database.execute_batch(&fill).expect("a table");
    let table = Sqlite::open("buns", path, "buns", SqliteOptions::default()).await.expect("a source");
    let lens = Lens::new()
        .cache_source(MemoryCache::new())
        .total_provider(|dio| {
            let dio = dio.clone();
            async move { dio.master().shell().count(&Query::default()).await }
        })
        .on_load_chunk(|dio, range, sink| {
            let dio = dio.clone();
            async move {
                let query = Query { offset: range.start, limit: Some(range.end - range.start), ..Query::default() };
                sink.put(dio.master().shell().list(&query).await?);
                Ok(())
            }
        });
    lens.build().expect("a lens").make_dio(table).await.expect("a dio")
}
