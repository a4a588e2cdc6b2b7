//! [`TableScenery`]: rows of a query, by their place in it.

use std::ops::Range;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use parking_lot::RwLock;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::follow::{Follower, Told};
use super::window::Window;
use super::{Generation, Lead, Shown};
use crate::dio::{Core, Coverage, Dio, DioEvent, Handle, Old, RingItem, Route};
use crate::journal::Seq;
use crate::record::{Body, CborValue, Id, Record, Rows};
use crate::vista::query::{JsonRow, Meter, Prepared};
use crate::vista::{Error, Filter, OrderTerm, Query, Result, Schema};

/// Ranges of one scenery that are read from the master at a time.
const MOST_LOADS: usize = 2;

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
    pub(super) fn new(dio: Dio) -> TableSceneryBuilder {
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
        let wish = Wish { query: Arc::new(self.query), era: 0, viewport, asked: 0 };
        let route = core.route(self.dio.clone(), wish.windowed(self.page)).await?;
        let (wishes, wish_receiver) = watch::channel(wish.clone());
        let shared = Arc::new(Shared {
            window: RwLock::default(),
            generation: watch::Sender::default(),
            load: watch::Sender::new(LoadState::Loading),
            wishes,
            told,
            page: self.page,
            schema: Arc::clone(&schema),
        });
        let (done, finished) = mpsc::channel(MOST_LOADS);
        let mut task = Task {
            prepared: wish.query.prepare(&schema),
            handle: Arc::downgrade(&self.dio.0),
            shared: Arc::clone(&shared),
            wishes: wish_receiver,
            wish,
            placing: Placing::Cache,
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
        Ok(TableScenery(Lead::start(self.dio, shared, task.run(finished))))
    }
}

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
struct Wish {
    /// Which rows in which order; its limit and offset do not count.
    query: Arc<Query>,
    /// Counts changes of the query.
    era: u64,
    viewport: Range<u64>,
    /// Counts everything that was asked.
    asked: u64,
}

