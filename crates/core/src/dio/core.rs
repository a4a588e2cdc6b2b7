//! What the tasks and handles of one Dio share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::commit::committer::{Command, Committed, CommitterHandle, Reply};
use super::commit::ledger::Ledger;
use super::commit::room::{Held, Room};
use super::commit::store::Store;
use super::counters::Tally;
use super::deliver::breaker::Line;
use super::deliver::operations::Attempts;
use super::events::event::Position;
use super::events::ring::Ring;
use super::hooks::{Hooks, scope_of};
use super::read::reads::Freshness;
use super::settings::Settings;
use super::sync::start::Start;
use super::tasks::Tasks;
use crate::journal::{Claim, Journal, Seq};
use crate::record::{Id, Undecodable};
use crate::state::{Cmd, Origin, Outcome, State};
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
    pub(super) indexer: super::read::indexer::Indexer,
    pub(super) refreshing: Mutex<Option<super::sync::refresh::Flight>>,
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
    inbox: Arc<Semaphore>,
    closed: AtomicBool,
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

/// Calls of `invalidate_*` that subscribers are to be told of with the next turn.
#[derive(Debug, Default)]
pub(super) struct Invalid {
    /// The rows, in the order of the calls; `None` for all rows.
    calls: VecDeque<Option<Id>>,
    pub(super) poked: bool,
}

impl Invalid {
    /// Adds calls before the others or after them. Where too many wait, one for all rows takes the place of all.
    fn add(&mut self, calls: impl IntoIterator<Item = Option<Id>>, before: bool) {
        let mut calls: VecDeque<Option<Id>> = calls.into_iter().collect();
        if before {
            std::mem::swap(&mut self.calls, &mut calls);
        }
        self.calls.append(&mut calls);
        if self.calls.len() > MOST_INVALID {
            self.calls = VecDeque::from([None]);
        }
    }

    /// What tells subscribers of all calls so far, in their order.
    pub(super) fn take(&mut self) -> Vec<Cmd> {
        self.poked = false;
        let mut cmds = Vec::new();
        for call in self.calls.drain(..) {
            match (call, cmds.last_mut()) {
                (None, _) => cmds.push(Cmd::InvalidateAll { covered: false, origin: Origin::Program }),
                (Some(id), Some(Cmd::Invalidate(ids))) => ids.push(id),
                (Some(id), _) => cmds.push(Cmd::Invalidate(vec![id])),
            }
        }
        cmds
    }
}

/// Commands that are no operations and wait for the committer, at most.
const INBOX: usize = 256;

/// Beyond so many calls that wait, everything is invalidated.
const MOST_INVALID: usize = 10_000;

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
            indexer: super::read::indexer::Indexer::default(),
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
        let mut command = Command::new(self, cmd);
        self.reserve(&mut command, size, wait).await?;
        command.claims.extend(claim);
        self.answered(command).await
    }

    /// Room for what a command needs: an operation of `size` bytes a place in the queue, everything else one in the committer's
    /// inbox. A hook's own writes need room for their bytes only: what would make room may wait for that hook.
    async fn reserve(&self, command: &mut Command, size: Option<usize>, wait: bool) -> Result<()> {
        let inside = scope_of(&self.name).is_some();
        match (size, inside, wait) {
            (None, true, _) => {}
            (None, false, true) => command.inbox = Some(self.inbox_place().await?),
            (None, false, false) => {
                let inbox = Arc::clone(&self.inbox);
                command.inbox = Some(inbox.try_acquire_owned().map_err(|_| Error::QueueFull)?);
            }
            (Some(size), true, _) => command.place = self.room.try_take_bytes(size)?,
            (Some(size), false, true) => command.place = self.room.take(size, self.tasks.closing()).await?,
            (Some(size), false, false) => command.place = self.room.try_take(size)?,
        }
        Ok(())
    }

    /// A place in the committer's inbox for a command that is not an operation.
    pub(super) async fn inbox_place(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.inbox).acquire_owned().await.map_err(|_| Error::Closed)
    }

    /// How many more operations the queue has places for.
    pub(crate) fn free_places(&self) -> usize {
        self.room.free()
    }

    /// Opens a guard: a read of the master or a delivery begins.
    pub(super) async fn open_guard(self: &Arc<Self>) -> Result<Guard> {
        self.guard(Cmd::Open).await
    }

    /// [`Core::open_guard`] for a read or a delivery of one row.
    pub(super) async fn open_guard_for(self: &Arc<Self>, id: &Id) -> Result<Guard> {
        self.guard(Cmd::OpenFor(Arc::clone(id))).await
    }

    /// [`Core::open_guard_for`] for deliveries to several rows.
    pub(super) async fn open_guards_for(self: &Arc<Self>, rows: &[Id]) -> Result<Vec<Guard>> {
        let open = rows.iter().map(|id| Cmd::OpenFor(Arc::clone(id))).collect();
        let opened = self.answered(Command::all(self, open)).await?.each;
        opened.iter().map(|outcome| self.opened(outcome)).collect()
    }

    async fn guard(self: &Arc<Self>, open: Cmd) -> Result<Guard> {
        let outcome = self.commit(open).await?.outcome;
        self.opened(&outcome)
    }

    fn opened(self: &Arc<Self>, outcome: &Outcome) -> Result<Guard> {
        match outcome {
            Outcome::Mark(mark) => Ok(Guard { core: Arc::clone(self), mark: *mark, armed: AtomicBool::new(true) }),
            _ => Err(Error::Closed),
        }
    }

    /// Whether the master takes several writes in one transaction, and proves by their ids that none takes effect twice.
    pub(super) fn batches(&self) -> bool {
        let shell = self.vista.shell();
        self.hooks.on_write.is_none() && shell.writes_once() && shell.batch_size() > 1
    }

    /// Has subscribers told of a row, or of all rows, with the next turn.
    pub(super) fn invalidate(self: &Arc<Self>, id: Option<Id>) {
        let poke = {
            let mut invalid = self.invalid.lock();
            invalid.add([id], false);
            !std::mem::replace(&mut invalid.poked, true)
        };
        if poke {
            let _ = self.committer.poke(self);
        }
    }

    /// Takes back what subscribers could not be told.
    pub(super) fn keep_invalid(&self, cmds: &[Cmd]) {
        let calls = cmds.iter().flat_map(|cmd| match cmd {
            Cmd::Invalidate(ids) => ids.iter().cloned().map(Some).collect(),
            _ => vec![None],
        });
        self.invalid.lock().add(calls, true);
    }

    /// Has what was taken back told with the next turn.
    pub(super) fn poke_again(self: &Arc<Self>) {
        let waits = {
            let mut invalid = self.invalid.lock();
            let waits = !invalid.poked && !invalid.calls.is_empty();
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
