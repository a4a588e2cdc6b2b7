//! Limits on the size, time and memory of requests.

use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use thiserror::Error;

use diorama_core::record::JsonLimits;

/// Error of a request whose URL or headers exceed the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum HeadError {
    #[error("the URL is longer than {0} bytes")]
    Uri(usize),
    #[error("the headers are longer than {0} bytes")]
    Headers(usize),
}

/// Limits on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum size of the body of one row or query, in bytes (default: 1 MiB).
    pub body: usize,
    /// Maximum size of the body of a bulk insert, in bytes (default: 256 MiB).
    pub bulk: usize,
    /// Maximum size of path and query, in bytes (default: 8 KiB).
    pub uri: usize,
    /// Maximum size of the names and values of all headers, in bytes (default: 64 KiB).
    pub header_bytes: usize,
    /// Maximum nesting depth of a document (default: 64).
    pub depth: usize,
    /// Maximum number of values in a document (default: 100,000).
    pub nodes: usize,
    /// Timeout for receiving a whole body (default: 30 s).
    pub body_timeout: Duration,
    /// Time that event streams and sockets wait for the first copy of a resource (default: 20 s).
    pub start_wait: Duration,
    /// Timeout of one query, including the wait for a worker (default: 2 s).
    pub query_time: Duration,
    /// Maximum memory of one query for groups and sort keys, in bytes (default: 256 MiB).
    pub query_memory: usize,
    /// Maximum bytes of request bodies in memory at a time; a quarter of them for one address (default: 128 MiB).
    pub bodies: usize,
    /// Maximum bytes of webhook bodies in temporary files at a time; a quarter of them for one address (default: 1 GiB).
    pub spooled: usize,
    /// Maximum memory for decoding and applying deliveries of webhooks at a time, in bytes, as estimated from their length. One
    /// address may use a quarter of it, or the estimate for the largest delivery if that is more (default: 128 MiB).
    pub deliveries: usize,
    /// Maximum bytes of large answers in flight at a time; a quarter of them for one address (default: 256 MiB).
    pub answers: usize,
    /// Maximum number of distinct live queries and filters of subscribers at a time (default: 1,000).
    pub live_queries: usize,
    /// Maximum number of distinct live queries and filters of one address (default: 250).
    pub live_per_address: usize,
    /// Maximum number of distinct scopes and filters of the subscribers of one resource to whom events are dispatched by value
    /// (default: 10,000). Of others there are at most 1,000.
    pub event_views: usize,
    /// Maximum bytes of compiled patterns in subscribers' filters; a quarter of them for one address (default: 64 MiB).
    pub patterns: usize,
    /// Maximum number of requests a second that fail authentication, of one address (default: 10). Further ones are answered 429.
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
            event_views: 10_000,
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
        // The HTTP parser has a bound of its own, which is somewhat larger.
        let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if length > self.header_bytes { Err(HeadError::Headers(self.header_bytes)) } else { Ok(()) }
    }

    pub(crate) fn json(&self) -> JsonLimits {
        JsonLimits { nodes: self.nodes, depth: self.depth }
    }
}
