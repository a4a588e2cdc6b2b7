//! [`Core`]: state that the tasks and handles of one Dio share.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::callbacks::Callbacks;
use super::commit::retention::Retention;
use super::commit::state::CommitState;
use super::commit::store::Store;
use super::counters::CounterCells;
use super::deliver::state::DeliverState;
use super::events::event::Position;
use super::events::ring::Ring;
use super::read::freshness::Freshness;
use super::read::index_requests::Indexer;
use super::settings::Settings;
use super::submission::CommitterHandle;
use super::sync::state::{LastList, SyncState};
use super::tasks::{HEAVY, Tasks};
use crate::journal::Journal;
use crate::state::State;
use crate::vista::{Error, LogLimit, Result, Vista};

/// Shared state of a Dio. Readers take [`Core::state`]; changes are sent as a [`Command`](crate::state::Command).
pub(crate) struct Core {
    pub(crate) name: Arc<str>,
    pub(crate) settings: Settings,
    pub(crate) callbacks: Callbacks,
    /// The master itself.
    pub(crate) vista: Vista,
    /// The published State, which readers see. Only the committer replaces it.
    pub(super) snapshot: ArcSwap<State>,
    /// Position of the published State. Notifies after the State has changed.
    pub(super) published: watch::Sender<u64>,
    /// The newest events.
    pub(crate) ring: Arc<Ring>,
    /// The cache table, with the changes that it does not have yet.
    pub(super) store: Store,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) committer: CommitterHandle,
    pub(super) commit: CommitState,
    pub(super) deliver: DeliverState,
    pub(super) sync: SyncState,
    pub(super) indexer: Indexer,
    pub(super) counters: CounterCells,
    /// Rate limiter of log lines that callers can cause, by message and code.
    pub(super) lines: LogLimit<(&'static str, String)>,
    pub(crate) tasks: Tasks,
    /// Cancelled when the Dio has closed.
    pub(crate) ended: CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Arguments of [`Core::new`].
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) callbacks: Callbacks,
    pub(crate) vista: Vista,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) committer: CommitterHandle,
    pub(super) state: State,
    pub(super) ring: Ring,
    pub(super) store: Store,
    pub(super) last_list: LastList,
    pub(super) retention: Retention,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Core {
        Core {
            name: parts.vista.name().into(),
            published: watch::Sender::new(parts.state.seq()),
            commit: CommitState::new(&parts.settings, &parts.state, parts.retention),
            deliver: DeliverState::new(parts.settings.breaker, parts.callbacks.on_write.is_some()),
            sync: SyncState::new(&parts.settings, &parts.vista.schema(), parts.last_list),
            indexer: Indexer::default(),
            counters: CounterCells::new(parts.ring.end()),
            lines: LogLimit::default(),
            tasks: Tasks::default(),
            ended: CancellationToken::new(),
            settings: parts.settings,
            callbacks: parts.callbacks,
            vista: parts.vista,
            snapshot: ArcSwap::from_pointee(parts.state),
            ring: Arc::new(parts.ring),
            store: parts.store,
            journal: parts.journal,
            committer: parts.committer,
        }
    }

    /// Snapshot of the State that readers see now. It holds no lock, only memory.
    pub(crate) fn state(&self) -> Arc<State> {
        self.snapshot.load_full()
    }

    /// Position of that State.
    pub(crate) fn position(&self) -> Position {
        let state = self.snapshot.load();
        Position { epoch: Arc::clone(state.epoch()), seq: state.seq() }
    }

    /// Notes that the first copy is complete.
    pub(super) fn seeded(&self) {
        self.sync.seeding.store(false, Ordering::Release);
        // Deliveries and sceneries may wait for it.
        self.wake();
    }

    /// Returns true if an acknowledged write survives the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.journal.durable()
    }

    /// Age of the rows.
    pub(super) fn age(&self) -> Freshness {
        let last = self.sync.last_list.lock();
        Freshness {
            age: last.at.map(|at| at.elapsed()),
            stale: last.is_stale(self.settings.cache_ttl),
            refresh_failed: last.failed.is_some(),
        }
    }

    /// Returns true if the rows are older than `cache_ttl`; see [`LastList::is_stale`].
    pub(crate) fn is_stale(&self) -> bool {
        self.sync.last_list.lock().is_stale(self.settings.cache_ttl)
    }
}

impl Core {
    /// Runs `work` off the async threads if `rows` is at least [`HEAVY`].
    pub(crate) async fn heavy<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        if rows < HEAVY {
            return Ok(work());
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "scans of many rows are the only blocking work on rows in memory"
        )]
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| Error::permanent(format!("an internal error: {error}")))
    }
}
