//! Reading the master again: refreshes, one at a time, and what becomes of a list.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::report::{RefreshFuture, RefreshReport, report};
use crate::dio::core::Core;
use crate::dio::events::event::{DioEvent, Position};
use crate::dio::handle::{Dio, Handle};
use crate::dio::scope;
use crate::dio::scope::{Kind, scope_of};
use crate::journal::Seq;
use crate::vista::{Error, Result};

/// How a refresh was found.
enum RefreshStart {
    Now(RefreshFuture),
    /// Somebody else began it.
    Before(RefreshFuture),
}

impl Core {
    /// Refreshes, or joins the refresh under way.
    pub(crate) async fn refresh(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        self.fly(handle, self.settings.allow_shrink).await
    }

    async fn fly(self: &Arc<Self>, handle: &Arc<Handle>, allow_shrink: bool) -> Result<RefreshReport> {
        match self.take_off(handle, allow_shrink)? {
            RefreshStart::Now(flight) | RefreshStart::Before(flight) => flight.await,
        }
    }

    /// Begins a refresh, unless one is under way.
    fn take_off(self: &Arc<Self>, handle: &Arc<Handle>, allow_shrink: bool) -> Result<RefreshStart> {
        let caller = scope_of(&self.name).map(|scope| scope.kind);
        if matches!(caller, Some(Kind::Refresh | Kind::Start)) {
            return Err(Error::Reentrant { what: "refresh" });
        }
        let mut refreshing = self.sync.refreshing.lock();
        if let Some(flight) = &*refreshing {
            return Ok(RefreshStart::Before(flight.clone()));
        }
        let (core, dio) = (Arc::clone(self), Dio(Arc::clone(handle)));
        let task = self.tasks.spawn(async move {
            let result = core.refresh_once(&dio, allow_shrink, caller == Some(Kind::Query)).await;
            *core.sync.refreshing.lock() = None;
            result
        });
        let flight = task.map(|joined| joined.unwrap_or(Err(Error::Closed))).boxed().shared();
        *refreshing = Some(flight.clone());
        Ok(RefreshStart::Now(flight))
    }

    /// Refreshes; `by_query` says that `on_query` wants it.
    async fn refresh_once(self: &Arc<Self>, dio: &Dio, allow_shrink: bool, by_query: bool) -> Result<RefreshReport> {
        let _listing = self.sync.listing.lock().await;
        let started = Instant::now();
        let failed_before = self.sync.last_list.lock().failed.is_some();
        let refreshed = match self.read_again(dio, allow_shrink).await {
            Ok((report, covered)) => self.tell_refreshed(report, covered, started, by_query).await,
            Err(error) => Err(error),
        };
        self.tally.refreshed(refreshed.is_ok(), started.elapsed());
        if failed_before && refreshed.is_ok() {
            tracing::info!(dio = %self.name, "the source can be read again");
        }
        refreshed
    }

    /// Reads the source; what came of it, and whether all differences were told.
    async fn read_again(self: &Arc<Self>, dio: &Dio, allow_shrink: bool) -> Result<(RefreshReport, bool)> {
        self.ring.tell(DioEvent::Refreshing);
        self.enter_refresh();
        let refreshed = match self.start_failed() {
            true => self.start_again(dio, allow_shrink).await,
            false => self.run_refresh_hook(dio, allow_shrink).await,
        };
        self.leave_refresh();
        let (mut report, covered) = match refreshed {
            Ok(done) => done,
            Err(error) => {
                self.refresh_failed(&error, "a refresh failed");
                return Err(error);
            }
        };
        let complete = {
            let mut freshness = self.sync.last_list.lock();
            freshness.failed = None;
            report.undecodable = freshness.undecodable.as_ref().map_or(0, |bad| bad.count);
            freshness.complete
        };
        if complete {
            self.seeded();
        }
        Ok((report, covered))
    }

    /// Tells everybody of a refresh that succeeded.
    async fn tell_refreshed(
        self: &Arc<Self>,
        mut report: RefreshReport,
        covered: bool,
        started: Instant,
        by_query: bool,
    ) -> Result<RefreshReport> {
        // Whoever hears of it waits here until its position is known.
        let mut answered = if by_query { Some(self.sync.answered.lock().await) } else { None };
        let committed =
            self.tell_all(covered).await.inspect_err(|error| self.refresh_failed(error, "a refresh failed"))?;
        if let Some(answered) = &mut answered {
            **answered = committed.seq;
        }
        report.took = started.elapsed();
        report.position = Some(Position { epoch: self.position().epoch, seq: committed.seq });
        Ok(report)
    }

    /// Position up to which invalidations are no reason to ask `on_query` again: they tell of a refresh that it began itself, for
    /// one view or another. Without this, two views whose `on_query` refreshes would ask by turns for ever.
    pub(crate) async fn answered_until(&self) -> Seq {
        *self.sync.answered.lock().await
    }

    /// Notes why rows could not be read, and tells subscribers and those who wait for the first copy.
    pub(crate) fn refresh_failed(&self, error: &Error, what: &'static str) {
        let said = error.to_string();
        let before = self.sync.last_list.lock().failed.replace(said.clone());
        // A source that stays away is one line in the log, not one per try.
        if before.as_ref() == Some(&said) {
            tracing::debug!(dio = %self.name, %error, "{what} again");
        } else if let Some(left_out) = self.lines.pass((what, String::new())) {
            tracing::warn!(dio = %self.name, %error, left_out, "{what}");
        }
        self.ring.tell(DioEvent::RefreshFailed { error: said });
        self.wake();
    }

    /// A refresh that begins after this call, so that it sees whatever happened before it.
    pub(crate) async fn refresh_anew(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        let flight = self.sync.refreshing.lock().clone();
        if let Some(flight) = flight {
            // It may have read the master already; how it ends does not matter here.
            let _ = flight.await;
        }
        self.refresh(handle).await
    }

    /// A refresh of its own, which believes a list that is much smaller than what is cached.
    pub(crate) async fn refresh_allowing_shrink(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        loop {
            match self.take_off(handle, true)? {
                RefreshStart::Now(flight) => return flight.await,
                // It was not told so: whatever it says is not the answer, unless there will be no other.
                RefreshStart::Before(flight) => match flight.await {
                    Err(Error::Closed) => return Err(Error::Closed),
                    _ => continue,
                },
            }
        }
    }

    async fn run_refresh_hook(self: &Arc<Self>, dio: &Dio, allow_shrink: bool) -> Result<(RefreshReport, bool)> {
        let Some(on_refresh) = self.hooks.on_refresh.clone() else { return Ok((RefreshReport::default(), false)) };
        let scope = self.hook_scope(Kind::Refresh, allow_shrink).await?;
        scope::run(self, Arc::clone(&scope), scope::calling(dio.clone(), move |dio| on_refresh(dio))).await?;
        self.finish_hook(&scope).await?;
        let covered = std::mem::take(&mut *scope.covered.lock());
        Ok((report(&covered.outcome), covered.told && !covered.silent))
    }
}
