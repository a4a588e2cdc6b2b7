//! Task that keeps the window current: requests, routes, events and loads.

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

/// Maximum number of ranges that one scenery loads from the master concurrently.
pub(super) const MAX_LOADS: usize = 2;

/// Result of a load.
pub(super) struct LoadedRange {
    pub(super) era: u64,
    pub(super) round: u64,
    pub(super) range: Range<u64>,
    pub(super) ids: Result<Vec<Id>>,
}

/// Source of a window's rows and of their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowSource {
    /// The copy, or the master if the copy is partial.
    Cache,
    /// `on_load_chunk`.
    Chunks,
    /// Rows from `on_query`.
    Given,
}

/// Running call of `on_query`.
pub(super) struct PendingQuery {
    pub(super) request: ViewRequest,
    /// True if everything may have changed.
    pub(super) invalidated: bool,
    pub(super) answer: BoxFuture<'static, Result<Route>>,
}

/// Task that keeps the window current.
pub(super) struct Task {
    pub(super) core: Arc<Core>,
    /// Weak: only handles keep the Dio alive.
    pub(super) handle: Weak<Handle>,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: watch::Receiver<ViewRequest>,
    /// Request that the window shows or is about to show.
    pub(super) request: ViewRequest,
    pub(super) prepared: CompiledQuery,
    pub(super) source: RowSource,
    /// True if the copy is partial.
    pub(super) partial: bool,
    pub(super) pending_query: Option<PendingQuery>,
    /// Time at which the viewport has been unchanged long enough to run `on_query`.
    pub(super) rest_deadline: Option<Instant>,
    /// True if everything may have changed while `on_query` was running.
    pub(super) reroute_due: bool,
    /// Number of rows in the total of `total_provider` beyond those cached at the first read.
    pub(super) surplus: Option<u64>,
    /// Number of invalidations. Rows of an earlier round are read again.
    pub(super) round: u64,
    /// True if an invalidation has not changed the generation yet.
    pub(super) announce: bool,
    /// Time at which the missing rows of the viewport are loaded.
    pub(super) due: Option<Instant>,
    /// Ranges loaded since the last request. None is loaded twice.
    pub(super) loading_ranges: Vec<Range<u64>>,
    /// Number of running loads.
    pub(super) running: usize,
    pub(super) done: mpsc::Sender<LoadedRange>,
    pub(super) follower: Follower,
}

impl Task {
    /// Reads the first window, or starts loading it.
    pub(super) async fn start(&mut self, route: Route) -> Result<()> {
        self.set_source(&route);
        self.read(false).await?;
        if !self.reads_copy() && !self.follower.is_loading() {
            self.begin(route)?;
        }
        // The first read does not count as a change.
        self.shared.generation.send_replace(Generation::default());
        Ok(())
    }

    pub(super) async fn run(mut self, mut finished: mpsc::Receiver<LoadedRange>) {
        loop {
            let due = self.due.filter(|_| self.running < MAX_LOADS);
            tokio::select! {
                changed = self.requests.changed() => match changed {
                    Ok(()) => self.on_request().await,
                    Err(_) => return,
                },
                answer = answer(&mut self.pending_query) => self.on_answer(answer).await,
                notices = self.follower.next_batch() => match notices {
                    Some(notices) => self.on_notices(&notices).await,
                    None => return,
                },
                Some(load) = finished.recv() => self.on_loaded(load),
                () = until(self.rest_deadline) => self.on_rest(),
                () = until(due) => self.load(),
            }
        }
    }

    /// Sets the source of the rows; returns true if it changed.
    fn set_source(&mut self, route: &Route) -> bool {
        let source = match route {
            Route::Cache => RowSource::Cache,
            Route::Load => RowSource::Chunks,
            Route::Given(_) | Route::Later => RowSource::Given,
        };
        std::mem::replace(&mut self.source, source) != source
    }

    /// Returns true if the window is read from a complete copy.
    pub(super) fn reads_copy(&self) -> bool {
        self.source == RowSource::Cache && !self.partial
    }

    /// Returns true if the window is loaded in ranges.
    pub(super) fn loads_ranges(&self) -> bool {
        self.source == RowSource::Chunks || self.source == RowSource::Cache && self.partial
    }

    fn has_query_hook(&self) -> bool {
        self.core.callbacks.on_query.is_some()
    }

