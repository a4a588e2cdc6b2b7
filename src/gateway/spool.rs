//! Bytes of any length on their way through: in memory while they are few, else in a temporary file that nobody else sees.

use std::io::{Read as _, Seek as _, Write as _};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tempfile::SpooledTempFile;

use super::problem::{ApiError, Code};
use crate::dio::Dio;

/// Bytes that are held in memory.
const IN_MEMORY: usize = 1 << 20;
/// Bytes that are read at a time.
const PIECE: usize = 64 << 10;

/// Bytes that are written first and read then.
pub(super) struct Spool {
    /// `None` only while it is being written.
    file: Option<SpooledTempFile>,
    dio: Dio,
}

impl Spool {
    pub(super) fn new(dio: &Dio) -> Spool {
        Spool { file: Some(SpooledTempFile::new(IN_MEMORY)), dio: dio.clone() }
    }

    /// Appends `bytes`.
    pub(super) async fn write(&mut self, bytes: Vec<u8>) -> Result<(), ApiError> {
        let Some(mut file) = self.file.take() else { return Err(failed("it failed before")) };
        let work = move || file.write_all(&bytes).map(|()| file);
        let written = self.dio.0.core.heavy(self.weight(), work).await?;
        self.file = Some(written.map_err(failed)?);
        Ok(())
    }

    /// What was written, as a body.
    pub(super) fn into_body(self) -> Result<Body, ApiError> {
        let Some(mut file) = self.file else { return Err(failed("it failed before")) };
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
            let (piece, file) = dio.0.core.heavy(usize::MAX, read).await.map_err(std::io::Error::other)??;
            Ok::<_, std::io::Error>((!piece.is_empty()).then(|| (Bytes::from(piece), (file, dio))))
        });
        Ok(Body::from_stream(pieces))
    }

    /// A file is written off the async threads.
    fn weight(&self) -> usize {
        match self.file.as_ref().is_none_or(SpooledTempFile::is_rolled) {
            true => usize::MAX,
            false => 0,
        }
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error>>) -> ApiError {
    ApiError::new(Code::InsufficientStorage, "there is no room for a temporary file").cause(error.into().to_string())
}
