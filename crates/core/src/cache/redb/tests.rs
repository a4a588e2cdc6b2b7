//! Power cuts, disk errors and damaged files under the redb cache.

use std::io::ErrorKind;
use std::time::Instant;

use redb::ReadableTable;

use super::KEPT_ASIDE;
use crate::cache::contract_tests::{delete, load, row, upserts};
use crate::cache::{CacheBatch, CacheError, CacheMeta, RedbCache, RowStore, StoredRow};
use crate::record::Layout;
use crate::redb_file::disk::{Disk, Failing, Random, damage, fate, images};

const ROWS: u32 = 300;

/// Batch of one step: rewrites some rows, deletes one, and sets the watermark to the step.
fn step_batch(step: u64) -> CacheBatch {
    let text = format!("step {step}");
    let slots = (0..40).map(|at| (step as u32 * 7 + at * 3) % ROWS);
    CacheBatch {
        deletes: vec![delete((step as u32 * 11) % ROWS)],
        upserts: slots.map(|slot| row(slot, &text)).collect(),
        meta: Some(CacheMeta { watermark: step, ..CacheMeta::default() }),
        ..CacheBatch::default()
    }
}

/// Rows after a number of steps.
fn after(steps: u64) -> Vec<StoredRow> {
    let mut rows = std::collections::BTreeMap::new();
    for batch in (1..=steps).map(step_batch) {
        batch.deletes.iter().for_each(|(slot, _)| drop(rows.remove(slot)));
        rows.extend(batch.upserts.into_iter().map(|row| (row.slot, row)));
    }
    rows.into_values().collect()
}

#[tokio::test]
async fn every_commit_survives_a_power_cut_whole() {
    let disk = Disk::default();
    let cache = RedbCache::with_backend(disk.factory()).unwrap();
    let table = cache.open_table("products").await.unwrap();
    let mut acked = vec![disk.recorded()];
    for step in 1..=30 {
        table.commit(step_batch(step)).await.unwrap();
        acked.push(disk.recorded());
    }
    let mut random = fate(3);
    for _ in 0..images() / 10 {
        let cut = acked[0] + random.below(disk.recorded() - acked[0] + 1) as usize;
        let image = disk.image(cut, &mut random);
        let cache = RedbCache::with_backend(image.factory()).unwrap();
        let (rows, loaded) = load(&*cache.open_table("products").await.unwrap()).await.unwrap();
        let steps = loaded.meta.map_or(0, |meta| meta.watermark);
        let done = acked.iter().filter(|at| **at <= cut).count() as u64 - 1;
        assert!(steps == done || steps == done + 1, "{done} steps acknowledged, {steps} found");
        assert_eq!((rows, loaded.damaged), (after(steps), 0));
    }
}

#[tokio::test]
async fn after_a_disk_error_the_next_call_opens_the_file_again() {
    let disk = Disk::default();
    let cache = RedbCache::with_backend(disk.factory()).unwrap();
    let table = cache.open_table("products").await.unwrap();
    table.commit(step_batch(1)).await.unwrap();
    for (step, kind) in [(2, ErrorKind::Other), (3, ErrorKind::StorageFull)] {
        disk.set_failing(Failing::From(disk.operations() + 3, kind));
        let failed = table.commit(step_batch(step)).await;
        let full = kind == ErrorKind::StorageFull;
        assert!(matches!(failed, Err(CacheError::Io { full: said, .. }) if said == full), "{failed:?}");
        assert!(matches!(load(&*table).await, Err(CacheError::Io { .. })));
        disk.set_failing(Failing::Never);
        assert_eq!(load(&*table).await.unwrap().0, after(step - 1));
        table.commit(step_batch(step)).await.unwrap();
        assert_eq!(load(&*table).await.unwrap().0, after(step));
    }
}

