//! [`ValueScenery`]: one value that is computed from many rows.
//!
//! After a change the value is recomputed from all rows, at most every 25 ms. That costs a scan; incremental counts and sums
//! would avoid it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::follow::{Follower, Notice};
use super::{Generation, ScenerySnapshot, TaskHandle};
use crate::dio::{Core, Coverage, Dio, DioEvent, Handle, Route};
use crate::journal::Seq;
use crate::record::{Body, CborValue, Id, Record, Rows};
use crate::state::State;
use crate::table::RowRef;
use crate::vista::query::{AggregateItem, Aggregation, CompiledQuery, Function, Groups, JsonRow, Meter};
use crate::vista::{Error, Filter, Query, Result, Schema};

type Custom = Arc<dyn Fn(&Rows) -> Result<CborValue> + Send + Sync>;

/// Builder of a [`ValueScenery`]. The last aggregate that is set counts.
#[derive(Clone)]
#[must_use = "a builder does nothing until it is opened"]
pub struct ValueSceneryBuilder {
    dio: Dio,
    query: Query,
    aggregate: Aggregate,
    schema: Option<Arc<Schema>>,
}

/// Aggregate that a builder was given.
#[derive(Clone)]
enum Aggregate {
    Single(AggregateItem),
    Groups(Arc<Aggregation>, Arc<Query>),
    Custom(Custom),
}

impl std::fmt::Debug for ValueSceneryBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueSceneryBuilder").field("query", &self.query).finish_non_exhaustive()
    }
}

impl ValueSceneryBuilder {
    pub(super) fn new(dio: Dio) -> ValueSceneryBuilder {
        ValueSceneryBuilder {
            dio,
            query: Query::default(),
            aggregate: Aggregate::Single(AggregateItem::of(Function::Count, None)),
            schema: None,
        }
    }

    /// Counts the rows. This is the default.
    pub fn count(self) -> Self {
        self.function(Function::Count, None)
    }

    /// Counts the rows that match `filter`.
    pub fn count_where(self, filter: Filter) -> Self {
        self.filter(filter).count()
    }

    /// Sums a column of numbers: exact as long as all of them are integers. Nulls are ignored; the sum of no rows is 0.
    pub fn sum(self, column: impl Into<String>) -> Self {
        self.function(Function::Sum, Some(&column.into()))
    }

    /// Returns the smallest value of a column, in sort order. Nulls are ignored; the result for no rows is null.
    pub fn min(self, column: impl Into<String>) -> Self {
        self.function(Function::Min, Some(&column.into()))
    }

    /// Returns the largest value of a column; see [`ValueSceneryBuilder::min`].
    pub fn max(self, column: impl Into<String>) -> Self {
        self.function(Function::Max, Some(&column.into()))
    }

    /// Averages a column of numbers, as a float. Nulls are ignored; the result for no rows is null.
    pub fn avg(self, column: impl Into<String>) -> Self {
        self.function(Function::Avg, Some(&column.into()))
    }

    /// Computes a value from the rows with `compute`. It must not block; a panic in it counts as an error.
    pub fn custom(self, compute: impl Fn(&Rows) -> Result<CborValue> + Send + Sync + 'static) -> Self {
        self.aggregate(Aggregate::Custom(Arc::new(compute)))
    }

    /// Computes the groups of an aggregation, as a list of maps. `page` selects the groups, by the names of the results.
    pub fn groups(self, aggregation: Arc<Aggregation>, page: Arc<Query>) -> Self {
        self.aggregate(Aggregate::Groups(aggregation, page))
    }

    /// Restricts the value to rows that contain every word of `words`.
    pub fn search(mut self, words: Option<String>) -> Self {
        self.query.search = words;
        self
    }

