//! Backups: the source of archives and the archive that is sent.

use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

use diorama_core::vista::Result;

/// Backup that is ready to be sent.
pub struct Archive {
    /// Total length in bytes.
    pub length: u64,
    /// Tar file, in pieces.
    pub pieces: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("length", &self.length).finish_non_exhaustive()
    }
}

pub(super) type Make = dyn Fn() -> BoxFuture<'static, Result<Archive>> + Send + Sync;

/// Source of backups, which makes one at a time.
#[derive(Clone)]
pub struct Backup {
    pub(super) make: Arc<Make>,
    pub(super) turn: Arc<Semaphore>,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup").finish_non_exhaustive()
    }
}

impl Backup {
    /// Creates a source that calls `make` for each backup.
    pub fn new(make: impl Fn() -> BoxFuture<'static, Result<Archive>> + Send + Sync + 'static) -> Backup {
        Backup { make: Arc::new(make), turn: Arc::new(Semaphore::new(1)) }
    }
}
