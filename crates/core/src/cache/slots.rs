//! Rows by slot: what Dios ask of a cache. The redb file is that by itself, [`ById`](super::ById) makes it of any backend.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::CacheError;
use crate::record::{Body, Id, Layout};
use crate::vista::SourceShape;

/// Where the rows of all Dios of a Lens live.
#[async_trait]
pub trait RowStore: Send + Sync + 'static {
    /// Opens or creates the table `name`.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be opened.
    async fn open_table(&self, name: &str) -> Result<Arc<dyn RowTable>, CacheError>;

    /// Flushes and closes every table. Calls after this are [`CacheError::Closed`], or start anew.
    async fn close(&self);
}

/// The rows of one Dio as its master confirmed them.
#[async_trait]
pub trait RowTable: Send + Sync + 'static {
    /// Reads everything, in slot order, in batches of a few thousand rows. Rows that are not whole are left out and counted in
    /// [`LoadReport::damaged`]. `layout` is for records that have no canonical bytes yet.
    ///
    /// # Errors
    /// [`CacheError`] if the table cannot be read at all.
    async fn load(
        &self,
        layout: &Layout,
        sink: &mut (dyn FnMut(Vec<StoredRow>) + Send),
    ) -> Result<LoadReport, CacheError>;

    /// The meta alone, without the rows.
    ///
    /// # Errors
    /// [`CacheError`] if the table cannot be read at all.
    async fn meta(&self) -> Result<Option<CacheMeta>, CacheError>;

    /// Applies a batch in one transaction, durable on return: deletes first, then upserts, then `meta` if given.
    ///
    /// # Errors
    /// [`CacheError`]; nothing of the batch is stored then.
    async fn commit(&self, batch: CacheBatch) -> Result<(), CacheError>;

    /// Forgets all rows and the meta.
    ///
    /// # Errors
    /// [`CacheError`]; what is stored then is unspecified until the next success.
    async fn clear(&self) -> Result<(), CacheError>;

    /// Notes that the next commit erases rows: what is left of their bytes when it was applied is to go when the storage is opened
    /// again. By default nothing is left.
    ///
    /// # Errors
    /// [`CacheError`] if that cannot be noted.
    async fn note_erased(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

/// One confirmed row as stored. Its key is `slot`, so that a load is sequential and a seed appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its slot in the table in memory, stable for the row's life.
    pub slot: u32,
    /// Its place in the master's order (gapped key).
    pub ordinal: u64,
    /// Its id.
    pub id: Id,
    /// Its bytes.
    pub body: Body,
}

/// How far a cache table has come; stored in the same transaction as the rows it speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CacheMeta {
    /// The journal epoch that the watermark belongs to.
    pub epoch: String,
    /// Every base change up to this journal position is in the table.
    pub watermark: u64,
    /// A bulk change is under way: rows may be newer than the watermark says.
    pub bulk: bool,
    /// Unix milliseconds when the last complete list was in, if ever.
    pub complete_at: Option<u64>,
    /// Fingerprint of the id column; a change makes the table worthless.
    pub shape: String,
    /// Rows were lost and the log, from which others were brought back, had gaps: those may be old until the next complete list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
    /// What the source was when the rows were read.
    #[serde(default)]
    pub source: Option<SourceShape>,
}

/// What [`RowTable::load`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The stored meta, `None` in a fresh table.
    pub meta: Option<CacheMeta>,
    /// Rows that are not whole, or that are missing; at least 1 if anything is not as it was stored.
    pub damaged: u64,
    /// What was known of rows' versions beside the rows, by id; `None` if that is not kept, as by backends by id and in files of
    /// 0.1.0.
    pub versions: Option<Vec<(Id, Bytes)>>,
}

/// One transaction of the cache writer.
#[derive(Clone, Debug, Default)]
pub struct CacheBatch {
    /// Slots whose rows are gone, with their ids.
    pub(crate) deletes: Vec<(u32, Id)>,
    /// Rows that are new or different.
    pub(crate) upserts: Vec<StoredRow>,
    /// What is known of rows' versions beside the rows, `None` for nothing any more.
    pub(crate) versions: Vec<(Id, Option<Bytes>)>,
    /// The meta from now on, if it changes.
    pub(crate) meta: Option<CacheMeta>,
}
