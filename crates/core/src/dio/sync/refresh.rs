//! Reading the master again: refreshes, one at a time, and what becomes of a list.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

use crate::cache::CacheMeta;
use crate::dio::core::Core;
use crate::dio::events::event::{DioEvent, Position};
use crate::dio::hooks::{self, Kind, Scope, scope_of};
use crate::dio::{Dio, Handle};
use crate::journal::Seq;
use crate::record::{Body, Id, Rows};
use crate::state::{Cmd, Item, Outcome, check_size, confirmed_at, diff, may_change, missing};
use crate::table::TableBuilder;
use crate::vista::{Error, Result};

/// A refresh under way, joined by all who ask meanwhile.
pub(crate) type Flight = Shared<BoxFuture<'static, Result<RefreshReport>>>;

/// How a refresh was found.
enum Begun {
    Now(Flight),
    /// Somebody else began it.
    Before(Flight),
}

/// What a refresh did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefreshReport {
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that are different.
    pub changed: u64,
    /// Rows that are gone.
    pub removed: u64,
    /// Rows of the last whole list that could not be decoded; what was known of them is kept, and none was removed.
    pub undecodable: u64,
    /// How long it took.
    pub took: Duration,
    /// Where the Dio stands after it.
    pub position: Option<Position>,
}

/// How a list is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing {
    /// When its reading began.
    pub(crate) mark: u64,
    /// Whether it has all rows, so that it tells their order.
    pub(crate) whole: bool,
    /// Whether rows that it does not have are gone.
    pub(crate) removes: bool,
    /// Whether subscribers are told of the differences.
    pub(crate) told: bool,
    /// Whether it may be much smaller than what is cached.
    pub(crate) allow_shrink: bool,
}

/// What a list did.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) outcome: Outcome,
    /// Whether it became the first copy as it is, without row events.
    pub(crate) seeded: bool,
}

/// Rows in one command.
const CHUNK: usize = 64;
/// Rows in one bulk command; nobody's write waits longer than their way to the cache file.
const BULK_CHUNK: usize = 1_000;
/// More differences than this are not told one by one.
const MOST_TOLD: usize = 1_000;
/// Below so many rows a list may shrink as it likes.
const SHRINK_FLOOR: usize = 100;

impl Core {
    /// Refreshes, or joins the refresh under way.
    pub(crate) async fn refresh(self: &Arc<Self>, handle: &Arc<Handle>) -> Result<RefreshReport> {
        self.fly(handle, self.settings.allow_shrink).await
    }

    async fn fly(self: &Arc<Self>, handle: &Arc<Handle>, allow_shrink: bool) -> Result<RefreshReport> {
        match self.take_off(handle, allow_shrink)? {
            Begun::Now(flight) | Begun::Before(flight) => flight.await,
        }
    }

    /// Begins a refresh, unless one is under way.
    fn take_off(self: &Arc<Self>, handle: &Arc<Handle>, allow_shrink: bool) -> Result<Begun> {
        let caller = scope_of(&self.name).map(|scope| scope.kind);
        if matches!(caller, Some(Kind::Refresh | Kind::Start)) {
            return Err(Error::Reentrant { what: "refresh" });
        }
        let mut refreshing = self.refreshing.lock();
        if let Some(flight) = &*refreshing {
            return Ok(Begun::Before(flight.clone()));
        }
        let (core, dio) = (Arc::clone(self), Dio(Arc::clone(handle)));
        let task = self.tasks.spawn(async move {
            let result = core.refresh_once(&dio, allow_shrink, caller == Some(Kind::Query)).await;
            *core.refreshing.lock() = None;
            result
        });
        let flight = task.map(|joined| joined.unwrap_or(Err(Error::Closed))).boxed().shared();
        *refreshing = Some(flight.clone());
        Ok(Begun::Now(flight))
    }

