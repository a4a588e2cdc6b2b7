//! Bounds on what a request may be.

use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use thiserror::Error;

use diorama_core::record::JsonLimits;

/// A request's head is larger than the limits say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum HeadError {
    #[error("the URL is longer than {0} bytes")]
    Uri(usize),
    #[error("the headers are longer than {0} bytes")]
    Headers(usize),
}

/// Bounds on what a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one row or query (default: 1 MiB).
    pub body: usize,
    /// Bytes of a bulk insert (default: 256 MiB).
    pub bulk: usize,
    /// Bytes of path and query (default: 8 KiB).
    pub uri: usize,
    /// Bytes of the names and values of all headers (default: 64 KiB).
    pub header_bytes: usize,
    /// Nesting of a document (default: 64).
    pub depth: usize,
    /// Values in a document (default: 100,000).
    pub nodes: usize,
    /// Time to send a body (default: 30 s).
    pub body_timeout: Duration,
    /// Time that event streams and sockets wait for the first copy of a resource (default: 20 s).
    pub start_wait: Duration,
    /// Time that one query may take, waiting for its turn included (default: 2 s).
    pub query_time: Duration,
    /// Bytes that one query may hold for its groups and for what it sorts by (default: 256 MiB).
    pub query_memory: usize,
    /// Bytes of request bodies in memory at a time; a quarter of them for one address (default: 128 MiB).
    pub bodies: usize,
    /// Bytes of the bodies of webhooks in temporary files at a time; a quarter of them for one address (default: 1 GiB).
    pub spooled: usize,
    /// Bytes of memory in which deliveries of webhooks are decoded and applied at a time, as estimated from their length; a
    /// quarter of them, or what the largest one takes, for one address (default: 128 MiB).
    pub deliveries: usize,
    /// Bytes of large answers under way at a time; a quarter of them for one address (default: 256 MiB).
    pub answers: usize,
    /// Different live queries and filters of subscribers at a time (default: 1,000).
    pub live_queries: usize,
    /// Those of them that one address may bring (default: 250).
    pub live_per_address: usize,
    /// Bytes of the compiled patterns of subscribers' filters; a quarter of them for one address (default: 64 MiB).
    pub patterns: usize,
    /// Requests without a valid token or signature in a second, of one address (default: 10); more are told to come again.
    pub auth_failures: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 1 << 20,
            bulk: 256 << 20,
            uri: 8 << 10,
            header_bytes: 64 << 10,
            depth: 64,
            nodes: 100_000,
            body_timeout: Duration::from_secs(30),
            start_wait: Duration::from_secs(20),
            query_time: Duration::from_secs(2),
            query_memory: 256 << 20,
            bodies: 128 << 20,
            spooled: 1 << 30,
            deliveries: 128 << 20,
            answers: 256 << 20,
            live_queries: 1_000,
            live_per_address: 250,
            patterns: 64 << 20,
            auth_failures: 10,
        }
    }
}

impl Limits {
    /// Refuses a URL or headers that are too long.
    pub(crate) fn check_head(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), HeadError> {
        let length = uri.path_and_query().map_or(0, |text| text.as_str().len());
        if length > self.uri {
            return Err(HeadError::Uri(self.uri));
        }
        // What reads requests stops some way behind the bound.
        let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if length > self.header_bytes { Err(HeadError::Headers(self.header_bytes)) } else { Ok(()) }
    }

    pub(crate) fn json(&self) -> JsonLimits {
        JsonLimits { nodes: self.nodes, depth: self.depth }
    }
}
