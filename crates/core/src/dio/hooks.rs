//! Callback slots, the scope a callback runs in, and what it may call.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::Mutex;

use super::handle::Dio;
use crate::record::Rows;
use crate::vista::{ChangeEvent, Query, Result, WriteOp};

/// A callback's future.
pub(crate) type HookFuture<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A callback that takes the Dio and nothing else.
pub(crate) type Hook<T> = Arc<dyn Fn(&Dio) -> HookFuture<T> + Send + Sync>;

/// A callback that takes the Dio and one thing more.
pub(crate) type HookWith<A, T> = Arc<dyn Fn(&Dio, A) -> HookFuture<T> + Send + Sync>;

/// Route of a scenery's read, as `on_query` returns it. `()` is [`QueryRoute::Cache`], [`Rows`] are [`QueryRoute::Rows`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum QueryRoute {
    /// The Dio: from its copy if that is whole; else `on_load_chunk` for rows as they are, and the master itself for those of a
    /// view that is filtered, searched or sorted, if it can.
    #[default]
    Cache,
    /// `on_load_chunk`, with the filter, search and order of the view, for the places that are looked at. Value sceneries cannot
    /// be loaded so.
    Load,
    /// These rows, in this order. They are kept in the cache, like rows that the master has listed, and shown as they are under
    /// writes that wait and under later changes of them; other rows show when `on_query` has been asked again. In a table scenery
    /// they are the rows of the query's offset and limit, and fewer of them mean that there are no more behind; in a value scenery
    /// they are all rows.
    Rows(Rows),
    /// No answer yet: what was shown stays, and the load state is loading. When there is an answer, [`Dio::invalidate_all`] has
    /// `on_query` asked again.
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

/// Range of places in the rows of a view, counted from 0, that `on_load_chunk` is asked for.
///
/// It derefs to the [`Range`], and iterates over its places. It is not `Clone` itself, so that `request.clone()` clones the range.
#[derive(Debug, PartialEq)]
pub struct ChunkRequest {
    range: Range<u64>,
    query: Query,
}

impl ChunkRequest {
    /// `range` of the rows of `query`.
    pub(crate) fn new(query: &Query, range: Range<u64>) -> ChunkRequest {
        let limit = Some(range.end.saturating_sub(range.start));
        let query = Query { offset: range.start, limit, ..query.clone() };
        ChunkRequest { range, query }
    }

    /// Places of the rows: those of the view, or the master's own if the view is neither filtered, searched nor sorted.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Filter, search and order of the view, with the range as offset and limit: what the master can be asked, if it can answer.
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

/// The callbacks of a Lens, shared by its Dios.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) on_start: Option<Hook<()>>,
    pub(crate) on_refresh: Option<Hook<()>>,
    pub(crate) on_write: Option<HookWith<WriteOp, ()>>,
    pub(crate) on_event: Option<HookWith<ChangeEvent, ()>>,
    pub(crate) on_query: Option<HookWith<Query, QueryRoute>>,
    pub(crate) total_provider: Option<Hook<u64>>,
    pub(crate) on_load_chunk: Option<HookWith<(ChunkRequest, ChunkSink), ()>>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").finish_non_exhaustive()
    }
}

/// Boxes a callback that takes the Dio. It is called inside of the future, so that all of it runs in its scope and a panic
/// before it gives a future is one like any other.
pub(crate) fn hook<T: 'static, F, Fut>(callback: F) -> Hook<T>
where
    F: Fn(&Dio) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T>> + Send + 'static,
{
    let hook = hook_with(move |dio, ()| callback(dio));
    Arc::new(move |dio| hook(dio, ()))
}

/// [`hook`] for a callback that takes the Dio and one thing more.
pub(crate) fn hook_with<A, T, F, Fut>(callback: F) -> HookWith<A, T>
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

/// Where `on_load_chunk` puts the rows it fetched.
#[derive(Clone, Debug, Default)]
pub struct ChunkSink(Arc<Mutex<Option<Rows>>>);

impl ChunkSink {
    /// Hands over the rows of the range that was asked for, in order.
    pub fn put(&self, rows: Rows) {
        *self.0.lock() = Some(rows);
    }

    pub(crate) fn take(&self) -> Option<Rows> {
        self.0.lock().take()
    }
}
