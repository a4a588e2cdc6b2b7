//! [`Lens`]: long-lived infrastructure shared by Dios: cache backend, journal, callbacks and policies.
//!
//! [`LensBuilder`] configures it. [`Lens::make_dio`] binds a Vista; [`Lens::dio`] does so with callbacks and settings for that
//! Dio alone. All Dios of a Lens share its committer, so that writes of several Dios become durable together.

mod builder;
mod callbacks;
mod dio_builder;
mod storage;

pub use builder::LensBuilder;
pub use dio_builder::DioBuilder;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use self::storage::{Plan, Storage};
use crate::dio::{self, Callbacks, Dio, Settings, Surroundings};
use crate::journal::Journal;
use crate::vista::{Error, Result, SourceShape, Vista};

/// Shared infrastructure of many Dios: cache backend, journal, callbacks and default policies. Built once, shared by `Arc`.
///
/// # Example
/// See the crate documentation.
pub struct Lens {
    /// Empty while an earlier Lens of this process still uses the files.
    storage: OnceCell<Storage>,
    plan: Plan,
    settings: Settings,
    callbacks: Callbacks,
    /// Open Dios by name, each with a token that is cancelled when the Dio has ended.
    dios: Mutex<HashMap<Arc<str>, Slot>>,
}

/// State of a Dio under its name.
enum Slot {
    Opening,
    Open(std::sync::Weak<dio::Core>, CancellationToken),
}

impl std::fmt::Debug for Lens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lens").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Lens {
    /// Starts building a Lens.
    #[expect(clippy::new_ret_no_self, reason = "a Lens is built by a chain that begins with `Lens::new`")]
    pub fn new() -> LensBuilder {
        LensBuilder::default()
    }

    /// Binds `vista` to this Lens: opens the cache table with its name, starts the write worker and the refresh timer, runs
    /// `on_start`, and returns the Dio, ready to use.
    ///
    /// If a Dio of that name is still draining, this waits for it. If the cache holds a complete copy and a blocking `on_start`
    /// fails with a transient error or a timeout, the Dio serves that copy. Its [`Status`](crate::dio::Status) then reports
    /// that it is stale, with the reason, and `on_start` is tried again in the background.
    ///
    /// # Errors
    /// [`Error::Config`] if a Dio of that name is already open, [`Error::Storage`] if a file cannot be used, and the error of a
    /// blocking `on_start` otherwise.
    pub async fn make_dio(&self, vista: Vista) -> Result<Dio> {
        self.make_dio_with(vista, |_| {}).await
    }

    /// Binds `vista` like [`Lens::make_dio`], with settings for this Dio alone.
    ///
    /// # Errors
    /// As [`Lens::make_dio`].
    pub async fn make_dio_with(&self, vista: Vista, change: impl FnOnce(&mut Settings)) -> Result<Dio> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        self.open(vista, settings, self.callbacks.clone()).await
    }

    pub(crate) async fn open(&self, vista: Vista, settings: Settings, callbacks: Callbacks) -> Result<Dio> {
        let name: Arc<str> = vista.name().into();
        let storage = self.storage().await?;
        let reservation = self.reserve(&name).await?;
        let durable = &*storage.log.journal;
        let in_memory = settings.log_in_memory && durable.durable();
        if in_memory {
            dio::check_memory_log(&vista, durable, &settings, &callbacks).await?;
        }
        let log = if in_memory { &storage.memory } else { &storage.log };
        let surroundings = Surroundings {
            cache: Arc::clone(&storage.cache),
            journal: Arc::clone(&log.journal),
            committer: Arc::clone(&log.committer),
            settings,
            callbacks,
        };
        let opened = dio::open(vista, surroundings).await?;
        // Before `on_start`: if this future is dropped, the name stays reserved until the Dio has ended.
        reservation.fill(&opened.dio);
        opened.begin().await
    }

    /// Returns cache and journal. Opens them if that was not possible when the Lens was built.
    async fn storage(&self) -> Result<&Storage> {
        self.storage.get_or_try_init(|| self.plan.open_later(self.settings.drain_timeout)).await
    }

    /// Reserves the name. Waits for a Dio of that name that is draining.
    async fn reserve(&self, name: &Arc<str>) -> Result<NameReservation<'_>> {
        loop {
            let ended = {
                let mut dios = self.dios.lock();
                match dios.get(name) {
                    Some(Slot::Opening) => return Err(name_in_use(name)),
                    Some(Slot::Open(core, ended)) if !ended.is_cancelled() => {
                        match core.upgrade() {
                            Some(core) if core.tasks.closing().is_cancelled() => ended.clone(),
                            Some(_) => return Err(name_in_use(name)),
                            None => {
                                // The runtime ended before the Dio did.
                                dios.remove(name);
                                continue;
                            }
                        }
                    }
                    Some(Slot::Open(..)) | None => {
                        dios.insert(Arc::clone(name), Slot::Opening);
                        return Ok(NameReservation { lens: self, name: Arc::clone(name), filled: false });
                    }
                }
            };
            ended.cancelled().await;
        }
    }

    /// Closes every open Dio, then cache and journal.
    pub async fn close(&self) {
        let cores: Vec<_> = {
            let dios = self.dios.lock();
            dios.values()
                .filter_map(|slot| match slot {
                    Slot::Open(core, _) => core.upgrade(),
                    Slot::Opening => None,
                })
                .collect()
        };
        for core in cores {
            core.finish().await;
        }
        let Some(storage) = self.storage.get() else { return };
        storage.cache.close().await;
        for log in [&storage.log, &storage.memory] {
            log.journal.close().await;
            log.committer.stop().await;
        }
    }

    /// Returns the shape that the source `name` had when its rows were last read, if the cache holds a complete copy of them.
    /// With it the rows can be served although the source cannot be opened (`diorama::connect::Deferred`).
    ///
    /// # Errors
    /// [`Error::Storage`] if the cache cannot be read.
    pub async fn remembered(&self, name: &str) -> Result<Option<SourceShape>> {
        let meta = self.storage().await?.cache.open_table(name).await?.meta().await?;
        Ok(meta.filter(|meta| meta.complete_at.is_some()).and_then(|meta| meta.source))
    }

    /// Returns the journal, for tools that inspect it.
    ///
    /// # Errors
    /// [`Error::Storage`] if the files could not be opened when the Lens was built and still cannot be.
    pub async fn journal(&self) -> Result<Arc<dyn Journal>> {
        Ok(Arc::clone(&self.storage().await?.log.journal))
    }
}

fn name_in_use(name: &str) -> Error {
    Error::Config(format!("this Lens already has a Dio named {name:?}: each Dio needs a Vista with a different name"))
}

/// Reservation of a name during opening; released if opening fails.
struct NameReservation<'a> {
    lens: &'a Lens,
    name: Arc<str>,
    filled: bool,
}

impl NameReservation<'_> {
    fn fill(mut self, dio: &Dio) {
        let core = &dio.0.core;
        let slot = Slot::Open(Arc::downgrade(core), core.ended.clone());
        self.lens.dios.lock().insert(Arc::clone(&self.name), slot);
        self.filled = true;
    }
}

impl Drop for NameReservation<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.lens.dios.lock().remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests;
