//! Reads of servers: queries over one state within bounds, and what an answer says about its rows.
//!
//! A program that wants rows asks [`Dio::vista`] or a scenery. A server that makes answers of many shapes from one state (lists,
//! groups, exports, explanations) asks here.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::aggregate::GroupIter;
use super::freshness::Freshness;
use crate::dio::handle::Dio;
use crate::dio::settings::WriteRoute;
use crate::plan::{Page, Plan, PreparedQuery, Selection};
use crate::record::Record;
use crate::state::State;
use crate::vista::query::{Aggregation, Meter};
use crate::vista::{Capabilities, Inferred, Query, Result, Schema};

impl Dio {
    /// Refuses while there is no first copy, with what the last attempt said.
    ///
    /// # Errors
    /// [`Error::NotReady`](crate::Error::NotReady).
    pub fn check_ready(&self) -> Result<()> {
        self.0.core.coverage().check(&self.0.core.name)
    }

    /// Whether the copy holds all rows of the source, so that questions about all of them can be answered from it.
    pub fn is_complete(&self) -> bool {
        self.0.core.is_complete()
    }

    /// Whether rows that are not held are loaded from the source when they are asked for (`on_load_chunk`).
    pub fn loads_chunks(&self) -> bool {
        self.0.core.hooks.on_load_chunk.is_some()
    }

    /// Age of the rows.
    pub fn freshness(&self) -> Freshness {
        self.0.core.age()
    }

    /// Time after which the rows count as stale, if they ever do.
    pub fn cache_ttl(&self) -> Option<Duration> {
        self.0.core.settings.cache_ttl
    }

    /// Starts a refresh in the background if the rows are older than `cache_ttl`.
    pub fn refresh_if_stale(&self) {
        self.0.refresh_if_stale();
    }

    /// Whether writes reach the source by another way than its driver, so that `Ok` of `on_write` does not confirm them.
    pub fn writes_around(&self) -> bool {
        let core = &self.0.core;
        core.hooks.on_write.is_some() && core.settings.write_route == WriteRoute::Around
    }

    /// Capabilities of its facade.
    pub fn capabilities(&self) -> Capabilities {
        super::facade::capabilities(&self.0.core)
    }

    /// Capabilities of the source itself; those of the Dio are [`Dio::capabilities`].
    pub fn source_capabilities(&self) -> Capabilities {
        self.0.core.vista.capabilities()
    }

    /// Guesses of the driver about its source, each with its reason and the key that settles it.
    pub fn inferred(&self) -> Vec<Inferred> {
        self.0.core.vista.shell().inferred()
    }

    /// The row under `id` as readers see it, if it is held.
    pub fn held_row(&self, id: &str) -> Option<Record> {
        self.0.core.held_row(id)
    }

    /// The id under which the row of `id` is held: a UUID may be spelled otherwise. `id` itself if there is no such row.
    pub fn known_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        self.0.core.known_id(id)
    }

    /// Whether a request under this idempotency key was accepted before.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the journal cannot be read.
    pub async fn knows_key(&self, key: &str) -> Result<bool> {
        self.0.core.knows_key(key).await
    }

    /// The rows of `state` that `query` selects, and the plan by which they were found.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a cursor that does not fit, and as [`Workers::run`](crate::dio::Workers::run).
    #[doc(hidden)]
    pub async fn select(
        &self,
        state: &Arc<State>,
        query: &Query,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
    ) -> Result<(Selection, Plan)> {
        self.0.core.select_slots(state, query, schema, meter).await
    }

    /// [`Dio::select`] for a query that is asked again and again.
    ///
    /// # Errors
    /// As [`Dio::select`].
    #[doc(hidden)]
    pub async fn select_prepared(
        &self,
        state: &Arc<State>,
        query: &Arc<PreparedQuery>,
        page: Page,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
    ) -> Result<Selection> {
        self.0.core.select_prepared(state, query, page, schema, meter).await
    }

    /// Groups the rows of `state` that pass the filter and search of `query`, and gives what `page` makes of the groups.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if only a part of the rows is held, [`Error::NotReady`](crate::Error::NotReady)
    /// before the first copy, and what the aggregation and `page` say.
    #[doc(hidden)]
    pub async fn aggregate<T: Send + 'static>(
        &self,
        state: Arc<State>,
        query: &Query,
        aggregation: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
        page: impl FnOnce(GroupIter<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.core.aggregate(state, query, aggregation, schema, meter, page).await
    }

    /// Runs `work` on `rows` rows within the bounds of `meter`: at once if they are few, else on the threads for heavy queries.
    ///
    /// # Errors
    /// What `work` says, and as [`Workers::run`](crate::dio::Workers::run).
    #[doc(hidden)]
    pub async fn work<T: Send + 'static>(
        &self,
        rows: usize,
        meter: &Arc<Meter>,
        work: impl FnOnce(&Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.core.work(rows, meter, work).await
    }

    /// Runs `work`, which may wait for a disk, off the async threads.
    ///
    /// # Errors
    /// If it panics.
    #[doc(hidden)]
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.0.core.heavy(usize::MAX, work).await
    }
}
