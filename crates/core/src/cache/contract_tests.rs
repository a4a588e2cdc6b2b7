//! Contract of every row store, run on the redb file and on a backend of records. `contract.rs` has the contract
//! of backends.

use super::{
    ById, CacheBackend, CacheBatch, CacheError, CacheMeta, CacheTable, CachedRow, LoadReport, MemoryCache, RedbCache,
    RowStore, RowTable, StoredRow,
};
use crate::record::{Body, Layout, Record};
use std::sync::Arc;

pub(super) fn row(slot: u32, text: &str) -> StoredRow {
    let cbor = slot.is_multiple_of(3).then(|| format!("cbor of {text}").into());
    let body = Body::from_parts(format!("{{\"id\":\"{slot}\",\"text\":\"{text}\"}}").into(), cbor);
    StoredRow { slot, ordinal: u64::from(slot) << 32, id: format!("id-{slot}").into(), body }
}

pub(super) fn upserts(rows: impl IntoIterator<Item = StoredRow>) -> CacheBatch {
    CacheBatch { upserts: rows.into_iter().collect(), ..CacheBatch::default() }
}

pub(super) fn delete(slot: u32) -> (u32, crate::record::Id) {
    (slot, format!("id-{slot}").into())
}

pub(super) async fn load(table: &dyn RowTable) -> Result<(Vec<StoredRow>, LoadReport), CacheError> {
    let mut rows = Vec::new();
    let loaded = table.load(&layout(), &mut |batch| rows.extend(batch)).await?;
    Ok((rows, loaded))
}

fn layout() -> Layout {
    Layout::new("id", false, ["id", "text"])
}

fn meta() -> CacheMeta {
    CacheMeta { epoch: "E".into(), watermark: 7, complete_at: Some(1), ..CacheMeta::default() }
}

async fn keeps_the_contract(cache: &dyn RowStore, keeps_slots: bool) {
    // A store that assigns slots anew is compared without them.
    let plain = |mut rows: Vec<StoredRow>| {
        if !keeps_slots {
            rows.iter_mut().for_each(|row| row.slot = (row.ordinal >> 32) as u32);
        }
        rows
    };
    let table = cache.open_table("products").await.unwrap();
    let other = cache.open_table("Orders and \"more\"").await.unwrap();
    assert_eq!(load(&*table).await.unwrap(), (vec![], LoadReport::default()));

    let meta = meta();
    let slots = [5u32, 3, 9000, 4096, 4095, 1_000_000, 0];
    let first = CacheBatch { meta: Some(meta.clone()), ..upserts(slots.map(|slot| row(slot, "first"))) };
    table.commit(first).await.unwrap();
    other.commit(CacheBatch { meta: Some(CacheMeta::default()), ..upserts([row(1, "other")]) }).await.unwrap();

    let mut sorted = slots;
    sorted.sort_unstable();
    let expected: Vec<_> = sorted.iter().map(|slot| row(*slot, "first")).collect();
    let reopened = cache.open_table("products").await.unwrap();
    let (rows, loaded) = load(&*reopened).await.unwrap();
    assert_eq!(
        (plain(rows), loaded),
        (expected, LoadReport { meta: Some(meta.clone()), damaged: 0, ..LoadReport::default() })
    );
    assert_eq!(reopened.meta().await.unwrap(), Some(meta.clone()));

    // Deletes come before upserts, unknown deletes do nothing, and a batch without meta keeps the stored meta.
    let deletes = [0, 3, 5, 77].map(delete).into();
    table.commit(CacheBatch { deletes, ..upserts([row(3, "second"), row(9000, "second")]) }).await.unwrap();
    let expected = [row(3, "second"), row(4095, "first"), row(4096, "first"), row(9000, "second")];
    let reopened = cache.open_table("products").await.unwrap();
    let (rows, loaded) = load(&*reopened).await.unwrap();
    let rows = plain(rows);
    assert_eq!((&rows[..4], rows.len()), (&expected[..], 5));
    assert_eq!(loaded, LoadReport { meta: Some(meta), damaged: 0, ..LoadReport::default() });

    // A second handle reaches the same table.
    reopened.clear().await.unwrap();
    assert_eq!(load(&*table).await.unwrap(), (vec![], LoadReport::default()));
    table.commit(upserts([row(1, "third")])).await.unwrap();
    assert_eq!(plain(load(&*reopened).await.unwrap().0), [row(1, "third")]);
    assert_eq!(plain(load(&*other).await.unwrap().0), [row(1, "other")]);
}

#[tokio::test]
async fn a_backend_by_id_keeps_the_contract() {
    keeps_the_contract(&ById::new(MemoryCache::new()), false).await;
}

#[tokio::test]
async fn the_redb_cache_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let cache = RedbCache::open(folder.path().join("cache.redb")).unwrap();
    keeps_the_contract(&cache, true).await;
    let table = cache.open_table("products").await.unwrap();
    cache.close().await;
    assert!(matches!(load(&*table).await, Err(CacheError::Closed)));
    assert!(matches!(table.commit(CacheBatch::default()).await, Err(CacheError::Closed)));
    assert!(matches!(table.clear().await, Err(CacheError::Closed)));
    cache.close().await;
}

