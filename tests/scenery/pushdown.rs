//! A SQLite table of which a part is cached: what is asked of the rest goes to the database, and what comes is kept.

use diorama::connect::{Sqlite, SqliteOptions};
use diorama::{Filter, OrderTerm};

use super::*;

/// Lists, single rows and counts since the last look.
fn asked(database: &Scripted) -> (usize, usize, usize) {
    let calls = database.take_calls();
    (calls.list, calls.get, calls.count)
}

/// A table of `count` buns, and a Dio that loads windows of it.
async fn dio(count: u64) -> (Dio, Scripted, tempfile::TempDir) {
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
    let table = Sqlite::open("buns", &path, "buns", SqliteOptions::default()).await.unwrap();
    let database = Scripted::over(Arc::clone(table.shell()));
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
    let dio = lens.build().unwrap().make_dio(database.vista("buns")).await.unwrap();
    asked(&database);
    (dio, database, dir)
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
    let (dio, database, _dir) = dio(100_000).await;
    let vista = dio.vista();
    let page = vista.shell().list(&on_shelf(7)).await.unwrap();
    assert_eq!((page.len(), asked(&database)), (20, (1, 0, 0)));
    let prices: Vec<i64> = page.iter().map(|(_, row)| row["price"].as_integer().unwrap().try_into().unwrap()).collect();
    assert!(prices.iter().rev().is_sorted() && page.iter().all(|(_, row)| row["shelf"] == 7.into()));
    assert_eq!(vista.shell().count(&on_shelf(7)).await.unwrap(), 1_000);
    assert_eq!(asked(&database), (0, 0, 1));

    let first = page.ids().next().unwrap().to_string();
    assert!(vista.get_value(&first).await.unwrap().is_some());
    assert_eq!(asked(&database), (0, 0, 0), "it came with the page");
    assert_eq!(vista.get_value("5").await.unwrap().unwrap()["name"], "bun 5".into());
    assert_eq!(vista.get_value("5").await.unwrap().unwrap()["name"], "bun 5".into());
    assert_eq!(asked(&database), (0, 1, 0), "the second time it is here");
    assert!(vista.get_value("100001").await.unwrap().is_none());
    assert_eq!(dio.cache().count().await.unwrap(), 21);

    asked(&database);
    vista.delete(&first).await.unwrap();
    let again = vista.shell().list(&on_shelf(7)).await.unwrap();
    assert!(!again.contains(&first), "a write that may still wait is seen in a list of the master's");
}

#[tokio::test]
async fn windows_of_a_scenery_are_loaded_once() {
    let (dio, database, _dir) = dio(100_000).await;
    let scenery = dio.table_scenery().page_size(50).open().await.unwrap();
    let mut generation = scenery.subscribe();
    moved(&mut generation).await;
    assert_eq!((scenery.row_count(), at(&scenery, 49)), (100_000, "50".into()));
    scenery.set_viewport(99_950..100_000);
    moved(&mut generation).await;
    assert_eq!(at(&scenery, 99_999), "100000");
    let (lists, gets, counts) = asked(&database);
    assert_eq!((lists, gets), (2, 0));
    assert!(counts <= 1, "{counts}");
    assert!(dio.vista().get_value("99999").await.unwrap().is_some());
    assert_eq!(asked(&database), (0, 0, 0));
    let sorted = dio.table_scenery().where_eq("shelf", 7).sort("price", false).page_size(5).open().await.unwrap();
    let mut generation = sorted.subscribe();
    moved(&mut generation).await;
    assert_eq!(sorted.rows().len(), 5);
    assert_eq!(asked(&database).0, 1);
}
