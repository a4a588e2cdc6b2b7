//! Rows for standing views (sceneries): states that never show half a refresh, and rows loaded in chunks.

use std::ops::Range;
use std::sync::Arc;

use super::coverage::Coverage;
use crate::dio::callbacks::{ChunkRequest, ChunkSink, QueryRoute};
use crate::dio::core::Core;
use crate::dio::events::event::DioEvent;
use crate::dio::events::ring::CursorRead;
use crate::dio::guard::Guard;
use crate::dio::handle::{Dio, Handle};
use crate::dio::scope;
use crate::dio::scope::{Kind, Scope};
use crate::record::{Body, Id, Rows, Stamp};
use crate::state::{Base, Command, Entry, Frame, Notice, OpChange, ReadRow, State, VisibleChange};
use crate::vista::query::JsonRow;
use crate::vista::{Error, Query, Result};

/// Maximum number of rows of one list that are cached, so that reading a whole table through does not fill the cache.
const MOST_KEPT: usize = 10_000;

/// State that a standing view may show.
#[derive(Debug)]
pub(crate) struct StandingView {
    pub(crate) state: Arc<State>,
    /// Part of the master's rows that it has.
    pub(crate) coverage: Coverage,
}

/// Source of the rows that a standing view reads.
#[derive(Debug)]
pub(crate) enum Route {
    /// The copy, or the master if the copy is not whole.
    Cache,
    /// `on_load_chunk`, with the view's query.
    Load,
    /// The program: the cached rows with these ids.
    Given(Vec<Id>),
    /// No answer yet.
    Later,
}

impl Core {
    /// State that a standing view shows: the newest State.
    ///
    /// While `on_refresh` runs, it is the State before it with all events published since, because the callback may
    /// change related rows one by one.
    pub(crate) fn standing_view(&self) -> StandingView {
        let before = {
            // A refresh that begins waits for this lock: the State taken under it is not half refreshed.
            let before = self.sync.before_refresh.lock();
            match &*before {
                Some(before) => Arc::clone(before),
                None => {
                    // The coverage is taken first: a later State has at least these rows.
                    let coverage = self.coverage();
                    return StandingView { state: self.state(), coverage };
                }
            }
        };
        let (mut state, newest) = ((*before).clone(), self.state());
        let mut at = self.ring.after(before.seq()).unwrap_or(0);
        loop {
            match self.ring.at(at) {
                CursorRead::Item(item) => {
                    if let Some(entry) = item.entry.as_ref().filter(|entry| entry.seq > before.seq()) {
                        state.apply(&with_current_row(entry, &newest));
                    }
                    at += 1;
                }
                CursorRead::Gone { next, .. } => at = next,
                CursorRead::End | CursorRead::Closed => {
                    return StandingView { state: Arc::new(state), coverage: Coverage::Whole };
                }
            }
        }
    }

    /// Freezes the views of a whole copy at the present State until [`Core::leave_refresh`]. A partial copy has no gaps
    /// that a refresh could fill.
    pub(crate) fn enter_refresh(&self) {
        let mut before = self.sync.before_refresh.lock();
        *before = (self.coverage() == Coverage::Whole).then(|| self.state());
    }

    /// Lets the views show the newest rows again.
    pub(crate) fn leave_refresh(&self) {
        *self.sync.before_refresh.lock() = None;
    }

    /// Returns true if a complete list of the master was applied, so that counts are exact.
    pub(crate) fn has_whole_copy(&self) -> bool {
        self.sync.last_list.lock().complete
    }

