//! [`ValueScenery`]: one value that is computed from many rows.
//!
//! Whenever a row changes, the value is computed anew from all rows, at most every 25 ms. That costs a scan; keeping counts and
//! sums by differences would save it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::follow::{Follower, Notice};
use super::{Generation, ScenerySnapshot, TaskHandle};
use crate::dio::{Core, Coverage, Dio, DioEvent, GroupIter, Handle, Route};
use crate::journal::Seq;
use crate::record::{Body, CborValue, Id, Record, Rows};
use crate::state::State;
use crate::table::RowRef;
use crate::vista::query::{AggregateItem, Aggregation, CompiledQuery, Function, JsonRow, Meter, numbered};
use crate::vista::{Error, Filter, Query, Result, Schema};

type Custom = Arc<dyn Fn(&Rows) -> Result<CborValue> + Send + Sync>;

/// Describes a [`ValueScenery`]. Of several aggregates the one named last counts.
#[derive(Clone)]
#[must_use = "a builder does nothing until it is opened"]
pub struct ValueSceneryBuilder {
    dio: Dio,
    query: Query,
    aggregate: Aggregate,
}

#[derive(Clone)]
enum Aggregate {
    Of(AggregateItem),
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
            aggregate: Aggregate::Of(AggregateItem::of(Function::Count, None)),
        }
    }

    /// How many rows there are. This is the default.
    pub fn count(self) -> Self {
        self.of(Function::Count, None)
    }

    /// How many rows pass `filter`.
    pub fn count_where(self, filter: Filter) -> Self {
        self.filter(filter).count()
    }

    /// The sum of a column of numbers: exact as long as all of them are integers. Nulls do not count; of no rows it is 0.
    pub fn sum(self, column: impl Into<String>) -> Self {
        self.of(Function::Sum, Some(&column.into()))
    }

    /// The least value of a column, in the order that lists are sorted in. Nulls do not count; of no rows it is null.
    pub fn min(self, column: impl Into<String>) -> Self {
        self.of(Function::Min, Some(&column.into()))
    }

    /// The greatest value of a column; see [`ValueSceneryBuilder::min`].
    pub fn max(self, column: impl Into<String>) -> Self {
        self.of(Function::Max, Some(&column.into()))
    }

    /// The mean of a column of numbers, a float. Nulls do not count; of no rows it is null.
    pub fn avg(self, column: impl Into<String>) -> Self {
        self.of(Function::Avg, Some(&column.into()))
    }

    /// Whatever `compute` makes of the rows. It must not block; a panic in it counts as an error.
    pub fn custom(self, compute: impl Fn(&Rows) -> Result<CborValue> + Send + Sync + 'static) -> Self {
        self.aggregate(Aggregate::Custom(Arc::new(compute)))
    }

    /// The groups of an aggregation, as a list of maps; of these the ones that `page` asks for, by the names of the results.
    pub fn groups(self, aggregation: Arc<Aggregation>, page: Arc<Query>) -> Self {
        self.aggregate(Aggregate::Groups(aggregation, page))
    }

    /// Looks only at rows that have every word of `words`.
    pub fn search(mut self, words: Option<String>) -> Self {
        self.query.search = words;
        self
    }

    /// Looks only at rows that pass `filter`; adds to what was said before.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.query.filter.and(filter);
        self
    }

    fn of(self, function: Function, column: Option<&str>) -> Self {
        self.aggregate(Aggregate::Of(AggregateItem::of(function, column)))
    }

    fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// Opens the view: computes the value, and follows the Dio from there on. Before the first copy there is no value yet; it
    /// comes with the copy.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist or does not hold numbers; [`Error::Unsupported`] if the Dio holds
    /// only part of its rows; what the computation says.
    pub async fn open(self) -> Result<ValueScenery> {
        let schema = self.dio.schema();
        self.query.validate(&schema)?;
        let core = Arc::clone(&self.dio.0.core);
        let what = match self.aggregate {
            Aggregate::Of(item) => Measure::Of(Aggregation::new(std::slice::from_ref(&item), &schema)?, item.function),
            Aggregate::Groups(aggregation, page) => {
                let page = Arc::new((page.prepare(&aggregation.schema()), page));
                Measure::Groups(aggregation, page)
            }
            Aggregate::Custom(compute) => Measure::Custom(compute),
        };
        let sum = Computation { what, query: self.query, schema };
        let mut follower = Follower::new(&core);
        let mut route = core.route(self.dio.clone(), sum.query.clone()).await?;
        let (now, error) = match sum.run(&core, &mut follower, &route).await {
            Ok(now) => (Some(now), None),
            Err(error @ Error::NotReady { .. }) => (None, Some(error.to_string())),
            Err(error) if matches!(route, Route::Later) => (None, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        // Weak: only handles keep the Dio alive.
        let handle = Arc::downgrade(&self.dio.0);
        let held = RwLock::new(ValueState { now, error, version: 0 });
        let shared = Arc::new(Shared { held, generation: watch::Sender::default() });
        let task = {
            let shared = Arc::clone(&shared);
            async move {
                while let Some(told) = follower.told().await {
                    if told.iter().any(matters) {
                        match ask_again(&told, &sum.query, &core, &handle).await {
                            Ok(Some(anew)) => route = anew,
                            Ok(None) => {}
                            Err(error) => {
                                follower.saw(&core.coverage());
                                shared.show(Err(error));
                                continue;
                            }
                        }
                        shared.show(sum.run(&core, &mut follower, &route).await);
                        follower.rest();
                    } else if let Some(seq) = told.iter().filter_map(Notice::seq).max()
                        && let Some(now) = &mut shared.held.write().now
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

/// Whether rows may have changed.
fn matters(told: &Notice) -> bool {
    match told {
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

/// A standing view of one value. Clones share it.
#[derive(Clone)]
pub struct ValueScenery(Arc<TaskHandle<Shared>>);

struct Shared {
    held: RwLock<ValueState>,
    generation: watch::Sender<Generation>,
}

struct ValueState {
    /// `None` before the first copy.
    now: Option<ComputedValue>,
    error: Option<String>,
    /// Counts how often it was another.
    version: u64,
}

/// A value, and the position of the log that it is of.
struct ComputedValue {
    value: CborValue,
    /// How many groups there are in all.
    total: Option<u64>,
    seq: Seq,
}

impl std::fmt::Debug for ValueScenery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueScenery").field("value", &self.value()).finish_non_exhaustive()
    }
}

impl ValueScenery {
    /// The value: `None` before the Dio's first copy, the last good one while [`ValueScenery::error`] says that it cannot be
    /// computed.
    pub fn value(&self) -> Option<CborValue> {
        self.0.shared.held.read().now.as_ref().map(|now| now.value.clone())
    }

    /// The groups, each with what is made of it; see [`ValueSceneryBuilder::groups`].
    pub fn shown(&self, make: impl FnMut(&CborValue) -> (Id, Body)) -> ScenerySnapshot {
        let held = self.0.shared.held.read();
        let Some(now) = &held.now else {
            return ScenerySnapshot { version: held.version, seq: 0, total: None, rows: Vec::new() };
        };
        let rows = now.value.as_array().into_iter().flatten().map(make).collect();
        ScenerySnapshot { version: held.version, seq: now.seq, total: now.total, rows }
    }

    /// The version of what is shown, and the position that it was last seen to be true at.
    pub fn version(&self) -> (u64, Seq) {
        let held = self.0.shared.held.read();
        (held.version, held.now.as_ref().map_or(0, |now| now.seq))
    }

    /// Why the value is not the newest, or why there is none.
    pub fn error(&self) -> Option<String> {
        self.0.shared.held.read().error.clone()
    }

    /// Follows the generation: it moves when the value does.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.0.shared.generation.subscribe()
    }

    /// The generation now.
    pub fn generation(&self) -> Generation {
        *self.0.shared.generation.borrow()
    }

    /// The Dio whose rows it is computed from.
    pub fn dio(&self) -> &Dio {
        &self.0.dio
    }
}

impl Shared {
    fn show(&self, computed: Result<ComputedValue>) {
        let mut held = self.held.write();
        let moved = match computed {
            Ok(now) => {
                held.error = None;
                let same = |known: &ComputedValue| known.value == now.value && known.total == now.total;
                let moved = !held.now.as_ref().is_some_and(same);
                held.version += u64::from(moved);
                held.now = Some(now);
                moved
            }
            Err(error) => {
                held.error = Some(error.to_string());
                false
            }
        };
        drop(held);
        if moved {
            Generation::bump(&self.generation);
        }
    }
}

/// What is computed of which rows.
#[derive(Clone)]
struct Computation {
    what: Measure,
    query: Query,
    schema: Arc<Schema>,
}

#[derive(Clone)]
enum Measure {
    Of(Aggregation, Option<Function>),
    /// Groups, and which of them.
    Groups(Arc<Aggregation>, Arc<(CompiledQuery, Arc<Query>)>),
    Custom(Custom),
}

impl Computation {
    async fn run(&self, core: &Core, follower: &mut Follower, route: &Route) -> Result<ComputedValue> {
        let view = core.standing_view();
        follower.saw(&view.coverage);
        view.coverage.check(&core.name)?;
        let given = match route {
            Route::Given(ids) => Some(ids.clone()),
            Route::Cache => None,
            Route::Later => return Err(Error::transient("on_query has no answer yet")),
            Route::Load => {
                let what = "compute a value (on_query has its rows loaded piece by piece)";
                return Err(Error::Unsupported { vista: Arc::clone(&core.name), what });
            }
        };
        if view.coverage == Coverage::Partial && given.is_none() {
            let what = "compute a value (its rows are only partly cached)";
            return Err(Error::Unsupported { vista: Arc::clone(&core.name), what });
        }
        let seq = view.state.seq();
        if let Measure::Groups(aggregation, page) = &self.what {
            let meter = Arc::new(Meter::background());
            let (value, total) = match &given {
                Some(ids) => paged(&mut aggregation.fold_within(cells(rows_of(&view.state, ids)), &meter)?, page)?,
                None => {
                    let page = Arc::clone(page);
                    let page = move |groups: GroupIter<'_>, _: &Meter| paged(groups, &page);
                    core.aggregate_in(view.state, &self.query, aggregation, &self.schema, &meter, page).await?
                }
            };
            return Ok(ComputedValue { value, total: Some(total), seq });
        }
        let sum = self.clone();
        let rows = given.as_ref().map_or(view.state.table().len(), Vec::len);
        let work = move || match &given {
            Some(ids) => sum.of(rows_of(&view.state, ids)),
            None => sum.of_all(&view.state),
        };
        // Somebody else's code runs in there.
        let compute = move |_: &Meter| {
            let computed = std::panic::catch_unwind(AssertUnwindSafe(work));
            computed.unwrap_or_else(|_| Err(Error::permanent("the computation panicked")))
        };
        let value = core.work(rows, &Arc::new(Meter::background()), compute).await?;
        Ok(ComputedValue { value, total: None, seq })
    }

    fn of_all(&self, state: &State) -> Result<CborValue> {
        let prepared = self.query.prepare(&self.schema);
        self.of(state.table().natural(0).filter(|row| {
            prepared.is_unfiltered() || prepared.matches(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
        }))
    }

    fn of<'a>(&self, rows: impl Iterator<Item = RowRef<'a>>) -> Result<CborValue> {
        match &self.what {
            Measure::Custom(compute) => {
                let mut selection = Rows::with_layout(Arc::clone(self.schema.layout()));
                for row in rows {
                    selection.push_body(Id::from(row.id()), row.body());
                }
                compute(&selection)
            }
            // They are found by another way.
            Measure::Groups(..) => Ok(CborValue::Null),
            Measure::Of(aggregation, function) => {
                let found = aggregation.fold(cells(rows))?.into_iter().flatten().next();
                Ok(match found {
                    // Whoever adds up a view of nothing wants to see a number.
                    Some((_, CborValue::Null)) | None if *function == Some(Function::Sum) => 0.into(),
                    found => found.map_or(CborValue::Null, |(_, value)| value),
                })
            }
        }
    }
}

/// Rows of `ids` that are there.
fn rows_of<'a>(state: &'a State, ids: &'a [Id]) -> impl Iterator<Item = RowRef<'a>> {
    ids.iter().filter_map(|id| state.get(id))
}

fn cells<'a>(rows: impl Iterator<Item = RowRef<'a>>) -> impl Iterator<Item = JsonRow<'a>> {
    rows.map(|row| JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
}

/// Asks `on_query` again, if `told` is a reason to.
async fn ask_again(told: &[Notice], query: &Query, core: &Arc<Core>, handle: &Weak<Handle>) -> Result<Option<Route>> {
    if core.hooks.on_query.is_none() || core.is_loading() {
        return Ok(None);
    }
    let answered = core.answered_until().await;
    let anew = told.iter().any(|told| match told {
        Notice::Lagged | Notice::Start => true,
        Notice::Item(item) => item.event == DioEvent::Invalidated && item.seq.is_none_or(|seq| seq > answered),
    });
    match handle.upgrade().filter(|_| anew) {
        Some(handle) => core.route(Dio(handle), query.clone()).await.map(Some),
        None => Ok(None),
    }
}

/// The groups that `page` asks for as a list of maps, and how many there are in all.
fn paged(groups: GroupIter<'_>, (prepared, page): &(CompiledQuery, Arc<Query>)) -> Result<(CborValue, u64)> {
    let mut failed = Ok(());
    let top = prepared.top(numbered(groups, &mut failed), page.offset, page.limit);
    failed?;
    let map = |(_, group): (String, Record)| {
        CborValue::Map(group.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect())
    };
    Ok((CborValue::Array(top.rows.into_iter().map(map).collect()), top.total))
}
