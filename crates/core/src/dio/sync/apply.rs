//! Applying a list: its differences become commands, in bulk if they are many.

use std::sync::Arc;

use super::announcement::Announcement;
use crate::dio::core::Core;
use crate::dio::scope::{Scope, scope_of};
use crate::record::{Body, Id, Rows};
use crate::state::{Command, Notice, Outcome, ReadRow, check_size, confirmed_at, diff, may_change, missing};
use crate::vista::{Error, Result};

/// Number of rows in one command.
const CHUNK: usize = 64;

/// Number of rows in one bulk command. Writes wait at most until these rows are in the cache file.
const BULK_CHUNK: usize = 1_000;

/// Maximum number of differences that are published as row events.
const MOST_ROW_EVENTS: usize = 1_000;

/// Number of rows up to which the shrink guard does not apply.
const SHRINK_FLOOR: usize = 100;

/// Properties of a list that is applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing {
    /// Mark of the beginning of its read.
    pub(crate) mark: u64,
    /// True if it has all rows and so determines their order.
    pub(crate) whole: bool,
    /// True if rows that it lacks are removed.
    pub(crate) removes: bool,
    /// True if differences are published as row events.
    pub(crate) publish: bool,
    /// True if it may be much smaller than the cache.
    pub(crate) allow_shrink: bool,
}

/// Result of applying a list.
#[derive(Debug)]
pub(crate) struct ListOutcome {
    pub(crate) outcome: Outcome,
    /// True if it became the first copy as a whole, without row events.
    pub(crate) seeded: bool,
    /// The list.
    pub(crate) rows: Arc<Rows>,
}

impl Core {
    /// Removes rows after `on_start` or `on_refresh` that a complete list given to the cache lacked and that nothing
    /// changed meanwhile.
    pub(crate) async fn finish_listing(self: &Arc<Self>, scope: &Scope) -> Result<()> {
        let Some(rows) = scope.listed.lock().take() else { return Ok(()) };
        let Some(stamp) = rows.stamp() else { return Ok(()) };
        let state = self.state();
        // A list with rows that cannot be decoded removes no rows.
        let mut gone = Vec::new();
        if rows.undecodable().is_none() {
            self.check_shrink(rows.len(), confirmed_at(&state, stamp.mark), scope.demands.allow_shrink)?;
            gone = missing(&state, &rows);
        }
        let items: Vec<ReadRow> = gone.into_iter().map(|id| ReadRow { id, row: None, ordinal: None }).collect();
        let outcome = self.apply_items(items, stamp.mark, Notice::Invalidated).await?;
        {
            scope.covered.lock().outcome.add(&outcome);
        }
        self.mark_complete().await;
        Ok(())
    }

    /// Applies a list of `dio.master()`: only its differences, under the mark of its read.
    pub(crate) async fn apply_list(self: &Arc<Self>, rows: Rows, publish: bool, removes: bool) -> Result<Outcome> {
        let layout = Arc::clone(self.vista.schema().layout());
        let rows = rows.under(&layout);
        let Some(stamp) = rows.stamp().cloned() else {
            let rows = self.converted(rows).await?;
            rows.bodies().try_for_each(|(id, body)| check_size(id, body))?;
            return self.state_rows(&rows).await;
        };
        let rows = rows.without(|id, body| check_size(id, body).err().map(|error| error.to_string()));
        let complete = stamp.complete;
        // A list with rows that cannot be decoded removes no rows.
        let decoded = self.check_decoded(&rows, complete)?;
        let allow_shrink = scope_of(&self.name).is_some_and(|scope| scope.demands.allow_shrink);
        let list = Listing {
            mark: stamp.mark,
            whole: complete,
            removes: removes && decoded && complete,
            publish,
            allow_shrink: allow_shrink || self.settings.allow_shrink,
        };
        let _announcement = Announcement::of(self);
        let applied = self.apply_rows(rows, &list).await?;
        self.keep_list(&applied.rows, complete);
        if complete && (removes || applied.seeded) {
            self.mark_complete().await;
        }
        if applied.seeded {
            self.announce(publish).await?;
        }
        Ok(applied.outcome)
    }

