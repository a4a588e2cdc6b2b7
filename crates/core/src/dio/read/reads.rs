//! Reads of servers: bounded queries over one state, and metadata of the answers.
//!
//! Programs read rows through [`Dio::vista`] or a scenery. A server that makes several kinds of answers from one state
//! (lists, groups, exports, explanations) uses these methods.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::freshness::Freshness;
use crate::dio::handle::Dio;
use crate::dio::settings::WriteRoute;
use crate::plan::{Page, Plan, PreparedQuery, Selection};
use crate::record::Record;
use crate::state::State;
use crate::vista::query::{Aggregation, Groups, Meter};
use crate::vista::{Capabilities, Inferred, Query, Result, Schema, WriteBounds};

impl Dio {
    /// Checks that there is a first copy.
    ///
    /// # Errors
    /// [`Error::NotReady`](crate::Error::NotReady) with the error of the last attempt, while there is no first copy.
    pub fn check_ready(&self) -> Result<()> {
        self.0.core.coverage().check(&self.0.core.name)
    }

    /// Returns true if the copy has all rows of the source, so that it can answer queries over all of them.
    pub fn is_complete(&self) -> bool {
        self.0.core.is_complete()
    }

    /// Returns true if missing rows are loaded from the source on demand (`on_load_chunk`).
    pub fn loads_chunks(&self) -> bool {
        self.0.core.callbacks.on_load_chunk.is_some()
    }

    /// Age of the rows.
    pub fn freshness(&self) -> Freshness {
        self.0.core.age()
    }

    /// Age from which the rows count as stale, `None` if there is no limit.
    pub fn cache_ttl(&self) -> Option<Duration> {
        self.0.core.settings.cache_ttl
    }

    /// Starts a refresh in the background if the rows are older than `cache_ttl`.
    pub fn refresh_if_stale(&self) {
        self.0.refresh_if_stale();
    }

    /// Returns true if writes reach the source by another route than its driver, so that `Ok` of `on_write` does not
    /// confirm them.
    pub fn writes_around(&self) -> bool {
        let core = &self.0.core;
        core.callbacks.on_write.is_some() && core.settings.write_route == WriteRoute::Around
    }

    /// Capabilities of the facade.
    pub fn capabilities(&self) -> Capabilities {
        super::facade::capabilities(&self.0.core)
    }

    /// Capabilities of the source itself. For those of the Dio see [`Dio::capabilities`].
    pub fn source_capabilities(&self) -> Capabilities {
        self.0.core.vista.capabilities()
    }

    /// Inserts a row under an id that the master chooses, and returns the id. Nothing is queued.
    ///
    /// # Errors
    /// As [`Vista::insert_return_id`](crate::Vista::insert_return_id), and what `bounds` do not permit.
    pub async fn insert_at_master(&self, row: &Record, bounds: Option<&WriteBounds>) -> Result<String> {
        if self.0.core.callbacks.on_write.is_some() {
            return self.vista().insert_return_id(row).await;
        }
        self.0.core.writable()?;
        self.0.core.insert_at_master(&self.0, row, bounds).await
    }

    /// Returns true if new rows without an id get a new UUID; else their master chooses one, and they are not queued.
    pub fn mints_ids(&self) -> bool {
        self.0.core.mints_ids()
    }

    /// Properties that the driver has inferred about its source, each with the reason and the configuration key that sets it.
    pub fn inferred(&self) -> Vec<Inferred> {
        self.0.core.vista.shell().inferred()
    }

    /// The row with `id` as readers see it, `None` if it is not cached.
    pub fn held_row(&self, id: &str) -> Option<Record> {
        self.0.core.held_row(id)
    }

    /// Spelling of `id` under which its row is cached: a UUID may differ in case or form. `id` itself if there is no such row.
    pub fn known_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        self.0.core.known_id(id)
    }

    /// Returns true if a request with this idempotency key was accepted before.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the journal cannot be read.
    pub async fn knows_key(&self, key: &str) -> Result<bool> {
        self.0.core.knows_key(key).await
    }

    /// Selects the rows of `query` from `state`, and returns them with the plan of the query.
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

    /// [`Dio::select`] for a prepared query that runs repeatedly.
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

    /// Groups the rows of `state` that match the filter and search of `query`, and returns the result of `page` on the groups.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if only a part of the rows is cached,
    /// [`Error::NotReady`](crate::Error::NotReady) before the first copy, and errors of the aggregation and of `page`.
    #[doc(hidden)]
    pub async fn aggregate<T: Send + 'static>(
        &self,
        state: Arc<State>,
        query: &Query,
        aggregation: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
        page: impl FnOnce(Groups<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.core.aggregate(state, query, aggregation, schema, meter, page).await
    }

    /// Runs `work` on `rows` rows within the bounds of `meter`: at once if the rows are few, else on the
    /// [`Workers`](crate::dio::Workers).
    ///
    /// # Errors
    /// Errors of `work`, and as [`Workers::run`](crate::dio::Workers::run).
    #[doc(hidden)]
    pub async fn work<T: Send + 'static>(
        &self,
        rows: usize,
        meter: &Arc<Meter>,
        work: impl FnOnce(&Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.core.work(rows, meter, work).await
    }

    /// Runs `work`, which may block on a disk, off the async threads.
    ///
    /// # Errors
    /// An internal error if `work` panics.
    #[doc(hidden)]
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.0.core.heavy(usize::MAX, work).await
    }
}
