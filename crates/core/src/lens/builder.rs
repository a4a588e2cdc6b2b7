//! Builder of a [`Lens`].

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::Lens;
use super::callbacks::callbacks;
use super::storage::{CacheAt, JournalAt, Plan};
use crate::cache::{ById, CacheBackend, NoCache, RedbCache};
use crate::dio::{
    Callbacks, ChunkRequest, ChunkSink, Dio, QueryRoute, Retry, RingLimits, Settings, Workers, WriteOrder, WriteRoute,
    boxed_callback, boxed_callback_with,
};
use crate::journal::Journal;
use crate::vista::{ChangeEvent, Error, Query, Result, WriteOp};

/// Builder of a [`Lens`]. Setters are cheap and check nothing; [`LensBuilder::build`] does everything that can fail.
#[derive(Default)]
#[must_use = "a builder does nothing until it is built"]
pub struct LensBuilder {
    cache: Option<CacheAt>,
    journal: Option<JournalAt>,
    settings: Settings,
    callbacks: Callbacks,
}

impl std::fmt::Debug for LensBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LensBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

callbacks!(LensBuilder);

impl LensBuilder {
    /// Stores rows in the redb file at `path`, one table per Dio. The journal is placed beside it (`x.redb`, `x.journal.redb`).
    pub fn cache_at(mut self, path: impl AsRef<Path>) -> Self {
        self.cache = Some(CacheAt::File(path.as_ref().to_path_buf()));
        self
    }

    /// Stores rows in `backend`, in memory or elsewhere; an `Arc` of a backend works as well. The journal is then in memory
    /// unless [`LensBuilder::journal_at`] sets a file. With a journal file, rows that outlive the Lens are served by the next
    /// one at once.
    pub fn cache_source(mut self, backend: impl CacheBackend) -> Self {
        self.cache = Some(CacheAt::Store(Arc::new(ById::new(backend))));
        self
    }

    /// Keeps rows in the Dios only: each start reads the sources, and there is no second copy in memory. The journal is then in memory
    /// unless [`LensBuilder::journal_at`] sets a file.
    pub fn no_cache(mut self) -> Self {
        self.cache = Some(CacheAt::Store(Arc::new(NoCache)));
        self
    }

    /// Stores rows in `cache`, a file that the program has opened itself. The journal is then in memory unless
    /// [`LensBuilder::journal_at`] sets a file.
    pub fn cache_file(mut self, cache: RedbCache) -> Self {
        self.cache = Some(CacheAt::Store(Arc::new(cache)));
        self
    }

    /// Stores the journal in the redb file at `path`.
    pub fn journal_at(mut self, path: impl AsRef<Path>) -> Self {
        self.journal = Some(JournalAt::File(path.as_ref().to_path_buf()));
        self
    }

    /// Uses `journal` as the journal.
    pub fn journal_source(mut self, journal: Arc<dyn Journal>) -> Self {
        self.journal = Some(JournalAt::Backend(journal));
        self
    }

    /// Sets the time between two refreshes; needs `on_refresh`.
    pub fn refresh_every(mut self, every: Duration) -> Self {
        self.settings.refresh_every = Some(every);
        self
    }

    /// Makes `make_dio` wait for `on_start` and fail with it (default: true). If false, reads and writes of the facade return
    /// [`Error::NotReady`] until the first copy is complete. A failed `on_start` is then tried again after 1 s, with a delay
    /// that doubles up to 30 s; after a permanent error or a panic, it is tried again when [`Dio::refresh`] is called.
    pub fn on_start_blocking(mut self, blocking: bool) -> Self {
        self.settings.on_start_blocking = blocking;
        self
    }

    /// Sets the maximum number of operations that wait for the master, including those in delivery (default: 256). Further
    /// writers wait for capacity.
    pub fn write_queue_capacity(mut self, writes: usize) -> Self {
        self.settings.write_queue_capacity = writes;
        self
    }

