//! `on_start`: makes the first copy, and is retried until it succeeds.
//!
//! With `on_start_blocking`, opening the Dio fails if `on_start` fails. If the cache has a whole copy and the failure is
//! transient, that copy is served instead and counts as stale. Without it, `on_start` continues in the background. While
//! `on_start` has not succeeded, a refresh is another attempt at it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::announcement::Announcement;
use super::report::{RefreshDemands, RefreshReport, Start, report};
use super::reread::admitted;
use crate::dio::backoff::Backoff;
use crate::dio::callbacks::CallbackFuture;
use crate::dio::core::Core;
use crate::dio::handle::{Dio, Handle};
use crate::dio::scope;
use crate::dio::scope::{Kind, RefreshNotices};
use crate::vista::{Error, ErrorKind, Result};

/// Delay before the second attempt. Each later one is twice as long.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Longest delay between two attempts.
const LONGEST_REST: Duration = Duration::from_secs(30);

/// Failure of `on_start`.
struct Failure {
    error: Error,
    /// True if it may pass by itself: not a permanent error, and not a panic.
    transient: bool,
}

/// Runs `on_start`, or starts it in the background.
pub(crate) async fn run(dio: &Dio) -> Result<()> {
    let core = &dio.0.core;
    let Some(future) = core.start_callback(dio) else {
        core.seeded();
        return Ok(());
    };
    // A whole copy from an earlier process is served at once.
    let copied = core.sync.last_list.lock().complete;
    core.loading(!copied);
    *core.sync.start.lock() = Start::Running;
    let weak = Arc::downgrade(&dio.0);
    if !core.settings.on_start_blocking {
        let background = Arc::clone(core);
        core.tasks.spawn(async move {
            if let Err(failure) = first_attempt(&background, future).await {
                background.note_start(&failure);
                retry(background, weak).await;
            }
        });
        return Ok(());
    }
    match first_attempt(core, future).await {
        Ok(()) => Ok(()),
        Err(failure) if copied && failure.transient => {
            core.note_start(&failure);
            core.tasks.spawn(retry(Arc::clone(core), weak));
            Ok(())
        }
        Err(failure) => {
            if core.state().lacks_rows() {
                // The missing rows will not be read any more: queued operations are delivered without them.
                core.seeded();
            }
            Err(failure.error)
        }
    }
}

async fn first_attempt(core: &Arc<Core>, future: CallbackFuture<()>) -> Result<(), Failure> {
    let _listing = core.sync.listing.lock().await;
    let _announcement = Announcement::of(core);
    let covered = core.attempt(future, core.settings.allow_shrink).await?;
    if covered.silent || core.state().has_silent_changes() {
        core.publish_invalidated(false).await.map_err(|error| Failure { error, transient: false })?;
    }
    Ok(())
}

/// Retries `on_start` until it has succeeded, here or by a refresh, or the Dio closes.
async fn retry(core: Arc<Core>, handle: Weak<Handle>) {
    let closing = core.tasks.closing().clone();
    tokio::select! {
        () = retry_until_done(&core, &handle) => {}
        () = closing.cancelled() => {}
    }
}

async fn retry_until_done(core: &Arc<Core>, handle: &Weak<Handle>) {
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
            // The outcome is published as an event and noted in the freshness.
            let _ = core.refresh(&handle).await;
        }
        core.deliver.source.release(probe, Instant::now());
    }
}

impl Core {
    /// Returns true if `on_start` has failed and not succeeded since.
    pub(crate) fn start_failed(&self) -> bool {
        matches!(*self.sync.start.lock(), Start::Failed { .. })
    }

    /// Runs `on_start` again, as a refresh.
    pub(crate) async fn start_again(self: &Arc<Self>, dio: &Dio, allow_shrink: bool) -> Result<(RefreshReport, bool)> {
        if self.tasks.closing().is_cancelled() {
            return Err(Error::Closed);
        }
        let Some(future) = self.start_callback(dio) else { return Ok((RefreshReport::default(), false)) };
        match self.attempt(future, allow_shrink).await {
            Ok(covered) => Ok((report(&covered.outcome), covered.published && !covered.silent)),
            Err(failure) => {
                *self.sync.start.lock() = self.failed_start(&failure);
                Err(failure.error)
            }
        }
    }

    /// Future that calls `on_start`, if there is one.
    fn start_callback(&self, dio: &Dio) -> Option<CallbackFuture<()>> {
        let on_start = self.callbacks.on_start.clone()?;
        Some(scope::calling(dio.clone(), move |dio| on_start(dio)))
    }

    /// Runs `on_start`. If it succeeds, the first copy is complete.
    async fn attempt(
        self: &Arc<Self>,
        future: CallbackFuture<()>,
        allow_shrink: bool,
    ) -> Result<RefreshNotices, Failure> {
        let refused = |error| Failure { error, transient: false };
        let scope =
            self.callback_scope(Kind::Start, RefreshDemands { allow_shrink, whole: true }).await.map_err(refused)?;
        let done = async {
            scope::run(self, Arc::clone(&scope), future).await?;
            self.finish_callback(&scope).await?;
            self.build_configured().await
        };
        if let Err(error) = done.await {
            let transient = error.kind() != ErrorKind::Permanent && !scope.panicked();
            return Err(Failure { error, transient });
        }
        *self.sync.start.lock() = Start::Done;
        self.seeded();
        Ok(std::mem::take(&mut *scope.covered.lock()))
    }

    /// Notes and publishes that the first attempt failed.
    fn note_start(&self, failure: &Failure) {
        *self.sync.start.lock() = self.failed_start(failure);
        self.refresh_failed(&failure.error, "on_start failed");
    }

    fn failed_start(&self, failure: &Failure) -> Start {
        let always = self.settings.retry_every_start && self.is_loading();
        Start::Failed { again: failure.transient || always }
    }
}