    /// Restricts the value to rows that match `filter`, in addition to earlier filters.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.query.filter.and(filter);
        self
    }

    /// Compiles the query by `schema` in place of that of the Dio, which must have the same columns. Fewer of them may be searched.
    #[doc(hidden)]
    pub fn schema(mut self, schema: &Arc<Schema>) -> Self {
        self.schema = Some(Arc::clone(schema));
        self
    }

    fn function(self, function: Function, column: Option<&str>) -> Self {
        self.aggregate(Aggregate::Single(AggregateItem::of(function, column)))
    }

    fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// Opens the view: computes the value and follows the Dio. Before the first copy there is no value; it appears with the
    /// copy.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist or does not hold numbers; [`Error::Unsupported`] if the Dio holds
    /// only part of its rows; errors of the computation.
    pub async fn open(self) -> Result<ValueScenery> {
        let schema = self.schema.unwrap_or_else(|| self.dio.schema());
        self.query.validate(&schema)?;
        let core = Arc::clone(&self.dio.0.core);
        let measure = match self.aggregate {
            Aggregate::Single(item) => {
                Measure::Single(Aggregation::new(std::slice::from_ref(&item), &schema)?, item.function)
            }
            Aggregate::Groups(aggregation, page) => {
                let page = Arc::new((page.prepare(&aggregation.schema()), page));
                Measure::Groups(aggregation, page)
            }
            Aggregate::Custom(compute) => Measure::Custom(compute),
        };
        let computation = Computation { measure, query: self.query, schema };
        let mut follower = Follower::new(&core);
        let mut route = core.route(self.dio.clone(), computation.query.clone()).await?;
        let (now, error) = match computation.run(&core, &mut follower, &route).await {
            Ok(now) => (Some(now), None),
            Err(error @ Error::NotReady { .. }) => (None, Some(error.to_string())),
            Err(error) if matches!(route, Route::Later) => (None, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        // Weak: only handles keep the Dio alive.
        let handle = Arc::downgrade(&self.dio.0);
        let current = RwLock::new(ValueState { now, error, version: 0 });
        let shared = Arc::new(Shared { current, generation: watch::Sender::default() });
        let task = {
            let shared = Arc::clone(&shared);
            async move {
                while let Some(notices) = follower.next_batch().await {
                    if notices.iter().any(may_change_rows) {
                        match reroute(&notices, &computation.query, &core, &handle).await {
                            Ok(Some(new_route)) => route = new_route,
                            Ok(None) => {}
                            Err(error) => {
                                follower.note_coverage(&core.coverage());
                                shared.show(Err(error));
                                continue;
                            }
                        }
                        shared.show(computation.run(&core, &mut follower, &route).await);
                        follower.pause();
                    } else if let Some(seq) = notices.iter().filter_map(Notice::seq).max()
                        && let Some(now) = &mut shared.current.write().now
                    {
                        now.seq = now.seq.max(seq);
                    }
                }
            }
        };
        self.dio.0.refresh_on_open();
        Ok(ValueScenery(TaskHandle::start(self.dio, shared, task)))
    }
}

/// Returns true if rows may have changed.
fn may_change_rows(notice: &Notice) -> bool {
    match notice {
        Notice::Lagged | Notice::Start => true,
        Notice::Item(item) => matches!(
            item.event,
            DioEvent::RecordChanged { .. }
                | DioEvent::RecordInserted { .. }
                | DioEvent::RecordRemoved { .. }
                | DioEvent::Invalidated
        ),
    }
}

/// Live view of one value. Clones share it.
#[derive(Clone)]
pub struct ValueScenery(Arc<TaskHandle<Shared>>);

/// State that the task writes and handles read.
struct Shared {
    current: RwLock<ValueState>,
    generation: watch::Sender<Generation>,
}

/// The value, or the reason why it is outdated or missing.
struct ValueState {
    /// `None` before the first copy.
    now: Option<ComputedValue>,
    error: Option<String>,
    /// Number of changes so far.
    version: u64,
}

/// A value and its log position.
struct ComputedValue {
    value: CborValue,
    /// Total number of groups.
    total: Option<u64>,
    seq: Seq,
}

impl std::fmt::Debug for ValueScenery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueScenery").field("value", &self.value()).finish_non_exhaustive()
    }
}