    /// Refreshes; `by_query` says that `on_query` wants it.
    async fn refresh_once(self: &Arc<Self>, dio: &Dio, allow_shrink: bool, by_query: bool) -> Result<RefreshReport> {
        let _listing = self.listing.lock().await;
        let started = Instant::now();
        let failed_before = self.last_list.lock().failed.is_some();
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
            let mut freshness = self.last_list.lock();
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
        let mut answered = if by_query { Some(self.answered.lock().await) } else { None };
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
        *self.answered.lock().await
    }

    /// Notes why rows could not be read, and tells subscribers and those who wait for the first copy.
    pub(crate) fn refresh_failed(&self, error: &Error, what: &'static str) {
        let said = error.to_string();
        let before = self.last_list.lock().failed.replace(said.clone());
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
        let flight = self.refreshing.lock().clone();
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
                Begun::Now(flight) => return flight.await,
                // It was not told so: whatever it says is not the answer, unless there will be no other.
                Begun::Before(flight) => match flight.await {
                    Err(Error::Closed) => return Err(Error::Closed),
                    _ => continue,
                },
            }
        }
    }

    async fn run_refresh_hook(self: &Arc<Self>, dio: &Dio, allow_shrink: bool) -> Result<(RefreshReport, bool)> {
        let Some(on_refresh) = self.hooks.on_refresh.clone() else { return Ok((RefreshReport::default(), false)) };
        let scope = self.hook_scope(Kind::Refresh, allow_shrink).await?;
        hooks::run(self, Arc::clone(&scope), hooks::calling(dio.clone(), move |dio| on_refresh(dio))).await?;
        self.finish_hook(&scope).await?;
        let covered = std::mem::take(&mut *scope.covered.lock());
        Ok((report(&covered.outcome), covered.told && !covered.silent))
    }

    /// After `on_start` or `on_refresh`: rows that a complete list given to the cache did not have, and that nothing touched
    /// meanwhile, are gone.
    pub(crate) async fn finish_listing(self: &Arc<Self>, scope: &Scope) -> Result<()> {
        let Some(rows) = scope.listed.lock().take() else { return Ok(()) };
        let Some(stamp) = rows.stamp() else { return Ok(()) };
        let state = self.state();
        // A list with rows that cannot be decoded says of no row that it is gone.
        let mut gone = Vec::new();
        if rows.undecodable().is_none() {
            self.check_shrink(rows.len(), confirmed_at(&state, stamp.mark), scope.allow_shrink)?;
            gone = missing(&state, &rows);
        }
        let items: Vec<Item> = gone.into_iter().map(|id| Item { id, row: None, ordinal: None }).collect();
        let outcome = self.apply_items(items, stamp.mark, false).await?;
        {
            scope.covered.lock().outcome.add(&outcome);
        }
        self.mark_complete().await;
        Ok(())
    }

    /// Applies a list that `dio.master()` gave: differences only, under the mark of its reading.
    pub(crate) async fn apply_list(self: &Arc<Self>, rows: Rows, told: bool, removes: bool) -> Result<Outcome> {
        let layout = Arc::clone(self.vista.schema().layout());
        let rows = rows.under(&layout);
        let Some(stamp) = rows.stamp().cloned() else {
            let rows = self.converted(rows).await?;
            rows.bodies().try_for_each(|(id, body)| check_size(id, body))?;
            return self.state_rows(&rows).await;
        };
        let rows = rows.without(|id, body| check_size(id, body).err().map(|error| error.to_string()));
        let complete = stamp.complete;
        // A list with rows that cannot be decoded says of no row that it is gone.
        let decoded = self.check_decoded(&rows, complete)?;
        let said = scope_of(&self.name).is_some_and(|scope| scope.allow_shrink);
        let list = Listing {
            mark: stamp.mark,
            whole: complete,
            removes: removes && decoded,
            told,
            allow_shrink: said || self.settings.allow_shrink,
        };
        let rows = Arc::new(rows);
        let applied = self.apply_rows(&rows, &list).await?;
        self.keep_list(&rows, complete);
        if complete && (removes || applied.seeded) {
            self.mark_complete().await;
        }
        if applied.seeded {
            self.tell_whole(told).await?;
        }
        Ok(applied.outcome)
    }

    /// Commits what a list says that is not known yet.
    pub(crate) async fn apply_rows(self: &Arc<Self>, rows: &Arc<Rows>, list: &Listing) -> Result<Applied> {
        if list.removes {
            self.check_shrink(rows.len(), confirmed_at(&self.state(), list.mark), list.allow_shrink)?;
        }
        let state = self.state();
        let first = list.whole && state.table().is_empty() && state.folds().next().is_none();
        if first && self.seed(rows, list.mark).await? {
            let outcome = Outcome::Applied { inserted: rows.len() as u64, changed: 0, removed: 0 };
            if let Some(scope) = scope_of(&self.name) {
                scope.covered.lock().outcome.add(&outcome);
            }
            return Ok(Applied { outcome, seeded: true });
        }
        let (state, core, listed, whole) = (self.state(), Arc::clone(self), Arc::clone(rows), list.whole);
        let mut items = self
            .heavy(rows.len(), move || {
                let items = diff(&state, &listed, whole);
                core.look_at_items(&items);
                items
            })
            .await?;
        if !list.removes {
            items.retain(|item| item.row.is_some());
        }
        let outcome = self.apply_items(items, list.mark, list.told).await?;
        Ok(Applied { outcome, seeded: false })
    }

    /// Whether all rows of a list could be decoded; an error if none could, because that is no list.
    pub(crate) fn check_decoded(&self, rows: &Rows, complete: bool) -> Result<bool> {
        let Some(bad) = rows.undecodable() else { return Ok(true) };
        if complete {
            self.last_list.lock().undecodable = Some(bad.clone());
        }
        if rows.is_empty() {
            let (count, first) = (bad.count, &bad.first);
            return Err(Error::permanent(format!("none of {count} rows of the source can be decoded: {first}")));
        }
        Ok(false)
    }

    fn keep_list(&self, rows: &Arc<Rows>, complete: bool) {
        if let Some(scope) = scope_of(&self.name).filter(|_| complete) {
            *scope.listed.lock() = Some(Arc::clone(rows));
        }
    }

    /// Commits differences in chunks; many of them as bulk.
    async fn apply_items(self: &Arc<Self>, items: Vec<Item>, mark: u64, told: bool) -> Result<Outcome> {
        let bytes: usize = items.iter().map(|item| item.row.as_ref().map_or(0, Body::size)).sum();
        let bulk = items.len() > MOST_TOLD || bytes > self.settings.ring.bytes / 10;
        let state = self.state();
        let silent = (!told || bulk) && items.iter().any(|item| may_change(&state, item));
        drop(state);
        if let Some(scope) = scope_of(&self.name) {
            let mut covered = scope.covered.lock();
            covered.told |= told;
            covered.silent |= silent;
        }
        if silent {
            self.untold.store(true, Ordering::Release);
        }
        if bulk {
            self.set_bulk(true).await;
        }
        let mut outcome = Outcome::Unchanged;
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let size = if bulk { BULK_CHUNK } else { CHUNK };
            let items: Vec<Item> = items.by_ref().take(size).collect();
            let cmd = if bulk { Cmd::Bulk { items, mark } } else { Cmd::News { items, mark, told } };
            outcome.add(&self.commit(cmd).await?.outcome);
        }
        if bulk {
            self.set_bulk(false).await;
            self.tell_whole(told).await?;
        }
        if let Some(scope) = scope_of(&self.name) {
            scope.covered.lock().outcome.add(&outcome);
        }
        Ok(outcome)
    }

    /// Rows changed that no row event told of. Refresh and start say so when they are done; without them it is said here, to
    /// those who were to be told.
    pub(crate) async fn tell_whole(self: &Arc<Self>, told: bool) -> Result<()> {
        self.untold.store(true, Ordering::Release);
        match scope_of(&self.name).filter(|scope| matches!(scope.kind, Kind::Refresh | Kind::Start)) {
            Some(scope) => scope.covered.lock().silent = true,
            None if told => {
                self.tell_all(false).await?;
            }
            None => {}
        }
        Ok(())
    }

    /// Rows made by hand: the program's own statements.
    async fn state_rows(self: &Arc<Self>, rows: &Rows) -> Result<Outcome> {
        let mut outcome = Outcome::Unchanged;
        let rows: Vec<(Id, Option<Body>)> =
            rows.bodies().map(|(id, body)| (Arc::clone(id), Some(body.clone()))).collect();
        if let Some(scope) = scope_of(&self.name) {
            scope.covered.lock().silent |= !rows.is_empty();
        }
        self.untold.store(true, Ordering::Release);
        for rows in rows.chunks(CHUNK) {
            let cmd = Cmd::Statement { rows: rows.to_vec(), told: false };
            outcome.add(&self.commit(cmd).await?.outcome);
        }
        Ok(outcome)
    }

    /// The first copy: built aside, stored, published once. `false` if rows arrived meanwhile.
    async fn seed(self: &Arc<Self>, rows: &Arc<Rows>, mark: u64) -> Result<bool> {
        if rows.is_empty() {
            return Ok(false);
        }
        let (core, listed) = (Arc::clone(self), Arc::clone(rows));
        let table = self
            .heavy(rows.len(), move || {
                core.look_at_rows(&listed);
                let mut builder = TableBuilder::new();
                for (at, (id, body)) in listed.bodies().enumerate() {
                    builder.push(id, body, (at as u64 + 1).saturating_mul(crate::table::ORDINAL_STEP));
                }
                builder.finish()
            })
            .await?;
        let stored = self.store.seed(&table).await;
        match self.commit(Cmd::Seed { table, mark }).await {
            Ok(_) => {
                match stored {
                    Ok(()) => self.set_bulk(false).await,
                    Err(error) => {
                        tracing::warn!(dio = %self.name, %error, "the first copy could not be stored; trying again");
                        self.rewrite().await;
                    }
                }
                Ok(true)
            }
            Err(refused) => {
                // The file has rows now that the State has not.
                self.rewrite().await;
                if matches!(refused, Error::Conflict { .. }) { Ok(false) } else { Err(refused) }
            }
        }
    }

    /// Stores every row again. Until that has worked, a next start knows that rows may be missing.
    async fn rewrite(&self) {
        if let Err(error) = self.store.rewrite(|| self.state()).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }

    async fn set_bulk(&self, bulk: bool) {
        if let Err(error) = self.store.set_meta(|meta| meta.bulk = bulk).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }

    /// Notes that the rows are a whole copy of the master as of now.
    pub(crate) async fn mark_complete(&self) {
        {
            let mut freshness = self.last_list.lock();
            freshness.at = Some(Instant::now());
            freshness.complete = true;
            freshness.failed = None;
        }
        // Rows that were lost and not found yet are missing from the file, and a next start has to know it.
        let whole = (!self.state().lacks_rows()).then(crate::dio::commit::committer::now);
        let note = |meta: &mut CacheMeta| (meta.complete_at, meta.gap) = (whole, meta.gap && whole.is_none());
        if let Err(error) = self.store.set_meta(note).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }

    /// Notes that the rows are a part of what the master has.
    pub(crate) async fn mark_partial(&self) {
        self.last_list.lock().complete = false;
        if let Err(error) = self.store.set_meta(|meta| meta.complete_at = None).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }

    fn check_shrink(&self, listed: usize, cached: usize, allowed: bool) -> Result<()> {
        if !allowed && cached > SHRINK_FLOOR && listed < cached / 2 && cached - listed > SHRINK_FLOOR {
            return Err(Error::Suspicious { listed: listed as u64, cached: cached as u64 });
        }
        Ok(())
    }

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

/// Rows from which work is done off the async threads.
pub(crate) const HEAVY: usize = 5_000;

/// A report of what was done, without the time it took.
pub(crate) fn report(outcome: &Outcome) -> RefreshReport {
    match *outcome {
        Outcome::Applied { inserted, changed, removed } => {
            RefreshReport { inserted, changed, removed, ..RefreshReport::default() }
        }
        _ => RefreshReport::default(),
    }
}
