//! In-memory cache for tests, and for Dios that are reseeded at every start.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{CacheBackend, CacheError, CacheTable, CachedRow};
use crate::record::Id;

const BATCH: usize = 4096;

/// In-memory cache backend.
///
/// The content lives as long as the value: a Lens rebuilt on the same cache (an `Arc` of it) finds its rows as after a restart.
#[derive(Debug, Default)]
pub struct MemoryCache {
    tables: Mutex<HashMap<String, Arc<MemoryTable>>>,
}

/// Table in memory.
#[derive(Debug, Default)]
struct MemoryTable(Mutex<Content>);

/// Rows and meta of a table.
#[derive(Debug, Default)]
struct Content {
    rows: HashMap<Id, CachedRow>,
    meta: Option<Bytes>,
}

impl MemoryCache {
    /// Creates an empty cache.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl CacheBackend for MemoryCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        let table: Arc<MemoryTable> = Arc::clone(self.tables.lock().entry(name.into()).or_default());
        Ok(table)
    }
}

#[async_trait]
impl CacheTable for MemoryTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        let (mut rows, meta): (Vec<CachedRow>, _) = {
            let content = self.0.lock();
            (content.rows.values().cloned().collect(), content.meta.clone())
        };
        rows.sort_unstable_by_key(|row| row.place().map(i64::cast_unsigned));
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(BATCH));
            sink(std::mem::replace(&mut rows, rest));
        }
        Ok(meta)
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        let mut content = self.0.lock();
        for id in deletes {
            content.rows.remove(&id);
        }
        content.rows.extend(puts.into_iter().map(|row| (Id::clone(row.shared_id()), row)));
        if meta.is_some() {
            content.meta = meta;
        }
        Ok(())
    }

    async fn clear(&self) -> Result<(), CacheError> {
        *self.0.lock() = Content::default();
        Ok(())
    }

    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        Ok(self.0.lock().meta.clone())
    }
}
