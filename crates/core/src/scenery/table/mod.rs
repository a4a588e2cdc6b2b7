//! [`TableScenery`]: rows of a query, by their position.

mod builder;
mod loading;
mod task;

pub use self::builder::TableSceneryBuilder;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::journal::Seq;
use crate::record::{Record, Rows};
use crate::scenery::follow::Notice;
use crate::scenery::window::Window;
use crate::scenery::{Generation, ScenerySnapshot, TaskHandle};
use crate::vista::{Error, OrderTerm, Query, Result, Schema};

fn search_words(words: &str) -> Option<String> {
    (!words.trim().is_empty()).then(|| words.to_string())
}

/// Load state of a [`TableScenery`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadState {
    /// Rows are being loaded, or there is no first copy yet.
    Loading,
    /// Some rows are not held: see [`TableScenery::request_load_more`] and [`TableScenery::set_viewport`].
    Partial,
    /// All rows are held.
    Complete,
    /// The last request could not be loaded, or the first copy could not be made, for this reason. The earlier rows are still
    /// shown.
    Failed(String),
}

/// Request of a user; the latest wins.
#[derive(Clone, Debug)]
struct ViewRequest {
    /// Filter, search and order of the rows; its limit and offset are ignored.
    query: Arc<Query>,
    /// Number of changes of the query.
    era: u64,
    viewport: Range<u64>,
    /// Number of requests.
    revision: u64,
}

impl ViewRequest {
    /// Returns the viewport in whole pages.
    fn pages(&self, page: u64) -> Range<u64> {
        let start = self.viewport.start / page * page;
        start..self.viewport.end.max(start + 1).div_ceil(page).saturating_mul(page)
    }

    fn windowed(&self, page: u64) -> Query {
        let range = self.pages(page);
        Query { offset: range.start, limit: Some(range.end - range.start), ..(*self.query).clone() }
    }
}

/// State that the task writes and handles read.
struct Shared {
    window: RwLock<Window>,
    generation: watch::Sender<Generation>,
    load: watch::Sender<LoadState>,
    requests: watch::Sender<ViewRequest>,
    /// Total from `total_provider`, if there is one.
    provided_total: Option<u64>,
    page: u64,
    schema: Arc<Schema>,
}

impl Shared {
    /// Shows `window`. The generation changes if it differs, or if `announce` is set.
    fn show(&self, mut window: Window, announce: bool) {
        let mut current = self.window.write();
        let moved = *current != window;
        window.version = current.version + u64::from(moved);
        *current = window;
        drop(current);
        if moved || announce {
            Generation::bump(&self.generation);
        }
    }

    /// Advances the window's position past notices that do not affect it.
    fn reached(&self, notices: &[Notice]) {
        if let Some(seq) = notices.iter().filter_map(Notice::seq).max() {
            let mut current = self.window.write();
            current.seq = current.seq.max(seq);
        }
    }

    fn set_load(&self, state: LoadState) {
        self.load.send_if_modified(|now| {
            let moved = *now != state;
            *now = state;
            moved
        });
    }

    fn fail(&self, error: &Error) {
        self.set_load(LoadState::Failed(error.to_string()));
    }

    fn settle_load(&self) {
        let whole = self.window.read().is_whole();
        self.set_load(if whole { LoadState::Complete } else { LoadState::Partial });
    }

    fn request(&self, change: impl FnOnce(&mut ViewRequest)) {
        self.requests.send_modify(|request| {
            change(request);
            request.revision += 1;
        });
    }
}

/// Live view of the rows of a query.
///
/// It holds a window of rows, by their position in the query: the first page, then the ranges set by
/// [`TableScenery::set_viewport`] and [`TableScenery::request_load_more`]. Clones share it.
///
/// If the Dio has a complete copy, the window is read from it. If the Dio loads its rows in ranges (`on_load_chunk`), positions
/// are the master's, and missing rows are loaded once the viewport has been unchanged for `viewport_debounce`. A query with
/// filter, search or order is then answered by the master itself, if it can, and never from the cached part. `on_query` may
/// route a view to `on_load_chunk` or provide the rows itself ([`QueryRoute`](crate::dio::QueryRoute)).
#[derive(Clone)]
pub struct TableScenery(Arc<TaskHandle<Shared>>);

