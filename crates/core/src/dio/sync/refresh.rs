//! Refreshes: reading the master again, one refresh at a time.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::announcement::Announcement;
use super::report::{RefreshDemands, RefreshFuture, RefreshReport, RefreshUnderWay, report};
use crate::dio::core::Core;
use crate::dio::events::event::{DioEvent, Position};
use crate::dio::handle::{Dio, Handle};
use crate::dio::scope;
use crate::dio::scope::{Kind, scope_of};
use crate::journal::Seq;
use crate::vista::{Error, Result};

/// Refresh that a caller waits for.
enum RefreshStart {
    New(RefreshFuture),
    /// A refresh that was already under way.
    UnderWay(RefreshUnderWay),
}

impl Core {
    /// Refreshes by the whole list, or joins such a refresh under way.
    pub(crate) async fn refresh(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        let demands = RefreshDemands { allow_shrink: self.settings.allow_shrink, whole: true };
        loop {
            match self.begin_refresh(handle, demands)? {
                RefreshStart::New(refresh) => return refresh.await,
                RefreshStart::UnderWay(RefreshUnderWay { refresh, whole: true }) => return refresh.await,
                // Deleted rows are not among the changes that it asks for.
                RefreshStart::UnderWay(RefreshUnderWay { refresh, whole: false }) => match refresh.await {
                    Err(Error::Closed) => return Err(Error::Closed),
                    _ => continue,
                },
            }
        }
    }

    /// Refreshes by what has changed, if the master can tell, or joins the refresh under way. For refreshes that nobody asks for.
    pub(crate) async fn refresh_changes(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        let demands = RefreshDemands { allow_shrink: self.settings.allow_shrink, whole: false };
        match self.begin_refresh(handle, demands)? {
            RefreshStart::New(refresh) | RefreshStart::UnderWay(RefreshUnderWay { refresh, .. }) => refresh.await,
        }
    }

    /// Begins a refresh, unless one is under way.
    fn begin_refresh(self: &Arc<Self>, handle: &Arc<Handle>, demands: RefreshDemands) -> Result<RefreshStart> {
        let caller = scope_of(&self.name).map(|scope| scope.kind);
        if matches!(caller, Some(Kind::Refresh | Kind::Start)) {
            return Err(Error::Reentrant { what: "refresh" });
        }
        let mut refreshing = self.sync.refreshing.lock();
        if let Some(under_way) = &*refreshing {
            return Ok(RefreshStart::UnderWay(under_way.clone()));
        }
        let whole = demands.whole || self.sync.last_list.lock().since.is_none();
        let demands = RefreshDemands { whole, ..demands };
        let (core, dio) = (Arc::clone(self), Dio(Arc::clone(handle)));
        let task = self.tasks.spawn(async move {
            let result = core.refresh_once(&dio, demands, caller == Some(Kind::Query)).await;
            *core.sync.refreshing.lock() = None;
            result
        });
        let refresh = task.map(|joined| joined.unwrap_or(Err(Error::Closed))).boxed().shared();
        *refreshing = Some(RefreshUnderWay { refresh: refresh.clone(), whole });
        Ok(RefreshStart::New(refresh))
    }

    /// Runs one refresh. `by_query` is true if `on_query` began it.
    async fn refresh_once(
        self: &Arc<Self>,
        dio: &Dio,
        demands: RefreshDemands,
        by_query: bool,
    ) -> Result<RefreshReport> {
        let _listing = self.sync.listing.lock().await;
        let _announcement = Announcement::of(self);
        let started = Instant::now();
        let failed_before = self.sync.last_list.lock().failed.is_some();
        let refreshed = match self.read_again(dio, demands).await {
            Ok((report, covered)) => self.publish_refreshed(report, covered, started, by_query).await,
            Err(error) => Err(error),
        };
        self.counters.refreshed(refreshed.is_ok(), started.elapsed());
        if failed_before && refreshed.is_ok() {
            tracing::info!(dio = %self.name, "the source can be read again");
        }
        refreshed
    }

