//! Whole lists that the program makes: of rows that it fetched by itself, page by page, or computed.
//!
//! A list can be judged only with the mark of its beginning: what changed later is not undone by it. `dio.master()` stamps what
//! it lists; a hook has a mark of its own; elsewhere [`Dio::begin_list`] takes one.

use std::sync::Arc;

use tokio::time::Instant;

use super::apply::Listing;
use super::report::{RefreshReport, report};
use crate::dio::core::Core;
use crate::dio::guard::Guard;
use crate::dio::handle::Dio;
use crate::dio::scope::scope_of;
use crate::record::{Record, Rows};
use crate::state::check_size;
use crate::vista::{Error, Result};

/// A whole list of the master that is being read: see [`Dio::begin_list`]. Dropped before [`WholeList::finish`], it changes
/// nothing.
#[derive(Debug)]
#[must_use = "a list changes nothing before it is finished"]
pub struct WholeList {
    core: Arc<Core>,
    guard: Guard,
    began: Instant,
    rows: Rows,
}

impl WholeList {
    /// Adds the rows of a page. Of rows with the same id, the last one counts.
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

    /// How many rows it has so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none so far.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds `last`, the last page, which may be empty, and makes the cache equal to the list: differences are applied and
    /// published one by one, rows that it does not have are removed, and the copy is complete. Rows that writes or events touched
    /// since [`Dio::begin_list`] are left and read again.
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
    /// Begins a whole list that the program reads by itself, perhaps in pages: call this before the first page is asked for, then
    /// [`WholeList::add`] for each and [`WholeList::finish`] at the end. While it is open, events without a version are not
    /// believed at once: their rows are read again.
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

    /// Makes the cache equal to `rows`, which are all there are: as [`Dio::reconcile`] does with a complete list, also when the
    /// program made them. In `on_start` and `on_refresh` they are judged by when the hook began; rows that `dio.master()` listed,
    /// perhaps narrowed, by when they were read.
    ///
    /// # Errors
    /// [`Error::Invalid`] elsewhere for rows that the program made: nobody knows when it began to read them; use
    /// [`Dio::begin_list`]. Otherwise as [`WholeList::finish`].
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
        // It keeps the mark until they are applied.
        drop(stamped);
        Ok(RefreshReport { took: began.elapsed(), ..report })
    }
}

impl Core {
    /// Rows under the Dio's layout, none too large.
    fn checked(&self, rows: Rows) -> Result<Rows> {
        let schema = self.vista.schema();
        let rows = rows.under(schema.layout());
        rows.bodies().try_for_each(|(id, body)| check_size(id, body))?;
        Ok(rows)
    }

    /// Applies a whole list. In a hook that makes the copy it is that hook's.
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
        let said = scope.as_ref().is_some_and(|scope| scope.allow_shrink);
        let allow_shrink = said || self.settings.allow_shrink;
        let list = Listing { mark, whole: true, removes: decoded, told: true, allow_shrink };
        let undecodable = rows.undecodable().map_or(0, |bad| bad.count);
        let applied = self.apply_rows(&Arc::new(rows), &list).await?;
        self.mark_complete().await;
        match &scope {
            // A list that was given to the cache before says nothing of what this one has changed.
            Some(scope) => *scope.listed.lock() = None,
            // The first copy need not be the work of `on_start`.
            None => self.seeded(),
        }
        if applied.seeded {
            self.tell_whole(true).await?;
        }
        Ok(RefreshReport { undecodable, position: Some(self.position()), ..report(&applied.outcome) })
    }
}
