//! What the tasks and handles of one Dio share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::command::CommitterHandle;
use super::commit::invalid::Invalid;
use super::commit::ledger::Ledger;
use super::commit::room::{Held, Room};
use super::commit::store::Store;
use super::counters::Tally;
use super::deliver::attempts::Attempts;
use super::deliver::breaker::Line;
use super::events::event::Position;
use super::events::ring::Ring;
use super::hooks::Hooks;
use super::read::freshness::Freshness;
use super::settings::Settings;
use super::sync::report::Start;
use super::tasks::{HEAVY, Tasks};
use crate::journal::{Journal, Seq};
use crate::record::Undecodable;
use crate::state::State;
use crate::vista::{Error, LogLimit, Result, Vista};

/// Everything of a Dio but its handle. Readers take [`Core::state`]; whoever changes something sends a [`Cmd`].
pub(crate) struct Core {
    pub(crate) name: Arc<str>,
    pub(crate) settings: Settings,
    pub(crate) hooks: Hooks,
    /// The master as it is.
    pub(crate) vista: Vista,
    pub(super) root: ArcSwap<State>,
    pub(crate) ring: Arc<Ring>,
    pub(super) store: Store,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) committer: CommitterHandle,
    pub(crate) tasks: Tasks,
    /// Position of the published State; changes after it.
    pub(super) published: watch::Sender<u64>,
    pub(super) invalid: Mutex<Invalid>,
    pub(super) attempts: Mutex<Attempts>,
    pub(super) last_list: Mutex<LastList>,
    /// The way to the master.
    pub(super) source: Arc<Line>,
    /// The way that deliveries take: the master's, unless there is an `on_write`.
    pub(super) outlet: Arc<Line>,
    pub(super) tally: Tally,
    /// Rows that are not as the schema says.
    pub(super) mismatches: super::sync::mismatch::Mismatches,
    /// Bounds the lines that callers can cause, by message and code.
    pub(super) lines: LogLimit<(&'static str, String)>,
    /// How its feeds are doing.
    pub(super) feeds: Mutex<Vec<Arc<super::FeedMeter>>>,
    /// How often rows in doubt may be read.
    pub(super) rereads: super::Bucket,
    pub(super) indexer: super::read::index_requests::Indexer,
    pub(super) refreshing: Mutex<Option<super::sync::report::Flight>>,
    /// Position of the last `Invalidated` of a refresh that `on_query` began; see [`Core::answered_until`].
    pub(super) answered: tokio::sync::Mutex<Seq>,
    /// Held while the program reads the whole source, in `on_start` or `on_refresh`: what one reading finds as it was before is
    /// not noted, so that a slower one beside it could bring back what it saw earlier.
    pub(super) listing: tokio::sync::Mutex<()>,
    /// What readers saw when the refresh under way began; see [`Core::standing_view`].
    pub(super) before_refresh: Mutex<Option<Arc<State>>>,
    /// Held while a purge is under way: they are finished in their order.
    pub(super) purging: tokio::sync::Mutex<()>,
    /// Entries of the journal before this are trimmed.
    pub(super) trimmed: tokio::sync::Mutex<u64>,
    /// What the journal holds.
    pub(super) ledger: Mutex<Ledger>,
    /// Places of operations that wait for the master.
    pub(super) room: Room,
    /// Places of all other commands that wait for the committer.
    pub(super) inbox: Arc<Semaphore>,
    pub(super) closed: AtomicBool,
    /// Whether there is no first copy yet; see [`Core::coverage`].
    pub(super) seeding: AtomicBool,
    /// How it stands with `on_start`.
    pub(super) start: Mutex<Start>,
    /// Whether rows changed that no event has told of: the next `Invalidated` is not covered.
    pub(super) untold: AtomicBool,
    /// Cancelled when everything has ended.
    pub(crate) ended: tokio_util::sync::CancellationToken,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Commands that are no operations and wait for the committer, at most.
const INBOX: usize = 256;

/// When the rows were last known to be what the master has.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastList {
    /// When the last complete list was read.
    pub(crate) at: Option<Instant>,
    /// Whether the rows are a whole copy of the master (as far as anybody can know).
    pub(crate) complete: bool,
    /// What the last refresh said, if it failed.
    pub(crate) failed: Option<String>,
    /// How long the last list took.
    pub(crate) list_time: Duration,
    /// What could not be decoded of it.
    pub(crate) undecodable: Option<Undecodable>,
}

