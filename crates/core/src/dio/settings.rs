//! Settings of a Dio with their defaults.

use std::sync::Arc;
use std::time::Duration;

use super::events::ring::RingLimits;
use super::read::workers::Workers;
use crate::journal::{InboxLimits, OutboxLimits};
use crate::vista::{UnknownColumns, Vista};

/// Settings of the Dios of a Lens. The builder of the Lens has a setter for each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// If true, `make_dio` waits for `on_start` (default: true).
    pub on_start_blocking: bool,
    /// If true, an `on_start` that failed to make the first copy is retried also after a permanent error or a panic
    /// (default: false).
    ///
    /// Other errors are always retried, and [`Dio::refresh`](super::Dio::refresh) retries it in any case.
    pub retry_every_start: bool,
    /// Interval of timed refreshes (default: none).
    pub refresh_every: Option<Duration>,
    /// Age from which cached rows count as stale and a read starts a refresh in the background (default: none).
    pub cache_ttl: Option<Duration>,
    /// If true, opening a scenery on a stale Dio starts a refresh (default: true).
    pub refresh_on_open: bool,
    /// Time for which a scenery's viewport must be unchanged before it is loaded (default: 50 ms).
    pub viewport_debounce: Duration,
    /// Maximum number of operations that wait for the master or are being delivered (default: 256).
    ///
    /// Further writers wait for a place, or are refused. Writes of a callback of the same Dio need no place.
    pub write_queue_capacity: usize,
    /// Maximum bytes of these operations (default: 256 MiB).
    pub max_pending_bytes: usize,
    /// If true, parked operations take places in the queue, too (default: false).
    pub count_parked: bool,
    /// Number of concurrent deliveries, each of a different row (default: 1).
    pub write_concurrency: usize,
    /// Order of deliveries (default: [`WriteOrder::Queue`]).
    pub write_order: WriteOrder,
    /// Time for which the oldest operation may block the queue while the master answers all other calls. After that it is
    /// parked (default: 60 s).
    pub head_patience: Duration,
    /// Bounds of the event ring.
    pub ring: RingLimits,
    /// Number of events that the journal keeps (default: 100,000).
    ///
    /// Older ones are trimmed a tenth at a time, once the cache file has their changes. Events of open writes stay.
    pub keep_events: u64,
    /// Bytes of events that the journal keeps (default: 256 MiB).
    pub keep_bytes: u64,
    /// Time for which the journal keeps events (default: 24 h). Checked after writes.
    pub keep_for: Duration,
    /// Retry policy of failed deliveries.
    pub retry: Retry,
    /// Policy for writes whose outcome cannot be determined (default: [`OnUnknown::Retry`]).
    pub on_unknown: OnUnknown,
    /// Limits of the circuit breakers of the source and the write route.
    pub breaker: BreakerLimits,
    /// Timeout of a list of the master (default: 5 min).
    pub refresh_timeout: Duration,
    /// Timeout of any other read of the master (default: 30 s).
    pub read_timeout: Duration,
    /// Maximum number of rows in doubt that are read from the master per second (default: 100).
    pub reread_rate: u32,
    /// Bounds of the webhook deliveries that the journal keeps, for all Dios of the Lens.
    pub inbox: InboxLimits,
    /// Limits of stored deliveries to send.
    pub outbox: OutboxLimits,
    /// If true, the Dio's log is in memory, separate from the journal of the Lens (default: false).
    ///
    /// Accepted writes then do not wait for a disk, and are lost on exit unless the master has them by then.
    pub log_in_memory: bool,
    /// Meaning of `Ok` of an `on_write` (default: [`WriteRoute::Around`]).
    pub write_route: WriteRoute,
    /// Time for which a write around the master is shown while the master's row does not have it (default: no limit).
    ///
    /// After that, the next read that shows the row without the write rolls it back, with a `WriteFailed`.
    pub routed_ttl: Option<Duration>,
    /// If true, the `on_write` guarantees by the operation's id that nothing takes effect twice (default: false).
    pub route_writes_once: bool,
    /// Destination of the `on_write` (default: none). If it reads single rows, it is read to find the outcome of operations that an
    /// older journal brings back.
    pub route: Option<Vista>,
    /// Column with the version of a row (default: none).
    pub version: Option<Arc<str>>,
    /// If true, full rows of unversioned upstream events are applied, provided that no write, read or doubt of the row is
    /// open (default: true). Otherwise the row is read from the master, as is always so for a known row if there is a version
    /// column.
    pub trust_payload: bool,
    /// Policy for columns that the schema does not declare, in rows of users and of the program (default: they are kept).
    ///
    /// If they are refused, those of upstream events are dropped and counted.
    pub unknown_columns: UnknownColumns,
    /// Time for which deliveries may still run after closing began (default: 20 s). The remaining ones stay in the journal.
    pub drain_timeout: Duration,
    /// If true, a complete list may be much smaller than the cache (default: false).
    pub allow_shrink: bool,
    /// Indexes that are built before the Dio is ready and never dropped (default: none).
    ///
    /// `category` serves filters; `category,price.desc` serves filters with sorted rows; see
    /// [`Spec::parse`](crate::table::Spec::parse). Other indexes are built when queries need them.
    pub indexes: Vec<String>,
    /// Maximum number of indexes (default: 16).
    pub max_indexes: usize,
    /// Maximum bytes of all indexes (default: 512 MiB).
    pub index_memory: usize,
    /// Maximum bytes of the columns and groups that scans keep (default: 256 MiB). 0 keeps none.
    pub column_memory: usize,
    /// Time for which a used index is kept when there is no room for another (default: 60 s).
    pub index_rest: Duration,
    /// Threads for queries over many rows, shared by all Dios of a Lens (default: the number of cores less one).
    pub workers: Arc<Workers>,
    /// If true, the Dio neither delivers to the master nor reads it in the background (default: false). For tools that
    /// repair a journal.
    pub offline: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            on_start_blocking: true,
            retry_every_start: false,
            refresh_every: None,
            cache_ttl: None,
            refresh_on_open: true,
            viewport_debounce: Duration::from_millis(50),
            write_queue_capacity: 256,
            max_pending_bytes: 256 << 20,
            count_parked: false,
            write_concurrency: 1,
            write_order: WriteOrder::Queue,
            head_patience: Duration::from_secs(60),
            ring: RingLimits::default(),
            keep_events: 100_000,
            keep_bytes: 256 << 20,
            keep_for: Duration::from_secs(24 * 3600),
            retry: Retry::default(),
            on_unknown: OnUnknown::Retry,
            breaker: BreakerLimits::default(),
            refresh_timeout: Duration::from_secs(300),
            read_timeout: Duration::from_secs(30),
            reread_rate: 100,
            inbox: InboxLimits::default(),
            outbox: OutboxLimits::default(),
            log_in_memory: false,
            write_route: WriteRoute::Around,
            routed_ttl: None,
            route_writes_once: false,
            route: None,
            version: None,
            trust_payload: true,
            unknown_columns: UnknownColumns::Keep,
            drain_timeout: Duration::from_secs(20),
            allow_shrink: false,
            indexes: Vec::new(),
            max_indexes: 16,
            index_memory: 512 << 20,
            column_memory: 256 << 20,
            index_rest: Duration::from_secs(60),
            workers: Arc::default(),
            offline: false,
        }
    }
}

