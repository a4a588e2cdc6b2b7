//! The chain that builds a Lens.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::Lens;
use super::callbacks::callbacks;
use super::storage::{CacheAt, JournalAt, Plan};
use crate::cache::{ById, CacheBackend, RedbCache};
use crate::dio::{
    ChunkRequest, ChunkSink, Dio, Hooks, QueryRoute, Retry, RingLimits, Settings, Workers, WriteOrder, WriteRoute,
    hook, hook_with,
};
use crate::journal::Journal;
use crate::vista::{ChangeEvent, Error, Query, Result, WriteOp};

/// Chainable configuration of a [`Lens`]. Setters are cheap and check nothing; [`LensBuilder::build`] does all that can fail.
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct LensBuilder {
    cache: Option<CacheAt>,
    journal: Option<JournalAt>,
    settings: Settings,
    hooks: Hooks,
}

impl std::fmt::Debug for LensBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LensBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

callbacks!(LensBuilder);

impl LensBuilder {
    /// Rows are kept in the redb file at `path`, one table per Dio; the journal is beside it (`x.redb`, `x.journal.redb`).
    pub fn cache_at(mut self, path: impl AsRef<Path>) -> Self {
        self.cache = Some(CacheAt::File(path.as_ref().to_path_buf()));
        self
    }

    /// Rows are kept by `backend`, in memory or elsewhere; an `Arc` of one does as well. The journal is in memory then, unless
    /// [`LensBuilder::journal_at`] says otherwise; with it, rows that outlive the Lens are served by the next one at once.
    pub fn cache_source(mut self, backend: impl CacheBackend) -> Self {
        self.cache = Some(CacheAt::Store(Arc::new(ById::new(backend))));
        self
    }

    /// Rows are kept in `cache`, a file that the program has opened itself. The journal is in memory then, unless
    /// [`LensBuilder::journal_at`] says otherwise.
    pub fn cache_file(mut self, cache: RedbCache) -> Self {
        self.cache = Some(CacheAt::Store(Arc::new(cache)));
        self
    }

    /// The journal is the redb file at `path`.
    pub fn journal_at(mut self, path: impl AsRef<Path>) -> Self {
        self.journal = Some(JournalAt::File(path.as_ref().to_path_buf()));
        self
    }

    /// The journal is `journal`.
    pub fn journal_source(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(JournalAt::Backend(journal));
        self
    }

    /// Time between two refreshes; needs `on_refresh`.
    pub fn refresh_every(mut self, every: Duration) -> Self {
        self.settings.refresh_every = Some(every);
        self
    }

    /// Whether `make_dio` waits for `on_start` and fails with it (default: yes). If not, reads and writes of the facade are refused
    /// with [`Error::NotReady`] until the first copy is there, and a failed `on_start` is tried again after 1 s, then after twice
    /// as long each time, up to 30 s; after a permanent error or a panic when [`Dio::refresh`] is called.
    pub fn on_start_blocking(mut self, blocking: bool) -> Self {
        self.settings.on_start_blocking = blocking;
        self
    }

    /// Operations that may wait for the master, those in delivery among them (default: 256); more writers wait for a place.
    pub fn write_queue_capacity(mut self, writes: usize) -> Self {
        self.settings.write_queue_capacity = writes;
        self
    }

    /// Age from which rows are called stale, and a read refreshes them in the background.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = Some(ttl);
        self
    }

    /// Whether a scenery that is opened on a stale Dio refreshes it (default: yes).
    pub fn refresh_on_open(mut self, refresh: bool) -> Self {
        self.settings.refresh_on_open = refresh;
        self
    }

    /// How long a scenery's viewport must rest before its range is loaded (default: 50 ms).
    pub fn viewport_debounce(mut self, rest: Duration) -> Self {
        self.settings.viewport_debounce = rest;
        self
    }

    /// When failed deliveries are tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// What `Ok` of `on_write` means (default: the write is on its way).
    pub fn write_route(mut self, route: WriteRoute) -> Self {
        self.settings.write_route = route;
        self
    }

    /// Deliveries at a time, of different ids (default: 1).
    pub fn write_concurrency(mut self, lanes: usize) -> Self {
        self.settings.write_concurrency = lanes;
        self
    }

    /// Threads for queries over many rows, at least one (default: one less than there are cores).
    pub fn heavy_queries(mut self, most: usize) -> Self {
        self.settings.workers = Arc::new(Workers::new(most));
        self
    }

    /// Which operations wait for each other (default: each for all that were accepted before it, with one lane).
    pub fn write_order(mut self, order: WriteOrder) -> Self {
        self.settings.write_order = order;
        self
    }

    /// Column that holds a row's version: the newest wins.
    pub fn version_column(mut self, column: impl Into<Arc<str>>) -> Self {
        self.settings.version = Some(column.into());
        self
    }

    /// Bounds of each Dio's event ring (default: 10,000 events, 16 MiB).
    pub fn ring(mut self, limits: RingLimits) -> Self {
        self.settings.ring = limits;
        self
    }

    /// Changes any setting.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Opens the files and builds the Lens. Works outside a runtime.
    ///
    /// Tasks of an earlier Lens of this process may still have the files when all its handles are dropped. Outside a runtime they
    /// are waited for here, up to 2 s. Inside of one they may need this thread: then the files are opened when the first Dio is
    /// made, which waits for them as long as Dios may drain (`drain_timeout`) and 2 s more, and has what this would say.
    /// After [`Lens::close`] nothing needs to be waited for.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that cannot work; [`Error::Storage`] for files that cannot be opened, with the file and
    /// what to do.
    pub fn build(self) -> Result<Lens> {
        self.check()?;
        let Some(cache) = self.cache else {
            return Err(Error::Config("a Lens needs a cache: .cache_at(path) or .cache_source(backend)".into()));
        };
        let journal = match (self.journal, &cache) {
            (Some(journal), _) => journal,
            (None, CacheAt::File(path)) => JournalAt::File(journal_beside(path)),
            (None, CacheAt::Store(_)) => JournalAt::Memory,
        };
        let plan = Plan { cache, journal, inbox: self.settings.inbox };
        let storage = OnceCell::new_with(plan.open_now()?);
        Ok(Lens { storage, plan, settings: self.settings, hooks: self.hooks, dios: Mutex::default() })
    }

    fn check(&self) -> Result<()> {
        let settings = &self.settings;
        let zero = |name: &str| Err(Error::Config(format!("{name} must be more than zero")));
        if settings.refresh_every.is_some_and(|every| every.is_zero()) {
            return zero("refresh_every");
        }
        if settings.write_queue_capacity == 0 {
            return zero("write_queue_capacity");
        }
        if settings.write_concurrency == 0 {
            return zero("write_concurrency");
        }
        if settings.refresh_every.is_some() && self.hooks.on_refresh.is_none() {
            tracing::warn!("refresh_every is set without on_refresh: nothing will refresh by itself");
        }
        Ok(())
    }
}

/// `x.redb` has its journal in `x.journal.redb`.
fn journal_beside(cache: &Path) -> PathBuf {
    cache.with_extension("journal.redb")
}
