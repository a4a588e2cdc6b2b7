//! Reader of `[server] limits`: limits per client and in total.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::Reader;
use diorama_gateway::Limits;

/// Settings of `[server] limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsSpec {
    /// Limits that the gateway enforces.
    pub gateway: Limits,
    /// Maximum number of headers of one request (default: 100).
    pub headers: usize,
    /// Maximum number of rows of a list, for resources without `max_limit` (default: 10,000).
    pub rows: usize,
    /// Maximum number of connections (default: 20,000); more wait.
    pub max_connections: usize,
    /// Maximum number of connections of one address, including event sockets (default: 1,000); more are refused. Connections of a
    /// trusted proxy are not counted.
    pub per_address: usize,
    /// Maximum number of event sockets (default: 10,000).
    pub max_sockets: usize,
    /// Maximum number of concurrent requests of one HTTP/2 connection (default: 100). Those of one address count as connections.
    pub streams: usize,
    /// Timeout for receiving a request's head (default: 10 s).
    pub header_timeout: Duration,
    /// Maximum time for which a client may read nothing before it is disconnected (default: 10 s).
    pub write_timeout: Duration,
    /// Maximum number of concurrent queries over many rows; `None` for the number of cores minus one (default).
    pub heavy_queries: Option<usize>,
}

impl Default for LimitsSpec {
    fn default() -> LimitsSpec {
        LimitsSpec {
            gateway: Limits::default(),
            headers: 100,
            rows: 10_000,
            max_connections: 20_000,
            per_address: 1_000,
            max_sockets: 10_000,
            streams: 100,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            heavy_queries: None,
        }
    }
}

/// Permitted range of timeouts.
const TIMES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

impl LimitsSpec {
    pub(super) fn read(reader: Reader<'_>) -> LimitsSpec {
        let mut spec = LimitsSpec::default();
        let sizes: [(&'static str, &mut usize, RangeInclusive<u64>); 10] = [
            ("body", &mut spec.gateway.body, 1 << 10..=1 << 28),
            ("bulk", &mut spec.gateway.bulk, 1 << 10..=1 << 36),
            // The HTTP library's own limits bound these ranges.
            ("uri", &mut spec.gateway.uri, 256..=65_534),
            ("header_bytes", &mut spec.gateway.header_bytes, 8 << 10..=1 << 20),
            ("query_memory", &mut spec.gateway.query_memory, 1 << 20..=1 << 40),
            ("bodies", &mut spec.gateway.bodies, 1 << 20..=1 << 40),
            ("spooled", &mut spec.gateway.spooled, 1 << 20..=1 << 40),
            ("deliveries", &mut spec.gateway.deliveries, 1 << 20..=1 << 40),
            ("answers", &mut spec.gateway.answers, 1 << 20..=1 << 40),
            ("patterns", &mut spec.gateway.patterns, 1 << 20..=1 << 40),
        ];
        for (key, limit, range) in sizes {
            *limit = reader.size(key, range).unwrap_or(*limit);
        }
        let counts: [(&'static str, &mut usize, RangeInclusive<u64>); 11] = [
            ("depth", &mut spec.gateway.depth, 1..=100),
            ("nodes", &mut spec.gateway.nodes, 1..=100_000_000),
            ("headers", &mut spec.headers, 16..=1_000),
            ("rows", &mut spec.rows, 1..=10_000_000),
            ("max_connections", &mut spec.max_connections, 1..=1_000_000),
            ("per_address", &mut spec.per_address, 1..=1_000_000),
            ("max_sockets", &mut spec.max_sockets, 1..=1_000_000),
            ("streams", &mut spec.streams, 1..=10_000),
            ("live_queries", &mut spec.gateway.live_queries, 1..=1_000_000),
            ("live_per_address", &mut spec.gateway.live_per_address, 1..=1_000_000),
            ("event_views", &mut spec.gateway.event_views, 1..=1_000_000),
        ];
        for (key, limit, range) in counts {
            *limit = reader.count(key, range).unwrap_or(*limit);
        }
        spec.heavy_queries = reader.count("heavy_queries", 1..=1_024);
        if let Some(most) = reader.count("auth_failures", 1..=1_000_000) {
            spec.gateway.auth_failures = u32::try_from(most).unwrap_or(spec.gateway.auth_failures);
        }
        let times: [(&'static str, &mut Duration); 5] = [
            ("header_timeout", &mut spec.header_timeout),
            ("body_timeout", &mut spec.gateway.body_timeout),
            ("write_timeout", &mut spec.write_timeout),
            ("start_wait", &mut spec.gateway.start_wait),
            ("query_time", &mut spec.gateway.query_time),
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
        if spec.gateway.uri >= spec.gateway.header_bytes {
            let at = reader.position("uri").unwrap_or(reader.at);
            reader.problem(at, "server.limits.uri must be less than header_bytes, because the URL is part of the head");
        }
        reader.finish();
        spec
    }
}
