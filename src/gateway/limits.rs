//! Bounds on requests, and reading bodies within them.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;

use super::problem::{ApiError, Code};
use crate::record::JsonLimits;

/// Bounds on what a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one row or query (default: 1 MiB).
    pub body: usize,
    /// Bytes of a bulk insert (default: 256 MiB).
    pub bulk: usize,
    /// Bytes of path and query (default: 8 KiB).
    pub uri: usize,
    /// Nesting of a document (default: 64).
    pub depth: usize,
    /// Values in a document (default: 100,000).
    pub nodes: usize,
    /// Time to send a body (default: 30 s).
    pub body_time: Duration,
    /// Time that event streams and sockets wait for the first copy of a resource (default: 20 s).
    pub start_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 1 << 20,
            bulk: 256 << 20,
            uri: 8 << 10,
            depth: 64,
            nodes: 100_000,
            body_time: Duration::from_secs(30),
            start_wait: Duration::from_secs(20),
        }
    }
}

impl Limits {
    pub(super) fn json(&self) -> JsonLimits {
        JsonLimits { nodes: self.nodes, depth: self.depth }
    }

    /// Reads a whole body.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: usize| length > self.body) {
            return Err(self.too_large());
        }
        let reading = self.collect(body);
        match tokio::time::timeout(self.body_time, reading).await {
            Ok(read) => read,
            Err(_) => Err(ApiError::new(Code::RequestTimeout, "the body did not arrive in time")),
        }
    }

    async fn collect(&self, body: Body) -> Result<Bytes, ApiError> {
        let mut stream = body.into_data_stream();
        let mut read: Vec<u8> = Vec::new();
        let mut first = Bytes::new();
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|error| ApiError::new(Code::MalformedBody, format!("the body broke off: {error}")))?;
            if read.len() + first.len() + chunk.len() > self.body {
                return Err(self.too_large());
            }
            match (first.is_empty(), read.is_empty()) {
                (true, true) => first = chunk,
                (_, _) => {
                    read.extend_from_slice(&std::mem::take(&mut first));
                    read.extend_from_slice(&chunk);
                }
            }
        }
        Ok(if read.is_empty() { first } else { read.into() })
    }

    fn too_large(&self) -> ApiError {
        ApiError::new(Code::PayloadTooLarge, format!("the body is larger than {} bytes", self.body))
            .hint("send rows in bulk as application/x-ndjson, one per line")
    }
}
