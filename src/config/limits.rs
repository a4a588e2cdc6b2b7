//! Reader of `[server] limits`: limits per client and in total.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::Reader;

/// Settings of `[server] limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsSpec {
    /// Maximum size of one row or query in bytes (default: 1 MiB).
    pub body: usize,
    /// Maximum size of a bulk insert in bytes (default: 256 MiB).
    pub bulk: usize,
    /// Maximum length of path and query in bytes (default: 8 KiB).
    pub uri: usize,
    /// Maximum nesting depth of a document (default: 64).
    pub depth: usize,
    /// Maximum number of values in a document (default: 100,000).
    pub nodes: usize,
    /// Maximum number of headers of one request (default: 100).
    pub headers: usize,
    /// Maximum size of one request's head in bytes (default: 64 KiB).
    pub header_bytes: usize,
    /// Maximum number of rows of a list, for resources without `max_limit` (default: 10,000).
    pub rows: usize,
    /// Maximum number of connections (default: 20,000); more wait.
    pub max_connections: usize,
    /// Maximum number of connections of one address, including event sockets (default: 1,000); more are refused. Connections of a
    /// trusted proxy are not counted.
    pub per_address: usize,
    /// Maximum number of event sockets (default: 10,000).
    pub max_sockets: usize,
    /// Timeout for receiving a request's head (default: 10 s).
    pub header_timeout: Duration,
    /// Timeout for receiving a request's body (default: 30 s).
    pub body_timeout: Duration,
    /// Maximum time for which a client may read nothing before it is disconnected (default: 10 s).
    pub write_timeout: Duration,
    /// Maximum time for which event streams and sockets wait for the first copy of a resource (default: 20 s).
    pub start_wait: Duration,
    /// Timeout of one query, including the time in the queue (default: 2 s).
    pub query_time: Duration,
    /// Maximum memory of one query for its groups and sort keys in bytes (default: 256 MiB).
    pub query_memory: usize,
    /// Maximum number of concurrent queries over many rows; `None` for the number of cores minus one (default).
    pub heavy_queries: Option<usize>,
    /// Maximum size of all request bodies in memory in bytes (default: 128 MiB).
    pub bodies: usize,
    /// Maximum size of all webhook bodies in temporary files in bytes (default: 1 GiB).
    pub spooled: usize,
    /// Maximum memory for decoding and applying webhook deliveries in bytes (default: 128 MiB).
    pub deliveries: usize,
    /// Maximum size of all large responses in progress in bytes (default: 256 MiB).
    pub answers: usize,
    /// Maximum number of distinct live queries and subscriber filters (default: 1,000).
    pub live_queries: usize,
    /// Maximum number of distinct live queries and subscriber filters of one address (default: 250).
    pub live_per_address: usize,
    /// Maximum size of the compiled patterns of subscriber filters in bytes (default: 64 MiB).
    pub patterns: usize,
    /// Maximum rate of requests without a valid token or signature per second and address (default: 10).
    pub auth_failures: u32,
}

impl Default for LimitsSpec {
    fn default() -> LimitsSpec {
        LimitsSpec {
            body: 1 << 20,
            bulk: 256 << 20,
            uri: 8 << 10,
            depth: 64,
            nodes: 100_000,
            headers: 100,
            header_bytes: 64 << 10,
            rows: 10_000,
            max_connections: 20_000,
            per_address: 1_000,
            max_sockets: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            start_wait: Duration::from_secs(20),
            query_time: Duration::from_secs(2),
            query_memory: 256 << 20,
            heavy_queries: None,
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

/// Permitted range of timeouts.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

impl LimitsSpec {
    pub(super) fn read(reader: Reader<'_>) -> LimitsSpec {
        let mut spec = LimitsSpec::default();
        let sizes: [(&'static str, &mut usize, RangeInclusive<u64>); 10] = [
            ("body", &mut spec.body, 1 << 10..=1 << 28),
            ("bulk", &mut spec.bulk, 1 << 10..=1 << 36),
            // The HTTP library's own limits bound these ranges.
            ("uri", &mut spec.uri, 256..=65_534),
            ("header_bytes", &mut spec.header_bytes, 8 << 10..=1 << 20),
            ("query_memory", &mut spec.query_memory, 1 << 20..=1 << 40),
            ("bodies", &mut spec.bodies, 1 << 20..=1 << 40),
            ("spooled", &mut spec.spooled, 1 << 20..=1 << 40),
            ("deliveries", &mut spec.deliveries, 1 << 20..=1 << 40),
            ("answers", &mut spec.answers, 1 << 20..=1 << 40),
            ("patterns", &mut spec.patterns, 1 << 20..=1 << 40),
        ];
        for (key, limit, range) in sizes {
            *limit = reader.size(key, range).unwrap_or(*limit);
        }
        let counts: [(&'static str, &mut usize, RangeInclusive<u64>); 9] = [
            ("depth", &mut spec.depth, 1..=100),
            ("nodes", &mut spec.nodes, 1..=100_000_000),
            ("headers", &mut spec.headers, 16..=1_000),
            ("rows", &mut spec.rows, 1..=10_000_000),
            ("max_connections", &mut spec.max_connections, 1..=1_000_000),
            ("per_address", &mut spec.per_address, 1..=1_000_000),
            ("max_sockets", &mut spec.max_sockets, 1..=1_000_000),
            ("live_queries", &mut spec.live_queries, 1..=1_000_000),
            ("live_per_address", &mut spec.live_per_address, 1..=1_000_000),
        ];
        for (key, limit, range) in counts {
            *limit = reader.count(key, range).unwrap_or(*limit);
        }
        spec.heavy_queries = reader.count("heavy_queries", 1..=1_024);
        if let Some(most) = reader.count("auth_failures", 1..=1_000_000) {
            spec.auth_failures = u32::try_from(most).unwrap_or(spec.auth_failures);
        }
        let times: [(&'static str, &mut Duration); 5] = [
            ("header_timeout", &mut spec.header_timeout),
            ("body_timeout", &mut spec.body_timeout),
            ("write_timeout", &mut spec.write_timeout),
            ("start_wait", &mut spec.start_wait),
            ("query_time", &mut spec.query_time),
        ];
        for (key, limit) in times {
            let time = reader.duration(key).unwrap_or(*limit);
            if TIMES.contains(&time) {
                *limit = time;
            } else {
                let at = reader.position(key).unwrap_or(reader.at);
                reader.problem(at, format!("server.limits.{key} must be a time from \"100ms\" to \"10m\""));
            }
        }
        if spec.uri >= spec.header_bytes {
            let at = reader.position("uri").unwrap_or(reader.at);
            reader.problem(at, "server.limits.uri must be less than header_bytes, because the URL is part of the head");
        }
        reader.finish();
        spec
    }
}