    /// Sets the age at which rows become stale, so that a read refreshes them in the background.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.settings.cache_ttl = Some(ttl);
        self
    }

    /// Makes opening a scenery on a stale Dio refresh the Dio (default: true).
    pub fn refresh_on_open(mut self, refresh: bool) -> Self {
        self.settings.refresh_on_open = refresh;
        self
    }

    /// Sets the time that a scenery's viewport must be unchanged before its range is loaded (default: 50 ms).
    pub fn viewport_debounce(mut self, rest: Duration) -> Self {
        self.settings.viewport_debounce = rest;
        self
    }

    /// Sets the retry policy for failed deliveries.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// Sets the meaning of `Ok` from `on_write` (default: the write is on its way).
    pub fn write_route(mut self, route: WriteRoute) -> Self {
        self.settings.write_route = route;
        self
    }

    /// Sets the number of concurrent deliveries, for different ids (default: 1).
    pub fn write_concurrency(mut self, lanes: usize) -> Self {
        self.settings.write_concurrency = lanes;
        self
    }

    /// Sets the number of threads for queries over many rows, at least one (default: number of cores minus one).
    pub fn heavy_queries(mut self, most: usize) -> Self {
        self.settings.workers = Arc::new(Workers::new(most));
        self
    }

    /// Sets the order of deliveries (default: each operation waits for all that were accepted before it, with one lane).
    pub fn write_order(mut self, order: WriteOrder) -> Self {
        self.settings.write_order = order;
        self
    }

    /// Sets the column that holds a row's version: the newest wins.
    pub fn version_column(mut self, column: impl Into<Arc<str>>) -> Self {
        self.settings.version = Some(column.into());
        self
    }

    /// Sets the limits of each Dio's event ring (default: 10,000 events, 16 MiB).
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
    /// Tasks of an earlier Lens in this process may still use the files after all its handles have been dropped. Outside a
    /// runtime, this method waits for them, up to 2 s. Inside a runtime they may need this thread, so the files are opened when
    /// the first Dio is made. That call waits for `drain_timeout` and 2 s more, and returns the errors of opening. After
    /// [`Lens::close`] there is nothing to wait for.
    /// [`Error::Config`] for invalid settings; [`Error::Storage`] for files that cannot be opened, with the file and a remedy.
    pub fn build(self) -> Result<Lens> {
        self.check()?;
        let Some(cache) = self.cache else {
            return Err(Error::Config(
                "the Lens has no cache: set one with .cache_at(path) or .cache_source(backend)".into(),
            ));
        };
        let journal = match (self.journal, &cache) {
            (Some(journal), _) => journal,
            (None, CacheAt::File(path)) => JournalAt::File(journal_beside(path)),
            (None, CacheAt::Store(_)) => JournalAt::Memory,
        };
        let plan = Plan { cache, journal, inbox: self.settings.inbox, outbox: self.settings.outbox };
        let storage = OnceCell::new_with(plan.open_now()?);
        Ok(Lens { storage, plan, settings: self.settings, callbacks: self.callbacks, dios: Mutex::default() })
    }

    fn check(&self) -> Result<()> {
        let settings = &self.settings;
        let zero = |name: &str| Err(Error::Config(format!("{name} must be greater than zero")));
        if settings.refresh_every.is_some_and(|every| every.is_zero()) {
            return zero("refresh_every");
        }
        if settings.write_queue_capacity == 0 {
            return zero("write_queue_capacity");
        }
        if settings.write_concurrency == 0 {
            return zero("write_concurrency");
        }
        if settings.refresh_every.is_some() && self.callbacks.on_refresh.is_none() {
            tracing::warn!("refresh_every is set without on_refresh: no refresh will run");
        }
        Ok(())
    }
}

/// Returns the journal path for a cache: `x.journal.redb` for `x.redb`.
fn journal_beside(cache: &Path) -> PathBuf {
    cache.with_extension("journal.redb")
}