/// What the parts of a Core are made from.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) hooks: Hooks,
    pub(crate) vista: Vista,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) committer: CommitterHandle,
    pub(super) state: State,
    pub(super) ring: Ring,
    pub(super) store: Store,
    pub(super) last_list: LastList,
    pub(super) ledger: Ledger,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Core {
        let Settings { write_queue_capacity, max_pending_bytes, count_parked, .. } = parts.settings;
        let room = Room::new(write_queue_capacity, max_pending_bytes, count_parked);
        room.settle(Held::default(), &parts.state);
        let source = Arc::new(Line::new("source", parts.settings.breaker));
        let outlet = match parts.hooks.on_write {
            Some(_) => Arc::new(Line::new("write route", parts.settings.breaker)),
            None => Arc::clone(&source),
        };
        let schema = parts.vista.schema();
        Core {
            source,
            outlet,
            feeds: Mutex::default(),
            lines: LogLimit::default(),
            rereads: super::Bucket::new(parts.settings.reread_rate),
            name: parts.vista.name().into(),
            settings: parts.settings,
            hooks: parts.hooks,
            vista: parts.vista,
            published: watch::Sender::new(parts.state.seq()),
            root: ArcSwap::from_pointee(parts.state),
            tally: Tally::new(parts.ring.end()),
            mismatches: super::sync::mismatch::Mismatches::new(&schema),
            ring: Arc::new(parts.ring),
            store: parts.store,
            journal: parts.journal,
            committer: parts.committer,
            tasks: Tasks::default(),
            invalid: Mutex::new(Invalid::default()),
            attempts: Mutex::default(),
            last_list: Mutex::new(parts.last_list),
            indexer: super::read::index_requests::Indexer::default(),
            refreshing: Mutex::new(None),
            answered: tokio::sync::Mutex::default(),
            listing: tokio::sync::Mutex::new(()),
            before_refresh: Mutex::new(None),
            purging: tokio::sync::Mutex::default(),
            trimmed: tokio::sync::Mutex::new(0),
            ledger: Mutex::new(parts.ledger),
            room,
            inbox: Arc::new(Semaphore::new(INBOX)),
            closed: AtomicBool::new(false),
            seeding: AtomicBool::new(false),
            start: Mutex::new(Start::Done),
            untold: AtomicBool::new(false),
            ended: tokio_util::sync::CancellationToken::new(),
        }
    }

    /// What readers see now. Holding it pins nothing but memory.
    pub(crate) fn state(&self) -> Arc<State> {
        self.root.load_full()
    }

    /// Where that is.
    pub(crate) fn position(&self) -> Position {
        let state = self.root.load();
        Position { epoch: Arc::clone(state.epoch()), seq: state.seq() }
    }

    /// Whatever the source had at the start is here now.
    pub(super) fn seeded(&self) {
        self.seeding.store(false, Ordering::Release);
        // Deliveries and sceneries may have waited for it.
        self.wake();
    }

    /// Whether an acknowledged write survives the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.journal.durable()
    }

    /// Age of the rows.
    pub(super) fn age(&self) -> Freshness {
        let last = self.last_list.lock();
        Freshness {
            age: last.at.map(|at| at.elapsed()),
            stale: self.is_stale_by(&last),
            refresh_failed: last.failed.is_some(),
        }
    }

    /// Whether the rows are older than they should be.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale_by(&self.last_list.lock())
    }

    fn is_stale_by(&self, last: &LastList) -> bool {
        match (self.settings.cache_ttl, last.at) {
            (Some(ttl), Some(at)) => at.elapsed() > ttl,
            (Some(_), None) => true,
            (None, at) => last.failed.is_some() || at.is_none(),
        }
    }
}

impl Core {
    /// Runs `work` off the async threads if it is about many rows.
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