/// Returns a table by id and the backend's table below it.
async fn by_id() -> (Arc<dyn RowTable>, Arc<dyn CacheTable>) {
    let cache = Arc::new(MemoryCache::new());
    let table = ById::new(Arc::clone(&cache)).open_table("t").await.unwrap();
    (table, cache.open_table("t").await.unwrap())
}

#[tokio::test]
async fn lost_returned_and_damaged_backend_rows_are_counted() {
    let (table, backend) = by_id().await;
    let batch = CacheBatch { meta: Some(meta()), ..upserts((0..10).map(|slot| row(slot, "whole"))) };
    table.commit(batch).await.unwrap();
    assert_eq!(load(&*table).await.unwrap().1.damaged, 0);

    backend.commit(vec![], vec!["id-3".into(), "id-4".into()], None).await.unwrap();
    let (rows, loaded) = load(&*table).await.unwrap();
    assert_eq!((rows.len(), loaded), (8, LoadReport { meta: Some(meta()), damaged: 2, ..LoadReport::default() }));

    let back = [3, 4, 55].map(|slot| CachedRow::from(row(slot, "whole")));
    backend.commit(back.to_vec(), vec![], None).await.unwrap();
    assert_eq!(load(&*table).await.unwrap().1.damaged, 1);

    backend.commit(vec![CachedRow::from_bytes("id-5", b"?")], vec!["id-55".into()], None).await.unwrap();
    let (rows, loaded) = load(&*table).await.unwrap();
    assert_eq!((rows.len(), loaded.damaged), (9, 1));

    // Without a valid meta the state of the rows is unknown.
    backend.commit(vec![], vec![], Some("?".into())).await.unwrap();
    assert_eq!(load(&*table).await.unwrap().1.meta, None);
    assert_eq!(table.meta().await.unwrap(), None);
}

#[tokio::test]
async fn a_row_deleted_in_one_slot_and_put_in_another_is_kept_and_counted_once() {
    let (table, _) = by_id().await;
    let placed = |slot, text| StoredRow { slot, ..row(1, text) };
    table.commit(CacheBatch { meta: Some(meta()), ..upserts([placed(1, "a"), row(2, "a")]) }).await.unwrap();
    table.commit(CacheBatch { deletes: vec![delete(1)], ..upserts([placed(3, "b")]) }).await.unwrap();
    table
        .commit(CacheBatch { deletes: vec![(3, "id-1".into()), (9, "id-9".into())], ..upserts([placed(4, "c")]) })
        .await
        .unwrap();
    let (rows, loaded) = load(&*table).await.unwrap();
    assert_eq!(
        (rows, loaded.damaged),
        (vec![StoredRow { slot: 0, ..row(1, "c") }, StoredRow { slot: 1, ..row(2, "a") }], 0)
    );
}

#[tokio::test]
async fn rows_without_a_place_keep_the_order_of_the_load() {
    let (table, backend) = by_id().await;
    let record = |id: &str| Record::from_iter([("text".to_string(), id.into())]);
    // Unordered columns without the id: the layout brings them in order.
    let rows =
        [("b", Some(5)), ("a", None), ("c", Some(i64::MIN))].map(|(id, place)| CachedRow::new(id, record(id), place));
    let layout = layout();
    let bodies: Vec<Body> = ["b", "a", "c"].iter().map(|id| Body::encode(id, &record(id), &layout)).collect();
    for row in rows {
        backend.clear().await.unwrap();
        backend.commit(vec![row.clone()], vec![], None).await.unwrap();
        let (loaded, _) = load(&*table).await.unwrap();
        assert!(bodies.contains(&loaded[0].body));
        let ordinal = row.place().map_or(1 << 32, i64::cast_unsigned);
        assert_eq!((&*loaded[0].id, loaded[0].ordinal), (row.id(), ordinal));
    }
}

/// A table whose load reports damage to the whole table.
struct DamagedTable(Arc<dyn CacheTable>);

#[async_trait::async_trait]
impl CacheTable for DamagedTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<bytes::Bytes>, CacheError> {
        let meta = self.0.load(sink).await?;
        if meta.is_some() { Err(CacheError::corrupt("damaged", "test damage")) } else { Ok(meta) }
    }

    async fn commit(
        &self,
        puts: Vec<CachedRow>,
        deletes: Vec<crate::record::Id>,
        meta: Option<bytes::Bytes>,
    ) -> Result<(), CacheError> {
        self.0.commit(puts, deletes, meta).await
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.0.clear().await
    }
}

struct DamagedBackend(MemoryCache);

#[async_trait::async_trait]
impl CacheBackend for DamagedBackend {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        Ok(Arc::new(DamagedTable(self.0.open_table(name).await?)))
    }
}

#[tokio::test]
async fn a_table_that_is_damaged_as_a_whole_is_cleared() {
    let table = ById::new(DamagedBackend(MemoryCache::new())).open_table("t").await.unwrap();
    table.commit(CacheBatch { meta: Some(meta()), ..upserts([row(1, "x")]) }).await.unwrap();
    assert_eq!(load(&*table).await.unwrap().1, LoadReport { meta: None, damaged: 1, ..LoadReport::default() });
    assert_eq!(load(&*table).await.unwrap(), (vec![], LoadReport::default()));
}
