//! What every cache has to do, run over each implementation.

use super::{CacheBackend, CacheBatch, CacheError, CacheMeta, CacheTable, Loaded, MemoryCache, RedbCache, StoredRow};
use crate::record::Body;

pub(super) fn row(slot: u32, text: &str) -> StoredRow {
    let cbor = slot.is_multiple_of(3).then(|| format!("cbor of {text}").into());
    let body = Body::from_parts(format!("{{\"id\":\"{slot}\",\"text\":\"{text}\"}}").into(), cbor);
    StoredRow { slot, ordinal: u64::from(slot) << 32, id: format!("id-{slot}").into(), body }
}

pub(super) fn upserts(rows: impl IntoIterator<Item = StoredRow>) -> CacheBatch {
    CacheBatch { upserts: rows.into_iter().collect(), ..CacheBatch::default() }
}

pub(super) async fn load(table: &dyn CacheTable) -> Result<(Vec<StoredRow>, Loaded), CacheError> {
    let mut rows = Vec::new();
    let loaded = table.load(&mut |batch| rows.extend(batch)).await?;
    Ok((rows, loaded))
}

pub(super) async fn keeps_the_contract(cache: &dyn CacheBackend) {
    let table = cache.open_table("products").await.unwrap();
    let other = cache.open_table("Orders and \"more\"").await.unwrap();
    assert_eq!(load(&*table).await.unwrap(), (vec![], Loaded::default()));

    let meta = CacheMeta { epoch: "E".into(), watermark: 7, complete_at: Some(1), ..CacheMeta::default() };
    let slots = [5u32, 3, 9000, 4096, 4095, 1_000_000, 0];
    let first = CacheBatch { meta: Some(meta.clone()), ..upserts(slots.map(|slot| row(slot, "first"))) };
    table.commit(first).await.unwrap();
    other.commit(upserts([row(1, "other")])).await.unwrap();

    let mut sorted = slots;
    sorted.sort_unstable();
    let expected: Vec<_> = sorted.iter().map(|slot| row(*slot, "first")).collect();
    assert_eq!(load(&*table).await.unwrap(), (expected, Loaded { meta: Some(meta.clone()), damaged: 0 }));

    assert_eq!(table.meta().await.unwrap(), Some(meta.clone()));
    assert_eq!(other.meta().await.unwrap(), None);

    // Deletes come before upserts, and no meta leaves the meta alone.
    let deletes = vec![0, 3, 5, 77];
    table.commit(CacheBatch { deletes, ..upserts([row(3, "second"), row(9000, "second")]) }).await.unwrap();
    let expected = [row(3, "second"), row(4095, "first"), row(4096, "first"), row(9000, "second")];
    let (rows, loaded) = load(&*table).await.unwrap();
    assert_eq!((&rows[..4], rows.len(), loaded.meta), (&expected[..], 5, Some(meta)));

    // A second handle is the same table.
    let again = cache.open_table("products").await.unwrap();
    again.clear().await.unwrap();
    assert_eq!(load(&*table).await.unwrap(), (vec![], Loaded::default()));
    table.commit(upserts([row(1, "third")])).await.unwrap();
    assert_eq!(load(&*again).await.unwrap().0, [row(1, "third")]);
    assert_eq!(load(&*other).await.unwrap().0, [row(1, "other")]);

    cache.close().await;
    assert!(matches!(load(&*table).await, Err(CacheError::Closed)));
    assert!(matches!(table.commit(CacheBatch::default()).await, Err(CacheError::Closed)));
    assert!(matches!(other.clear().await, Err(CacheError::Closed)));
    cache.close().await;
}

#[tokio::test]
async fn the_memory_cache_keeps_the_contract() {
    keeps_the_contract(&MemoryCache::new()).await;
}

#[tokio::test]
async fn the_redb_cache_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(&RedbCache::open(folder.path().join("cache.redb")).unwrap()).await;
}

#[tokio::test]
async fn a_memory_cache_opened_again_still_has_its_rows() {
    let cache = MemoryCache::new();
    cache.open_table("t").await.unwrap().commit(upserts([row(1, "a")])).await.unwrap();
    cache.close().await;
    assert_eq!(load(&*cache.open_table("t").await.unwrap()).await.unwrap().0, [row(1, "a")]);
}
