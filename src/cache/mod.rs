//! Dumb row storage: confirmed rows by slot, no conditions, no order, no search.
//!
//! A [`CacheBackend`] gives one [`CacheTable`] per Dio. What is in it is disposable: the journal and the master can rebuild it.
//! Only the Dio's cache writer calls [`CacheTable::commit`]; it is read once, at start.

#[cfg(test)]
mod contract_tests;
mod memory;
mod redb;
#[cfg(test)]
mod redb_tests;

pub use self::redb::RedbCache;
pub use memory::MemoryCache;

use std::sync::Arc;

use async_trait::async_trait;

use crate::record::{Body, Id};
use crate::vista::SourceShape;

/// Why the cache could not be read or written. Never fatal to a Dio: it is set aside and reseeded.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Reading or writing failed.
    #[error("cache {path}: {detail}")]
    Io {
        /// The file.
        path: String,
        /// What happened.
        detail: String,
        /// Whether the disk is full.
        full: bool,
    },
    /// The stored bytes are not a cache.
    #[error("cache {path} is damaged: {detail}")]
    Corrupt {
        /// The file.
        path: String,
        /// What was found.
        detail: String,
    },
    /// Another process has it open.
    #[error("cache {path} is in use by another process")]
    Locked {
        /// The file.
        path: String,
    },
    /// It was closed.
    #[error("the cache is closed")]
    Closed,
}

/// Where the rows of all Dios of a Lens live.
#[async_trait]
pub trait CacheBackend: Send + Sync + 'static {
    /// Opens or creates the table `name`.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be opened.
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError>;

    /// Flushes and closes every table. Calls after this are [`CacheError::Closed`].
    async fn close(&self);

    /// Whether what is committed survives the process.
    fn durable(&self) -> bool;
}

/// The rows of one Dio as its master confirmed them.
#[async_trait]
pub trait CacheTable: Send + Sync + 'static {
    /// Reads everything, in slot order, in batches of a few thousand rows. Rows whose checksum does not hold are left out and
    /// counted in [`Loaded::damaged`].
    ///
    /// # Errors
    /// [`CacheError`] if the table cannot be read at all.
    async fn load(&self, sink: &mut (dyn FnMut(Vec<StoredRow>) + Send)) -> Result<Loaded, CacheError>;

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
}

/// One confirmed row as stored. Its key is `slot`, so that a load is sequential and a seed appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// Its place in the hot tier, stable for the row's life.
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

/// What [`CacheTable::load`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The stored meta, `None` in a fresh table.
    pub meta: Option<CacheMeta>,
    /// Rows whose checksum did not hold, or that are missing; at least 1 if anything is not as it was stored.
    pub damaged: u64,
}

/// One transaction of the cache writer.
#[derive(Clone, Debug, Default)]
pub struct CacheBatch {
    /// Slots whose rows are gone.
    pub deletes: Vec<u32>,
    /// Rows that are new or different.
    pub upserts: Vec<StoredRow>,
    /// The meta from now on, if it changes.
    pub meta: Option<CacheMeta>,
}
