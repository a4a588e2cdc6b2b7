//! Key-value storage of confirmed rows by id, without conditions, order or search.
//!
//! A [`CacheBackend`] provides one [`CacheTable`] per Dio. Its content is disposable: the journal and the master can rebuild
//! it. It is read once, at start. After that only the Dio's cache writer uses it, in the background.
//!
//! [`MemoryCache`] is a backend, whose rows outlive a Lens; a Lens that needs none has the one in `none.rs`. The crate's own file,
//! [`RedbCache`], stores rows by the slots of the in-memory table instead (`slots.rs`), which is the interface of Dios. `by_id.rs`
//! adapts any backend to it.

mod by_id;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(test)]
mod contract_tests;
mod memory;
mod none;
mod redb;
mod remote;
mod row;
mod slots;

pub use self::redb::RedbCache;
#[cfg(any(test, feature = "testing"))]
pub use self::redb::{TableContent, decode_stored};
pub(crate) use by_id::ById;
#[cfg(any(test, feature = "testing"))]
pub use by_id::decode_stored_meta;
pub use memory::MemoryCache;
pub(crate) use none::NoCache;
pub use remote::RemoteCache;
pub use row::CachedRow;
pub use slots::{CacheBatch, CacheMeta, LoadReport, RowStore, RowTable, StoredRow};

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;

pub use crate::record::Id;
pub use bytes::Bytes;

/// Error of reading or writing the cache. The Dio continues without it and stores the rows later.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Reading or writing failed.
    #[error("cache {path}: {detail}")]
    Io {
        /// File, address or name of the cache.
        path: String,
        /// Description of the failure.
        detail: String,
        /// True if the disk is full.
        full: bool,
    },
    /// The stored bytes are not a cache.
    #[error("cache {path} is damaged: {detail}")]
    Corrupt {
        /// File, address or name of the cache.
        path: String,
        /// Description of the damage.
        detail: String,
    },
    /// The cache is open in another process, or in a Lens or Dio of this one.
    #[error("cache {path} is in use by another process, or by a Lens or Dio of this one")]
    Locked {
        /// The file.
        path: String,
    },
    /// The cache has been closed.
    #[error("the cache is closed")]
    Closed,
}

impl CacheError {
    /// Creates an error for a failed read or write of `cache`, its file, address or name. The call is tried again.
    pub fn io(cache: impl Into<String>, detail: impl Display) -> CacheError {
        CacheError::Io { path: cache.into(), detail: detail.to_string(), full: false }
    }

    /// Creates an error for damage in `cache`, its file, address or name. The table is cleared and filled again.
    pub fn corrupt(cache: impl Into<String>, detail: impl Display) -> CacheError {
        CacheError::Corrupt { path: cache.into(), detail: detail.to_string() }
    }
}

/// Storage for the rows of all Dios of a Lens: a key-value store of records by id, for
/// [`LensBuilder::cache_source`](crate::LensBuilder::cache_source).
///
/// An `Arc` of a backend is also a backend, so that the program can keep and share one. Only one Lens uses a table at a time.
///
/// # Example
/// `docs/embedding.md` has a complete example.
#[async_trait]
pub trait CacheBackend: Send + Sync + 'static {
    /// Opens or creates the table `name`, which holds the rows of the Dio of that name. Opening it again returns the same
    /// table.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be opened. `Io` and `Corrupt` are tried again a few times, so that a backend can replace
    /// damaged storage; then `make_dio` fails.
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError>;

    /// Flushes and closes all tables. [`Lens::close`](crate::Lens::close) calls it. The default does nothing.
    async fn close(&self) {}
}

#[async_trait]
impl<T: CacheBackend + ?Sized> CacheBackend for Arc<T> {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        (**self).open_table(name).await
    }

    async fn close(&self) {
        (**self).close().await;
    }
}

/// Records of one Dio by id, as its master confirmed them, and the `meta`: bytes that record their progress in the log.
///
/// Calls come one at a time. The meta belongs to the rows that it was committed with: a table that stores one without the other
/// makes a Dio serve wrong rows.
#[async_trait]
pub trait CacheTable: Send + Sync + 'static {
    /// Passes every row to `sink`, in batches of any size, and returns the meta that was committed last. Any order is correct;
    /// rows in the order of [`CachedRow::place`] make lists of the Dio slightly faster.
    ///
    /// Missing rows, and rows that [`CachedRow::from_bytes`] made from damaged bytes, are detected: the other rows are served,
    /// and the master is read again.
    ///
    /// # Errors
    /// [`CacheError::Corrupt`] if the whole table is damaged: it is cleared and the master read again. Any other error is tried
    /// again a few times; then `make_dio` fails.
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError>;

    /// Stores `puts` (new rows or new values of known ones), removes the rows of `deletes` (which may be unknown) and stores
    /// `meta` if there is one. All of it is applied or, on an error, nothing. No id is in both. After this returns, a
    /// [`CacheTable::load`] after a crash should find the changes.
    ///
    /// # Errors
    /// [`CacheError`]; the same rows, or newer versions of them, are committed again later. After [`CacheError::Corrupt`] the
    /// table is cleared and every row stored again.
    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError>;

    /// Removes all rows and the meta.
    ///
    /// # Errors
    /// [`CacheError`]; the stored content is then unspecified until the next success.
    async fn clear(&self) -> Result<(), CacheError>;

    /// Returns only the meta. The default loads the whole table. It is called only when a source cannot be opened.
    ///
    /// # Errors
    /// As [`CacheTable::load`].
    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        self.load(&mut |_| {}).await
    }

    /// Returns why the table is behind its Dio, for people; `None` if it is not. Must not do I/O. The default returns `None`.
    fn trouble(&self) -> Option<String> {
        None
    }
}
