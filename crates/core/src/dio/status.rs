//! Status of a Dio.

use std::time::Duration;

use super::handle::Dio;
use super::{FeedStatus, OpId, Reachability};

/// A write that fails, and that all later ones wait for; see [`WriteOrder::Queue`](super::WriteOrder::Queue).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockingWrite {
    /// The operation.
    pub operation: OpId,
    /// Time since its first failure.
    pub since: Duration,
    /// What its last delivery said.
    pub error: String,
}

/// How a Dio is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Whether reads can be answered; see [`Dio::is_ready`].
    pub ready: bool,
    /// Rows that the cache holds.
    pub rows: u64,
    /// Whether they are a whole copy of the master, and none of them is in doubt.
    pub complete: bool,
    /// Time since the last complete list.
    pub age: Option<Duration>,
    /// Whether they are older than they should be.
    pub stale: bool,
    /// What the last refresh said, if it failed.
    pub refresh_failed: Option<String>,
    /// Why the source holds its list back, if it does: a file that looks half written, say. The rows from before are served.
    pub withheld: Option<String>,
    /// Operations that wait for the master.
    pub queued: usize,
    /// The oldest of them, if it fails and the others wait for it.
    pub held_by: Option<BlockingWrite>,
    /// Whether an acknowledged write survives the process.
    pub durable: bool,
    /// Why writes are refused at present: what the journal said when it failed.
    pub journal_trouble: Option<String>,
    /// Tasks that run.
    pub tasks: usize,
    /// Rows of the last complete list that could not be decoded; what is known of them is kept.
    pub undecodable: u64,
    /// How the source can be reached.
    pub source: Reachability,
    /// How the write route can be reached, if there is one.
    pub route: Option<Reachability>,
    /// How its feeds are doing.
    pub feeds: Vec<FeedStatus>,
}

impl Dio {
    /// How the Dio is.
    pub fn status(&self) -> Status {
        let core = &self.0.core;
        let state = core.state();
        let freshness = core.sync.last_list.lock().clone();
        Status {
            ready: !core.is_loading(),
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
            route: core.hooks.on_write.is_some().then(|| core.deliver.route_breaker.reach()),
            feeds: core.sync.feeds.lock().iter().map(|feed| feed.status()).collect(),
        }
    }
}
