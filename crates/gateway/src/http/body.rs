//! Reads a whole request body within the limits and the caller's budget.
//!
//! This code exists because tower-http's `RequestBodyLimit` and axum's `Bytes` bound the length only. Here one deadline covers the whole
//! body, a lease on the caller's budget grows as the body arrives, and the bytes keep that lease without a copy.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use thiserror::Error;

use crate::http::budget::{BudgetError, Lease};
use crate::http::limits::Limits;

/// Reason why a body could not be read.
#[derive(Debug, Error)]
pub(crate) enum BodyError {
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body ended early: {0}")]
    Broken(#[source] axum::Error),
    #[error(transparent)]
    Budget(#[from] BudgetError),
}

impl Limits {
    /// Reads a whole body. Its bytes hold `lease`, which grows as they arrive.
    ///
    /// # Errors
    /// The body is larger than [`Limits::body`], takes longer than [`Limits::body_timeout`] or ends early. Also as [`Lease::grow`].
    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body, lease: Lease) -> Result<Bytes, BodyError> {
        let content_length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if content_length.is_some_and(|length: usize| length > self.body) {
            return Err(BodyError::TooLarge(self.body));
        }
        match tokio::time::timeout(self.body_timeout, self.collect(body, lease)).await {
            Ok(read) => read,
            Err(_) => Err(BodyError::TooSlow),
        }
    }

    async fn collect(&self, body: Body, mut lease: Lease) -> Result<Bytes, BodyError> {
        let mut stream = body.into_data_stream();
        let mut read: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(BodyError::Broken)?;
            let length = read.len() + chunk.len();
            if length > self.body {
                return Err(BodyError::TooLarge(self.body));
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
}
