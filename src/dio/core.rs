//! What the tasks and handles of one Dio share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use indexmap::IndexSet;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::breaker::Line;
use super::commit::{Command, Committed, CommitterHandle, Reply};
use super::counters::Tally;
use super::event::Position;
use super::hooks::{Hooks, scope_of};
use super::ledger::Ledger;
use super::ring::Ring;
use super::settings::Settings;
use super::store::Store;
use super::tasks::Tasks;
use super::worker::Attempt;
use crate::hot::{Cmd, OpId, Origin, Outcome, State};
use crate::journal::{Claim, Journal};
use crate::record::{Id, Undecodable};
use crate::vista::{Error, Result, Vista};

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
    pub(super) attempts: Mutex<HashMap<OpId, Attempt>>,
    pub(super) freshness: Mutex<Freshness>,
    /// The way to the master.
    pub(super) source: Arc<Line>,
    /// The way that deliveries take: the master's, unless there is an `on_write`.
    pub(super) outlet: Arc<Line>,
    pub(super) tally: Tally,
    /// Rows that are not as the schema says.
    pub(super) mismatches: super::mismatch::Mismatches,
    /// How its feeds are doing.
    pub(super) feeds: Mutex<Vec<Arc<super::FeedMeter>>>,
    /// How often rows in doubt may be read.
    pub(super) rereads: super::Bucket,
    pub(super) indexer: super::indexer::Indexer,
    pub(super) refreshing: Mutex<Option<super::refresh::Flight>>,
    /// Held while the program reads the whole source, in `on_start` or `on_refresh`: what one reading finds as it was before is
    /// not noted, so that a slower one beside it could bring back what it saw earlier.
    pub(super) listing: tokio::sync::Mutex<()>,
    /// What readers saw when the refresh under way began; see [`Core::standing_view`].
    pub(super) before_refresh: Mutex<Option<Arc<State>>>,
    /// Entries of the journal before this are trimmed.
    pub(super) trimmed: tokio::sync::Mutex<u64>,
    /// What the journal holds.
    pub(super) ledger: Mutex<Ledger>,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    closed: AtomicBool,
    /// Whether `on_start` has not made the first copy yet, in the background.
    pub(super) seeding: AtomicBool,
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

/// Ids that subscribers are to be told of, coalesced until the next turn.
#[derive(Debug, Default)]
pub(super) struct Invalid {
    pub(super) ids: IndexSet<Id>,
    pub(super) all: bool,
    pub(super) poked: bool,
}

/// Beyond so many single ids, everything is invalidated.
const MOST_INVALID: usize = 1_000;

/// When the rows were last known to be what the master has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
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

