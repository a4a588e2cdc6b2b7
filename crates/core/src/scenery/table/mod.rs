//! [`TableScenery`]: rows of a query, by their place in it.

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

fn searched(words: &str) -> Option<String> {
    (!words.trim().is_empty()).then(|| words.to_string())
}

/// How much of its rows a [`TableScenery`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadState {
    /// Rows are on their way, or there is no first copy yet.
    Loading,
    /// There are rows that are not held: see [`TableScenery::request_load_more`] and [`TableScenery::set_viewport`].
    Partial,
    /// All rows are held.
    Complete,
    /// What was asked for last could not be loaded, or the first copy not be made, for this reason; what was there before is
    /// still shown.
    Failed(String),
}

/// What a user asks for; the latest wins.
#[derive(Clone, Debug)]
struct ViewRequest {
    /// Which rows in which order; its limit and offset do not count.
    query: Arc<Query>,
    /// Counts changes of the query.
    era: u64,
    viewport: Range<u64>,
    /// Counts everything that was asked.
    asked: u64,
}

impl ViewRequest {
    /// The viewport in whole pages.
    fn pages(&self, page: u64) -> Range<u64> {
        let start = self.viewport.start / page * page;
        start..self.viewport.end.max(start + 1).div_ceil(page).saturating_mul(page)
    }

    fn windowed(&self, page: u64) -> Query {
        let range = self.pages(page);
        Query { offset: range.start, limit: Some(range.end - range.start), ..(*self.query).clone() }
    }
}

/// What handles read and the task writes.
struct Shared {
    window: RwLock<Window>,
    generation: watch::Sender<Generation>,
    load: watch::Sender<LoadState>,
    requests: watch::Sender<ViewRequest>,
    /// What `total_provider` said.
    told: Option<u64>,
    page: u64,
    schema: Arc<Schema>,
}

impl Shared {
    /// Shows `window`; a new generation if it differs, or if `announce` says so.
    fn show(&self, mut window: Window, announce: bool) {
        let mut held = self.window.write();
        let moved = *held != window;
        window.version = held.version + u64::from(moved);
        *held = window;
        drop(held);
        if moved || announce {
            Generation::bump(&self.generation);
        }
    }

    /// What was told does not concern the window: it is true at that position too.
    fn reached(&self, told: &[Notice]) {
        if let Some(seq) = told.iter().filter_map(Notice::seq).max() {
            let mut held = self.window.write();
            held.seq = held.seq.max(seq);
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
            request.asked += 1;
        });
    }
}

/// A standing view of the rows of a query.
///
/// It holds a window of them, by their place in the query: the first page, then what [`TableScenery::set_viewport`] and
/// [`TableScenery::request_load_more`] ask for. Clones share it. Of a Dio that has a whole copy, the window is read from that.
/// Of a Dio that loads its rows piece by piece (`on_load_chunk`), places are the master's own, and what is not held yet is
/// loaded once the viewport has rested for `viewport_debounce`; a query with filter, search or order is then answered by the
/// master itself, if it can: never from the part that happens to be cached. `on_query` may route a view elsewhere: to
/// `on_load_chunk`, or to rows that it gives itself ([`QueryRoute`](crate::dio::QueryRoute)).
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
    /// How many rows the query has, as far as is known: counted in a whole copy; else what `total_provider` said, moved by
    /// what happened since; else as many as were seen.
    pub fn row_count(&self) -> u64 {
        self.0.shared.window.read().count()
    }

    /// What `total_provider` said when the view was opened; without one, what is known of [`TableScenery::row_count`].
    pub fn estimated_total(&self) -> Option<u64> {
        self.0.shared.told.or_else(|| self.0.shared.window.read().total())
    }

    /// Whether there are rows after the last one held.
    pub fn has_more(&self) -> bool {
        self.0.shared.window.read().has_more()
    }

    /// The row in place `index` of the query, with its id, if it is held. Never fetches.
    pub fn row(&self, index: u64) -> Option<(String, Record)> {
        let window = self.0.shared.window.read();
        let held = window.row(index)?;
        Some((held.id.to_string(), held.body.decode().ok()?))
    }

    /// The rows that are held, in order.
    pub fn rows(&self) -> Rows {
        let mut rows = Rows::with_layout(Arc::clone(self.0.shared.schema.layout()));
        for held in self.0.shared.window.read().rows() {
            rows.push_body(Arc::clone(&held.id), held.body.clone());
        }
        rows
    }

    /// What is shown in the places `range`, up to the first row that is not held.
    pub fn shown(&self, range: Range<u64>) -> ScenerySnapshot {
        let window = self.0.shared.window.read();
        let rows = window.held_in(range).map(|held| (Arc::clone(&held.id), held.body.clone()));
        ScenerySnapshot { version: window.version, seq: window.seq, total: window.total(), rows: rows.collect() }
    }

    /// The version of what is shown, and the position that it was last seen to be true at.
    pub fn version(&self) -> (u64, Seq) {
        let window = self.0.shared.window.read();
        (window.version, window.seq)
    }

    /// Says which places are looked at. Rows that are not held follow in the background; rows far from it may be let go.
    pub fn set_viewport(&self, range: Range<u64>) {
        self.0.shared.request(|request| request.viewport = range.start..range.end.max(range.start));
    }

    /// Asks for one page more.
    pub fn request_load_more(&self) {
        let page = self.0.shared.page;
        self.0.shared.request(|request| request.viewport.end = request.viewport.end.saturating_add(page));
    }

    /// Refreshes the Dio in the background. If that fails, the load state says so.
    pub fn request_refresh(&self) {
        let (dio, shared) = (self.0.dio.clone(), Arc::clone(&self.0.shared));
        self.0.dio.0.core.tasks.spawn(async move {
            if let Err(error) = dio.refresh().await {
                shared.fail(&error);
            }
        });
    }

    /// Keeps only rows in which every word of `words` occurs, from the first page on; without words, all.
    pub fn set_search(&self, words: &str) {
        self.set_query(|query| query.search = searched(words));
    }

    /// Sorts by `terms`, from the first page on; without terms, as the master does.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist; the order stays as it was.
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

    /// Follows the generation: it moves whenever what is shown has changed.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.0.shared.generation.subscribe()
    }

    /// The generation now.
    pub fn generation(&self) -> Generation {
        *self.0.shared.generation.borrow()
    }

    /// How much of the rows is here.
    pub fn load_state(&self) -> LoadState {
        self.0.shared.load.borrow().clone()
    }

    /// Follows the load state; failures show here only, because they change no row.
    pub fn subscribe_load_state(&self) -> watch::Receiver<LoadState> {
        self.0.shared.load.subscribe()
    }
}