impl Settings {
    /// Returns true if operations are delivered in the order in which they were accepted.
    pub(crate) fn delivers_in_order(&self) -> bool {
        self.write_order == WriteOrder::Queue && self.write_concurrency <= 1
    }
}

/// Order of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteOrder {
    /// Each operation waits for all earlier ones: one that fails for a moment blocks those behind it. This needs one
    /// lane; with more lanes it is [`WriteOrder::Row`].
    #[default]
    Queue,
    /// Each operation waits for the earlier ones of its row: one that fails blocks no other row.
    Row,
}

/// Meaning of `Ok` of an `on_write`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteRoute {
    /// The write is on its way: it is shown instead of the source's row until a read or event from the master confirms or
    /// overrides it.
    #[default]
    Around,
    /// The master has the write.
    Through,
}

/// Policy for a write whose attempt ended without an answer, or with the process.
///
/// It applies if the master cannot prove the outcome, the write is not idempotent, and the present row does not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is sent again.
    #[default]
    Retry,
    /// It is parked, for a user to decide.
    Park,
}

/// Limits of a circuit breaker.
///
/// It opens after `failures` consecutive failures, for `first`, then for twice as long each time up to `most`. After each
/// delay one request is sent as a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Number of consecutive failures (default: 5). Failures of the same row count once.
    pub failures: u32,
    /// The first delay (default: 1 s).
    pub first: Duration,
    /// The longest delay (default: 8 s). A `Retry-After` of the source can extend it to 5 min.
    pub most: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        BreakerLimits { failures: 5, first: Duration::from_secs(1), most: Duration::from_secs(8) }
    }
}

/// Retry policy of failed deliveries: after `first`, then after twice as long each time up to `most`, with jitter.
/// Operations older than `max_age` are parked.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first delay (default: 250 ms).
    pub first: Duration,
    /// The longest delay (default: 5 min).
    pub most: Duration,
    /// Age at which an operation is parked (default: 24 h).
    pub max_age: Duration,
    /// Timeout of one attempt (default: 10 s).
    pub attempt_timeout: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            first: Duration::from_millis(250),
            most: Duration::from_secs(300),
            max_age: Duration::from_secs(24 * 3600),
            attempt_timeout: Duration::from_secs(10),
        }
    }
}

impl Retry {
    /// Delay before attempt number `attempts + 1`: between half and all of the doubled delay, by `chance` (0 to 1).
    pub fn wait(&self, attempts: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(self.most);
        doubled.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }
}
