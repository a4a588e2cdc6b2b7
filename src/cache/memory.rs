//! Rows in memory: for tests, and for Dios that are reseeded at every start.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{CacheBackend, CacheBatch, CacheError, CacheMeta, CacheTable, Loaded, StoredRow};

const BATCH: usize = 4096;

/// Rows in memory.
///
/// It keeps what it holds as long as the value lives: a Lens that is built again on the same cache finds its rows as after a
/// restart, because [`CacheBackend::open_table`] also opens a closed memory cache.
#[derive(Debug, Default)]
pub struct MemoryCache {
    tables: Mutex<HashMap<String, Arc<MemoryTable>>>,
    closed: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct MemoryTable {
    closed: Arc<AtomicBool>,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    rows: BTreeMap<u32, StoredRow>,
    meta: Option<CacheMeta>,
}

impl MemoryCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }
}

impl MemoryTable {
    fn check_open(&self) -> Result<(), CacheError> {
        if self.closed.load(Ordering::Acquire) { Err(CacheError::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl CacheBackend for MemoryCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        self.closed.store(false, Ordering::Release);
        let mut tables = self.tables.lock();
        let table = tables
            .entry(name.into())
            .or_insert_with(|| Arc::new(MemoryTable { closed: Arc::clone(&self.closed), content: Mutex::default() }));
        let table: Arc<MemoryTable> = Arc::clone(table);
        Ok(table)
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn durable(&self) -> bool {
        false
    }
}

#[async_trait]
impl CacheTable for MemoryTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<StoredRow>) + Send)) -> Result<Loaded, CacheError> {
        self.check_open()?;
        let (mut rows, meta): (Vec<StoredRow>, _) = {
            let content = self.content.lock();
            (content.rows.values().cloned().collect(), content.meta.clone())
        };
        while !rows.is_empty() {
            let rest = rows.split_off(rows.len().min(BATCH));
            sink(std::mem::replace(&mut rows, rest));
        }
        Ok(Loaded { meta, damaged: 0 })
    }

    async fn meta(&self) -> Result<Option<CacheMeta>, CacheError> {
        self.check_open()?;
        Ok(self.content.lock().meta.clone())
    }

    async fn commit(&self, batch: CacheBatch) -> Result<(), CacheError> {
        self.check_open()?;
        let mut content = self.content.lock();
        for slot in batch.deletes {
            content.rows.remove(&slot);
        }
        content.rows.extend(batch.upserts.into_iter().map(|row| (row.slot, row)));
        if batch.meta.is_some() {
            content.meta = batch.meta;
        }
        Ok(())
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.check_open()?;
        *self.content.lock() = Content::default();
        Ok(())
    }
}