    /// Commits the differences between a list and the State.
    pub(crate) async fn apply_rows(self: &Arc<Self>, mut rows: Rows, list: &Listing) -> Result<ListOutcome> {
        if list.removes {
            self.check_shrink(rows.len(), confirmed_at(&self.state(), list.mark), list.allow_shrink)?;
        }
        let state = self.state();
        let first = list.whole && state.table().is_empty() && state.folds().next().is_none();
        drop(state);
        if first && self.seed(&mut rows, list.mark, self.notice_of_silent(list.publish)).await? {
            let outcome = Outcome::Applied { inserted: rows.len() as u64, changed: 0, removed: 0 };
            if let Some(scope) = scope_of(&self.name) {
                scope.covered.lock().outcome.add(&outcome);
            }
            return Ok(ListOutcome { outcome, seeded: true, rows: Arc::new(rows) });
        }
        let rows = Arc::new(rows);
        let (state, core, listed, whole) = (self.state(), Arc::clone(self), Arc::clone(&rows), list.whole);
        let mut items = self
            .heavy(rows.len(), move || {
                let items = diff(&state, &listed, whole);
                core.note_read_mismatches(&items);
                items
            })
            .await?;
        if !list.removes {
            items.retain(|item| item.row.is_some());
        }
        let notice = if list.publish { Notice::RowEvents } else { self.notice_of_silent(false) };
        let outcome = self.apply_items(items, list.mark, notice).await?;
        Ok(ListOutcome { outcome, seeded: false, rows })
    }

    /// Returns true if all rows of a list could be decoded.
    ///
    /// # Errors
    /// A permanent error if none could.
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

    /// How subscribers learn of changes without row events: by the `Invalidated` that ends the running callback or, if `publish`
    /// is set, the list.
    fn notice_of_silent(&self, publish: bool) -> Notice {
        let in_callback = scope_of(&self.name).is_some_and(|scope| scope.makes_copy());
        if publish || in_callback { Notice::Invalidated } else { Notice::Program }
    }

    /// Commits differences in chunks, in bulk if they are many.
    async fn apply_items(self: &Arc<Self>, items: Vec<ReadRow>, mark: u64, notice: Notice) -> Result<Outcome> {
        let publish = notice == Notice::RowEvents;
        let bytes: usize = items.iter().map(|item| item.row.as_ref().map_or(0, Body::size)).sum();
        let bulk = items.len() > MOST_ROW_EVENTS || bytes > self.settings.ring.bytes / 10;
        let state = self.state();
        let silent = (!publish || bulk) && items.iter().any(|item| may_change(&state, item));
        drop(state);
        if let Some(scope) = scope_of(&self.name) {
            let mut covered = scope.covered.lock();
            covered.published |= publish;
            covered.silent |= silent;
        }
        if bulk {
            self.set_bulk(true).await;
        }
        let notice = if bulk && publish { Notice::Invalidated } else { notice };
        let mut outcome = Outcome::Unchanged;
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let size = if bulk { BULK_CHUNK } else { CHUNK };
            let items: Vec<ReadRow> = items.by_ref().take(size).collect();
            let command = match bulk {
                true => Command::Bulk { items, mark, notice },
                false => Command::ReadRows { items, mark, notice },
            };
            outcome.add(&self.commit(command).await?.outcome);
        }
        if bulk {
            self.set_bulk(false).await;
            self.announce(publish).await?;
        }
        if let Some(scope) = scope_of(&self.name) {
            scope.covered.lock().outcome.add(&outcome);
        }
        Ok(outcome)
    }

    /// Announces rows that changed without row events.
    ///
    /// A refresh or start publishes `Invalidated` when it is done. Outside of these it is published here, if `publish` is set.
    pub(crate) async fn announce(self: &Arc<Self>, publish: bool) -> Result<()> {
        match scope_of(&self.name).filter(|scope| scope.makes_copy()) {
            Some(scope) => scope.covered.lock().silent = true,
            None if publish => {
                self.publish_invalidated(false).await?;
            }
            None => {}
        }
        Ok(())
    }

    /// Commits rows that the program made, as statements.
    async fn state_rows(self: &Arc<Self>, rows: &Rows) -> Result<Outcome> {
        let mut outcome = Outcome::Unchanged;
        let rows: Vec<(Id, Option<Body>)> = rows.to_bodies().map(|(id, body)| (id, Some(body))).collect();
        if let Some(scope) = scope_of(&self.name) {
            scope.covered.lock().silent |= !rows.is_empty();
        }
        for rows in rows.chunks(CHUNK) {
            let command = Command::Statement { rows: rows.to_vec(), notify: false };
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
