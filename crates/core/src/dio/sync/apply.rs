//! Applying a list: its differences become commands, many of them bulk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dio::core::Core;
use crate::dio::scope::{Kind, Scope, scope_of};
use crate::record::{Body, Id, Rows};
use crate::state::{Command, Outcome, ReadRow, check_size, confirmed_at, diff, may_change, missing};
use crate::vista::{Error, Result};

/// Rows in one command.
const CHUNK: usize = 64;

/// Rows in one bulk command; nobody's write waits longer than their way to the cache file.
const BULK_CHUNK: usize = 1_000;

/// More differences than this are not told one by one.
const MOST_TOLD: usize = 1_000;

/// Below so many rows a list may shrink as it likes.
const SHRINK_FLOOR: usize = 100;

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
pub(crate) struct ListOutcome {
    pub(crate) outcome: Outcome,
    /// Whether it became the first copy as it is, without row events.
    pub(crate) seeded: bool,
}

impl Core {
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
        let items: Vec<ReadRow> = gone.into_iter().map(|id| ReadRow { id, row: None, ordinal: None }).collect();
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
    pub(crate) async fn apply_rows(self: &Arc<Self>, rows: &Arc<Rows>, list: &Listing) -> Result<ListOutcome> {
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
            return Ok(ListOutcome { outcome, seeded: true });
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
        Ok(ListOutcome { outcome, seeded: false })
    }

    /// Whether all rows of a list could be decoded; an error if none could, because that is no list.
    pub(crate) fn check_decoded(&self, rows: &Rows, complete: bool) -> Result<bool> {
        let Some(bad) = rows.undecodable() else { return Ok(true) };
        if complete {
            self.sync.last_list.lock().undecodable = Some(bad.clone());
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
    async fn apply_items(self: &Arc<Self>, items: Vec<ReadRow>, mark: u64, told: bool) -> Result<Outcome> {
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
            self.sync.untold.store(true, Ordering::Release);
        }
        if bulk {
            self.set_bulk(true).await;
        }
        let mut outcome = Outcome::Unchanged;
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let size = if bulk { BULK_CHUNK } else { CHUNK };
            let items: Vec<ReadRow> = items.by_ref().take(size).collect();
            let command = if bulk { Command::Bulk { items, mark } } else { Command::News { items, mark, told } };
            outcome.add(&self.commit(command).await?.outcome);
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
        self.sync.untold.store(true, Ordering::Release);
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
        self.sync.untold.store(true, Ordering::Release);
        for rows in rows.chunks(CHUNK) {
            let command = Command::Statement { rows: rows.to_vec(), told: false };
            outcome.add(&self.commit(command).await?.outcome);
        }
        Ok(outcome)
    }

    fn check_shrink(&self, listed: usize, cached: usize, allowed: bool) -> Result<()> {
        if !allowed && cached > SHRINK_FLOOR && listed < cached / 2 && cached - listed > SHRINK_FLOOR {
            return Err(Error::Suspicious { listed: listed as u64, cached: cached as u64 });
        }
        Ok(())
    }
}