/// How fresh the rows are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Glance {
    /// Whether reads can be answered: not while the first copy is being made.
    pub(crate) ready: bool,
    /// Time since the last complete list.
    pub(crate) age: Option<Duration>,
    /// Whether that is too long.
    pub(crate) stale: bool,
    /// Whether the last refresh failed.
    pub(crate) refresh_failed: bool,
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
    pub(super) freshness: Freshness,
    pub(super) ledger: Ledger,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Core {
        let places = Arc::new(Semaphore::new(parts.settings.write_queue_capacity.max(1)));
        let bytes = Arc::new(Semaphore::new(parts.settings.max_pending_bytes.min(Semaphore::MAX_PERMITS)));
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
            rereads: super::Bucket::new(parts.settings.reread_rate),
            name: parts.vista.name().into(),
            settings: parts.settings,
            hooks: parts.hooks,
            vista: parts.vista,
            published: watch::Sender::new(parts.state.seq()),
            root: ArcSwap::from_pointee(parts.state),
            tally: Tally::new(parts.ring.end()),
            mismatches: super::mismatch::Mismatches::new(&schema),
            ring: Arc::new(parts.ring),
            store: parts.store,
            journal: parts.journal,
            committer: parts.committer,
            tasks: Tasks::default(),
            invalid: Mutex::new(Invalid::default()),
            attempts: Mutex::new(HashMap::new()),
            freshness: Mutex::new(parts.freshness),
            indexer: super::indexer::Indexer::default(),
            refreshing: Mutex::new(None),
            listing: tokio::sync::Mutex::new(()),
            before_refresh: Mutex::new(None),
            trimmed: tokio::sync::Mutex::new(0),
            ledger: Mutex::new(parts.ledger),
            places,
            bytes,
            closed: AtomicBool::new(false),
            seeding: AtomicBool::new(false),
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
        // Deliveries may have waited for it.
        self.published.send_modify(|_| {});
    }

    /// Whether reads may be answered from these rows for questions about all of them.
    pub(crate) fn is_complete(&self) -> bool {
        // Without windowed loading the program says what the rows are.
        self.hooks.on_load_chunk.is_none() || self.freshness.lock().complete
    }

    /// Whether an acknowledged write survives the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.journal.durable()
    }

    /// How fresh the rows are, in one look.
    pub(crate) fn glance(&self) -> Glance {
        let freshness = self.freshness.lock();
        Glance {
            ready: !self.seeding.load(Ordering::Acquire),
            age: freshness.at.map(|at| at.elapsed()),
            stale: self.is_stale_by(&freshness),
            refresh_failed: freshness.failed.is_some(),
        }
    }

    /// Whether the rows are older than they should be.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale_by(&self.freshness.lock())
    }

    fn is_stale_by(&self, freshness: &Freshness) -> bool {
        match (self.settings.cache_ttl, freshness.at) {
            (Some(ttl), Some(at)) => at.elapsed() > ttl,
            (Some(_), None) => true,
            (None, at) => freshness.failed.is_some() || at.is_none(),
        }
    }

    /// Sends a command of the program itself (settlements, news, guards): no place in the queue is needed.
    pub(super) async fn commit(self: &Arc<Self>, cmd: Cmd) -> Result<Committed> {
        if self.ended.is_cancelled() {
            return Err(Error::Closed);
        }
        self.answered(Command::new(self, cmd)).await
    }

    /// Sends a command and waits for what became of it.
    pub(super) async fn answered(self: &Arc<Self>, command: Command) -> Result<Committed> {
        let (reply, answer): (Reply, _) = tokio::sync::oneshot::channel();
        self.committer.send(command.reply(reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// [`Core::commit`] for senders that cannot wait.
    pub(super) fn commit_later(self: &Arc<Self>, cmd: Cmd) {
        // A committer that is gone has no State that would need to know.
        let _ = self.committer.send(Command::new(self, cmd));
    }

    /// Tells everybody that rows may be different; `covered` if all differences were told one by one.
    pub(super) async fn tell_all(self: &Arc<Self>, covered: bool) -> Result<Committed> {
        // Taken before the commit: what is written silently meanwhile is told next time.
        let untold = self.untold.swap(false, Ordering::AcqRel);
        let covered = covered && !untold;
        let told = self.commit(Cmd::InvalidateAll { covered, origin: Origin::Refresh }).await;
        if told.is_err() {
            self.untold.fetch_or(untold, Ordering::AcqRel);
        }
        told
    }

    /// Sends a user's command. `size` is what it adds to the backlog, `None` for nothing; `wait` says whether a full queue is
    /// waited for or refused.
    pub(super) async fn write(
        self: &Arc<Self>,
        cmd: Cmd,
        size: Option<usize>,
        claim: Option<Claim>,
        wait: bool,
    ) -> Result<Committed> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let permits = self.permits(size, wait).await?;
        let mut command = Command::new(self, cmd);
        command.claims.extend(claim);
        command.permits = permits;
        self.answered(command).await
    }

    /// A place in the committer's inbox, and room for the bytes. A hook's own writes need no place in inbox or backlog, only
    /// room for their bytes.
    pub(super) async fn permits(&self, size: Option<usize>, wait: bool) -> Result<Vec<OwnedSemaphorePermit>> {
        let inside = scope_of(&self.name).is_some();
        let Some(size) = size else {
            let places = Arc::clone(&self.places);
            return Ok(match (inside, wait) {
                (true, _) => Vec::new(),
                (false, true) => vec![places.acquire_owned().await.map_err(|_| Error::Closed)?],
                (false, false) => vec![places.try_acquire_owned().map_err(|_| Error::QueueFull)?],
            });
        };
        let size = u32::try_from(size.min(self.settings.max_pending_bytes)).unwrap_or(u32::MAX);
        let mut permits = Vec::with_capacity(2);
        if inside {
            // Nothing is waited for in here: what would make room may be waiting for this hook.
            if self.pending().1 >= self.settings.max_pending_bytes {
                return Err(Error::QueueFull);
            }
            permits.push(Arc::clone(&self.bytes).try_acquire_many_owned(size).map_err(|_| Error::QueueFull)?);
        } else if wait {
            self.room().await?;
            permits.push(Arc::clone(&self.bytes).acquire_many_owned(size).await.map_err(|_| Error::Closed)?);
            permits.push(Arc::clone(&self.places).acquire_owned().await.map_err(|_| Error::Closed)?);
        } else {
            if !self.has_room() {
                return Err(Error::QueueFull);
            }
            permits.push(Arc::clone(&self.bytes).try_acquire_many_owned(size).map_err(|_| Error::QueueFull)?);
            permits.push(Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::QueueFull)?);
        }
        Ok(permits)
    }

    /// Operations that wait for the master or for a person, and their bytes. What nobody mends holds new writes up in the end;
    /// it is not dropped.
    fn pending(&self) -> (usize, usize) {
        let state = self.root.load();
        let (queued, parked) = (state.backlog(), state.parked());
        (queued.0 + parked.0, queued.1 + parked.1)
    }

    fn has_room(&self) -> bool {
        let (count, bytes) = self.pending();
        count < self.settings.max_pending && bytes < self.settings.max_pending_bytes
    }

    /// Waits until the backlog has room.
    async fn room(&self) -> Result<()> {
        let mut published = self.published.subscribe();
        while !self.has_room() {
            tokio::select! {
                changed = published.changed() => changed.map_err(|_| Error::Closed)?,
                () = self.tasks.closing().cancelled() => return Err(Error::Closed),
            }
        }
        Ok(())
    }

    /// Opens a guard: a read of the master or a delivery begins.
    pub(super) async fn open_guard(self: &Arc<Self>) -> Result<Guard> {
        self.guard(Cmd::Open).await
    }

    /// [`Core::open_guard`] for a read or a delivery of one row.
    pub(super) async fn open_guard_for(self: &Arc<Self>, id: &Id) -> Result<Guard> {
        self.guard(Cmd::OpenFor(Arc::clone(id))).await
    }

    async fn guard(self: &Arc<Self>, open: Cmd) -> Result<Guard> {
        match self.commit(open).await?.outcome {
            Outcome::Mark(mark) => Ok(Guard { core: Arc::clone(self), mark, armed: AtomicBool::new(true) }),
            _ => Err(Error::Closed),
        }
    }

    /// Notes that these subscribers are to be told, at the next turn.
    pub(super) fn invalidate(self: &Arc<Self>, id: Option<Id>) {
        let poke = {
            let mut invalid = self.invalid.lock();
            match id {
                Some(id) if !invalid.all => {
                    invalid.ids.insert(id);
                    if invalid.ids.len() > MOST_INVALID {
                        invalid.ids.clear();
                        invalid.all = true;
                    }
                }
                Some(_) => {}
                None => {
                    invalid.ids.clear();
                    invalid.all = true;
                }
            }
            !std::mem::replace(&mut invalid.poked, true)
        };
        if poke {
            let _ = self.committer.poke(self);
        }
    }

    /// Takes back what subscribers could not be told.
    pub(super) fn keep_invalid(&self, ids: &[Id], all: bool) {
        let mut invalid = self.invalid.lock();
        invalid.all |= all;
        if !invalid.all {
            invalid.ids.extend(ids.iter().cloned());
        }
    }

    /// Has what was taken back told with the next turn.
    pub(super) fn poke_again(self: &Arc<Self>) {
        let waits = {
            let mut invalid = self.invalid.lock();
            let waits = !invalid.poked && (invalid.all || !invalid.ids.is_empty());
            invalid.poked |= waits;
            waits
        };
        if waits {
            let _ = self.committer.poke(self);
        }
    }

    /// Refuses writes from now on.
    pub(super) fn close_writes(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// An open mark: closes by itself when dropped.
#[derive(Debug)]
pub(super) struct Guard {
    core: Arc<Core>,
    pub(super) mark: u64,
    armed: AtomicBool,
}

impl Guard {
    /// The command that was sent with this mark closes it.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed.load(Ordering::Acquire) {
            self.core.commit_later(Cmd::Close(self.mark));
        }
    }
}
