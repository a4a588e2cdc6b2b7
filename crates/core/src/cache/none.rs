//! The store of Dios whose rows are in memory only: it keeps nothing, because the table of a Dio is the copy.

use std::sync::Arc;

use async_trait::async_trait;

use super::{CacheBatch, CacheError, CacheMeta, LoadReport, RowStore, RowTable, StoredRow};
use crate::record::Layout;

/// Store without rows, for [`LensBuilder::no_cache`](crate::LensBuilder::no_cache).
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoCache;

#[async_trait]
impl RowStore for NoCache {
    async fn open_table(&self, _: &str) -> Result<Arc<dyn RowTable>, CacheError> {
        Ok(Arc::new(NoCache))
    }

    async fn close(&self) {}
}

#[async_trait]
impl RowTable for NoCache {
    async fn load(&self, _: &Layout, _: &mut (dyn FnMut(Vec<StoredRow>) + Send)) -> Result<LoadReport, CacheError> {
        Ok(LoadReport::default())
    }

    async fn meta(&self) -> Result<Option<CacheMeta>, CacheError> {
        Ok(None)
    }

    async fn commit(&self, _: CacheBatch) -> Result<(), CacheError> {
        Ok(())
    }

    async fn clear(&self) -> Result<(), CacheError> {
        Ok(())
    }

    fn keeps_rows(&self) -> bool {
        false
    }
}
