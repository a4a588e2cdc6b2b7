//! Builder of a table scenery.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};

use super::task::{MOST_LOADS, RowSource, Task};
use super::{LoadState, Shared, TableScenery, ViewRequest, searched};
use crate::dio::Dio;
use crate::record::CborValue;
use crate::scenery::TaskHandle;
use crate::scenery::follow::Follower;
use crate::vista::{Error, Filter, OrderTerm, Query, Result};

/// Describes a [`TableScenery`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct TableSceneryBuilder {
    dio: Dio,
    query: Query,
    page: u64,
    /// The first row that is looked at.
    from: u64,
}

impl TableSceneryBuilder {
    pub(crate) fn new(dio: Dio) -> TableSceneryBuilder {
        TableSceneryBuilder { dio, query: Query::default(), page: 100, from: 0 }
    }

    /// Keeps only rows whose `column` equals `value`; adds to what was said before.
    pub fn where_eq(self, column: impl Into<String>, value: impl Into<CborValue>) -> Self {
        self.filter(Filter::eq(column, value.into()))
    }

    /// Keeps only rows that pass `filter`; adds to what was said before.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.query.filter.and(filter);
        self
    }

    /// Sorts by `column`, among rows that are equal in what was said before.
    pub fn sort(mut self, column: impl Into<String>, descending: bool) -> Self {
        self.query.order.push(OrderTerm::new(column, descending));
        self
    }

    /// Keeps only rows in which every word of `words` occurs; replaces an earlier search.
    pub fn search(mut self, words: &str) -> Self {
        self.query.search = searched(words);
        self
    }

    /// Shows the rows of `query`, beginning with those between its offset and its limit, which is the page size; replaces
    /// everything that was said before. What it selects and which cursor it has does not count.
    pub fn query(mut self, query: Query) -> Self {
        self.page = query.limit.unwrap_or(self.page).max(1);
        self.from = query.offset;
        self.query = Query { select: Vec::new(), after: None, offset: 0, limit: None, ..query };
        self
    }

    /// How many rows are held at first, and added by [`TableScenery::request_load_more`] (default: 100).
    pub fn page_size(mut self, rows: u64) -> Self {
        self.page = rows;
        self
    }

    /// Opens the view: asks `total_provider`, runs `on_query`, reads the first page from where that says (the cache, if nothing
    /// else), and follows the Dio from there on. A stale Dio is refreshed in the background, if `refresh_on_open` says so. Before the Dio's first copy the view is
    /// [`LoadState::Loading`] without rows, or [`LoadState::Failed`] once an attempt to make the copy has failed; it fills by
    /// itself when the copy is there.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist; [`Error::Unsupported`] if the Dio holds only part of its rows and
    /// the master itself cannot filter, search or sort as asked; what `total_provider` and `on_query` say.
    pub async fn open(self) -> Result<TableScenery> {
        if self.page == 0 {
            return Err(Error::invalid("page_size must be more than zero"));
        }
        let schema = self.dio.schema();
        self.query.validate(&schema)?;
        let core = Arc::clone(&self.dio.0.core);
        // What happens from here on is followed; what happened before is in the rows.
        let follower = Follower::new(&core);
        let told = core.ask_total(&self.dio).await?;
        let viewport = self.from..self.from.saturating_add(self.page);
        let request = ViewRequest { query: Arc::new(self.query), era: 0, viewport, asked: 0 };
        let route = core.route(self.dio.clone(), request.windowed(self.page)).await?;
        let (requests, request_receiver) = watch::channel(request.clone());
        let shared = Arc::new(Shared {
            window: RwLock::default(),
            generation: watch::Sender::default(),
            load: watch::Sender::new(LoadState::Loading),
            requests,
            told,
            page: self.page,
            schema: Arc::clone(&schema),
        });
        let (done, finished) = mpsc::channel(MOST_LOADS);
        let mut task = Task {
            prepared: request.query.prepare(&schema),
            handle: Arc::downgrade(&self.dio.0),
            shared: Arc::clone(&shared),
            requests: request_receiver,
            request,
            placing: RowSource::Cache,
            partial: false,
            asking: None,
            rests: None,
            owed: false,
            surplus: None,
            round: 0,
            announce: false,
            due: None,
            asked: Vec::new(),
            running: 0,
            done,
            follower,
            core,
        };
        task.first(route).await?;
        self.dio.0.refresh_on_open();
        Ok(TableScenery(TaskHandle::start(self.dio, shared, task.run(finished))))
    }
}
