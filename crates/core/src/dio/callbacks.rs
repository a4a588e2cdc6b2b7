//! Callbacks of a Lens and the types of their arguments and results.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;

use super::handle::Dio;
use crate::record::Rows;
use crate::vista::{ChangeEvent, Query, Result, WriteOp};

/// Future of a callback.
pub(crate) type CallbackFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Callback that takes only the Dio.
pub(crate) type Callback<T> = Arc<dyn Fn(&Dio) -> CallbackFuture<T> + Send + Sync>;

/// Callback that takes the Dio and an argument.
pub(crate) type CallbackWith<A, T> = Arc<dyn Fn(&Dio, A) -> CallbackFuture<T> + Send + Sync>;

/// Route of a scenery's read, as `on_query` returns it. `()` converts to [`QueryRoute::Cache`], [`Rows`] to
/// [`QueryRoute::Rows`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum QueryRoute {
    /// The Dio answers: from its copy if that is whole. Otherwise `on_load_chunk` loads the rows of a plain view, and the
    /// master answers a filtered, searched or sorted one, if it supports that.
    #[default]
    Cache,
    /// `on_load_chunk` loads the visible range, with the filter, search and order of the view. It is not supported for
    /// value sceneries.
    Load,
    /// These rows, in this order.
    ///
    /// They are stored in the cache like rows of the master, and shown with pending writes and later changes applied.
    /// Other rows appear once `on_query` has been called again. In a table scenery they are the rows of the query's
    /// offset and limit, and fewer of them mean that no more follow. In a value scenery they are all rows.
    Rows(Rows),
    /// No answer yet: the shown rows stay, and the load state is loading. Call [`Dio::invalidate_all`] once there is an
    /// answer; `on_query` is then called again.
    Later,
}

impl From<()> for QueryRoute {
    fn from((): ()) -> QueryRoute {
        QueryRoute::Cache
    }
}

impl From<Rows> for QueryRoute {
    fn from(rows: Rows) -> QueryRoute {
        QueryRoute::Rows(rows)
    }
}

/// Range of row positions in a view, counted from 0, that `on_load_chunk` has to load.
///
/// It derefs to the [`Range`] and iterates over its positions. It is not `Clone` itself, so that `request.clone()` clones
/// the range.
#[derive(Debug, PartialEq)]
pub struct ChunkRequest {
    range: Range<u64>,
    query: Query,
}

impl ChunkRequest {
    /// Request for `range` of the rows of `query`.
    pub(crate) fn new(query: &Query, range: Range<u64>) -> ChunkRequest {
        let limit = Some(range.end.saturating_sub(range.start));
        let query = Query { offset: range.start, limit, ..query.clone() };
        ChunkRequest { range, query }
    }

    /// Positions of the rows: those in the view, or the master's own if the view is neither filtered, searched nor sorted.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Filter, search and order of the view, with the range as offset and limit: a query for a master that supports these.
    pub fn query(&self) -> &Query {
        &self.query
    }
}

impl std::ops::Deref for ChunkRequest {
    type Target = Range<u64>;

    fn deref(&self) -> &Range<u64> {
        &self.range
    }
}

impl IntoIterator for ChunkRequest {
    type Item = u64;
    type IntoIter = Range<u64>;

    fn into_iter(self) -> Range<u64> {
        self.range
    }
}

/// Callbacks of a Lens, shared by its Dios.
#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    pub(crate) on_start: Option<Callback<()>>,
    pub(crate) on_refresh: Option<Callback<()>>,
    pub(crate) on_write: Option<CallbackWith<WriteOp, ()>>,
    pub(crate) on_event: Option<CallbackWith<ChangeEvent, ()>>,
    pub(crate) on_query: Option<CallbackWith<Query, QueryRoute>>,
    pub(crate) total_provider: Option<Callback<u64>>,
    pub(crate) on_load_chunk: Option<CallbackWith<(ChunkRequest, ChunkSink), ()>>,
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

/// Boxes a callback that takes the Dio. It is called inside the future, so that it runs in its scope and a panic before
/// it returns a future is handled like any other.
pub(crate) fn boxed_callback<T: 'static, F, Fut>(callback: F) -> Callback<T>
where
    F: Fn(&Dio) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let boxed = boxed_callback_with(move |dio, ()| callback(dio));
    Arc::new(move |dio| boxed(dio, ()))
}

/// [`boxed_callback`] for a callback that takes the Dio and an argument.
pub(crate) fn boxed_callback_with<A, T, F, Fut>(callback: F) -> CallbackWith<A, T>
where
    A: Send + 'static,
    F: Fn(&Dio, A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let callback = Arc::new(callback);
    Arc::new(move |dio, argument| {
        let (callback, dio) = (Arc::clone(&callback), dio.clone());
        Box::pin(async move {
            let future = callback(&dio, argument);
            drop((callback, dio));
            future.await
        })
    })
}

/// Receiver of the rows that `on_load_chunk` has loaded.
#[derive(Clone, Debug, Default)]
pub struct ChunkSink(Arc<Mutex<Option<Rows>>>);

impl ChunkSink {
    /// Hands over the rows of the requested range, in order.
    pub fn put(&self, rows: Rows) {
        *self.0.lock() = Some(rows);
    }

    pub(crate) fn take(&self) -> Option<Rows> {
        self.0.lock().take()
    }
}
