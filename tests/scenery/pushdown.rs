//! A SQLite table of which a part is cached: what is asked of the rest goes to the database, and what comes is kept.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use diorama::connect::{Sqlite, SqliteOptions};
use diorama::vista::Token;
use diorama::{Filter, OrderTerm};

use super::*;

/// The database, and how often it was asked for what.
#[derive(Default)]
struct Calls {
    lists: AtomicUsize,
    gets: AtomicUsize,
    counts: AtomicUsize,
}

impl Calls {
    /// Lists, single rows and counts since the last look.
    fn take(&self) -> (usize, usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::SeqCst);
        (take(&self.lists), take(&self.gets), take(&self.counts))
    }
}

struct Counted {
    inner: Vista,
    calls: Arc<Calls>,
}

#[async_trait]
impl TableShell for Counted {
    fn schema(&self) -> Arc<Schema> {
        self.inner.schema()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        self.calls.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.shell().list(query).await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        self.calls.gets.fetch_add(1, Ordering::SeqCst);
        self.inner.shell().get(id).await
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.calls.counts.fetch_add(1, Ordering::SeqCst);
        self.inner.shell().count(query).await
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        self.inner.shell().next(query, token).await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.inner.shell().write(op).await
    }
}

/// A table of `count` buns, and a Dio that loads windows of it.
async fn dio(count: u64) -> (Dio, Arc<Calls>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.db");
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(&format!(
        "PRAGMA synchronous = OFF;
         CREATE TABLE buns (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, shelf INTEGER);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {count})
         INSERT INTO buns SELECT n, 'bun ' || n, (n * 7919) % 100003, n % 100 FROM n;
         CREATE INDEX by_shelf ON buns (shelf, price);"
    ))
    .unwrap();
    let calls: Arc<Calls> = Arc::default();
    let inner = Sqlite::open("buns", &path, "buns", SqliteOptions::default()).await.unwrap();
    let counted = Counted { inner, calls: Arc::clone(&calls) };
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
    let dio = lens.build().unwrap().make_dio(Vista::new("buns", counted)).await.unwrap();
    calls.take();
    (dio, calls, dir)
}

fn on_shelf(shelf: i64) -> Query {
    Query {
        filter: Filter::eq("shelf", shelf.into()),
        order: vec![OrderTerm::new("price", true)],
        limit: Some(20),
        ..Query::default()
    }
}

#[tokio::test]
async fn a_capable_master_answers_for_the_rows_that_are_not_here_and_they_are_kept() {
    let (dio, calls, _dir) = dio(100_000).await;
    let vista = dio.vista();
    let page = vista.shell().list(&on_shelf(7)).await.unwrap();
    assert_eq!((page.len(), calls.take()), (20, (1, 0, 0)));
    let prices: Vec<i64> = page.iter().map(|(_, row)| row["price"].as_integer().unwrap().try_into().unwrap()).collect();
    assert!(prices.iter().rev().is_sorted() && page.iter().all(|(_, row)| row["shelf"] == 7.into()));
    assert_eq!(vista.shell().count(&on_shelf(7)).await.unwrap(), 1_000);
    assert_eq!(calls.take(), (0, 0, 1));

    let first = page.ids().next().unwrap().to_string();
    assert!(vista.get_value(&first).await.unwrap().is_some());
    assert_eq!(calls.take(), (0, 0, 0), "it came with the page");
    assert_eq!(vista.get_value("5").await.unwrap().unwrap()["name"], "bun 5".into());
    assert_eq!(vista.get_value("5").await.unwrap().unwrap()["name"], "bun 5".into());
    assert_eq!(calls.take(), (0, 1, 0), "the second time it is here");
    assert!(vista.get_value("100001").await.unwrap().is_none());
    assert_eq!(dio.cache().count().await.unwrap(), 21);

    calls.take();
    vista.delete(&first).await.unwrap();
    let again = vista.shell().list(&on_shelf(7)).await.unwrap();
    assert!(!again.contains(&first), "a write that may still wait is seen in a list of the master's");
}

#[tokio::test]
async fn windows_of_a_scenery_are_loaded_once() {
    let (dio, calls, _dir) = dio(100_000).await;
    let scenery = dio.table_scenery().page_size(50).open().await.unwrap();
    let mut generation = scenery.subscribe();
    moved(&mut generation).await;
    assert_eq!((scenery.row_count(), at(&scenery, 49)), (100_000, "50".into()));
    scenery.set_viewport(99_950..100_000);
    moved(&mut generation).await;
    assert_eq!(at(&scenery, 99_999), "100000");
    let (lists, gets, counts) = calls.take();
    assert_eq!((lists, gets), (2, 0));
    assert!(counts <= 1, "{counts}");
    assert!(dio.vista().get_value("99999").await.unwrap().is_some());
    assert_eq!(calls.take(), (0, 0, 0));
    let sorted = dio.table_scenery().where_eq("shelf", 7).sort("price", false).page_size(5).open().await.unwrap();
    let mut generation = sorted.subscribe();
    moved(&mut generation).await;
    assert_eq!(sorted.rows().len(), 5);
    assert_eq!(calls.take().0, 1);
}

/// Run it with `--release`: prints what questions to a table of ten million rows cost through a Dio.
#[tokio::test]
#[ignore = "a minute and a gigabyte of disk"]
async fn ten_million_rows_are_asked_for_in_windows() {
    let (dio, calls, _dir) = dio(10_000_000).await;
    let vista = dio.vista();
    for (what, query) in [
        ("a filtered and sorted page", on_shelf(7)),
        ("a page far away", Query { offset: 9_000_000, limit: Some(50), ..Query::default() }),
    ] {
        let start = Instant::now();
        let rows = vista.shell().list(&query).await.unwrap();
        println!("{what}: {} rows in {:?}, {:?}", rows.len(), start.elapsed(), calls.take());
    }
    let start = Instant::now();
    println!("{} rows in {:?}", vista.shell().count(&on_shelf(7)).await.unwrap(), start.elapsed());
    let start = Instant::now();
    for id in 1..1_000 {
        vista.get_value(&(id * 9_001).to_string()).await.unwrap().unwrap();
    }
    println!("a row not seen before: {:?}, {:?}", start.elapsed() / 1_000, calls.take());
    assert!(dio.cache().count().await.unwrap() < 2_000, "a part stays a part");
}
