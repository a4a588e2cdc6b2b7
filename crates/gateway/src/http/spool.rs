//! Buffer of any length: in memory while it is small, else in an unnamed temporary file.

use std::io::{Read as _, Seek as _, Write as _};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tempfile::SpooledTempFile;
use thiserror::Error as ThisError;
use tokio::sync::Semaphore;

use diorama_core::dio::Dio;
use diorama_core::vista::Error;

/// Maximum number of bytes in memory.
const IN_MEMORY: usize = 1 << 20;
/// Number of bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// Permits for writing or reading a spool. They bound the threads in use, each of which needs memory of its own.
static TURNS: Semaphore = Semaphore::const_new(4);

/// Reason why a spool cannot be written or read.
#[derive(Debug, ThisError)]
pub(crate) enum SpoolError {
    #[error("a temporary file for the body could not be written or read")]
    File(#[source] std::io::Error),
    /// The Dio, whose threads are used, is closed or has no free thread.
    #[error(transparent)]
    Dio(#[from] Error),
}

/// Runs `job`, which may read or write a file, off the async threads once a permit is free.
async fn on_disk<T: Send + 'static>(
    dio: &Dio,
    job: impl FnOnce() -> T + Send + 'static,
) -> diorama_core::vista::Result<T> {
    let _turn = TURNS.acquire().await.map_err(|_| Error::Closed)?;
    dio.blocking(job).await
}

/// Buffer that is written first and read afterwards.
pub(crate) struct Spool {
    /// File; `None` while a write runs and after one that failed.
    file: Option<SpooledTempFile>,
    dio: Dio,
}

impl Spool {
    pub(crate) fn new(dio: &Dio) -> Spool {
        Spool { file: Some(SpooledTempFile::new(IN_MEMORY)), dio: dio.clone() }
    }

    /// Creates a spool that keeps nothing in memory.
    pub(crate) fn in_file(dio: &Dio) -> Spool {
        Spool { file: Some(SpooledTempFile::new(0)), dio: dio.clone() }
    }

    /// Appends `bytes`, off the async threads, because they may go to a file.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<(), SpoolError> {
        let Some(mut file) = self.file.take() else { return Err(failed("an earlier write failed")) };
        let work = move || file.write_all(bytes.as_ref()).map(|()| file);
        let written = on_disk(&self.dio, work).await?;
        self.file = Some(written.map_err(failed)?);
        Ok(())
    }

    /// Reads the whole content, which is `length` bytes long.
    pub(crate) async fn into_vec(self, length: usize) -> Result<Vec<u8>, SpoolError> {
        let Some(mut file) = self.file else { return Err(failed("an earlier write failed")) };
        let read = move || {
            file.rewind()?;
            let mut bytes = Vec::with_capacity(length);
            file.take(length as u64).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = on_disk(&self.dio, read).await?.map_err(failed)?;
        if bytes.len() == length { Ok(bytes) } else { Err(failed("the file is shorter than what was written")) }
    }

    /// Returns the content as a body.
    pub(crate) fn into_body(self) -> Result<Body, SpoolError> {
        let Some(mut file) = self.file else { return Err(failed("an earlier write failed")) };
        file.rewind().map_err(failed)?;
        if !file.is_rolled() {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(failed)?;
            return Ok(bytes.into());
        }
        let pieces = stream::try_unfold((file, self.dio), |(mut file, dio)| async move {
            let read = move || {
                let mut piece = vec![0; PIECE];
                let length = file.read(&mut piece)?;
                piece.truncate(length);
                Ok::<_, std::io::Error>((piece, file))
            };
            let (piece, file) = on_disk(&dio, read).await.map_err(std::io::Error::other)??;
            Ok::<_, std::io::Error>((!piece.is_empty()).then(|| (Bytes::from(piece), (file, dio))))
        });
        Ok(Body::from_stream(pieces))
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SpoolError {
    SpoolError::File(std::io::Error::other(error))
}
