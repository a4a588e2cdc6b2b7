//! How a query is answered: which rows are looked at, in which order, and what is still checked on each.
//!
//! [`plan`] chooses by exact numbers: the ranks of an index say how many rows lie between two keys. What no index answers is
//! left to the one matcher, the order of what was picked to the one comparator.

mod choose;
mod clauses;
mod prepared_query;
mod run;
mod source;
#[cfg(test)]
mod tests;
mod walk;

pub use self::prepared_query::{CachedPlan, PreparedQuery};
use self::source::SlotSource;
use self::walk::Walk;
use crate::table::{RowRef, Slot, Spec, Table};
use crate::vista::query::{Cursor, JsonRow, Meter};
use crate::vista::{Query, Result, Schema};

/// How one query is answered from one table.
#[derive(Clone, Debug)]
pub struct Plan {
    access: Access,
    /// What is checked on each row: filter and search of a query. `None` if nothing is.
    residual: Option<Query>,
    /// Number of the index that answers the search.
    words: Option<usize>,
    /// Whether nothing but the search is asked: what it finds is what matches.
    words_only: bool,
    /// How many rows match, where ranks tell.
    total: Option<usize>,
    /// Rows that will be looked at, about.
    cost: usize,
    /// Indexes that would have made it cheap.
    wanted_indexes: Vec<Spec>,
}

/// Where rows come from.
#[derive(Clone, Debug)]
enum Access {
    /// All, in natural order.
    Natural,
    /// Along an index, in the order of the query.
    Walk(Walk),
    /// Some, in no order; sorted afterwards.
    Some(SlotSource),
    /// All, sorted afterwards.
    Scan,
}

/// Which of the rows that match are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most so many.
    pub limit: Option<u64>,
    /// After so many.
    pub offset: u64,
}

impl Page {
    /// The page that `query` asks for.
    pub fn of(query: &Query) -> Page {
        Page { limit: query.limit, offset: query.offset }
    }

    fn most(self) -> usize {
        self.limit.map_or(usize::MAX, clamp)
    }
}

/// Rows picked for an answer.
#[derive(Debug)]
pub struct Selection {
    /// Their slots, in order.
    pub slots: Vec<Slot>,
    /// How many match before them.
    pub before: u64,
    /// How many match in all.
    pub total: u64,
    /// How many rows were looked at.
    pub examined: u64,
}

impl Selection {
    /// The place behind the last row, if others match behind it.
    pub fn next(&self, table: &Table, query: &Query, schema: &Schema) -> Option<Cursor> {
        let more = self.before + (self.slots.len() as u64) < self.total;
        let last = self.slots.last().filter(|_| more)?;
        table.at(*last).map(|row| cursor(&row, query, schema))
    }
}

/// A [`Plan`] for those who ask how a query is answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// `natural`, `index`, `some` or `scan`.
    pub access: &'static str,
    /// The indexes that are read.
    pub indexes: Vec<String>,
    /// How many ranges of them.
    pub ranges: usize,
    /// How many entries they hold.
    pub entries: usize,
    /// Whether the index is read from its end.
    pub backwards: bool,
    /// Columns that are checked on each row.
    pub checked: Vec<String>,
    /// Whether words are searched in each row.
    pub searched: bool,
    /// Whether rows are sorted after they were picked.
    pub sorted: bool,
    /// Whether the number of matches is read off an index.
    pub counted_by_index: bool,
    /// Rows that were expected to be looked at.
    pub estimate: usize,
    /// Indexes that would make it cheaper.
    pub wanted: Vec<String>,
}

/// Chooses how `query` is answered from `table`.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for a cursor that does not fit.
pub fn plan(table: &Table, query: &Query, schema: &Schema) -> Result<Plan> {
    query.check_after()?;
    Ok(choose::choose(table, query, schema))
}

/// Plans and picks in one go.
///
/// # Errors
/// As [`plan`].
pub fn select(table: &Table, query: &Query, schema: &Schema) -> Result<Selection> {
    plan(table, query, schema)?.run(table, query, schema, &Meter::unbounded())
}

impl Plan {
    /// Rows that will be looked at, about.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Indexes that would have made it cheap.
    pub fn wanted_indexes(&self) -> &[Spec] {
        &self.wanted_indexes
    }

    /// The indexes that it reads.
    pub fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        let (one, several) = match &self.access {
            Access::Natural | Access::Scan => (None, Vec::new()),
            Access::Walk(walk) => (Some(walk.index), Vec::new()),
            Access::Some(source) => (None, source.indexes()),
        };
        one.into_iter().chain(several).chain(self.words)
    }

    /// What it does, in words.
    pub fn explain(&self, table: &Table, query: &Query) -> Explanation {
        let (access, ranges, entries, backwards) = match &self.access {
            Access::Natural => ("natural", 0, 0, false),
            Access::Scan => ("scan", 0, 0, false),
            Access::Walk(walk) => {
                ("index", walk.groups.iter().map(|group| group.runs.len()).sum(), walk.len() + walk.before(), walk.back)
            }
            Access::Some(source) => ("some", source.ranges(), source.len(), false),
        };
        let residual = self.residual.as_ref();
        let mut checked: Vec<String> =
            residual.map(|query| query.filter.columns().into_iter().map(str::to_string).collect()).unwrap_or_default();
        checked.sort_unstable();
        checked.dedup();
        let names = self.indexes().map(|at| table.indexes()[at].spec().to_string());
        Explanation {
            access,
            indexes: names.collect(),
            ranges,
            entries,
            backwards,
            checked,
            searched: residual.is_some_and(|query| query.search.is_some()),
            sorted: matches!(self.access, Access::Some(_))
                || matches!(self.access, Access::Scan) && !query.order.is_empty(),
            counted_by_index: self.total.is_some(),
            estimate: self.cost,
            wanted: self.wanted_indexes.iter().map(Spec::to_string).collect(),
        }
    }
}

/// The place behind `row` in the order that `query` asks for. In natural order it is found by ordinal and slot.
pub fn cursor(row: &RowRef<'_>, query: &Query, schema: &Schema) -> Cursor {
    match query.order.as_slice() {
        [] => Cursor::behind(&[], vec![row.ordinal().into(), row.slot().into()], row.id()),
        _ => query.cursor(row.id(), &fields(row), schema),
    }
}

/// How many rows come before the query's cursor in natural order; none if it asks for another order.
pub fn natural_start(table: &Table, query: &Query) -> usize {
    let numbers = query.after.as_ref().filter(|_| query.order.is_empty()).and_then(Cursor::numbers);
    numbers.map_or(0, |(ordinal, slot)| table.position_behind(ordinal, slot))
}

fn fields<'a>(row: &RowRef<'a>) -> JsonRow<'a> {
    JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