    /// Runs `on_query` for `request` and cancels a running call.
    fn run_query_callback(&mut self, request: ViewRequest, invalidated: bool) {
        let Some(handle) = self.handle.upgrade() else { return };
        let invalidated =
            invalidated || self.pending_query.as_ref().is_some_and(|pending_query| pending_query.invalidated);
        let (core, query) = (Arc::clone(&self.core), request.windowed(self.shared.page));
        let answer = async move { core.route(Dio(handle), query).await }.boxed();
        (self.rest_deadline, self.reroute_due) = (None, false);
        self.pending_query = Some(PendingQuery { request, invalidated, answer });
    }

    /// Runs `on_query` for the latest request because everything may have changed: now, or after the running call.
    fn reroute(&mut self, invalidated: bool) {
        match &mut self.pending_query {
            Some(pending_query) => {
                pending_query.invalidated |= invalidated;
                self.reroute_due = true;
            }
            None => {
                let request = self.requests.borrow().clone();
                self.run_query_callback(request, invalidated);
            }
        }
    }

    async fn on_answer(&mut self, answer: Result<Route>) {
        let Some(PendingQuery { request, invalidated, .. }) = self.pending_query.take() else { return };
        match answer {
            Ok(route) => self.adopt(request, route, invalidated).await,
            Err(error) => {
                // Keep the window, with its newest rows.
                if invalidated && self.reads_copy() {
                    self.read_or_fail(true).await;
                }
                self.shared.fail(&error);
            }
        }
        if self.reroute_due {
            self.reroute(false);
        }
    }

    /// Handles the latest request. With `on_query`, a new query runs it first; a new viewport waits until it is unchanged.
    async fn on_request(&mut self) {
        let request = self.requests.borrow_and_update().clone();
        let era = self.pending_query.as_ref().map_or(self.request.era, |pending_query| pending_query.request.era);
        match (self.has_query_hook(), request.era == era) {
            (false, _) => self.adopt(request, Route::Cache, false).await,
            (true, false) => self.run_query_callback(request, false),
            (true, true) => self.rest_deadline = Some(Instant::now() + self.core.settings.viewport_debounce),
        }
    }

    /// Runs `on_query` if the unchanged viewport shows rows that are not held.
    fn on_rest(&mut self) {
        self.rest_deadline = None;
        let (request, page) = (self.requests.borrow().clone(), self.shared.page);
        if let Some(pending_query) = &mut self.pending_query
            && pending_query.request.pages(page) == request.pages(page)
        {
            pending_query.request = request;
        } else if self.pending_query.is_some() || self.lacks(&request) {
            self.run_query_callback(request, false);
        } else {
            self.request = request;
        }
    }