#[tokio::test]
async fn a_damaged_cache_never_returns_a_wrong_row_and_is_set_aside_if_necessary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let cache = RedbCache::open(&path).unwrap();
    assert_eq!(cache.set_aside(), None);
    let table = cache.open_table("products").await.unwrap();
    for step in 1..=10 {
        table.commit(step_batch(step)).await.unwrap();
    }
    cache.close().await;
    let (whole, right) = (std::fs::read(&path).unwrap(), after(10));
    let (mut random, mut aside, mut noticed) = (Random(4), 0, 0);
    for _ in 0..200 {
        let mut bytes = whole.clone();
        damage(&mut bytes, &mut random);
        std::fs::write(&path, &bytes).unwrap();
        let cache = RedbCache::open_verifying(&path, 0, KEPT_ASIDE).unwrap();
        // A complete older state is not damage: its watermark is older, too.
        let whole_states: Vec<_> = (0..=10).map(after).collect();
        if let Ok(table) = cache.open_table("products").await
            && let Ok((rows, loaded)) = load(&*table).await
        {
            if loaded.damaged == 0 {
                assert!(whole_states.contains(&rows), "missing rows are not reported");
            }
            noticed += u32::from(loaded.damaged > 0 || rows != right);
            let known = |row| whole_states.iter().any(|rows| rows.contains(row));
            assert!(rows.iter().all(known), "a wrong row");
        }
        // After any damage, a cleared table works.
        let table = match cache.open_table("products").await {
            Err(_) => cache.open_table("products").await.unwrap(),
            table => table.unwrap(),
        };
        if table.clear().await.is_err() {
            table.clear().await.unwrap();
        }
        table.commit(step_batch(1)).await.unwrap();
        assert_eq!(load(&*table).await.unwrap().0, after(1));
        aside += u32::from(cache.set_aside().is_some_and(|aside| aside.exists()));
        cache.close().await;
    }
    assert!(aside > 40, "{aside} set aside, {noticed} noticed");
}

#[tokio::test]
async fn a_cache_that_is_small_or_was_not_closed_is_verified_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mark) = (folder.path().join("cache.redb"), folder.path().join("cache.redb.open"));
    let cache = RedbCache::open(&path).unwrap();
    let table = cache.open_table("products").await.unwrap();
    table.commit(upserts((0..ROWS).map(|slot| row(slot, "whole")))).await.unwrap();
    assert!(mark.exists());
    cache.close().await;
    assert!(!mark.exists());
    // Damage the text of a row, not the tree.
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|text| text == b"whole").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let cache = RedbCache::open_verifying(&path, 0, KEPT_ASIDE).unwrap();
    assert_eq!(cache.set_aside(), None, "not verified on open");
    let loaded = load(&*cache.open_table("products").await.unwrap()).await.unwrap().1;
    assert_eq!(loaded.damaged, 1, "found when the row is read");
    drop(cache);
    assert!(mark.exists(), "the mark stays without a close");
    assert!(RedbCache::open_verifying(&path, 0, KEPT_ASIDE).unwrap().set_aside().is_some());
    // The same file, small and closed.
    std::fs::remove_file(&mark).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    assert!(RedbCache::open(&path).unwrap().set_aside().is_some());
}

#[tokio::test]
async fn rows_of_another_table_or_slot_count_as_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let cache = RedbCache::open(&path).unwrap();
    for name in ["a", "b"] {
        cache.open_table(name).await.unwrap().commit(upserts([row(1, name), row(2, name)])).await.unwrap();
    }
    cache.close().await;
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let rows = |name| transaction.open_table(redb::TableDefinition::<u32, &[u8]>::new(name)).unwrap();
    let foreign = rows("b").get(1).unwrap().unwrap().value().to_vec();
    let own = rows("a").get(1).unwrap().unwrap().value().to_vec();
    rows("a").insert(1, foreign.as_slice()).unwrap();
    rows("a").insert(2, own.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let cache = RedbCache::open(&path).unwrap();
    let (rows, loaded) = load(&*cache.open_table("a").await.unwrap()).await.unwrap();
    assert_eq!((rows, loaded.damaged), (vec![], 2));
}