    /// Reads the source. Returns the report, and true if all differences were published as row events.
    async fn read_again(self: &Arc<Self>, dio: &Dio, demands: RefreshDemands) -> Result<(RefreshReport, bool)> {
        self.ring.push_unlogged(DioEvent::Refreshing);
        self.enter_refresh();
        let refreshed = match self.start_failed() {
            true => self.start_again(dio, demands.allow_shrink).await,
            false => self.run_refresh_callback(dio, demands).await,
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

    /// Publishes `Invalidated` after a successful refresh.
    async fn publish_refreshed(
        self: &Arc<Self>,
        mut report: RefreshReport,
        covered: bool,
        started: Instant,
        by_query: bool,
    ) -> Result<RefreshReport> {
        // Receivers of the event wait for this lock until its position is known.
        let mut position = if by_query { Some(self.sync.query_refresh.lock().await) } else { None };
        let committed = self
            .publish_invalidated(covered)
            .await
            .inspect_err(|error| self.refresh_failed(error, "a refresh failed"))?;
        if let Some(position) = &mut position {
            **position = committed.seq;
        }
        report.took = started.elapsed();
        report.position = Some(Position { epoch: self.position().epoch, seq: committed.seq });
        Ok(report)
    }

    /// Position up to which invalidations do not cause another call of `on_query`, because they come from a refresh that
    /// `on_query` began itself, for any view.
    ///
    /// Without this, two views whose `on_query` refreshes would call it in turns without end.
    pub(crate) async fn answered_until(&self) -> Seq {
        *self.sync.query_refresh.lock().await
    }

    /// Notes and publishes a failed read of the source, and wakes the callers that wait for the first copy.
    pub(crate) fn refresh_failed(&self, error: &Error, what: &'static str) {
        let message = error.to_string();
        let before = self.sync.last_list.lock().failed.replace(message.clone());
        // A source that stays unreachable is one line in the log, not one per attempt.
        if before.as_ref() == Some(&message) {
            tracing::debug!(dio = %self.name, %error, "{what} again");
        } else if let Some(left_out) = self.lines.pass((what, String::new())) {
            tracing::warn!(dio = %self.name, %error, left_out, "{what}");
        }
        self.ring.push_unlogged(DioEvent::RefreshFailed { error: message });
        self.wake();
    }

    /// Runs a refresh that begins after this call, so that it sees everything that happened before.
    pub(crate) async fn refresh_anew(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        let under_way = self.sync.refreshing.lock().clone();
        if let Some(under_way) = under_way {
            // It may have read the master already, so that its result does not count.
            let _ = under_way.refresh.await;
        }
        self.refresh(handle).await
    }

    /// Runs a new refresh without the shrink guard.
    pub(crate) async fn refresh_allowing_shrink(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        loop {
            match self.begin_refresh(handle, RefreshDemands { allow_shrink: true, whole: true })? {
                RefreshStart::New(refresh) => return refresh.await,
                // That refresh may have the shrink guard, so that its result does not count, unless the Dio has closed.
                RefreshStart::UnderWay(RefreshUnderWay { refresh, .. }) => match refresh.await {
                    Err(Error::Closed) => return Err(Error::Closed),
                    _ => continue,
                },
            }
        }
    }

    async fn run_refresh_callback(
        self: &Arc<Self>,
        dio: &Dio,
        demands: RefreshDemands,
    ) -> Result<(RefreshReport, bool)> {
        let Some(on_refresh) = self.callbacks.on_refresh.clone() else { return Ok((RefreshReport::default(), false)) };
        let scope = self.callback_scope(Kind::Refresh, demands).await?;
        scope::run(self, Arc::clone(&scope), scope::calling(dio.clone(), move |dio| on_refresh(dio))).await?;
        self.finish_callback(&scope).await?;
        let covered = std::mem::take(&mut *scope.covered.lock());
        Ok((report(&covered.outcome), covered.published && !covered.silent))
    }
}