impl ValueScenery {
    /// Returns the value. `None` before the Dio's first copy; the last good value while [`ValueScenery::error`] reports that it
    /// cannot be computed.
    pub fn value(&self) -> Option<CborValue> {
        self.0.shared.current.read().now.as_ref().map(|now| now.value.clone())
    }

    /// Returns a snapshot of the groups, each converted by `make`; see [`ValueSceneryBuilder::groups`].
    pub fn shown(&self, make: impl FnMut(&CborValue) -> (Id, Body)) -> ScenerySnapshot {
        let current = self.0.shared.current.read();
        let Some(now) = &current.now else {
            return ScenerySnapshot { version: current.version, seq: 0, total: None, rows: Vec::new() };
        };
        let rows = now.value.as_array().into_iter().flatten().map(make).collect();
        ScenerySnapshot { version: current.version, seq: now.seq, total: now.total, rows }
    }

    /// Returns the version, and the newest log position at which the value is known to be current.
    pub fn version(&self) -> (u64, Seq) {
        let current = self.0.shared.current.read();
        (current.version, current.now.as_ref().map_or(0, |now| now.seq))
    }

    /// Returns the reason why the value is outdated or missing.
    pub fn error(&self) -> Option<String> {
        self.0.shared.current.read().error.clone()
    }

    /// Subscribes to the generation, which changes when the value changes.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.0.shared.generation.subscribe()
    }

    /// Returns the current generation.
    pub fn generation(&self) -> Generation {
        *self.0.shared.generation.borrow()
    }

    /// Returns the Dio from which the value is computed.
    pub fn dio(&self) -> &Dio {
        &self.0.dio
    }
}

impl Shared {
    fn show(&self, computed: Result<ComputedValue>) {
        let mut current = self.current.write();
        let moved = match computed {
            Ok(now) => {
                current.error = None;
                let same = |known: &ComputedValue| known.value == now.value && known.total == now.total;
                let moved = !current.now.as_ref().is_some_and(same);
                current.version += u64::from(moved);
                current.now = Some(now);
                moved
            }
            Err(error) => {
                current.error = Some(error.to_string());
                false
            }
        };
        drop(current);
        if moved {
            Generation::bump(&self.generation);
        }
    }
}

/// A measure and the query that selects its rows.
#[derive(Clone)]
struct Computation {
    measure: Measure,
    query: Query,
    schema: Arc<Schema>,
}

/// Compiled aggregate.
#[derive(Clone)]
enum Measure {
    Single(Aggregation, Option<Function>),
    /// Groups, and the query that selects the page.
    Groups(Arc<Aggregation>, Arc<(CompiledQuery, Arc<Query>)>),
    Custom(Custom),
}

