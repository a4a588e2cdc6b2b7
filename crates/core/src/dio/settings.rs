//! What a Dio can be told; each setting with its default.

use std::sync::Arc;
use std::time::Duration;

use super::events::ring::RingLimits;
use super::read::workers::Workers;
use crate::journal::InboxLimits;
use crate::vista::{UnknownColumns, Vista};

/// Settings of the Dios of a Lens. The Lens' builder has a setter for each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Whether `make_dio` waits for `on_start` (default: yes).
    pub on_start_blocking: bool,
    /// Whether a first copy that `on_start` failed to make is tried again also after a permanent error or a panic (default: no,
    /// then [`Dio::refresh`](super::Dio::refresh) tries it again; other errors always are).
    pub retry_every_start: bool,
    /// Time between two timed refreshes.
    pub refresh_every: Option<Duration>,
    /// Age from which cached rows are called stale and a read starts a refresh in the background.
    pub cache_ttl: Option<Duration>,
    /// Whether a scenery that is opened on a stale Dio refreshes it (default: yes).
    pub refresh_on_open: bool,
    /// How long a scenery's viewport must rest before it is loaded (default: 50 ms).
    pub viewport_debounce: Duration,
    /// Operations that may wait for the master, those in delivery among them; more writers wait for a place, or are refused
    /// (default: 256). What a callback of the same Dio writes needs no place.
    pub write_queue_capacity: usize,
    /// Their bytes (default: 256 MiB).
    pub max_pending_bytes: usize,
    /// Whether operations that are parked until a person decides take places in the queue, too (default: no).
    pub count_parked: bool,
    /// Deliveries at a time, of different ids (default: 1).
    pub write_concurrency: usize,
    /// Which operations wait for each other (default: with one lane, each for all that were accepted before it).
    pub write_order: WriteOrder,
    /// How long the oldest operation may hold the queue while the master answers everything else; then it is parked (default:
    /// 60 s).
    pub head_patience: Duration,
    /// Bounds of the event ring.
    pub ring: RingLimits,
    /// Events that the journal keeps (default: 100,000). Older ones go a tenth at a time, once the cache file has what they
    /// did; those of open writes stay.
    pub keep_events: u64,
    /// Their bytes (default: 256 MiB).
    pub keep_bytes: u64,
    /// How long it keeps them (default: 24 h); looked at when something is written.
    pub keep_for: Duration,
    /// When a failed delivery is tried again.
    pub retry: Retry,
    /// What happens to a write of which nobody can tell whether it took effect (default: it is sent again).
    pub on_unknown: OnUnknown,
    /// When a source or a write route that fails is left alone.
    pub breaker: BreakerLimits,
    /// How long a list of the master may take (default: 5 min).
    pub refresh_timeout: Duration,
    /// How long any other read of the master may take (default: 30 s).
    pub read_timeout: Duration,
    /// Rows in doubt that are read from the master in a second, at most (default: 100).
    pub reread_rate: u32,
    /// How many deliveries of webhooks the journal keeps, of all Dios of the Lens.
    pub inbox: InboxLimits,
    /// Whether the Dio's log is kept in memory beside the Lens' own: an accepted write waits for no disk, and is lost with the
    /// process unless the master has it by then (default: no).
    pub log_in_memory: bool,
    /// What `Ok` of an `on_write` means.
    pub write_route: WriteRoute,
    /// How long a write that went around the master may stay over its row while the master does not show it (default: for
    /// ever). After that, the next read that shows the row without it takes it back, with a `WriteFailed`.
    pub routed_ttl: Option<Duration>,
    /// Whether the `on_write` proves by the operation's id that nothing takes effect twice (default: no).
    pub route_writes_once: bool,
    /// The other end of the `on_write`, where it can be read: it is asked what became of operations that an older journal brings
    /// back (default: none).
    pub route: Option<Vista>,
    /// Column that holds a row's version.
    pub version: Option<Arc<str>>,
    /// Whether full rows in unversioned upstream events are believed when nothing else is in motion (default: yes).
    pub trust_payload: bool,
    /// Policy for columns that the schema does not declare, in rows of users and of the program (default: they are kept). Where
    /// they are refused, those of upstream events are left out and counted.
    pub unknown_columns: UnknownColumns,
    /// How long after closing began deliveries may still run (default: 20 s). What is left is in the journal.
    pub drain_timeout: Duration,
    /// Whether a complete list may be much smaller than what is cached (default: no).
    pub allow_shrink: bool,
    /// Indexes that are built before the Dio is ready and never dropped (default: none): `category` for filters,
    /// `category,price.desc` for filters whose rows are then sorted; see [`Spec::parse`](crate::table::Spec::parse). Others are
    /// built when queries need them.
    pub indexes: Vec<String>,
    /// How many indexes there may be (default: 16).
    pub max_indexes: usize,
    /// Their bytes (default: 512 MiB).
    pub index_memory: usize,
    /// How long an index that was used is kept when there is no room for another (default: 60 s).
    pub index_rest: Duration,
    /// Threads for queries over many rows, shared by all Dios of a Lens (default: one less than there are cores).
    pub workers: Arc<Workers>,
    /// Whether the master is left alone: nothing is delivered or read by itself. For tools that mend a journal (default: no).
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
            index_rest: Duration::from_secs(60),
            workers: Arc::default(),
            offline: false,
        }
    }
}

impl Settings {
    /// Whether operations are delivered in the order in which they were accepted.
    pub(crate) fn delivers_in_order(&self) -> bool {
        self.write_order == WriteOrder::Queue && self.write_concurrency <= 1
    }
}

/// Which operations wait for each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteOrder {
    /// Each for all that were accepted before it: one that fails for a moment holds those behind it. Needs one lane; with more
    /// lanes this is [`WriteOrder::Row`].
    #[default]
    Queue,
    /// Each for those of its own row: one that fails holds no other row.
    Row,
}

/// What `Ok` of an `on_write` means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteRoute {
    /// The write is on its way: it stays over the row until the master's news speak of it.
    #[default]
    Around,
    /// The master has it.
    Through,
}

/// What happens to a write whose attempt ended without an answer (or with the process), when neither the master's own proof, nor
/// that it can be repeated without harm, nor the row as it is now tells whether it took effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is sent again.
    #[default]
    Retry,
    /// It is parked for a person to look.
    Park,
}

/// When a source that fails is left alone: after `failures` of them without an answer between, for `first`, then twice as long
/// each time up to `most`; after each rest one request finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerLimits {
    /// Failures in a row; of deliveries and reads of one row only the first counts (default: 5).
    pub failures: u32,
    /// The first rest (default: 1 s).
    pub first: Duration,
    /// The longest rest (default: 8 s). A source that says itself when to come back is believed up to 5 min.
    pub most: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        BreakerLimits { failures: 5, first: Duration::from_secs(1), most: Duration::from_secs(8) }
    }
}

/// When a failed delivery is tried again: after `first`, then twice as long each time up to `most`, with jitter; given up and
/// parked after `max_age`.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first wait (default: 250 ms).
    pub first: Duration,
    /// The longest wait (default: 5 min).
    pub most: Duration,
    /// Age at which an operation is parked (default: 24 h).
    pub max_age: Duration,
    /// How long one attempt may take (default: 10 s).
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
    /// The wait before attempt number `attempts + 1`; between half and all of the doubled time, as `chance` (0 to 1) says.
    pub fn wait(&self, attempts: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(self.most);
        doubled.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }
}
