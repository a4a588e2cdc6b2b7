//! Backends of others: what each has to do, and what a Dio makes of them over restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use diorama::cache::{Bytes, CacheBackend, CacheError, CacheTable, CachedRow, Id, MemoryCache};
use diorama::{Dio, Lens, LensBuilder};
use diorama_core::cache::contract::{contents as load, keeps_the_contract};
use tempfile::TempDir;

use crate::harness::*;

// --- the contract ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn backends_of_others_keep_the_contract() {
    keeps_the_contract(&MemoryCache::new()).await;
    keeps_the_contract(&MapCache::default()).await;
    #[cfg(feature = "sqlite")]
    {
        let dir = tempfile::tempdir().unwrap();
        keeps_the_contract(&SqliteCache::open(&dir.path().join("cache.sqlite")).unwrap()).await;
    }
    // An `Arc` of one, also of one that is not known, is one.
    let shared: Arc<dyn CacheBackend> = Arc::new(MapCache::default());
    keeps_the_contract(&shared).await;
    keeps_the_contract(&Arc::new(MemoryCache::new())).await;
}

#[test]
fn a_custom_backend_is_passed_by_itself_or_shared() {
    let by_itself = Lens::new().cache_source(MapCache::default());
    let shared = Arc::new(MapCache::default());
    let by_arc = Lens::new().cache_source(Arc::clone(&shared));
    let by_name: Arc<dyn CacheBackend> = shared;
    for lens in [by_itself, by_arc, Lens::new().cache_source(by_name)] {
        lens.build().unwrap();
    }
}

// --- restarts --------------------------------------------------------------------------------------------------------------

/// A backend, made anew by each life as a process would.
type Backend = Box<dyn Fn() -> Arc<dyn CacheBackend>>;

/// Backends of which each outlives its Lens, and whether they keep the master's order.
#[cfg_attr(not(feature = "sqlite"), expect(unused_variables, reason = "only a file is in it"))]
fn backends(dir: &TempDir) -> Vec<(&'static str, Backend, bool)> {
    let (memory, map) = (Arc::new(MemoryCache::new()), Arc::new(MapCache::default()));
    vec![
        ("memory", Box::new(move || Arc::clone(&memory) as _), true),
        ("map", Box::new(move || Arc::clone(&map) as _), false),
        #[cfg(feature = "sqlite")]
        ("sqlite", sqlite(dir), true),
    ]
}

#[cfg(feature = "sqlite")]
fn sqlite(dir: &TempDir) -> Backend {
    let path = dir.path().join("cache.sqlite");
    Box::new(move || Arc::new(SqliteCache::open(&path).unwrap()))
}

fn lens(cache: Arc<dyn CacheBackend>, dir: &TempDir, kind: &str) -> LensBuilder {
    Lens::new().cache_source(cache).journal_at(dir.path().join(format!("{kind}.journal.redb")))
}

async fn end(lens: Arc<Lens>, dio: Dio) {
    dio.close().await;
    lens.close().await;
}

#[tokio::test]
async fn rows_survive_a_restart_on_a_backend_of_others() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, backend, ordered) in backends(&dir) {
        let starts = Arc::new(AtomicUsize::new(0));
        let master = Scripted::bakery();
        let counted = Arc::clone(&starts);
        let first = lens(backend(), &dir, kind).on_start(move |dio| {
            counted.fetch_add(1, Ordering::SeqCst);
            let dio = dio.clone();
            async move { dio.cache().insert_values(dio.master().list_values().await?).await }
        });
        let (first, dio) = open(first, &master).await;
        // In the middle of the master's order, at its end, and gone.
        dio.vista().patch_value("4", &cells([("price", 1.into())])).await.unwrap();
        dio.vista().insert("1muffin", &product("1muffin", "Muffin", 175, 2)).await.unwrap();
        dio.vista().delete("2").await.unwrap();
        settle(&dio).await;
        let (rows, position) = (dio.cache().list_values().await.unwrap(), dio.position());
        assert_eq!(ids(&rows), ["1", "3", "4", "5", "6", "7", "1muffin"]);
        end(first, dio).await;

        // Twice: what the second life stores is as good.
        for life in 0..2 {
            let calls = master.calls().total();
            let (next, dio) = open(lens(backend(), &dir, kind), &master).await;
            let found = dio.cache().list_values().await.unwrap();
            assert_eq!(found.len(), rows.len(), "{kind}, life {life}");
            for (id, record) in &rows {
                assert_eq!(found.get(&id), Some(record), "{kind}, life {life}: {id}");
            }
            if ordered {
                assert_eq!(ids(&found), ids(&rows), "{kind}, life {life}");
            } else {
                assert_eq!(ids(&found), ["1", "1muffin", "3", "4", "5", "6", "7"], "in the order that the backend has");
            }
            assert!(dio.status().complete, "{kind}, life {life}: a whole copy");
            assert_eq!(dio.position().epoch, position.epoch);
            assert_eq!(master.calls().total(), calls, "{kind}, life {life}: nothing was asked again");
            assert_eq!(starts.load(Ordering::SeqCst), 1);
            end(next, dio).await;
        }
    }
}

