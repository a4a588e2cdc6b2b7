//! [`ValueScenery`]: one value that is computed from many rows.
//!
//! Whenever a row changes, the value is computed anew from all rows, at most every 25 ms. That costs a scan; keeping counts and
//! sums by differences would save it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::follow::{Follower, Told};
use super::{Generation, Lead};
use crate::dio::{Core, Dio, DioEvent};
use crate::hot::State;
use crate::record::{CborValue, Id, Rows};
use crate::vista::query::{Fields, JsonRow, Key, Path};
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
    Count,
    Sum(String),
    Min(String),
    Max(String),
    Avg(String),
    Custom(Custom),
}

impl std::fmt::Debug for ValueSceneryBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueSceneryBuilder").field("query", &self.query).finish_non_exhaustive()
    }
}

impl ValueSceneryBuilder {
    pub(super) fn new(dio: Dio) -> ValueSceneryBuilder {
        ValueSceneryBuilder { dio, query: Query::default(), aggregate: Aggregate::Count }
    }

    /// How many rows there are. This is the default.
    pub fn count(self) -> Self {
        self.aggregate(Aggregate::Count)
    }

    /// How many rows pass `filter`.
    pub fn count_where(self, filter: Filter) -> Self {
        self.filter(filter).count()
    }

    /// The sum of a column of numbers: exact as long as all of them are integers. Nulls do not count; of no rows it is 0.
    pub fn sum(self, column: impl Into<String>) -> Self {
        self.aggregate(Aggregate::Sum(column.into()))
    }

    /// The least value of a column, in the order that lists are sorted in. Nulls do not count; of no rows it is null.
    pub fn min(self, column: impl Into<String>) -> Self {
        self.aggregate(Aggregate::Min(column.into()))
    }

    /// The greatest value of a column; see [`ValueSceneryBuilder::min`].
    pub fn max(self, column: impl Into<String>) -> Self {
        self.aggregate(Aggregate::Max(column.into()))
    }

    /// The mean of a column of numbers, a float. Nulls do not count; of no rows it is null.
    pub fn avg(self, column: impl Into<String>) -> Self {
        self.aggregate(Aggregate::Avg(column.into()))
    }

    /// Whatever `compute` makes of the rows. It must not block; a panic in it counts as an error.
    pub fn custom(self, compute: impl Fn(&Rows) -> Result<CborValue> + Send + Sync + 'static) -> Self {
        self.aggregate(Aggregate::Custom(Arc::new(compute)))
    }

    /// Looks only at rows that pass `filter`; adds to what was said before.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.query.filter.and(filter);
        self
    }

    fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// Opens the view: computes the value, and follows the Dio from there on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist or does not hold numbers; [`Error::Unsupported`] if the Dio holds
    /// only part of its rows; what the computation says.
    pub async fn open(self) -> Result<ValueScenery> {
        let schema = self.dio.schema();
        self.query.validate(&schema)?;
        let core = Arc::clone(&self.dio.0.core);
        let sum =
            Computation { path: self.aggregate.path(&schema)?, aggregate: self.aggregate, query: self.query, schema };
        let mut follower = Follower::new(&core.ring);
        core.before_query(&self.dio, sum.query.clone()).await?;
        let value = sum.run(&core).await?;
        let held = RwLock::new(Held { value: Some(value), error: None });
        let shared = Arc::new(Shared { held, generation: watch::Sender::default() });
        let task = {
            let shared = Arc::clone(&shared);
            async move {
                while let Some(told) = follower.told().await {
                    if told.iter().any(matters) {
                        shared.show(sum.run(&core).await);
                        follower.rest();
                    }
                }
            }
        };
        self.dio.0.refresh_on_open();
        Ok(ValueScenery(Lead::start(self.dio, shared, task)))
    }
}

impl Aggregate {
    fn path(&self, schema: &Schema) -> Result<Option<Path>> {
        match self {
            Aggregate::Count | Aggregate::Custom(_) => Ok(None),
            Aggregate::Sum(column) | Aggregate::Min(column) | Aggregate::Max(column) | Aggregate::Avg(column) => {
                Path::checked(column, schema).map(Some).map_err(Error::invalid)
            }
        }
    }
}

