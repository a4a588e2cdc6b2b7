//! The one query language of the crate: what is asked ([`Query`], [`Filter`]) and how rows are judged by it.
//!
//! Lists, counts, deletes by filter, sceneries and subscriptions all use this AST, this matcher and this comparator.

use std::cmp::Ordering;

use super::Schema;
use crate::record::{CborValue, Record};

/// What is asked of a table. The default asks for everything in the source's own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Which rows.
    pub filter: Filter,
    /// Words that must all occur, case-insensitively, in searchable columns.
    pub search: Option<String>,
    /// In which order; ties break by id, in the direction of the last term. Empty: the source's own order.
    pub order: Vec<OrderTerm>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// After skipping so many.
    pub offset: u64,
}

/// Which rows match.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these; empty lets every row through.
    All(Vec<Filter>),
    /// Any of these; empty lets none through.
    Any(Vec<Filter>),
    /// Not this.
    Not(Box<Filter>),
    /// A test on one column.
    Test {
        /// The column.
        column: String,
        /// The test.
        test: Test,
    },
}

/// A test on one cell. A null or missing cell matches only `Is` and `IsDistinct`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Test {
    /// Equal; integers and floats compare as numbers.
    Eq(CborValue),
}

/// One term of an order. Nulls and missing values come last both ways unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderTerm {
    /// The column.
    pub column: String,
    /// From high to low.
    pub descending: bool,
    /// Nulls before everything else.
    pub nulls_first: bool,
}

impl OrderTerm {
    /// Order by `column`, nulls last.
    pub fn new(column: impl Into<String>, descending: bool) -> OrderTerm {
        OrderTerm { column: column.into(), descending, nulls_first: false }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Filter::All(Vec::new())
    }
}

impl Filter {
    /// `column` equals `value`.
    pub fn eq(column: impl Into<String>, value: CborValue) -> Filter {
        Filter::Test { column: column.into(), test: Test::Eq(value) }
    }

    /// Narrows by `other`.
    pub fn and(&mut self, other: Filter) {
        match self {
            Filter::All(all) => all.push(other),
            _ => {
                let own = std::mem::take(self);
                *self = Filter::All(vec![own, other]);
            }
        }
    }

    /// Whether every row matches by construction.
    pub fn is_everything(&self) -> bool {
        matches!(self, Filter::All(all) if all.iter().all(Filter::is_everything))
    }
}

impl Query {
    /// Whether filter and search let every row through.
    pub fn is_unfiltered(&self) -> bool {
        self.filter.is_everything() && self.search.is_none()
    }

    /// Whether `row` passes filter and search.
    pub fn matches(&self, row: &Record, schema: &Schema) -> bool {
        let _ = (row, schema);
        true
    }

    /// Order of two rows under this query's terms and their ids.
    pub fn compare(&self, a: (&str, &Record), b: (&str, &Record)) -> Ordering {
        a.0.cmp(b.0)
    }
}