#[tokio::test]
async fn a_copy_on_a_backend_of_others_is_served_while_the_master_is_away() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, backend, _) in backends(&dir) {
        let master = Scripted::bakery();
        let (first, dio) = open(seeding(lens(backend(), &dir, kind)), &master).await;
        end(first, dio).await;
        let next = lens(backend(), &dir, kind).build().unwrap();
        let shape = next.remembered("products").await.unwrap().unwrap();
        assert_eq!(shape.schema().id_column(), "id", "{kind}");
        next.close().await;
    }
}

#[tokio::test]
async fn rows_that_a_backend_has_lost_are_read_from_the_master() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, backend, _) in backends(&dir) {
        let master = Scripted::bakery();
        let make = || reconciling(seeding(lens(backend(), &dir, kind)));
        let (first, dio) = open(make(), &master).await;
        end(first, dio).await;
        let table = backend().open_table("products").await.unwrap();
        table.commit(vec![], vec!["2".into()], None).await.unwrap();
        // One that decodes what it is given refuses this one.
        table.commit(vec![CachedRow::from_bytes("1", b"not a row")], vec![], None).await.ok();
        let (next, dio) = open(lens(backend(), &dir, kind), &master).await;
        assert!(!dio.status().complete, "{kind}: rows are missing, and it is known");
        end(next, dio).await;
        let (next, dio) = open(make(), &master).await;
        assert_eq!(dio.cache().count().await.unwrap(), 7, "{kind}");
        assert!(dio.status().complete, "{kind}");
        end(next, dio).await;
    }
}

// --- a backend that fails --------------------------------------------------------------------------------------------------

/// A map whose next commits fail.
#[derive(Default)]
struct Flaky {
    map: MapCache,
    failing: Arc<AtomicUsize>,
}

struct FlakyTable {
    table: Arc<dyn CacheTable>,
    failing: Arc<AtomicUsize>,
}

#[async_trait]
impl CacheBackend for Flaky {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        Ok(Arc::new(FlakyTable { table: self.map.open_table(name).await?, failing: Arc::clone(&self.failing) }))
    }
}

#[async_trait]
impl CacheTable for FlakyTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        self.table.load(sink).await
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        match self.failing.load(Ordering::SeqCst) {
            0 => self.table.commit(puts, deletes, meta).await,
            left => {
                self.failing.store(left - 1, Ordering::SeqCst);
                Err(CacheError::io("map", "no room"))
            }
        }
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.table.clear().await
    }
}

/// Rows of a second life on `cache`, whose copy is believed to be whole.
async fn second_life(cache: &Arc<Flaky>, dir: &TempDir, master: &Scripted) -> usize {
    let (next, dio) = open(lens(Arc::clone(cache) as _, dir, "flaky"), master).await;
    let found = dio.cache().list_values().await.unwrap();
    assert!(dio.status().complete);
    assert_eq!(found.len(), master.rows().await.len());
    end(next, dio).await;
    found.len()
}

#[tokio::test]
async fn a_first_copy_that_could_not_be_stored_at_once_is_stored_later() {
    let (dir, cache, master) = (tempfile::tempdir().unwrap(), Arc::new(Flaky::default()), Scripted::bakery());
    cache.failing.store(1, Ordering::SeqCst);
    let (first, dio) = open(seeding(lens(Arc::clone(&cache) as _, &dir, "flaky")), &master).await;
    end(first, dio).await;
    assert_eq!(second_life(&cache, &dir, &master).await, 7);
}

#[tokio::test]
async fn a_row_that_came_and_went_before_the_first_copy_takes_none_of_its_rows_along() {
    let (dir, cache, master) = (tempfile::tempdir().unwrap(), Arc::new(Flaky::default()), Scripted::bakery());
    let (first, dio) = open(reconciling(lens(Arc::clone(&cache) as _, &dir, "flaky")), &master).await;
    dio.cache().insert_value("early", &product("early", "Muffin", 175, 2)).await.unwrap();
    dio.cache().delete_value("early").await.unwrap();
    dio.refresh().await.unwrap();
    end(first, dio).await;
    assert_eq!(second_life(&cache, &dir, &master).await, 7);
}

/// The first copy and the attempt to store it again fail: the table is cleared by then, and no later change would bring its rows.
#[tokio::test]
async fn a_copy_that_could_not_be_filled_again_is_stored_as_a_whole_later() {
    for failures in [2, 3] {
        let (dir, cache, master) = (tempfile::tempdir().unwrap(), Arc::new(Flaky::default()), Scripted::bakery());
        cache.failing.store(failures, Ordering::SeqCst);
        let (first, dio) = open(seeding(lens(Arc::clone(&cache) as _, &dir, "flaky")), &master).await;
        let table = cache.map.open_table("products").await.unwrap();
        let stored = async {
            while load(&*table).await.0.len() < 7 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), stored).await.expect("all rows are stored");
        end(first, dio).await;
        assert_eq!(second_life(&cache, &dir, &master).await, 7);
    }
}
