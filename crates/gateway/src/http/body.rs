//! Reading of a whole body, within the limits and on the account of its caller.
//!
//! tower-http's `RequestBodyLimit` and axum's `Bytes` bound the length only. Here one deadline is for the whole body, a lease on the
//! caller's budget grows as the body arrives, and the bytes are handed on with that lease and without a copy.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;

use crate::http::budget::Lease;
use crate::http::limits::Limits;
use crate::http::problem::{ApiError, Code};

impl Limits {
    /// Reads a whole body. Its bytes hold `lease`, which grows as they arrive.
    ///
    /// # Errors
    /// 413 for what is larger than [`Limits::body`], 408 for what takes longer than [`Limits::body_timeout`], and as
    /// [`Lease::grow`].
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body, lease: Lease) -> Result<Bytes, ApiError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > self.body) {
            return Err(self.too_large());
        }
        match tokio::time::timeout(self.body_timeout, self.collect(body, lease)).await {
            Ok(read) => read,
            Err(_) => Err(ApiError::new(Code::RequestTimeout, "the body did not arrive in time")),
        }
    }

    async fn collect(&self, body: Body, mut lease: Lease) -> Result<Bytes, ApiError> {
        let mut stream = body.into_data_stream();
        let mut read: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|error| ApiError::new(Code::MalformedBody, format!("the body broke off: {error}")))?;
            let length = read.len() + chunk.len();
            if length > self.body {
                return Err(self.too_large());
            }
            if length > read.capacity() {
                let room = length.max(2 * read.capacity()).min(self.body);
                lease.grow_to(room)?;
                read.reserve_exact(room - read.len());
            }
            read.extend_from_slice(&chunk);
        }
        Ok(lease.bytes(read))
    }

    fn too_large(&self) -> ApiError {
        ApiError::new(Code::PayloadTooLarge, format!("the body is larger than {} bytes", self.body))
            .hint("send rows in bulk as application/x-ndjson, one per line")
    }
}