    /// Shows `request` from the source given by `route`.
    async fn adopt(&mut self, request: ViewRequest, route: Route, invalidated: bool) {
        let new_query = request.era != self.request.era;
        self.loading_ranges.clear();
        self.request = request;
        if new_query {
            self.prepared = self.request.query.prepare(&self.shared.schema);
        }
        if self.set_source(&route) || new_query || invalidated {
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
                self.show_given(window, &ids);
            }
            Route::Later => self.shared.set_load(LoadState::Loading),
            Route::Cache | Route::Load => self.load_after_rest(),
        }
        // The viewport has already rested.
        if self.has_query_hook() && self.due.is_some() {
            self.due = Some(Instant::now());
        }
    }

    /// Starts a new query that is not read from the copy.
    fn begin(&mut self, route: Route) -> Result<()> {
        if let Route::Given(ids) = route {
            self.show_given(self.empty_window(), &ids);
            return Ok(());
        }
        self.shared.show(self.empty_window(), false);
        if let Route::Later = route {
            self.shared.set_load(LoadState::Loading);
            return Ok(());
        }
        self.begin_ranges()
    }

    /// Shows `window` with the rows from `on_query` for the pages of the viewport.
    fn show_given(&mut self, window: Window, ids: &[Id]) {
        (self.due, self.announce) = (None, false);
        let (range, round) = (self.request.pages(self.shared.page), self.round);
        self.show_range(window, &range, ids, round);
        self.shared.settle_load();
    }

    async fn read_or_fail(&mut self, announce: bool) -> bool {
        let done = self.read(announce).await.inspect_err(|error| self.shared.fail(error));
        done.is_ok()
    }

    /// Reads the window from the complete copy, if it is the source; otherwise notes that it is loaded in ranges.
    async fn read(&mut self, announce: bool) -> Result<()> {
        let view = self.core.standing_view();
        self.follower.note_coverage(&view.coverage);
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
        self.follower.pause();
        let mut window = Window::of(query.offset, rows.bodies(), count + surplus);
        window.seq = seq;
        self.shared.show(window, announce);
        self.shared.settle_load();
        Ok(())
    }

    /// Shows an empty window until there is a first copy.
    fn await_copy(&self, error: Option<String>) {
        self.shared.show(self.empty_window(), false);
        self.shared.set_load(error.map_or(LoadState::Loading, LoadState::Failed));
    }

    /// Creates an empty window with the total from `total_provider`.
    fn empty_window(&self) -> Window {
        Window::empty(self.shared.provided_total.filter(|_| self.request.query.is_unfiltered()))
    }

    /// Returns the number of rows in the total of `total_provider` beyond the `cached` ones; 0 if the exact count is known.
    fn surplus(&mut self, cached: u64) -> u64 {
        let total = self.shared.provided_total.unwrap_or(0);
        let surplus = *self.surplus.get_or_insert(total.saturating_sub(cached));
        let exact = self.core.has_whole_copy() || !self.request.query.is_unfiltered();
        if exact { 0 } else { surplus }
    }

    pub(super) fn is_narrowed(&self) -> bool {
        !self.request.query.is_unfiltered() || !self.request.query.order.is_empty()
    }

    async fn on_notices(&mut self, notices: &[Notice]) {
        let mut read = false;
        let mut invalidated = false;
        // Log position up to which everything may have changed.
        let mut changed_until = None;
        let loading = self.follower.is_loading();
        for notice in notices {
            match notice {
                Notice::Lagged | Notice::Start => changed_until = Some(Seq::MAX),
                Notice::Item(item) => match &item.event {
                    DioEvent::Invalidated => {
                        changed_until = changed_until.max(Some(item.seq.unwrap_or(Seq::MAX)));
                        invalidated |= !item.covered();
                    }
                    _ => read = read || self.matters(item),
                },
            }
        }
        if !read && changed_until.is_none() {
            return self.shared.reached(notices);
        }
        if let Some(seq) = changed_until
            && self.has_query_hook()
            && seq > self.core.answered_until().await
        {
            return self.on_invalidation(notices, invalidated);
        }
        if !self.read_or_fail(invalidated).await {
            return;
        }
        if self.loads_ranges() && loading && !self.follower.is_loading() {
            if let Err(error) = self.begin_ranges() {
                self.shared.fail(&error);
            }
        } else if !self.reads_copy() {
            self.follow(notices, invalidated, self.loads_ranges());
        }
    }

    /// Runs `on_query` before the next read because everything may have changed, unless there is no copy yet.
    fn on_invalidation(&mut self, notices: &[Notice], invalidated: bool) {
        let coverage = self.core.coverage();
        self.follower.note_coverage(&coverage);
        if let Coverage::Loading { error } = coverage {
            return self.await_copy(error);
        }
        if !self.reads_copy() {
            self.follow(notices, invalidated, false);
        }
        self.follower.pause();
        self.reroute(invalidated);
    }

    /// Returns true if the event concerns a row that is or was in this query.
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
        // The held row may be older than the row before this event, because of silent changes in between.
        before || item.new.as_ref().is_none_or(|body| self.matches(body)) || self.holds(item)
    }

    fn holds(&self, item: &RingItem) -> bool {
        let id = item.entry.as_ref().and_then(|entry| entry.id.as_ref());
        id.is_some_and(|id| self.shared.window.read().rows().any(|row| row.id == *id))
    }

    fn matches(&self, body: &Body) -> bool {
        self.prepared.matches(&JsonRow(body.json(), body.cbor().map(|cbor| &cbor[..])))
    }

    /// Applies events to partly known rows. With `reload`, rows that may have changed are loaded again.
    fn follow(&mut self, notices: &[Notice], invalidated: bool, reload: bool) {
        self.follower.pause();
        let mut window = self.shared.window.read().clone();
        // For rows from `on_query`, the program decides about membership and positions.
        let given = self.source == RowSource::Given;
        let narrowed = given || self.is_narrowed();
        let mut again = invalidated;
        for notice in notices {
            match notice {
                Notice::Lagged | Notice::Start => again = true,
                Notice::Item(item) => {
                    window.follow(item, |body| given || self.matches(body), narrowed);
                }
            }
        }
        self.shared.show(window, false);
        self.shared.reached(notices);
        if again && reload {
            self.round += 1;
            self.loading_ranges.clear();
            self.announce |= invalidated;
            self.load_after_rest();
        }
    }
}

/// Waits for the running call of `on_query`; forever if there is none.
pub(super) async fn answer(pending_query: &mut Option<PendingQuery>) -> Result<Route> {
    match pending_query {
        Some(pending_query) => (&mut pending_query.answer).await,
        None => pending().await,
    }
}

pub(super) async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
