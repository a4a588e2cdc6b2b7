//! Shared state of lists, refreshes, rereads and feeds.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::Bucket;
use super::feed::FeedMeter;
use super::mismatch::Mismatches;
use super::report::{RefreshUnderWay, Start};
use crate::dio::settings::Settings;
use crate::journal::Seq;
use crate::record::Undecodable;
use crate::state::State;
use crate::vista::Schema;

/// State of one Dio that belongs to `sync/`.
pub(crate) struct SyncState {
    /// The last complete list of the source.
    pub(in crate::dio) last_list: Mutex<LastList>,
    /// True if the Dio was opened with a whole copy about which there was no doubt.
    pub(in crate::dio) opened_whole: AtomicBool,
    /// The refresh under way, which later callers join.
    pub(super) refreshing: Mutex<Option<RefreshUnderWay>>,
    /// Position of the last `Invalidated` of a refresh that `on_query` began.
    /// See [`Core::answered_until`](crate::dio::Core::answered_until).
    pub(super) query_refresh: tokio::sync::Mutex<Seq>,
    /// Lock that is held while the program reads the whole source, in `on_start` or `on_refresh`.
    ///
    /// A read that finds a row unchanged leaves no trace of it. Without the lock, a slower concurrent read could then bring an
    /// older value of that row back.
    pub(super) listing: tokio::sync::Mutex<()>,
    /// State that readers saw when the refresh under way began; see [`Core::standing_view`](crate::dio::Core::standing_view).
    pub(in crate::dio) before_refresh: Mutex<Option<Arc<State>>>,
    /// Set while there is no first copy; see [`Core::coverage`](crate::dio::Core::coverage).
    pub(in crate::dio) seeding: AtomicBool,
    /// Progress of `on_start`.
    pub(super) start: Mutex<Start>,
    /// Rate limiter of rereads of single rows.
    pub(super) rereads: Bucket,
    /// Rows that do not match the schema.
    pub(in crate::dio) mismatches: Mismatches,
    /// Meters of the feeds.
    pub(in crate::dio) feeds: Mutex<Vec<Arc<FeedMeter>>>,
    /// Wakes those that wait for a feed to be added.
    pub(in crate::dio) feed_added: Notify,
}

impl SyncState {
    /// State of a Dio with the schema `schema` and the cached list `last_list`.
    pub(in crate::dio) fn new(settings: &Settings, schema: &Schema, last_list: LastList) -> SyncState {
        SyncState {
            last_list: Mutex::new(last_list),
            opened_whole: AtomicBool::new(false),
            refreshing: Mutex::new(None),
            query_refresh: tokio::sync::Mutex::default(),
            listing: tokio::sync::Mutex::new(()),
            before_refresh: Mutex::new(None),
            seeding: AtomicBool::new(false),
            start: Mutex::new(Start::Done),
            rereads: Bucket::new(settings.reread_rate),
            mismatches: Mismatches::new(schema),
            feeds: Mutex::default(),
            feed_added: Notify::new(),
        }
    }
}

/// The last complete list of the source.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastList {
    /// Time at which it was applied.
    pub(crate) at: Option<Instant>,
    /// True if the rows are a whole copy of the master, as of the last list and the changes since.
    pub(crate) complete: bool,
    /// Error of the last refresh, if it failed.
    pub(crate) failed: Option<String>,
    /// Time that reading the last list took.
    pub(crate) list_time: Duration,
    /// Rows of the list that could not be decoded.
    pub(crate) undecodable: Option<Undecodable>,
    /// The list that the rows are equal to, if the source can recognize it.
    pub(crate) equal: Option<EqualList>,
    /// Place from which the source can tell what has changed after the last list that was applied.
    pub(crate) since: Option<Arc<str>>,
}

/// A list of the source that the rows are equal to as long as none of them changes.
#[derive(Clone, Debug)]
pub(crate) struct EqualList {
    /// Text by which the source recognizes it.
    pub(crate) fingerprint: Arc<str>,
    /// Position of the last change of a row.
    pub(crate) rows_seq: Seq,
}

impl LastList {
    /// Returns true if the rows are older than `ttl` or, without a `ttl`, if the last refresh failed or there was none.
    pub(in crate::dio) fn is_stale(&self, ttl: Option<Duration>) -> bool {
        match (ttl, self.at) {
            (Some(ttl), Some(at)) => at.elapsed() > ttl,
            (Some(_), None) => true,
            (None, at) => self.failed.is_some() || at.is_none(),
        }
    }
}