    /// Gets the route of a scenery's read from `on_query`, and stores the rows that it returns. Without the callback, the
    /// Dio answers.
    pub(crate) async fn route(self: &Arc<Self>, dio: Dio, query: Query) -> Result<Route> {
        let Some(on_query) = &self.callbacks.on_query else { return Ok(Route::Cache) };
        let guard = self.open_guard().await?;
        let range = query.limit.map(|limit| query.offset..query.offset.saturating_add(limit));
        let answer = on_query(&dio, query);
        // A Dio that is held until the callback ends could not be closed by dropping all others.
        drop(dio);
        let route =
            self.unless_loading(scope::run(self, Arc::new(Scope::new(&self.name, Kind::Query)), answer).await)?;
        Ok(match route {
            // Before the first copy nothing is shown; the view calls this again once there is one.
            _ if self.is_loading() => Route::Cache,
            None | Some(QueryRoute::Cache) => Route::Cache,
            Some(QueryRoute::Load) => Route::Load,
            Some(QueryRoute::Later) => Route::Later,
            Some(QueryRoute::Rows(rows)) => Route::Given(self.keep_given(rows, guard, range).await?),
        })
    }

    async fn keep_given(self: &Arc<Self>, rows: Rows, guard: Guard, range: Option<Range<u64>>) -> Result<Vec<Id>> {
        match range {
            Some(range) => self.keep_chunk(rows, guard, &range, self.is_complete()).await,
            None => self.keep(rows, guard, self.is_complete()).await,
        }
    }

    /// Turns [`Error::NotReady`] of this Dio into `None` while there is no first copy, so that the scenery stays loading.
    fn unless_loading<T>(&self, done: Result<T>) -> Result<Option<T>> {
        match done {
            Err(Error::NotReady { dio, .. }) if dio == self.name && self.is_loading() => Ok(None),
            done => done.map(Some),
        }
    }

    /// Total number of rows from `total_provider`, `None` without the callback or before the first copy.
    pub(crate) async fn ask_total(self: &Arc<Self>, dio: &Dio) -> Result<Option<u64>> {
        let Some(total) = &self.callbacks.total_provider else { return Ok(None) };
        let done = scope::run(self, Arc::new(Scope::new(&self.name, Kind::Query)), total(dio)).await;
        self.unless_loading(done)
    }

    /// Loads a range of the rows of `query` through `on_load_chunk` and stores them as confirmed rows.
    pub(crate) async fn load_range(self: &Arc<Self>, dio: Dio, query: &Query, range: Range<u64>) -> Result<Vec<Id>> {
        let Some(on_load_chunk) = &self.callbacks.on_load_chunk else { return Err(self.cannot_load()) };
        let guard = self.open_guard().await?;
        let sink = ChunkSink::default();
        let scope = Arc::new(Scope::new(&self.name, Kind::Load));
        let chunk = on_load_chunk(&dio, (ChunkRequest::new(query, range.clone()), sink.clone()));
        drop(dio);
        scope::run(self, scope, chunk).await?;
        let Some(rows) = sink.take() else {
            let what =
                "on_load_chunk ended without rows: call sink.put(rows), with empty rows for a range past the end";
            return Err(Error::permanent(what));
        };
        self.keep_chunk(rows, guard, &range, false).await
    }

