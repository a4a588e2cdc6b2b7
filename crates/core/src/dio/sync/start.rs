//! `on_start`: the first copy, tried again until it is there.
//!
//! A Dio that waits for it (`on_start_blocking`) fails with it, unless the cache holds a whole copy and the source is merely
//! away: then that copy is served, and said to be stale. One that does not wait goes on in the background. While `on_start` has
//! not succeeded, a refresh is another attempt at it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::report::{RefreshReport, Start, report};
use super::reread::admitted;
use crate::dio::backoff::Backoff;
use crate::dio::core::Core;
use crate::dio::handle::{Dio, Handle};
use crate::dio::hooks::HookFuture;
use crate::dio::scope;
use crate::dio::scope::{Kind, RefreshNotices};
use crate::vista::{Error, ErrorKind, Result};

/// Rest before the second attempt; each later one is twice as long.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest between two attempts.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// A failed `on_start`.
struct Failure {
    error: Error,
    /// Whether it may pass by itself: not a refusal, and not a mistake of the program.
    passes: bool,
}

/// Runs `on_start`, or begins to.
pub(crate) async fn run(dio: &Dio) -> Result<()> {
    let core = &dio.0.core;
    let Some(future) = core.start_hook(dio) else {
        core.seeded();
        return Ok(());
    };
    // A whole copy from an earlier life is served at once.
    let copied = core.sync.last_list.lock().complete;
    core.loading(!copied);
    *core.sync.start.lock() = Start::Running;
    let weak = Arc::downgrade(&dio.0);
    if !core.settings.on_start_blocking {
        let background = Arc::clone(core);
        core.tasks.spawn(async move {
            if let Err(failure) = first(&background, future).await {
                background.note_start(&failure);
                again(background, weak).await;
            }
        });
        return Ok(());
    }
    match first(core, future).await {
        Ok(()) => Ok(()),
        Err(failure) if copied && failure.passes => {
            core.note_start(&failure);
            core.tasks.spawn(again(Arc::clone(core), weak));
            Ok(())
        }
        Err(failure) => {
            if core.state().lacks_rows() {
                // Nothing will find them any more: what is queued is delivered as it is.
                core.seeded();
            }
            Err(failure.error)
        }
    }
}

async fn first(core: &Arc<Core>, future: HookFuture<()>) -> Result<(), Failure> {
    let _listing = core.sync.listing.lock().await;
    let covered = core.attempt(future, core.settings.allow_shrink).await?;
    if covered.silent {
        core.tell_all(false).await.map_err(|error| Failure { error, passes: false })?;
    }
    Ok(())
}

/// Tries `on_start` again until it has succeeded, whoever makes the attempt that does.
async fn again(core: Arc<Core>, handle: Weak<Handle>) {
    let closing = core.tasks.closing().clone();
    tokio::select! {
        () = try_again(&core, &handle) => {}
        () = closing.cancelled() => {}
    }
}

async fn try_again(core: &Arc<Core>, handle: &Weak<Handle>) {
    let mut published = core.published.subscribe();
    let mut backoff = Backoff::new(FIRST_REST, LONGEST_REST);
    loop {
        published.borrow_and_update();
        let now = *core.sync.start.lock();
        match now {
            Start::Done => return,
            Start::Failed { again: true } => {}
            Start::Running | Start::Failed { again: false } => {
                if published.changed().await.is_err() {
                    return;
                }
                continue;
            }
        }
        tokio::time::sleep(backoff.rest()).await;
        let probe = admitted(core, |_| {}).await;
        let Some(handle) = handle.upgrade() else { return };
        if core.start_failed() {
            // Its outcome is on the bus and in the freshness.
            let _ = core.refresh(&handle).await;
        }
        core.deliver.source.release(probe, Instant::now());
    }
}

impl Core {
    /// Whether `on_start` has failed and not succeeded since.
    pub(crate) fn start_failed(&self) -> bool {
        matches!(*self.sync.start.lock(), Start::Failed { .. })
    }

    /// A refresh that is another attempt at `on_start`.
    pub(crate) async fn start_again(self: &Arc<Self>, dio: &Dio, allow_shrink: bool) -> Result<(RefreshReport, bool)> {
        if self.tasks.closing().is_cancelled() {
            return Err(Error::Closed);
        }
        let Some(future) = self.start_hook(dio) else { return Ok((RefreshReport::default(), false)) };
        match self.attempt(future, allow_shrink).await {
            Ok(covered) => Ok((report(&covered.outcome), covered.told && !covered.silent)),
            Err(failure) => {
                *self.sync.start.lock() = self.after(&failure);
                Err(failure.error)
            }
        }
    }

    /// The call of `on_start`, if there is one.
    fn start_hook(&self, dio: &Dio) -> Option<HookFuture<()>> {
        let on_start = self.hooks.on_start.clone()?;
        Some(scope::calling(dio.clone(), move |dio| on_start(dio)))
    }

    /// Runs `on_start`; when it succeeds, there is a first copy.
    async fn attempt(self: &Arc<Self>, future: HookFuture<()>, allow_shrink: bool) -> Result<RefreshNotices, Failure> {
        let refused = |error| Failure { error, passes: false };
        let scope = self.hook_scope(Kind::Start, allow_shrink).await.map_err(refused)?;
        let done = async {
            scope::run(self, Arc::clone(&scope), future).await?;
            self.finish_hook(&scope).await?;
            self.build_configured().await
        };
        if let Err(error) = done.await {
            let passes = error.kind() != ErrorKind::Permanent && !scope.panicked();
            return Err(Failure { error, passes });
        }
        *self.sync.start.lock() = Start::Done;
        self.seeded();
        Ok(std::mem::take(&mut *scope.covered.lock()))
    }

    /// Notes that the first attempt failed, and tells.
    fn note_start(&self, failure: &Failure) {
        *self.sync.start.lock() = self.after(failure);
        self.refresh_failed(&failure.error, "on_start failed");
    }

    fn after(&self, failure: &Failure) -> Start {
        let insists = self.settings.retry_every_start && self.is_loading();
        Start::Failed { again: failure.passes || insists }
    }
}