/// Whether rows may have changed.
fn matters(told: &Told) -> bool {
    match told {
        Told::Lagged => true,
        Told::Item(item) => matches!(
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
pub struct ValueScenery(Arc<Lead<Shared>>);

struct Shared {
    held: RwLock<Held>,
    generation: watch::Sender<Generation>,
}

struct Held {
    value: Option<CborValue>,
    error: Option<String>,
}

impl std::fmt::Debug for ValueScenery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValueScenery").field("value", &self.value()).finish_non_exhaustive()
    }
}

impl ValueScenery {
    /// The value; the last good one while [`ValueScenery::error`] says that it cannot be computed.
    pub fn value(&self) -> Option<CborValue> {
        self.0.shared.held.read().value.clone()
    }

    /// Why the value is not the newest.
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
    fn show(&self, computed: Result<CborValue>) {
        let mut held = self.held.write();
        let moved = match computed {
            Ok(value) => {
                held.error = None;
                let moved = held.value.as_ref() != Some(&value);
                held.value = Some(value);
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
    aggregate: Aggregate,
    path: Option<Path>,
    query: Query,
    schema: Arc<Schema>,
}

impl Computation {
    async fn run(&self, core: &Core) -> Result<CborValue> {
        let view = core.standing_view();
        if !view.complete {
            let what = "compute a value (its rows are only partly cached)";
            return Err(Error::Unsupported { vista: Arc::clone(&core.name), what });
        }
        let sum = self.clone();
        let rows = view.state.table().len();
        // Somebody else's code runs in there.
        let compute = move || std::panic::catch_unwind(AssertUnwindSafe(|| sum.of(&view.state)));
        core.heavy(rows, compute).await?.unwrap_or_else(|_| Err(Error::permanent("the computation panicked")))
    }

    fn of(&self, state: &State) -> Result<CborValue> {
        let prepared = self.query.prepare(&self.schema);
        let rows = state.table().natural(0).filter(|row| {
            prepared.is_unfiltered() || prepared.matches(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
        });
        let Some(path) = &self.path else {
            return match &self.aggregate {
                Aggregate::Custom(compute) => {
                    let mut picked = Rows::with_layout(Arc::clone(self.schema.layout()));
                    for row in rows {
                        picked.push_body(Id::from(row.id()), row.body());
                    }
                    compute(&picked)
                }
                _ => Ok(CborValue::from(rows.count() as u64)),
            };
        };
        let cells = rows.filter_map(|row| {
            let cell = JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])).field(path)?.into_owned();
            (cell != CborValue::Null).then_some(cell)
        });
        match &self.aggregate {
            Aggregate::Min(_) => Ok(extreme(cells, |key, least| key < least)),
            Aggregate::Max(_) => Ok(extreme(cells, |key, most| key > most)),
            Aggregate::Avg(_) => Total::of(cells, path.column()).map(|total| total.mean()),
            _ => Total::of(cells, path.column())?.value(),
        }
    }
}

fn extreme(cells: impl Iterator<Item = CborValue>, beats: fn(&Key<'_>, &Key<'_>) -> bool) -> CborValue {
    let best =
        cells.reduce(|best, cell| if beats(&Key::of(&cell, false), &Key::of(&best, false)) { cell } else { best });
    best.unwrap_or(CborValue::Null)
}

/// A sum: integers exactly, floats with the error that addition loses (Neumaier).
#[derive(Default)]
struct Total {
    integers: i128,
    floats: Option<(f64, f64)>,
    count: u64,
}

impl Total {
    fn of(cells: impl Iterator<Item = CborValue>, column: &str) -> Result<Total> {
        let mut total = Total::default();
        for cell in cells {
            total.count += 1;
            match cell {
                // No table has enough rows to fill an i128 with numbers of 65 bits.
                CborValue::Integer(number) => total.integers += i128::from(number),
                CborValue::Float(number) => total.add_float(number),
                _ => {
                    return Err(Error::invalid(format!("column {column:?} holds something that is no number")));
                }
            }
        }
        Ok(total)
    }

    fn add_float(&mut self, number: f64) {
        let (sum, lost) = self.floats.unwrap_or((0.0, 0.0));
        let next = sum + number;
        let more = if sum.abs() >= number.abs() { sum - next + number } else { number - next + sum };
        self.floats = Some((next, lost + more));
    }

    fn value(&self) -> Result<CborValue> {
        if self.floats.is_some() {
            return Ok(CborValue::Float(self.as_float()));
        }
        match ciborium::value::Integer::try_from(self.integers) {
            Ok(sum) => Ok(CborValue::Integer(sum)),
            Err(_) => Err(Error::invalid("the sum is greater than an integer can be")),
        }
    }

    fn mean(&self) -> CborValue {
        match self.count {
            0 => CborValue::Null,
            count => CborValue::Float(self.as_float() / count as f64),
        }
    }

    fn as_float(&self) -> f64 {
        let (sum, lost) = self.floats.unwrap_or((0.0, 0.0));
        // A sum that is not finite has no error to be corrected.
        let floats = if (sum + lost).is_nan() { sum } else { sum + lost };
        self.integers as f64 + floats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(cells: Vec<CborValue>) -> Result<CborValue> {
        Total::of(cells.into_iter(), "n")?.value()
    }

    #[test]
    fn sums_of_integers_are_exact() {
        let big = u64::MAX;
        assert_eq!(sum(vec![big.into(), (-1).into(), 1.into()]).unwrap(), big.into());
        assert_eq!(sum(vec![(1_i64 << 53).into(), 1.into()]).unwrap(), ((1_i64 << 53) + 1).into());
        assert_eq!(sum(vec![]).unwrap(), 0.into());
        assert!(sum(vec![big.into(), 1.into()]).is_err());
        assert!(sum(vec!["x".into()]).is_err());
    }

    #[test]
    fn sums_of_floats_keep_what_addition_loses() {
        let cells = [1e100, 1.0, -1e100].map(CborValue::Float);
        assert_eq!(sum(cells.to_vec()).unwrap(), CborValue::Float(1.0));
        assert_eq!(sum(vec![CborValue::Float(0.5), 2.into()]).unwrap(), CborValue::Float(2.5));
        assert_eq!(Total::of([1.into(), 2.into()].into_iter(), "n").unwrap().mean(), CborValue::Float(1.5));
    }
}
