//! Whole lists that the program makes, of rows that it has fetched page by page or computed.
//!
//! A list needs the mark of its beginning, so that it does not undo later changes. `dio.master()` stamps its lists, a
//! callback has a mark of its own, and elsewhere [`Dio::begin_list`] takes one.

use std::sync::Arc;

use tokio::time::Instant;

use super::announcement::Announcement;
use super::apply::Listing;
use super::master::{list_changed_stamped, list_since_stamped, list_stamped};
use super::report::{RefreshReport, report};
use super::state::EqualList;
use crate::dio::core::Core;
use crate::dio::guard::Guard;
use crate::dio::handle::Dio;
use crate::dio::scope::scope_of;
use crate::journal::Seq;
use crate::record::{Record, Rows};
use crate::state::check_size;
use crate::vista::{Error, Query, Result};

/// Whole list of the master that is being read; see [`Dio::begin_list`].
///
/// Dropped before [`WholeList::finish`], it changes nothing.
#[derive(Debug)]
#[must_use = "a list changes nothing before it is finished"]
pub struct WholeList {
    core: Arc<Core>,
    guard: Guard,
    began: Instant,
    rows: Rows,
}

impl WholeList {
    /// Adds the rows of a page. Among rows with the same id, the last one wins.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a row that is too large; nothing of the page is added then.
    pub fn add(&mut self, page: Rows) -> Result<()> {
        let page = self.core.checked(page)?;
        self.rows.absorb(page);
        Ok(())
    }

    /// Adds one row; see [`WholeList::add`].
    ///
    /// # Errors
    /// As [`WholeList::add`].
    pub fn push(&mut self, id: impl Into<String>, record: &Record) -> Result<()> {
        let mut page = Rows::with_layout(Arc::clone(self.core.vista.schema().layout()));
        page.push(id.into(), record);
        self.add(page)
    }

    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns true if there are no rows so far.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds the last page, which may be empty, and makes the cache equal to the list.
    ///
    /// Differences are applied and published one by one, rows that the list lacks are removed, and the copy is complete.
    /// Rows that writes or events changed since [`Dio::begin_list`] are kept and read again.
    ///
    /// # Errors
    /// [`Error::Suspicious`] for a list that shrank by more than half; [`Error::Invalid`] as [`WholeList::add`];
    /// [`Error::Storage`], [`Error::Closed`].
    pub async fn finish(mut self, last: Rows) -> Result<RefreshReport> {
        self.add(last)?;
        let report = self.core.apply_whole(self.rows, self.guard.mark).await?;
        Ok(RefreshReport { took: self.began.elapsed(), ..report })
    }
}

impl Dio {
    /// Begins a whole list that the program reads by itself, perhaps in pages.
    ///
    /// Call this before requesting the first page, then [`WholeList::add`] for each page and [`WholeList::finish`] at the
    /// end. While the list is open, events without a version are not applied at once: their rows are read again.
    ///
    /// # Example
    /// ```
    /// # async fn pages() -> diorama_core::Result<Vec<diorama_core::Rows>> { Ok(Vec::new()) }
    /// # async fn copy(dio: &diorama_core::Dio) -> diorama_core::Result<()> {
    /// let mut list = dio.begin_list().await?;
    /// for page in pages().await? {
    ///     list.add(page)?;
    /// }
    /// let report = list.finish(diorama_core::Rows::new()).await?;
    /// println!("{} rows are new, {} are gone", report.inserted, report.removed);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Closed`].
    pub async fn begin_list(&self) -> Result<WholeList> {
        let core = Arc::clone(&self.0.core);
        let guard = core.open_guard().await?;
        let rows = Rows::with_layout(Arc::clone(core.vista.schema().layout()));
        Ok(WholeList { core, guard, began: Instant::now(), rows })
    }

    /// Makes the cache equal to the master's whole list, as [`Dio::reconcile`] with `dio.master().list_values()` does.
    ///
    /// A master that recognizes its last list, and has not changed since, is not read again. A master that can tell what has
    /// changed since the last list is asked for that instead, until it says that the whole list is due: rows that it deletes stay
    /// until then. In a refresh that was asked for, by [`Dio::refresh`] or an event, it is asked for the whole list.
    ///
    /// # Errors
    /// As [`Dio::reconcile`]; the master's own.
    pub async fn reconcile_master(&self) -> Result<RefreshReport> {
        let core = &self.0.core;
        let began = Instant::now();
        let before = core.state().rows_seq();
        let rows = match (core.place_of_changes(), core.equal_list()) {
            (Some(since), _) => list_since_stamped(core, since).await?,
            (None, Some(fingerprint)) => {
                let Some(rows) = list_changed_stamped(core, fingerprint).await? else {
                    core.mark_complete().await;
                    let position = Some(core.position());
                    return Ok(RefreshReport { took: began.elapsed(), position, ..RefreshReport::default() });
                };
                Some(rows)
            }
            (None, None) => None,
        };
        let rows = match rows {
            Some(rows) => rows,
            None => list_stamped(core, &Query::default()).await?,
        };
        let is_whole = rows.stamp().is_some_and(|stamp| stamp.complete);
        let fingerprint = rows.fingerprint().cloned().filter(|_| is_whole && rows.undecodable().is_none());
        // A row that cannot be decoded would be passed over by the next list of changes.
        let since = rows.since().cloned().filter(|_| rows.undecodable().is_none());
        // A list that cannot be applied is read again as a whole.
        core.sync.last_list.lock().since = None;
        let report = self.reconcile(rows).await?;
        core.note_equal_list(fingerprint, before, &report);
        if !is_whole {
            core.mark_complete().await;
        }
        core.sync.last_list.lock().since = since;
        Ok(RefreshReport { took: began.elapsed(), ..report })
    }

