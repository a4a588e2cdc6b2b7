//! The task that keeps the window true: what is asked, who answers, what happens meanwhile.

use std::ops::Range;
use std::sync::{Arc, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, pending};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{LoadState, Shared, ViewRequest};
use crate::dio::{Core, Coverage, Dio, DioEvent, Handle, RingItem, Route, RowBefore};
use crate::journal::Seq;
use crate::record::{Body, Id};
use crate::scenery::Generation;
use crate::scenery::follow::{Follower, Notice};
use crate::scenery::window::Window;
use crate::vista::Result;
use crate::vista::query::{CompiledQuery, JsonRow, Meter};

/// Ranges of one scenery that are read from the master at a time.
pub(super) const MOST_LOADS: usize = 2;

/// A load that ended.
pub(super) struct LoadedRange {
    pub(super) era: u64,
    pub(super) round: u64,
    pub(super) range: Range<u64>,
    pub(super) ids: Result<Vec<Id>>,
}

/// Source of a window's rows and of their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowSource {
    /// The copy, or the master where that is not whole.
    Cache,
    /// `on_load_chunk`.
    Chunks,
    /// What `on_query` gives.
    Given,
}

/// Question that `on_query` is busy with.
pub(super) struct PendingQuery {
    pub(super) request: ViewRequest,
    /// Whether everything may be different.
    pub(super) invalidated: bool,
    pub(super) answer: BoxFuture<'static, Result<Route>>,
}

/// What keeps the window true.
pub(super) struct Task {
    pub(super) core: Arc<Core>,
    /// Weak: only handles keep the Dio alive.
    pub(super) handle: Weak<Handle>,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: watch::Receiver<ViewRequest>,
    /// What the window answers, or is about to.
    pub(super) request: ViewRequest,
    pub(super) prepared: CompiledQuery,
    pub(super) placing: RowSource,
    /// Whether the copy is not whole.
    pub(super) partial: bool,
    pub(super) asking: Option<PendingQuery>,
    /// When the viewport has rested, so that `on_query` is asked.
    pub(super) rests: Option<Instant>,
    /// Whether everything may have become different while `on_query` was busy.
    pub(super) owed: bool,
    /// Rows that `total_provider` knew of beyond those that were cached when they were first read.
    pub(super) surplus: Option<u64>,
    /// Counts invalidations: rows of an earlier round are read again.
    pub(super) round: u64,
    /// Whether an invalidation has not moved the generation yet.
    pub(super) announce: bool,
    /// When what the viewport lacks is loaded.
    pub(super) due: Option<Instant>,
    /// Ranges that were asked for since the last wish; none is asked twice.
    pub(super) asked: Vec<Range<u64>>,
    /// Loads under way.
    pub(super) running: usize,
    pub(super) done: mpsc::Sender<LoadedRange>,
    pub(super) follower: Follower,
}

impl Task {
    /// Reads the first window, or begins to load it.
    pub(super) async fn first(&mut self, route: Route) -> Result<()> {
        self.place(&route);
        self.read(false).await?;
        if !self.reads_copy() && !self.follower.is_loading() {
            self.begin(route)?;
        }
        // What was read at first is no change.
        self.shared.generation.send_replace(Generation::default());
        Ok(())
    }

