//! Dumb row storage: confirmed rows by id, no conditions, no order, no search.
//!
//! A [`CacheBackend`] gives one [`CacheTable`] per Dio. What is in it is disposable: the journal and the master can rebuild it.
//! It is read once, at start; after that only the Dio's cache writer calls it, behind the readers' backs.
//!
//! [`MemoryCache`] is a backend. The crate's own file, [`RedbCache`], keeps rows by the slots of the table in memory instead (`slots.rs`),
//! which is what Dios ask for; `by_id.rs` makes that of any backend.

mod by_id;
#[cfg(test)]
mod contract_tests;
mod memory;
mod redb;
mod row;
mod slots;

pub use self::redb::RedbCache;
#[cfg(any(test, feature = "testing"))]
pub use self::redb::{TableContent, decode_stored};
pub(crate) use by_id::ById;
#[cfg(any(test, feature = "testing"))]
pub use by_id::decode_stored_meta;
pub use memory::MemoryCache;
pub use row::CachedRow;
pub use slots::{CacheBatch, CacheMeta, LoadReport, RowStore, RowTable, StoredRow};

use std::fmt::Display;
use std::sync::Arc;

use async_trait::async_trait;

pub use crate::record::Id;
pub use bytes::Bytes;

/// Why the cache could not be read or written. A Dio goes on without it: what could not be stored is stored later.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Reading or writing failed.
    #[error("cache {path}: {detail}")]
    Io {
        /// The file, or what else names the cache.
        path: String,
        /// What happened.
        detail: String,
        /// Whether the disk is full.
        full: bool,
    },
    /// The stored bytes are not a cache.
    #[error("cache {path} is damaged: {detail}")]
    Corrupt {
        /// The file, or what else names the cache.
        path: String,
        /// What was found.
        detail: String,
    },
    /// Another process has it open, or a Lens or Dio of this one.
    #[error("cache {path} is in use by another process, or by a Lens or Dio of this one")]
    Locked {
        /// The file.
        path: String,
    },
    /// It was closed.
    #[error("the cache is closed")]
    Closed,
}

impl CacheError {
    /// Failed reading or writing of `cache`, its file, address or name. The call is tried again.
    pub fn io(cache: impl Into<String>, detail: impl Display) -> CacheError {
        CacheError::Io { path: cache.into(), detail: detail.to_string(), full: false }
    }

    /// Damage in `cache`, its file, address or name. The table is cleared and filled again.
    pub fn corrupt(cache: impl Into<String>, detail: impl Display) -> CacheError {
        CacheError::Corrupt { path: cache.into(), detail: detail.to_string() }
    }
}

/// Storage for the rows of all Dios of a Lens: a key-value store of records by id, for
/// [`LensBuilder::cache_source`](crate::LensBuilder::cache_source).
///
/// An `Arc` of a backend is a backend, so that one can be kept and shared. A table is used by one Lens at a time.
///
/// # Example
/// `docs/embedding.md` has a whole one.
#[async_trait]
pub trait CacheBackend: Send + Sync + 'static {
    /// Opens or creates the table `name`: the rows of the Dio of that name. Opened again, it is the same table.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be opened. `Io` and `Corrupt` are tried again a few times, so that a backend can begin anew in
    /// place of what is damaged; then `make_dio` fails.
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError>;

    /// Flushes and closes what was opened; called by [`Lens::close`](crate::Lens::close). By default nothing is to be done.
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

/// Records of one Dio by id, as its master confirmed them, and beside them the `meta`: bytes that say how far they have come.
///
/// Calls come one at a time. The meta belongs to the rows it was committed with: a table that has one without the other makes a
/// Dio serve rows that are not so.
#[async_trait]
pub trait CacheTable: Send + Sync + 'static {
    /// Gives every row to `sink`, in as many batches as is convenient, and returns the meta that was committed last. A table that
    /// gives rows in the order of [`CachedRow::place`] makes Dios whose lists are a little faster; any order is right.
    ///
    /// Rows made by [`CachedRow::from_bytes`] of damaged bytes, and rows that are missing, are noticed: what is left is served, and
    /// the master is read again.
    ///
    /// # Errors
    /// [`CacheError::Corrupt`] if the table is damaged as a whole: it is cleared and the master read again. Any other is tried
    /// again a few times; then `make_dio` fails.
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError>;

    /// Stores `puts`, new rows or new values of known ones, removes the rows of `deletes`, which may be unknown, and keeps `meta`
    /// if there is one: all of it or, on an error, nothing. No id is in both. What is stored when this returns is what a
    /// [`CacheTable::load`] after a crash should find.
    ///
    /// # Errors
    /// [`CacheError`]; the same rows, or newer ones in their place, come again then. After [`CacheError::Corrupt`] the table is
    /// cleared and every row stored again.
    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError>;

    /// Forgets all rows and the meta.
    ///
    /// # Errors
    /// [`CacheError`]; what is stored then is unspecified until the next success.
    async fn clear(&self) -> Result<(), CacheError>;

    /// The meta alone. By default everything is loaded for it; it is asked for only when a source cannot be opened.
    ///
    /// # Errors
    /// As [`CacheTable::load`].
    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        self.load(&mut |_| {}).await
    }
}