impl Computation {
    async fn run(&self, core: &Core, follower: &mut Follower, route: &Route) -> Result<ComputedValue> {
        let view = core.standing_view();
        follower.note_coverage(&view.coverage);
        view.coverage.check(&core.name)?;
        let given = match route {
            Route::Given(ids) => Some(ids.clone()),
            Route::Cache => None,
            Route::Later => return Err(Error::transient("on_query has no answer yet")),
            Route::Load => {
                let what = "compute a value (on_query loads its rows in ranges)";
                return Err(Error::Unsupported { vista: Arc::clone(&core.name), what });
            }
        };
        if view.coverage == Coverage::Partial && given.is_none() {
            let what = "compute a value (its rows are only partly cached)";
            return Err(Error::Unsupported { vista: Arc::clone(&core.name), what });
        }
        let seq = view.state.seq();
        if let Measure::Groups(aggregation, page) = &self.measure {
            let meter = Arc::new(Meter::background());
            let (value, total) = match &given {
                Some(ids) => paged(&aggregation.fold_within(cells(rows_of(&view.state, ids)), &meter)?, page)?,
                None => {
                    let page = Arc::clone(page);
                    let page = move |groups: Groups<'_>, _: &Meter| paged(&groups, &page);
                    core.aggregate_in(view.state, &self.query, aggregation, &self.schema, &meter, page).await?
                }
            };
            return Ok(ComputedValue { value, total: Some(total), seq });
        }
        let computation = self.clone();
        let rows = given.as_ref().map_or(view.state.table().len(), Vec::len);
        let work = move || match &given {
            Some(ids) => computation.compute(rows_of(&view.state, ids)),
            None => computation.compute_all(&view.state),
        };
        // The computation runs callers' code.
        let compute = move |_: &Meter| {
            let computed = std::panic::catch_unwind(AssertUnwindSafe(work));
            computed.unwrap_or_else(|_| Err(Error::permanent("the computation panicked")))
        };
        let value = core.work(rows, &Arc::new(Meter::background()), compute).await?;
        Ok(ComputedValue { value, total: None, seq })
    }

    fn compute_all(&self, state: &State) -> Result<CborValue> {
        let prepared = self.query.prepare(&self.schema);
        self.compute(state.table().natural(0).filter(|row| {
            prepared.is_unfiltered() || prepared.matches(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
        }))
    }

    fn compute<'a>(&self, rows: impl Iterator<Item = RowRef<'a>>) -> Result<CborValue> {
        match &self.measure {
            Measure::Custom(compute) => {
                let mut selection = Rows::with_layout(Arc::clone(self.schema.layout()));
                for row in rows {
                    selection.push_body(row.id(), row.encoded());
                }
                compute(&selection)
            }
            // `run` computes groups separately.
            Measure::Groups(..) => Ok(CborValue::Null),
            Measure::Single(aggregation, function) => {
                let found = aggregation.fold(cells(rows))?.into_iter().flatten().next();
                Ok(match found {
                    // The sum of no rows is 0, not null.
                    Some((_, CborValue::Null)) | None if *function == Some(Function::Sum) => 0.into(),
                    found => found.map_or(CborValue::Null, |(_, value)| value),
                })
            }
        }
    }
}

/// Returns the existing rows of `ids`.
fn rows_of<'a>(state: &'a State, ids: &'a [Id]) -> impl Iterator<Item = RowRef<'a>> {
    ids.iter().filter_map(|id| state.get(id))
}

fn cells<'a>(rows: impl Iterator<Item = RowRef<'a>>) -> impl Iterator<Item = JsonRow<'a>> {
    rows.map(|row| JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
}

/// Runs `on_query` again if `notices` require it.
async fn reroute(notices: &[Notice], query: &Query, core: &Arc<Core>, handle: &Weak<Handle>) -> Result<Option<Route>> {
    if core.callbacks.on_query.is_none() || core.is_loading() {
        return Ok(None);
    }
    let answered = core.answered_until().await;
    let changed = notices.iter().any(|notice| match notice {
        Notice::Lagged | Notice::Start => true,
        Notice::Item(item) => item.event == DioEvent::Invalidated && item.seq.is_none_or(|seq| seq > answered),
    });
    match handle.upgrade().filter(|_| changed) {
        Some(handle) => core.route(Dio(handle), query.clone()).await.map(Some),
        None => Ok(None),
    }
}

/// Returns the page of groups as a list of maps, and the total number of groups.
fn paged(groups: &Groups<'_>, (prepared, page): &(CompiledQuery, Arc<Query>)) -> Result<(CborValue, u64)> {
    let page = groups.page(prepared, page.offset, page.limit, &Meter::unbounded())?;
    let map = |group: Record| {
        CborValue::Map(group.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect())
    };
    Ok((CborValue::Array(page.groups.into_iter().map(map).collect()), page.total))
}
