//! A cache backend that was written from the documentation alone: a map of records in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use diorama::Record;
use diorama::cache::{Bytes, CacheBackend, CacheError, CacheTable, CachedRow, Id};
use parking_lot::Mutex;

/// Records by id, without their places.
#[derive(Default)]
pub struct MapCache(Mutex<HashMap<String, Arc<MapTable>>>);

#[derive(Default)]
struct MapTable(Mutex<(BTreeMap<String, Record>, Option<Bytes>)>);

#[async_trait]
impl CacheBackend for MapCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        let table: Arc<MapTable> = Arc::clone(self.0.lock().entry(name.to_string()).or_default());
        Ok(table)
    }
}

#[async_trait]
impl CacheTable for MapTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        let (rows, meta) = &*self.0.lock();
        sink(rows.iter().map(|(id, record)| CachedRow::new(id.as_str(), record.clone(), None)).collect());
        Ok(meta.clone())
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        let puts: Vec<_> =
            puts.iter().map(|row| Ok((row.id().to_string(), row.record()?))).collect::<Result<_, CacheError>>()?;
        let (rows, kept) = &mut *self.0.lock();
        deletes.iter().for_each(|id| drop(rows.remove(&**id)));
        rows.extend(puts);
        if meta.is_some() {
            *kept = meta;
        }
        Ok(())
    }

    async fn clear(&self) -> Result<(), CacheError> {
        *self.0.lock() = Default::default();
        Ok(())
    }
}
