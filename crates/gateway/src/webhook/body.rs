//! Body of a delivery that is not verified yet. It is checked as it arrives. A small part is kept in memory, the rest in a
//! private temporary file, which is removed when the process ends.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;

use crate::http::body::BodyError;
use crate::http::bounds::Bounds;
use crate::http::budget::Lease;
use crate::http::problem::{ApiError, Code};
use crate::http::spool::Spool;
use diorama_core::dio::Dio;
use diorama_inbound::Verifier;

/// Maximum size of an unverified body in memory, in bytes; the rest is spooled.
const IN_MEMORY: usize = 16 << 10;
/// Size in bytes from which a piece is written to the file without copying it to the buffer.
const LARGE_PIECE: usize = 16 << 10;

/// Body that is being received.
pub(super) struct IncomingBody {
    dio: Dio,
    most: usize,
    length: usize,
    /// End of the body that is not spooled yet.
    tail: Vec<u8>,
    spool: Option<Spool>,
    memory: Lease,
    spooled: Lease,
}

impl IncomingBody {
    /// Creates a body of at most `most` bytes, charged to the sender's budget.
    ///
    /// # Errors
    /// As [`Lease::grow`].
    pub(super) fn new(dio: &Dio, bounds: &Bounds, most: usize) -> Result<IncomingBody, ApiError> {
        Ok(IncomingBody {
            dio: dio.clone(),
            most,
            length: 0,
            tail: Vec::new(),
            spool: None,
            memory: bounds.lease_body(0)?,
            spooled: bounds.lease_spooled(0)?,
        })
    }

    /// Reads all of `body` and passes it to `verifier`.
    ///
    /// # Errors
    /// 413 if the body is too large, and as [`Lease::grow`].
    pub(super) async fn read(
        &mut self,
        headers: &HeaderMap,
        body: Body,
        verifier: &mut Verifier<'_>,
    ) -> Result<(), ApiError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        self.admit(announced.unwrap_or(0))?;
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(BodyError::Broken)?;
            self.admit(self.length.saturating_add(piece.len()))?;
            verifier.update(&piece);
            self.push(piece).await?;
        }
        Ok(())
    }

    fn admit(&self, length: usize) -> Result<(), ApiError> {
        if length <= self.most {
            return Ok(());
        }
        let detail = format!("the delivery is larger than {} bytes", self.most);
        Err(ApiError::new(Code::PayloadTooLarge, detail).hint("the webhook's key body sets the limit"))
    }

    async fn push(&mut self, piece: Bytes) -> Result<(), ApiError> {
        self.length += piece.len();
        if self.tail.len() + piece.len() > IN_MEMORY {
            self.spill().await?;
            if piece.len() >= LARGE_PIECE {
                // The connection's buffer is written directly, without a copy.
                return self.write(piece).await;
            }
        }
        let length = self.tail.len() + piece.len();
        if length > self.tail.capacity() {
            let room = length.max((2 * self.tail.capacity()).min(IN_MEMORY));
            self.memory.grow_to(room)?;
            self.tail.reserve_exact(room - self.tail.len());
        }
        self.tail.extend_from_slice(&piece);
        Ok(())
    }

    /// Writes the buffer to the temporary file.
    async fn spill(&mut self) -> Result<(), ApiError> {
        let tail = std::mem::take(&mut self.tail);
        if !tail.is_empty() {
            self.write(tail).await?;
        }
        self.memory.shrink_to(0);
        Ok(())
    }

    async fn write(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) -> Result<(), ApiError> {
        self.spooled.grow(bytes.as_ref().len())?;
        let spool = self.spool.get_or_insert_with(|| Spool::in_file(&self.dio));
        Ok(spool.write(bytes).await?)
    }

    /// Reads the whole body into memory. The returned bytes hold the lease.
    ///
    /// # Errors
    /// As [`Lease::grow`].
    pub(super) async fn into_bytes(mut self) -> Result<Bytes, ApiError> {
        if self.spool.is_some() {
            self.spill().await?;
        }
        let Some(spool) = self.spool else { return Ok(self.memory.bytes(self.tail)) };
        self.memory.grow_to(self.length)?;
        let body = spool.into_vec(self.length).await?;
        self.memory.shrink_to(self.length);
        Ok(self.memory.bytes(body))
    }
}
