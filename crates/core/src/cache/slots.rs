//! Row storage by slot, the interface that Dios use. The redb file implements it directly; [`ById`](super::ById) adapts any
//! backend.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::CacheError;
use crate::record::{Body, Id, Layout};
use crate::vista::SourceShape;

/// Storage for the rows of all Dios of a Lens.
#[async_trait]
pub trait RowStore: Send + Sync + 'static {
    /// Opens or creates the table `name`.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be opened.
    async fn open_table(&self, name: &str) -> Result<Arc<dyn RowTable>, CacheError>;

    /// Flushes and closes every table. Later calls return [`CacheError::Closed`], or open the storage again.
    async fn close(&self);
}

/// Rows of one Dio as its master confirmed them.
#[async_trait]
pub trait RowTable: Send + Sync + 'static {
    /// Reads all rows in slot order, in batches of a few thousand. Damaged rows are left out and counted in
    /// [`LoadReport::damaged`]. `layout` is for records that have no canonical bytes yet.
    ///
    /// # Errors
    /// [`CacheError`] if the table cannot be read at all.
    async fn load(
        &self,
        layout: &Layout,
        sink: &mut (dyn FnMut(Vec<StoredRow>) + Send),
    ) -> Result<LoadReport, CacheError>;

    /// Returns only the meta, without the rows.
    ///
    /// # Errors
    /// [`CacheError`] if the table cannot be read at all.
    async fn meta(&self) -> Result<Option<CacheMeta>, CacheError>;

    /// Applies a batch in one transaction, durable on return: deletes first, then upserts, then `meta` if given.
    ///
    /// # Errors
    /// [`CacheError`]; then nothing of the batch is stored.
    async fn commit(&self, batch: CacheBatch) -> Result<(), CacheError>;

    /// Removes all rows and the meta.
    ///
    /// # Errors
    /// [`CacheError`]; the stored content is then unspecified until the next success.
    async fn clear(&self) -> Result<(), CacheError>;

    /// Returns why the table is behind its Dio, for people; `None` if it is not. Must not do I/O. The default returns `None`.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Returns false if the store keeps nothing, so that rows need not be copied for it. The default returns true.
    fn keeps_rows(&self) -> bool {
        true
    }

    /// Notes that the next commit erases rows. Remnants of their bytes in the storage are removed the next time it is opened.
    /// The default does nothing, for stores without remnants.
    ///
    /// # Errors
    /// [`CacheError`] if the note cannot be stored.
    async fn note_erased(&self) -> Result<(), CacheError> {
        Ok(())
    }
}

/// One confirmed row as stored. Its key is `slot`, so that a load reads sequentially and a seed appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Slot in the in-memory table, stable for the life of the row.
    pub slot: u32,
    /// Position in the master's order (gapped key).
    pub ordinal: u64,
    /// Id of the row.
    pub id: Id,
    /// Encoded record.
    pub body: Body,
}

/// Progress of a cache table, stored in the same transaction as the rows that it describes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CacheMeta {
    /// Journal epoch of the watermark.
    pub epoch: String,
    /// Journal position up to which every base change is in the table.
    pub watermark: u64,
    /// True while a bulk change is under way: rows may be newer than the watermark.
    pub bulk: bool,
    /// Unix milliseconds of the last complete list, if there was one.
    pub complete_at: Option<u64>,
    /// Fingerprint of the id column; a change invalidates the table.
    pub shape: String,
    /// True if rows were lost and the log that restored others had gaps: these may be stale until the next complete list.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
    /// Shape of the source when the rows were read.
    #[serde(default)]
    pub source: Option<SourceShape>,
    /// Indexes that queries had built, for the next start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<String>,
}

/// Result of [`RowTable::load`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The stored meta, `None` in a fresh table.
    pub meta: Option<CacheMeta>,
    /// Number of damaged or missing rows; at least 1 if anything differs from the stored state.
    pub damaged: u64,
    /// Known versions that are stored apart from the rows, by id. `None` if the store keeps none, as backends by id and files
    /// of 0.1.0 do.
    pub versions: Option<Vec<(Id, Bytes)>>,
}

/// One transaction of the cache writer.
#[derive(Clone, Debug, Default)]
pub struct CacheBatch {
    /// Slots of removed rows, with their ids.
    pub(crate) deletes: Vec<(u32, Id)>,
    /// New or changed rows.
    pub(crate) upserts: Vec<StoredRow>,
    /// Changed versions that are stored apart from the rows; `None` removes one.
    pub(crate) versions: Vec<(Id, Option<Bytes>)>,
    /// New meta, if it changes.
    pub(crate) meta: Option<CacheMeta>,
}