    /// Makes the cache equal to `rows`, as [`Dio::reconcile`] does with a complete list, also if the program made them.
    ///
    /// Changes since the read began are kept: for rows that `dio.master()` listed, perhaps narrowed, since their read;
    /// for others in `on_start` and `on_refresh`, since the callback began.
    ///
    /// # Errors
    /// [`Error::Invalid`] for rows that the program made outside of these callbacks, because the beginning of their read is
    /// unknown: use [`Dio::begin_list`] instead. Otherwise as [`WholeList::finish`].
    pub async fn reconcile_whole(&self, rows: Rows) -> Result<RefreshReport> {
        let core = &self.0.core;
        let began = Instant::now();
        let stamped = rows.stamp().cloned();
        let scope = scope_of(&core.name);
        let own = scope.as_ref().and_then(|scope| scope.guard.as_ref()).map(|guard| guard.mark);
        let Some(mark) = stamped.as_ref().map(|stamp| stamp.mark).or(own) else {
            let detail =
                "it is not known when these rows were read: call begin_list() before reading them, then finish(rows)";
            return Err(Error::invalid(detail));
        };
        let rows = match stamped.is_some() {
            true => rows.without(|id, body| check_size(id, body).err().map(|error| error.to_string())),
            false => rows,
        };
        let report = core.apply_whole(core.checked(rows)?, mark).await?;
        // The stamp keeps the mark open until the rows are applied.
        drop(stamped);
        Ok(RefreshReport { took: began.elapsed(), ..report })
    }
}

impl Core {
    /// Fingerprint of the master's list that all rows are equal to; `None` if there is none, or rows may differ from it.
    fn equal_list(&self) -> Option<Arc<str>> {
        let state = self.state();
        let equal = self.sync.last_list.lock().equal.clone()?;
        let is_replaced = self.vista.shell().is_replaced();
        let is_equal = equal.rows_seq == state.rows_seq() && state.is_settled() && self.gathering().is_none();
        (is_equal && !is_replaced).then_some(equal.fingerprint)
    }

    /// Place from which the master can tell what has changed since the last list; `None` if the rows are not a copy of it, or the
    /// caller demands the whole list.
    fn place_of_changes(&self) -> Option<Arc<str>> {
        let last_list = self.sync.last_list.lock();
        let is_copy = last_list.complete && self.gathering().is_none() && !self.vista.shell().is_replaced();
        let is_whole = scope_of(&self.name).is_some_and(|scope| scope.demands.whole);
        last_list.since.clone().filter(|_| is_copy && !is_whole)
    }

    /// Notes that the rows are equal to a list that was applied, if it has changed nothing and nothing else has: `before` is the
    /// position of the last change of a row when the list was begun.
    fn note_equal_list(&self, fingerprint: Option<Arc<str>>, before: Seq, report: &RefreshReport) {
        let state = self.state();
        let changes = report.inserted + report.changed + report.removed;
        let is_equal = changes == 0 && state.rows_seq() == before && state.is_settled() && self.gathering().is_none();
        let equal = fingerprint.filter(|_| is_equal).map(|fingerprint| EqualList { fingerprint, rows_seq: before });
        self.sync.last_list.lock().equal = equal;
    }

    /// Converts rows to the Dio's layout, and checks their sizes.
    fn checked(&self, rows: Rows) -> Result<Rows> {
        let schema = self.vista.schema();
        let rows = rows.under(schema.layout());
        rows.bodies().try_for_each(|(id, body)| check_size(id, body))?;
        Ok(rows)
    }

    /// Applies a whole list. In a callback that makes the copy it becomes part of the callback's result.
    async fn apply_whole(self: &Arc<Self>, rows: Rows, mark: u64) -> Result<RefreshReport> {
        let scope = scope_of(&self.name).filter(|scope| scope.makes_copy());
        let rows = if rows.stamp().is_some() { rows } else { self.converted(rows).await? };
        if let Some(scope) = self.gathering() {
            self.gather_rows(&scope, &rows, true, true)?;
            return Ok(RefreshReport::default());
        }
        let decoded = self.check_decoded(&rows, true)?;
        if decoded {
            self.sync.last_list.lock().undecodable = None;
        }
        let allow_shrink = scope.as_ref().is_some_and(|scope| scope.demands.allow_shrink) || self.settings.allow_shrink;
        let list = Listing { mark, whole: true, removes: decoded, publish: true, allow_shrink };
        let undecodable = rows.undecodable().map_or(0, |bad| bad.count);
        let _announcement = Announcement::of(self);
        let applied = self.apply_rows(rows, &list).await?;
        self.mark_complete().await;
        match &scope {
            // A list that was given to the cache before is superseded.
            Some(scope) => *scope.listed.lock() = None,
            // A whole list can make the first copy without `on_start`.
            None => self.seeded(),
        }
        if applied.seeded {
            self.announce(true).await?;
        }
        Ok(RefreshReport { undecodable, position: Some(self.position()), ..report(&applied.outcome) })
    }
}
