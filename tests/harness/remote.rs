//! A cache that is elsewhere: every call takes time and can fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use diorama::cache::{Bytes, CacheBackend, CacheError, CacheTable, CachedRow, Id, MemoryCache};

/// A memory cache behind a slow line. Clones are the same cache, so that it survives a Lens.
#[derive(Clone, Default)]
pub struct RemoteCache(Arc<Remote>);

#[derive(Default)]
struct Remote {
    cache: MemoryCache,
    away: AtomicBool,
    calls: AtomicUsize,
}

/// One way over the line.
const LINE: Duration = Duration::from_millis(2);

impl RemoteCache {
    /// Makes calls fail from now on, or succeed again.
    pub fn set_away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    async fn travel(&self) -> Result<(), CacheError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(LINE).await;
        match self.0.away.load(Ordering::SeqCst) {
            true => Err(CacheError::io("remote", "no route")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl CacheBackend for RemoteCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        self.travel().await?;
        let table = self.0.cache.open_table(name).await?;
        Ok(Arc::new(RemoteTable { line: self.clone(), table }))
    }

    async fn close(&self) {
        self.0.cache.close().await;
    }
}

struct RemoteTable {
    line: RemoteCache,
    table: Arc<dyn CacheTable>,
}

#[async_trait]
impl CacheTable for RemoteTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        self.line.travel().await?;
        self.table.load(sink).await
    }

    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        self.line.travel().await?;
        self.table.meta().await
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        self.line.travel().await?;
        self.table.commit(puts, deletes, meta).await
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.line.travel().await?;
        self.table.clear().await
    }
}