impl std::fmt::Debug for TableScenery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.0.dio.name();
        f.debug_struct("TableScenery")
            .field("dio", &name)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

impl TableScenery {
    /// Returns the number of rows of the query, as far as known: the count in a complete copy; otherwise the total from
    /// `total_provider`, adjusted by later changes; otherwise the number of rows seen.
    pub fn row_count(&self) -> u64 {
        self.0.shared.window.read().count()
    }

    /// Returns the total from `total_provider` when the view was opened; without a provider, the known total.
    pub fn estimated_total(&self) -> Option<u64> {
        self.0.shared.provided_total.or_else(|| self.0.shared.window.read().total())
    }

    /// Returns true if there are rows after the last one held.
    pub fn has_more(&self) -> bool {
        self.0.shared.window.read().has_more()
    }

    /// Returns the row at position `index` of the query with its id, if it is held. Never fetches.
    pub fn row(&self, index: u64) -> Option<(String, Record)> {
        let window = self.0.shared.window.read();
        let row = window.row(index)?;
        Some((row.id.to_string(), row.body.decode().ok()?))
    }

    /// Returns the held rows in order.
    pub fn rows(&self) -> Rows {
        let mut rows = Rows::with_layout(Arc::clone(self.0.shared.schema.layout()));
        for row in self.0.shared.window.read().rows() {
            rows.push_body(&row.id, &row.body);
        }
        rows
    }

    /// Returns a snapshot of the rows in `range`, up to the first gap.
    pub fn shown(&self, range: Range<u64>) -> ScenerySnapshot {
        let window = self.0.shared.window.read();
        let rows = window.rows_in(range).map(|row| (Arc::clone(&row.id), row.body.clone()));
        ScenerySnapshot { version: window.version, seq: window.seq, total: window.total(), rows: rows.collect() }
    }

    /// Returns the version, and the newest log position at which the rows are known to be current.
    pub fn version(&self) -> (u64, Seq) {
        let window = self.0.shared.window.read();
        (window.version, window.seq)
    }

    /// Sets the visible range. Missing rows are loaded in the background; rows far from the range may be dropped.
    pub fn set_viewport(&self, range: Range<u64>) {
        self.0.shared.request(|request| request.viewport = range.start..range.end.max(range.start));
    }

    /// Requests one more page.
    pub fn request_load_more(&self) {
        let page = self.0.shared.page;
        self.0.shared.request(|request| request.viewport.end = request.viewport.end.saturating_add(page));
    }

    /// Refreshes the Dio in the background. The load state reports a failure.
    pub fn request_refresh(&self) {
        let (dio, shared) = (self.0.dio.clone(), Arc::clone(&self.0.shared));
        self.0.dio.0.core.tasks.spawn(async move {
            if let Err(error) = dio.refresh().await {
                shared.fail(&error);
            }
        });
    }

    /// Keeps only rows that contain every word of `words`, starting at the first page. Without words, all rows are kept.
    pub fn set_search(&self, words: &str) {
        self.set_query(|query| query.search = search_words(words));
    }

    /// Sorts by `terms`, starting at the first page. Without terms, the order is the master's.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist; the order then stays the same.
    pub fn set_sort(&self, terms: impl IntoIterator<Item = OrderTerm>) -> Result<()> {
        let order: Vec<OrderTerm> = terms.into_iter().collect();
        Query { order: order.clone(), ..Query::default() }.validate(&self.0.shared.schema)?;
        self.set_query(|query| query.order = order);
        Ok(())
    }

    fn set_query(&self, change: impl FnOnce(&mut Query)) {
        let page = self.0.shared.page;
        self.0.shared.request(|request| {
            change(Arc::make_mut(&mut request.query));
            request.era += 1;
            request.viewport = 0..page;
        });
    }

    /// Subscribes to the generation, which changes whenever the content changes.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.0.shared.generation.subscribe()
    }

    /// Returns the current generation.
    pub fn generation(&self) -> Generation {
        *self.0.shared.generation.borrow()
    }

    /// Returns the load state.
    pub fn load_state(&self) -> LoadState {
        self.0.shared.load.borrow().clone()
    }

    /// Subscribes to the load state. Failures appear only here, because they change no row.
    pub fn subscribe_load_state(&self) -> watch::Receiver<LoadState> {
        self.0.shared.load.subscribe()
    }
}
