//! Builder of a table scenery.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use super::task::{MAX_LOADS, RowSource, Task};
use super::{LoadState, Shared, TableScenery, ViewRequest, search_words};
use crate::dio::Dio;
use crate::record::CborValue;
use crate::scenery::TaskHandle;
use crate::scenery::follow::Follower;
use crate::vista::{Error, Filter, OrderTerm, Query, Result, Schema};

/// Builder of a [`TableScenery`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct TableSceneryBuilder {
    dio: Dio,
    query: Query,
    page: u64,
    /// Position of the first row of the viewport.
    from: u64,
    schema: Option<Arc<Schema>>,
}

impl TableSceneryBuilder {
    pub(crate) fn new(dio: Dio) -> TableSceneryBuilder {
        TableSceneryBuilder { dio, query: Query::default(), page: 100, from: 0, schema: None }
    }

    /// Keeps only rows whose `column` equals `value`, in addition to earlier filters.
    pub fn where_eq(self, column: impl Into<String>, value: impl Into<CborValue>) -> Self {
        self.filter(Filter::eq(column, value.into()))
    }

    /// Keeps only rows that match `filter`, in addition to earlier filters.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.query.filter.and(filter);
        self
    }

    /// Sorts by `column` after the earlier sort columns.
    pub fn sort(mut self, column: impl Into<String>, descending: bool) -> Self {
        self.query.order.push(OrderTerm::new(column, descending));
        self
    }

    /// Keeps only rows that contain every word of `words`; replaces an earlier search.
    pub fn search(mut self, words: &str) -> Self {
        self.query.search = search_words(words);
        self
    }

    /// Shows the rows of `query`, beginning with the range of its offset and limit, which is the page size. Replaces all
    /// earlier settings. Its selected columns and its cursor are ignored.
    pub fn query(mut self, query: Query) -> Self {
        self.page = query.limit.unwrap_or(self.page).max(1);
        self.from = query.offset;
        self.query = Query { select: Vec::new(), after: None, offset: 0, limit: None, ..query };
        self
    }

    /// Compiles the query by `schema` in place of that of the Dio, which must have the same columns. Fewer of them may be searched.
    #[doc(hidden)]
    pub fn schema(mut self, schema: &Arc<Schema>) -> Self {
        self.schema = Some(Arc::clone(schema));
        self
    }

    /// Sets the number of rows held at first, and added by [`TableScenery::request_load_more`] (default: 100).
    pub fn page_size(mut self, rows: u64) -> Self {
        self.page = rows;
        self
    }

    /// Opens the view: calls `total_provider`, runs `on_query`, reads the first page from the source that `on_query` chooses
    /// (by default the cache), and follows the Dio. A stale Dio is refreshed in the background if `refresh_on_open` is set.
    ///
    /// Before the Dio's first copy the view is [`LoadState::Loading`] without rows, or [`LoadState::Failed`] once an attempt to
    /// make the copy has failed. It fills by itself when the copy is complete.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist; [`Error::Unsupported`] if the Dio holds only part of its rows and
    /// the master itself cannot filter, search or sort as requested; errors of `total_provider` and `on_query`.
    pub async fn open(self) -> Result<TableScenery> {
        if self.page == 0 {
            return Err(Error::invalid("page_size must be greater than zero"));
        }
        let schema = self.schema.unwrap_or_else(|| self.dio.schema());
        self.query.validate(&schema)?;
        let core = Arc::clone(&self.dio.0.core);
        // Follow events from here on; earlier changes are already in the rows.
        let follower = Follower::new(&core);
        let provided_total = core.ask_total(&self.dio).await?;
        let viewport = self.from..self.from.saturating_add(self.page);
        let request = ViewRequest { query: Arc::new(self.query), era: 0, viewport, revision: 0 };
        let route = core.route(self.dio.clone(), request.windowed(self.page)).await?;
        let (requests, request_receiver) = watch::channel(request.clone());
        let shared = Arc::new(Shared {
            window: RwLock::default(),
            generation: watch::Sender::default(),
            load: watch::Sender::new(LoadState::Loading),
            requests,
            provided_total,
            page: self.page,
            schema: Arc::clone(&schema),
        });
        let (done, finished) = mpsc::channel(MAX_LOADS);
        let mut task = Task {
            prepared: request.query.prepare(&schema),
            handle: Arc::downgrade(&self.dio.0),
            shared: Arc::clone(&shared),
            requests: request_receiver,
            request,
            source: RowSource::Cache,
            partial: false,
            pending_query: None,
            rest_deadline: None,
            reroute_due: false,
            surplus: None,
            round: 0,
            announce: false,
            due: None,
            loading_ranges: Vec::new(),
            running: 0,
            done,
            follower,
            core,
        };
        task.start(route).await?;
        self.dio.0.refresh_on_open();
        Ok(TableScenery(TaskHandle::start(self.dio, shared, task.run(finished))))
    }
}
