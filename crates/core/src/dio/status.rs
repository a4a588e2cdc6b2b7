//! [`Status`] of a Dio.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::core::Core;
use super::handle::Dio;
use super::{FeedStatus, OpId, Reachability};

/// A failing write that all later writes wait for; see [`WriteOrder::Queue`](super::WriteOrder::Queue).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockingWrite {
    /// Id of the operation.
    pub operation: OpId,
    /// Time since the first failure.
    pub since: Duration,
    /// Error of the last delivery.
    pub error: String,
}

/// Status of a Dio.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// True if reads can be answered; see [`Dio::is_ready`].
    pub ready: bool,
    /// Number of cached rows.
    pub rows: u64,
    /// True if the rows are a whole copy of the master, and none of them is in doubt.
    pub complete: bool,
    /// Time since the last complete list, `None` if there was none since the start.
    pub age: Option<Duration>,
    /// True if the rows are stale.
    pub stale: bool,
    /// Error of the last refresh, if it failed.
    pub refresh_failed: Option<String>,
    /// Reason why the source withholds its list, for example a file that looks half written. The previous rows are served.
    pub withheld: Option<String>,
    /// Number of operations that wait for the master.
    pub queued: usize,
    /// The oldest operation, if it fails and the others wait for it.
    pub held_by: Option<BlockingWrite>,
    /// True if an acknowledged write survives the process.
    pub durable: bool,
    /// Error of the journal, while writes are refused because of it.
    pub journal_trouble: Option<String>,
    /// Number of running tasks.
    pub tasks: usize,
    /// Number of rows of the last complete list that could not be decoded. Their known values are kept.
    pub undecodable: u64,
    /// Reachability of the source.
    pub source: Reachability,
    /// Reachability of the write route, if there is one.
    pub route: Option<Reachability>,
    /// Status of each feed.
    pub feeds: Vec<FeedStatus>,
    /// True while the indexes that queries had built before the start are built again.
    pub restoring: bool,
    /// Warnings about the systems that the Dio uses, for example that one may lose what it has accepted, and about indexes that were
    /// not built. Nothing fails because of it.
    pub warnings: Vec<String>,
}

impl Dio {
    /// Present status of the Dio.
    pub fn status(&self) -> Status {
        let core = &self.0.core;
        let state = core.state();
        let freshness = core.sync.last_list.lock().clone();
        let feeds: Vec<FeedStatus> = core.sync.feeds.lock().iter().map(|feed| feed.status()).collect();
        Status {
            warnings: core.warnings(&feeds),
            ready: !core.is_loading(),
            restoring: core.indexer.restoring.load(Ordering::Acquire),
            rows: state.table().len() as u64,
            complete: core.is_complete() && freshness.complete && state.dirty().next().is_none(),
            age: freshness.at.map(|at| at.elapsed()),
            stale: core.is_stale(),
            refresh_failed: freshness.failed,
            withheld: core.vista.shell().withheld(),
            queued: state.backlog().0,
            held_by: core.held_by(&state),
            durable: core.journal.durable(),
            journal_trouble: core.committer.journal_failure(),
            tasks: core.tasks.len(),
            undecodable: freshness.undecodable.map_or(0, |bad| bad.count),
            source: core.deliver.source.reach(),
            route: core.callbacks.on_write.is_some().then(|| core.deliver.route_breaker.reach()),
            feeds,
        }
    }
}

impl Core {
    /// Warnings about source, write route, feeds, cache and indexes.
    fn warnings(&self, feeds: &[FeedStatus]) -> Vec<String> {
        let of =
            |what: &'static str, warnings: Vec<String>| warnings.into_iter().map(move |text| format!("{what}: {text}"));
        let route = self.settings.route.as_ref().map(|route| route.shell().warnings()).unwrap_or_default();
        let feeds = feeds.iter().flat_map(|feed| of("feed", feed.warnings.clone()));
        let cache = of("cache", self.store.trouble().into_iter().collect());
        let index =
            |(spec, because): (String, String)| format!("index {spec}: not built, queries look at all rows: {because}");
        let indexes = self.indexer.refused().into_iter().map(index);
        let source = of("source", self.vista.shell().warnings());
        source.chain(of("write route", route)).chain(feeds).chain(cache).chain(indexes).collect()
    }
}
