//! Query planner: chooses the rows to read, their order, and the checks on each row.
//!
//! [`plan`] chooses by exact counts: the ranks of an index give the number of rows between two keys. Conditions that no index
//! answers are checked by the matcher, and rows that are not read in order are sorted by the comparator.

mod choose;
mod clauses;
mod prepared_query;
mod run;
mod scan;
#[cfg(test)]
mod scan_tests;
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

/// Plan of one query over one table.
#[derive(Clone, Debug)]
pub struct Plan {
    access: Access,
    /// Filter and search to be checked on each row. `None` if there is nothing to check.
    residual: Option<Query>,
    /// Position of the index that answers the search.
    words: Option<usize>,
    /// True if the query has no filter beside its search, so that the rows found by the search are all matches.
    words_only: bool,
    /// Number of matching rows, if ranks give it.
    total: Option<usize>,
    /// Approximate number of rows to be examined.
    cost: usize,
    /// Indexes that would make the query cheap.
    wanted_indexes: Vec<Spec>,
}

/// Access path of a plan.
#[derive(Clone, Debug)]
enum Access {
    /// All rows, in natural order.
    Natural,
    /// Rows along an index, in the order of the query.
    Walk(Walk),
    /// A set of rows without order; sorted afterwards.
    Some(SlotSource),
    /// All rows, sorted afterwards.
    Scan,
}

/// Page of the matching rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Maximum number of rows.
    pub limit: Option<u64>,
    /// Number of rows to skip.
    pub offset: u64,
}

impl Page {
    /// The page of `query`.
    pub fn of(query: &Query) -> Page {
        Page { limit: query.limit, offset: query.offset }
    }

    fn max_rows(self) -> usize {
        self.limit.map_or(usize::MAX, clamp)
    }
}

/// Rows selected for an answer.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Slots of the rows, in order.
    pub slots: Vec<Slot>,
    /// Number of matching rows before the page.
    pub before: u64,
    /// Number of matching rows in total.
    pub total: u64,
    /// Number of rows examined.
    pub examined: u64,
}

impl Selection {
    /// Cursor after the last row, `None` if no matching rows follow.
    pub fn next(&self, table: &Table, query: &Query, schema: &Schema) -> Option<Cursor> {
        let more = self.before + (self.slots.len() as u64) < self.total;
        let last = self.slots.last().filter(|_| more)?;
        table.at(*last).map(|row| cursor(&row, query, schema))
    }
}

/// Description of a [`Plan`], for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// `natural`, `index`, `some` or `scan`.
    pub access: &'static str,
    /// Indexes that are read.
    pub indexes: Vec<String>,
    /// Number of index ranges read.
    pub ranges: usize,
    /// Number of entries in these ranges.
    pub entries: usize,
    /// True if the index is read backwards.
    pub backwards: bool,
    /// Columns that are checked on each row.
    pub checked: Vec<String>,
    /// True if words are searched in each row.
    pub searched: bool,
    /// True if rows are sorted after they are selected.
    pub sorted: bool,
    /// True if the number of matches is known from an index.
    pub counted_by_index: bool,
    /// Estimated number of rows to be examined.
    pub estimate: usize,
    /// Indexes that would make the query cheaper.
    pub wanted: Vec<String>,
}

/// Plans `query` over `table`.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for a cursor that does not fit the query.
pub fn plan(table: &Table, query: &Query, schema: &Schema) -> Result<Plan> {
    query.check_after()?;
    Ok(choose::choose(table, query, schema))
}

/// Plans and runs `query`.
///
/// # Errors
/// As [`plan`].
pub fn select(table: &Table, query: &Query, schema: &Schema) -> Result<Selection> {
    plan(table, query, schema)?.run(table, query, schema, &Meter::unbounded())
}

impl Plan {
    /// Approximate number of rows to be examined.
    pub fn cost(&self) -> usize {
        self.cost
    }

    /// Indexes that would make the query cheap.
    pub fn wanted_indexes(&self) -> &[Spec] {
        &self.wanted_indexes
    }

    /// Positions of the indexes that the plan reads.
    pub fn indexes(&self) -> impl Iterator<Item = usize> + '_ {
        let (one, several) = match &self.access {
            Access::Natural | Access::Scan => (None, Vec::new()),
            Access::Walk(walk) => (Some(walk.index), Vec::new()),
            Access::Some(source) => (None, source.indexes()),
        };
        one.into_iter().chain(several).chain(self.words)
    }

    /// Describes the plan for people.
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

/// Cursor after `row` in the order of `query`. In natural order it holds ordinal and slot.
pub fn cursor(row: &RowRef<'_>, query: &Query, schema: &Schema) -> Cursor {
    match query.order.as_slice() {
        [] => Cursor::behind(&[], vec![row.ordinal().into(), row.slot().into()], row.id()),
        _ => query.cursor(row.id(), &fields(row), schema),
    }
}

/// Number of rows before the query's cursor in natural order; 0 if the query has another order.
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