#[tokio::test]
async fn a_table_of_a_file_that_was_set_aside_has_to_be_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = RedbCache::open(folder.path().join("cache.redb")).unwrap();
    let (table, other) = (cache.open_table("a").await.unwrap(), cache.open_table("b").await.unwrap());
    table.commit(upserts([row(1, "x")])).await.unwrap();
    cache.find_damaged();
    assert!(matches!(table.commit(upserts([row(2, "x")])).await, Err(CacheError::Corrupt { .. })));
    assert!(cache.set_aside().is_some_and(|aside| aside.ends_with("cache.redb.corrupt-1")));
    assert!(matches!(other.commit(upserts([row(2, "x")])).await, Err(CacheError::Corrupt { .. })));
    table.clear().await.unwrap();
    table.commit(upserts([row(2, "x")])).await.unwrap();
    assert_eq!(load(&*other).await.unwrap().0, []);
    other.commit(upserts([row(3, "x")])).await.unwrap();
}

#[tokio::test]
async fn the_newest_set_aside_files_are_kept_and_no_other_file_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let others = [
        "cache.journal.redb.corrupt-1",
        "cache.redb.corrupt-0x1",
        "cache.redb.corrupt-+1",
        "cache.redb.corrupt-007",
        "other.redb.corrupt-1",
        "cache.redb.corrupt-",
    ];
    others.iter().for_each(|name| std::fs::write(folder.path().join(name), "kept").unwrap());
    let there = |name: &str| folder.path().join(name).exists();
    let numbers = || (1..20).filter(|number| there(&format!("cache.redb.corrupt-{number}"))).collect::<Vec<_>>();
    for life in 1..=5 {
        std::fs::write(&path, format!("not a cache, {life}")).unwrap();
        let cache = RedbCache::open_keeping(&path, 2).unwrap();
        assert!(cache.set_aside().is_some_and(|aside| aside.ends_with(format!("cache.redb.corrupt-{life}"))));
        cache.close().await;
    }
    assert_eq!(numbers(), [4, 5]);
    assert_eq!(std::fs::read_to_string(folder.path().join("cache.redb.corrupt-5")).unwrap(), "not a cache, 5");
    let cache = RedbCache::open_keeping(&path, 0).unwrap();
    let table = cache.open_table("a").await.unwrap();
    cache.find_damaged();
    assert!(table.commit(upserts([row(1, "x")])).await.is_err());
    assert_eq!(numbers(), [6], "the file just set aside stays, even with a limit of 0");
    assert!(others.iter().all(|name| there(name)));
}

#[tokio::test]
async fn each_dio_has_a_table_with_its_name() {
    use redb::{ReadableDatabase, TableHandle};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let cache = RedbCache::open(&path).unwrap();
    cache.open_table("products").await.unwrap();
    cache.open_table("Open Orders").await.unwrap();
    assert!(cache.open_table("_meta").await.is_err());
    cache.close().await;
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_read().unwrap();
    let names = transaction.list_tables().unwrap().map(|table| table.name().to_string());
    assert_eq!(names.collect::<Vec<_>>(), ["Open Orders", "_meta", "products"]);
}

#[tokio::test]
async fn a_newer_cache_is_set_aside_and_a_locked_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.redb");
    let first = RedbCache::open(&path).unwrap();
    assert!(matches!(RedbCache::open(&path), Err(CacheError::Locked { .. })));
    first.close().await;
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, &[u8]>::new("_meta");
    transaction.open_table(meta).unwrap().insert("format", 9u32.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(RedbCache::open(&path).unwrap().set_aside().is_some());
    assert_eq!(RedbCache::open(&path).unwrap().set_aside(), None);
    assert!(matches!(RedbCache::open(folder.path()), Err(CacheError::Io { .. })));
}

/// Prints the load rate: `cargo test --release --lib load_rate -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn load_rate() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let cache = RedbCache::open(folder.path().join("cache.redb")).unwrap();
    let table = cache.open_table("rows").await.unwrap();
    let text = "x".repeat(200);
    for from in (0..200_000).step_by(5000) {
        table.commit(upserts((from..from + 5000).map(|slot| row(slot, &text)))).await.unwrap();
    }
    let begun = Instant::now();
    let mut count = 0;
    table.load(&Layout::new("", false, [""; 0]), &mut |rows| count += rows.len()).await.unwrap();
    println!("{count} rows in {:?}, {:.0} rows/s", begun.elapsed(), count as f64 / begun.elapsed().as_secs_f64());
}