    pub(super) async fn run(mut self, mut finished: mpsc::Receiver<LoadedRange>) {
        loop {
            let due = self.due.filter(|_| self.running < MOST_LOADS);
            tokio::select! {
                changed = self.requests.changed() => match changed {
                    Ok(()) => self.requested().await,
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

    /// Notes where rows and places come from; tells whether that is another source than before.
    fn place(&mut self, route: &Route) -> bool {
        let placing = match route {
            Route::Cache => RowSource::Cache,
            Route::Load => RowSource::Chunks,
            Route::Given(_) | Route::Later => RowSource::Given,
        };
        std::mem::replace(&mut self.placing, placing) != placing
    }

    /// Tells whether the window is read from the whole copy.
    pub(super) fn reads_copy(&self) -> bool {
        self.placing == RowSource::Cache && !self.partial
    }

    /// Tells whether the window is loaded piece by piece.
    pub(super) fn loads_pieces(&self) -> bool {
        self.placing == RowSource::Chunks || self.placing == RowSource::Cache && self.partial
    }

    fn asks(&self) -> bool {
        self.core.hooks.on_query.is_some()
    }

    /// Asks `on_query` about `request`; what it is still busy with is given up.
    fn ask(&mut self, request: ViewRequest, invalidated: bool) {
        let Some(handle) = self.handle.upgrade() else { return };
        let invalidated = invalidated || self.asking.as_ref().is_some_and(|asking| asking.invalidated);
        let (core, query) = (Arc::clone(&self.core), request.windowed(self.shared.page));
        let answer = async move { core.route(Dio(handle), query).await }.boxed();
        (self.rests, self.owed) = (None, false);
        self.asking = Some(PendingQuery { request, invalidated, answer });
    }

    /// Asks about the latest wish, because everything may be different: now, or when a question before has been answered.
    fn ask_again(&mut self, invalidated: bool) {
        match &mut self.asking {
            Some(asking) => {
                asking.invalidated |= invalidated;
                self.owed = true;
            }
            None => {
                let request = self.requests.borrow().clone();
                self.ask(request, invalidated);
            }
        }
    }

    async fn answered(&mut self, answer: Result<Route>) {
        let Some(PendingQuery { request, invalidated, .. }) = self.asking.take() else { return };
        match answer {
            Ok(route) => self.adopt(request, route, invalidated).await,
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

    /// Goes after the latest wish: with `on_query`, once that was asked; a viewport when it has rested.
    async fn requested(&mut self) {
        let request = self.requests.borrow_and_update().clone();
        let era = self.asking.as_ref().map_or(self.request.era, |asking| asking.request.era);
        match (self.asks(), request.era == era) {
            (false, _) => self.adopt(request, Route::Cache, false).await,
            (true, false) => self.ask(request, false),
            (true, true) => self.rests = Some(Instant::now() + self.core.settings.viewport_debounce),
        }
    }

    /// The viewport has rested: `on_query` is asked if it shows what is not held.
    fn rested(&mut self) {
        self.rests = None;
        let (request, page) = (self.requests.borrow().clone(), self.shared.page);
        if let Some(asking) = &mut self.asking
            && asking.request.pages(page) == request.pages(page)
        {
            asking.request = request;
        } else if self.asking.is_some() || self.lacks(&request) {
            self.ask(request, false);
        } else {
            self.request = request;
        }
    }

    /// Shows what `route` says of `request`.
    async fn adopt(&mut self, request: ViewRequest, route: Route, invalidated: bool) {
        let new_query = request.era != self.request.era;
        self.asked.clear();
        self.request = request;
        if new_query {
            self.prepared = self.request.query.prepare(&self.shared.schema);
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
        let (range, round) = (self.request.pages(self.shared.page), self.round);
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
        let query = self.request.windowed(self.shared.page);
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
        Window::empty(self.shared.told.filter(|_| self.request.query.is_unfiltered()))
    }

    /// Rows that `total_provider` knows of beyond the `cached` ones, as far as that matters.
    fn surplus(&mut self, cached: u64) -> u64 {
        let told = self.shared.told.unwrap_or(0);
        let surplus = *self.surplus.get_or_insert(told.saturating_sub(cached));
        let exact = self.core.has_whole_copy() || !self.request.query.is_unfiltered();
        if exact { 0 } else { surplus }
    }

    pub(super) fn is_narrowed(&self) -> bool {
        !self.request.query.is_unfiltered() || !self.request.query.order.is_empty()
    }

    async fn told(&mut self, told: &[Notice]) {
        let mut read = false;
        let mut invalidated = false;
        // Up to where everything may be different.
        let mut anew = None;
        let loading = self.follower.is_loading();
        for told in told {
            match told {
                Notice::Lagged | Notice::Start => anew = Some(Seq::MAX),
                Notice::Item(item) => match &item.event {
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
    fn told_anew(&mut self, told: &[Notice], invalidated: bool) {
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
            RowBefore::Known(body) => self.matches(body),
            RowBefore::Absent => false,
            RowBefore::Unknown => true,
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
    fn follow(&mut self, told: &[Notice], invalidated: bool, reload: bool) {
        self.follower.rest();
        let mut window = self.shared.window.read().clone();
        // The program may see otherwise what belongs to its rows, and where a new one does.
        let given = self.placing == RowSource::Given;
        let narrowed = given || self.is_narrowed();
        let mut again = invalidated;
        for told in told {
            match told {
                Notice::Lagged | Notice::Start => again = true,
                Notice::Item(item) => {
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
}

/// Answer to the question that `on_query` is busy with; without one, waits for ever.
pub(super) async fn answer(asking: &mut Option<PendingQuery>) -> Result<Route> {
    match asking {
        Some(asking) => (&mut asking.answer).await,
        None => pending().await,
    }
}

pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