    /// Checks that ranges can be loaded through `on_load_chunk`.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub(crate) fn loads_chunks(&self) -> Result<()> {
        self.callbacks.on_load_chunk.as_ref().map(drop).ok_or_else(|| self.cannot_load())
    }

    fn cannot_load(&self) -> Error {
        Error::Unsupported { vista: Arc::clone(&self.name), what: "load a range of rows (it has no on_load_chunk)" }
    }

    /// Loads a page of a narrowed or sorted query from a master that supports it, and stores its rows.
    pub(crate) async fn load_query(self: &Arc<Self>, query: &Query, range: Range<u64>) -> Result<Vec<Id>> {
        let query = Query { offset: range.start, limit: Some(range.end - range.start), ..query.clone() };
        self.master_takes(&query)?;
        let guard = self.open_guard().await?;
        let rows = self.list_master(&query).await?;
        self.keep_chunk(rows, guard, &range, false).await
    }

    /// Lists `query` at the master and applies pending writes to the rows. Rows of a page are stored.
    pub(crate) async fn load_page(self: &Arc<Self>, query: &Query) -> Result<Rows> {
        let whole = Query { select: Vec::new(), ..query.clone() };
        let guard = self.open_guard().await?;
        let listed = self.list_master(&whole).await?;
        if query.limit.is_none() || listed.len() > MOST_KEPT {
            return Ok(listed);
        }
        let stamp = Stamp { mark: guard.mark, complete: false, _guard: Arc::new(guard) };
        self.apply_list(listed.clone().stamped(stamp), false, false).await?;
        let (state, schema) = (self.state(), self.vista.schema());
        let prepared = whole.prepare(&schema);
        let mut rows = Rows::with_layout(Arc::clone(schema.layout()));
        for id in listed.ids() {
            // A pending write may have removed the row, or changed it so that it no longer matches.
            if let Some(row) = state.get(id).filter(|row| prepared.matches(&JsonRow::from(&row.body()))) {
                rows.push_body(id, row.encoded());
            }
        }
        Ok(rows)
    }

    /// Stores the rows of a range. Differences are published as row events if `publish` is set.
    async fn keep_chunk(
        self: &Arc<Self>,
        rows: Rows,
        guard: Guard,
        range: &Range<u64>,
        publish: bool,
    ) -> Result<Vec<Id>> {
        let requested = range.end - range.start;
        if rows.len() as u64 > requested {
            let given = rows.len();
            return Err(Error::permanent(format!(
                "{given} rows came for the range {}..{}: load exactly the requested rows",
                range.start, range.end
            )));
        }
        let end = range.start + rows.len() as u64;
        let ids = self.keep(rows, guard, publish).await?;
        self.ring.push_unlogged(DioEvent::Loaded { start: range.start, end });
        Ok(ids)
    }

    async fn keep(self: &Arc<Self>, rows: Rows, guard: Guard, publish: bool) -> Result<Vec<Id>> {
        let ids = rows.ids().map(Id::from).collect();
        let stamp = Stamp { mark: guard.mark, complete: false, _guard: Arc::new(guard) };
        self.apply_list(rows.stamped(stamp), publish, false).await?;
        Ok(ids)
    }

    /// Reads one row of the master into the cache, if the master has it.
    pub(crate) async fn load_row(self: &Arc<Self>, id: &str) -> Result<()> {
        let guard = self.open_guard().await?;
        let Some(record) = self.read_one(id).await? else { return Ok(()) };
        let row = Some(Body::encode(id, &record, self.vista.schema().layout()));
        self.note_mismatches(id, row.as_ref());
        let item = ReadRow { id: Id::from(id), row, ordinal: None };
        self.commit(Command::ReadRows { items: vec![item], mark: guard.mark, notice: Notice::Program }).await.map(drop)
    }
}

/// Copies a published entry with the row as readers see it now. The change itself may be in silent entries.
fn with_current_row(published: &Entry, newest: &State) -> Entry {
    let row = matches!(published.frame, Frame::Inserted | Frame::Changed | Frame::Removed);
    let id = published.id.clone().filter(|_| row);
    let shown = id.as_ref().map(|id| newest.get(id));
    let visible = match shown {
        Some(Some(row)) => VisibleChange::Row { body: row.body(), ordinal: row.ordinal() },
        Some(None) => VisibleChange::Gone,
        None => VisibleChange::Same,
    };
    let mut entry = published.clone();
    (entry.id, entry.visible, entry.base, entry.op) = (id, visible, Base::Keep, OpChange::None);
    entry
}

impl Handle {
    /// Starts a refresh in the background if a view opens on stale rows and `refresh_on_open` is set.
    pub(crate) fn refresh_on_open(self: &Arc<Self>) {
        let core = &self.core;
        // Before the first copy, `on_start` is about to bring newer rows.
        let ready = !core.is_loading();
        if ready && core.settings.refresh_on_open && core.callbacks.on_refresh.is_some() && core.is_stale() {
            let handle = Arc::clone(self);
            core.tasks.spawn(async move { handle.core.refresh_changes(&handle).await });
        }
    }
}