impl Wish {
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
    wishes: watch::Sender<Wish>,
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
    fn reached(&self, told: &[Told]) {
        if let Some(seq) = told.iter().filter_map(Told::seq).max() {
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

    fn wish(&self, change: impl FnOnce(&mut Wish)) {
        self.wishes.send_modify(|wish| {
            change(wish);
            wish.asked += 1;
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
pub struct TableScenery(Arc<Lead<Shared>>);

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
    pub fn shown(&self, range: Range<u64>) -> Shown {
        let window = self.0.shared.window.read();
        let rows = window.held_in(range).map(|held| (Arc::clone(&held.id), held.body.clone()));
        Shown { version: window.version, seq: window.seq, total: window.total(), rows: rows.collect() }
    }

    /// The version of what is shown, and the position that it was last seen to be true at.
    pub fn version(&self) -> (u64, Seq) {
        let window = self.0.shared.window.read();
        (window.version, window.seq)
    }

    /// Says which places are looked at. Rows that are not held follow in the background; rows far from it may be let go.
    pub fn set_viewport(&self, range: Range<u64>) {
        self.0.shared.wish(|wish| wish.viewport = range.start..range.end.max(range.start));
    }

    /// Asks for one page more.
    pub fn request_load_more(&self) {
        let page = self.0.shared.page;
        self.0.shared.wish(|wish| wish.viewport.end = wish.viewport.end.saturating_add(page));
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
        self.0.shared.wish(|wish| {
            change(Arc::make_mut(&mut wish.query));
            wish.era += 1;
            wish.viewport = 0..page;
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

/// A load that ended.
struct Finished {
    era: u64,
    round: u64,
    range: Range<u64>,
    ids: Result<Vec<Id>>,
}

/// Source of a window's rows and of their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placing {
    /// The copy, or the master where that is not whole.
    Cache,
    /// `on_load_chunk`.
    Chunks,
    /// What `on_query` gives.
    Given,
}

/// Question that `on_query` is busy with.
struct Asking {
    wish: Wish,
    /// Whether everything may be different.
    invalidated: bool,
    answer: BoxFuture<'static, Result<Route>>,
}

/// What keeps the window true.
struct Task {
    core: Arc<Core>,
    /// Weak: only handles keep the Dio alive.
    handle: Weak<Handle>,
    shared: Arc<Shared>,
    wishes: watch::Receiver<Wish>,
    /// What the window answers, or is about to.
    wish: Wish,
    prepared: Prepared,
    placing: Placing,
    /// Whether the copy is not whole.
    partial: bool,
    asking: Option<Asking>,
    /// When the viewport has rested, so that `on_query` is asked.
    rests: Option<Instant>,
    /// Whether everything may have become different while `on_query` was busy.
    owed: bool,
    /// Rows that `total_provider` knew of beyond those that were cached when they were first read.
    surplus: Option<u64>,
    /// Counts invalidations: rows of an earlier round are read again.
    round: u64,
    /// Whether an invalidation has not moved the generation yet.
    announce: bool,
    /// When what the viewport lacks is loaded.
    due: Option<Instant>,
    /// Ranges that were asked for since the last wish; none is asked twice.
    asked: Vec<Range<u64>>,
    /// Loads under way.
    running: usize,
    done: mpsc::Sender<Finished>,
    follower: Follower,
}

impl Task {
    /// Reads the first window, or begins to load it.
    async fn first(&mut self, route: Route) -> Result<()> {
        self.place(&route);
        self.read(false).await?;
        if !self.reads_copy() && !self.follower.is_loading() {
            self.begin(route)?;
        }
        // What was read at first is no change.
        self.shared.generation.send_replace(Generation::default());
        Ok(())
    }

    async fn run(mut self, mut finished: mpsc::Receiver<Finished>) {
        loop {
            let due = self.due.filter(|_| self.running < MOST_LOADS);
            tokio::select! {
                changed = self.wishes.changed() => match changed {
                    Ok(()) => self.wished().await,
                    Err(_) => return,
                },
                answer = answer(&mut self.asking) => self.answered(answer).await,
                told = self.follower.told() => match told {
                    Some(told) => self.told(&told).await,
                    None => return,
                },
                Some(load) = finished.recv() => self.finished(load),
                () = until(self.rests) => self.rested(),
                () = until(due) => self.load(),
            }
        }
    }

    // --- who answers ---------------------------------------------------------------------------------------------------

    /// Notes where rows and places come from; tells whether that is another source than before.
    fn place(&mut self, route: &Route) -> bool {
        let placing = match route {
            Route::Cache => Placing::Cache,
            Route::Load => Placing::Chunks,
            Route::Given(_) | Route::Later => Placing::Given,
        };
        std::mem::replace(&mut self.placing, placing) != placing
    }

    /// Tells whether the window is read from the whole copy.
    fn reads_copy(&self) -> bool {
        self.placing == Placing::Cache && !self.partial
    }

    /// Tells whether the window is loaded piece by piece.
    fn loads_pieces(&self) -> bool {
        self.placing == Placing::Chunks || self.placing == Placing::Cache && self.partial
    }

    fn asks(&self) -> bool {
        self.core.hooks.on_query.is_some()
    }

    /// Asks `on_query` about `wish`; what it is still busy with is given up.
    fn ask(&mut self, wish: Wish, invalidated: bool) {
        let Some(handle) = self.handle.upgrade() else { return };
        let invalidated = invalidated || self.asking.as_ref().is_some_and(|asking| asking.invalidated);
        let (core, query) = (Arc::clone(&self.core), wish.windowed(self.shared.page));
        let answer = async move { core.route(Dio(handle), query).await }.boxed();
        (self.rests, self.owed) = (None, false);
        self.asking = Some(Asking { wish, invalidated, answer });
    }

    /// Asks about the latest wish, because everything may be different: now, or when a question before has been answered.
    fn ask_again(&mut self, invalidated: bool) {
        match &mut self.asking {
            Some(asking) => {
                asking.invalidated |= invalidated;
                self.owed = true;
            }
            None => {
                let wish = self.wishes.borrow().clone();
                self.ask(wish, invalidated);
            }
        }
    }

    async fn answered(&mut self, answer: Result<Route>) {
        let Some(Asking { wish, invalidated, .. }) = self.asking.take() else { return };
        match answer {
            Ok(route) => self.adopt(wish, route, invalidated).await,
            Err(error) => {
                // Of the rows that stay, the newest are shown.
                if invalidated && self.reads_copy() {
                    self.read_or_fail(true).await;
                }
                self.shared.fail(&error);
            }
        }
        if self.owed {
            self.ask_again(false);
        }
    }

    // --- what is asked -------------------------------------------------------------------------------------------------

    /// Goes after the latest wish: with `on_query`, once that was asked; a viewport when it has rested.
    async fn wished(&mut self) {
        let wish = self.wishes.borrow_and_update().clone();
        let era = self.asking.as_ref().map_or(self.wish.era, |asking| asking.wish.era);
        match (self.asks(), wish.era == era) {
            (false, _) => self.adopt(wish, Route::Cache, false).await,
            (true, false) => self.ask(wish, false),
            (true, true) => self.rests = Some(Instant::now() + self.core.settings.viewport_debounce),
        }
    }

    /// The viewport has rested: `on_query` is asked if it shows what is not held.
    fn rested(&mut self) {
        self.rests = None;
        let (wish, page) = (self.wishes.borrow().clone(), self.shared.page);
        if let Some(asking) = &mut self.asking
            && asking.wish.pages(page) == wish.pages(page)
        {
            asking.wish = wish;
        } else if self.asking.is_some() || self.lacks(&wish) {
            self.ask(wish, false);
        } else {
            self.wish = wish;
        }
    }

    fn lacks(&self, wish: &Wish) -> bool {
        let page = self.shared.page;
        match self.reads_copy() {
            true => wish.pages(page) != self.wish.pages(page),
            false => !self.shared.window.read().gaps(wish.viewport.clone(), self.round).is_empty(),
        }
    }

    /// Shows what `route` says of `wish`.
    async fn adopt(&mut self, wish: Wish, route: Route, invalidated: bool) {
        let new_query = wish.era != self.wish.era;
        self.asked.clear();
        self.wish = wish;
        if new_query {
            self.prepared = self.wish.query.prepare(&self.shared.schema);
        }
        if self.place(&route) || new_query || invalidated {
            self.round += 1;
        }
        if !self.read_or_fail(invalidated).await || self.follower.is_loading() || self.reads_copy() {
            return;
        }
        self.announce |= invalidated;
        match route {
            _ if new_query => {
                if let Err(error) = self.begin(route) {
                    self.shared.fail(&error);
                }
            }
            Route::Given(ids) => {
                let window = self.shared.window.read().clone();
                self.give(window, &ids);
            }
            Route::Later => self.shared.set_load(LoadState::Loading),
            Route::Cache | Route::Load => self.load_when_rested(),
        }
        // It has rested already.
        if self.asks() && self.due.is_some() {
            self.due = Some(Instant::now());
        }
    }

    /// Begins a new query that is not read from the copy.
    fn begin(&mut self, route: Route) -> Result<()> {
        if let Route::Given(ids) = route {
            self.give(self.nothing(), &ids);
            return Ok(());
        }
        self.shared.show(self.nothing(), false);
        if let Route::Later = route {
            self.shared.set_load(LoadState::Loading);
            return Ok(());
        }
        self.begin_pieces()
    }

    /// Shows `window` with the rows that `on_query` gave for the pages that are looked at.
    fn give(&mut self, window: Window, ids: &[Id]) {
        (self.due, self.announce) = (None, false);
        let (range, round) = (self.wish.pages(self.shared.page), self.round);
        self.arrived(window, &range, ids, round);
        self.shared.settle_load();
    }

    async fn read_or_fail(&mut self, announce: bool) -> bool {
        let done = self.read(announce).await.inspect_err(|error| self.shared.fail(error));
        done.is_ok()
    }

    /// Reads the window from the whole copy, if there is one and nobody else answers; else notes that it is loaded piece by piece.
    async fn read(&mut self, announce: bool) -> Result<()> {
        let view = self.core.standing_view();
        self.follower.saw(&view.coverage);
        self.partial = view.coverage == Coverage::Partial;
        match view.coverage {
            Coverage::Loading { error } => {
                self.await_copy(error);
                return Ok(());
            }
            Coverage::Partial | Coverage::Whole if !self.reads_copy() => return Ok(()),
            Coverage::Partial | Coverage::Whole => {}
        }
        let surplus = self.surplus(view.state.table().len() as u64);
        self.due = None;
        let query = self.wish.windowed(self.shared.page);
        let seq = view.state.seq();
        let (rows, count) = {
            let meter = Meter::background();
            self.core.select_from(view.state, &query, &self.shared.schema, meter).await?
        };
        self.follower.rest();
        let mut window = Window::of(query.offset, rows.bodies(), count + surplus);
        window.seq = seq;
        self.shared.show(window, announce);
        self.shared.settle_load();
        Ok(())
    }

    /// An empty window, until there is a first copy.
    fn await_copy(&self, error: Option<String>) {
        self.shared.show(self.nothing(), false);
        self.shared.set_load(error.map_or(LoadState::Loading, LoadState::Failed));
    }

    /// An empty window, of as many rows as `total_provider` knows of.
    fn nothing(&self) -> Window {
        Window::empty(self.shared.told.filter(|_| self.wish.query.is_unfiltered()))
    }

    /// Rows that `total_provider` knows of beyond the `cached` ones, as far as that matters.
    fn surplus(&mut self, cached: u64) -> u64 {
        let told = self.shared.told.unwrap_or(0);
        let surplus = *self.surplus.get_or_insert(told.saturating_sub(cached));
        let exact = self.core.has_whole_copy() || !self.wish.query.is_unfiltered();
        if exact { 0 } else { surplus }
    }

    /// Begins to load a new query piece by piece.
    fn begin_pieces(&mut self) -> Result<()> {
        if self.placing == Placing::Chunks {
            self.core.loads_chunks()?;
        } else if self.is_narrowed() {
            self.core.master_takes(&self.wish.windowed(self.shared.page))?;
        }
        self.shared.set_load(LoadState::Loading);
        self.load_when_rested();
        Ok(())
    }

    fn load_when_rested(&mut self) {
        self.due = Some(Instant::now() + self.core.settings.viewport_debounce);
    }

    fn is_narrowed(&self) -> bool {
        !self.wish.query.is_unfiltered() || !self.wish.query.order.is_empty()
    }

    // --- what happens --------------------------------------------------------------------------------------------------

    async fn told(&mut self, told: &[Told]) {
        let mut read = false;
        let mut invalidated = false;
        // Up to where everything may be different.
        let mut anew = None;
        let loading = self.follower.is_loading();
        for told in told {
            match told {
                Told::Lagged | Told::Start => anew = Some(Seq::MAX),
                Told::Item(item) => match &item.event {
                    DioEvent::Invalidated => {
                        anew = anew.max(Some(item.seq.unwrap_or(Seq::MAX)));
                        invalidated |= !item.covered();
                    }
                    _ => read = read || self.matters(item),
                },
            }
        }
        if !read && anew.is_none() {
            return self.shared.reached(told);
        }
        if let Some(seq) = anew
            && self.asks()
            && seq > self.core.answered_until().await
        {
            return self.told_anew(told, invalidated);
        }
        if !self.read_or_fail(invalidated).await {
            return;
        }
        if self.loads_pieces() && loading && !self.follower.is_loading() {
            if let Err(error) = self.begin_pieces() {
                self.shared.fail(&error);
            }
        } else if !self.reads_copy() {
            self.follow(told, invalidated, self.loads_pieces());
        }
    }

    /// Everything may be different: `on_query` is asked before it is read, unless there is nothing to read yet.
    fn told_anew(&mut self, told: &[Told], invalidated: bool) {
        let coverage = self.core.coverage();
        self.follower.saw(&coverage);
        if let Coverage::Loading { error } = coverage {
            return self.await_copy(error);
        }
        if !self.reads_copy() {
            self.follow(told, invalidated, false);
        }
        self.follower.rest();
        self.ask_again(invalidated);
    }

    /// Whether a row of this query was or is concerned.
    fn matters(&self, item: &RingItem) -> bool {
        let row = matches!(
            item.event,
            DioEvent::RecordChanged { .. } | DioEvent::RecordInserted { .. } | DioEvent::RecordRemoved { .. }
        );
        if !row || self.prepared.is_unfiltered() {
            return row;
        }
        let before = match &item.old {
            Old::Known(body) => self.matches(body),
            Old::Absent => false,
            Old::Unknown => true,
        };
        // Silent changes may have happened between the row that is held and the one before this event.
        before || item.new.as_ref().is_none_or(|body| self.matches(body)) || self.holds(item)
    }

    fn holds(&self, item: &RingItem) -> bool {
        let id = item.entry.as_ref().and_then(|entry| entry.id.as_ref());
        id.is_some_and(|id| self.shared.window.read().rows().any(|held| held.id == *id))
    }

    fn matches(&self, body: &Body) -> bool {
        self.prepared.matches(&JsonRow(body.json(), body.cbor().map(|cbor| &cbor[..])))
    }

    /// Follows events on rows that are only partly known; `reload` says whether what may be different is loaded again.
    fn follow(&mut self, told: &[Told], invalidated: bool, reload: bool) {
        self.follower.rest();
        let mut window = self.shared.window.read().clone();
        // The program may see otherwise what belongs to its rows, and where a new one does.
        let given = self.placing == Placing::Given;
        let narrowed = given || self.is_narrowed();
        let mut again = invalidated;
        for told in told {
            match told {
                Told::Lagged | Told::Start => again = true,
                Told::Item(item) => {
                    window.follow(item, |body| given || self.matches(body), narrowed);
                }
            }
        }
        self.shared.show(window, false);
        self.shared.reached(told);
        if again && reload {
            self.round += 1;
            self.asked.clear();
            self.announce |= invalidated;
            self.load_when_rested();
        }
    }

    // --- loading -------------------------------------------------------------------------------------------------------

    /// Begins to load what the viewport lacks, as much as may run at a time.
    fn load(&mut self) {
        self.due = None;
        let mut lacking = false;
        for gap in self.gaps() {
            lacking = true;
            if self.running < MOST_LOADS {
                self.start_load(gap);
            }
        }
        // What is loaded announces itself.
        if std::mem::take(&mut self.announce) && !lacking {
            Generation::bump(&self.shared.generation);
        }
        if self.running > 0 {
            self.shared.set_load(LoadState::Loading);
        } else {
            self.settle_load();
        }
    }

    fn gaps(&self) -> Vec<Range<u64>> {
        let gaps = self.shared.window.read().gaps(self.wish.viewport.clone(), self.round);
        gaps.into_iter().flat_map(|gap| without(gap, &self.asked)).collect()
    }

    fn start_load(&mut self, range: Range<u64>) {
        let Some(handle) = self.handle.upgrade() else { return };
        self.asked.push(range.clone());
        self.running += 1;
        let (core, done, era, round) = (Arc::clone(&self.core), self.done.clone(), self.wish.era, self.round);
        let query = Arc::clone(&self.wish.query);
        let at_master = self.placing == Placing::Cache && self.is_narrowed();
        // A task of its own: rows that arrive are stored also if nobody looks at them any more.
        self.core.tasks.spawn(async move {
            let ids = match at_master {
                true => core.load_query(&query, range.clone()).await,
                false => core.load_range(Dio(handle), &query, range.clone()).await,
            };
            // The scenery may be gone.
            let _ = done.send(Finished { era, round, range, ids }).await;
        });
    }

    fn finished(&mut self, load: Finished) {
        self.running -= 1;
        if load.era == self.wish.era && self.loads_pieces() {
            match load.ids {
                Ok(ids) => {
                    let window = self.shared.window.read().clone();
                    self.arrived(window, &load.range, &ids, load.round);
                    if self.running == 0 {
                        self.settle_load();
                    }
                }
                Err(error) => self.shared.fail(&error),
            }
        }
        if self.loads_pieces() && self.running < MOST_LOADS && self.due.is_none() && !self.gaps().is_empty() {
            self.due = Some(Instant::now());
        }
    }

    /// Shows `window` with the rows of a range.
    fn arrived(&self, mut window: Window, range: &Range<u64>, ids: &[Id], round: u64) {
        let state = self.core.state();
        // What a pending write has deleted is not shown, whatever the master still has.
        let row = |id: &Id| state.get(id).map(|row| (Arc::clone(id), row.body()));
        let rows: Vec<(Id, Body)> = ids.iter().filter_map(row).collect();
        let last = (ids.len() as u64) < range.end - range.start;
        window.loaded(range, &rows, last, round);
        self.shared.show(window, true);
    }

    /// A failure is said until something else is asked for.
    fn settle_load(&self) {
        if !matches!(*self.shared.load.borrow(), LoadState::Failed(_)) {
            self.shared.settle_load();
        }
    }
}

/// Answer to the question that `on_query` is busy with; without one, waits for ever.
async fn answer(asking: &mut Option<Asking>) -> Result<Route> {
    match asking {
        Some(asking) => (&mut asking.answer).await,
        None => pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// `range` without the `others`.
fn without(range: Range<u64>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    others.iter().fold(vec![range], |parts, other| {
        let cut = |part: Range<u64>| {
            let (before, after) = (part.start..part.end.min(other.start), part.start.max(other.end)..part.end);
            [before, after].into_iter().filter(|part| part.start < part.end)
        };
        parts.into_iter().flat_map(cut).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_twice() {
        assert_eq!(without(0..10, &[]), vec![0..10; 1]);
        assert_eq!(without(0..10, &[2..4, 8..20]), [0..2, 4..8]);
        assert_eq!(without(3..5, &vec![0..10; 1]), []);
    }
}
