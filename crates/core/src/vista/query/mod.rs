//! The one query language of the crate: what is asked ([`Query`], [`Filter`]) and how rows are judged by it ([`CompiledQuery`]).
//!
//! Lists, counts, deletes by filter, sceneries and subscriptions all use this AST, this matcher and this comparator.
//! A query is prepared once per request and then meets every row as a [`Fields`]: a decoded record or its JSON bytes.

mod aggregate;
mod collation;
mod compare;
mod cursor;
mod eval;
mod fields;
mod filter;
mod json;
mod keys;
mod literal;
mod meter;
mod pattern;
mod project;
mod search;
#[cfg(test)]
mod tests;
pub mod url;

pub use aggregate::numbered;
pub use aggregate::{AggregateItem, Aggregation, Function, MAX_GROUPS};
pub use collation::Collation;
pub use compare::{Key, SortKey};
pub use cursor::Cursor;
pub use eval::{CompiledQuery, TopRows};
pub use fields::{Fields, JsonRow, Path};
pub use filter::{Filter, IsTest, Test};
pub use json::{split_name, unquoted};
pub(crate) use keys::{Bound, KeyMaker, after_all_with};
pub use literal::{Literal, nearest};
pub use meter::{Meter, Rows as MeteredRows};
pub use pattern::{MAX_PATTERN, Pattern};
pub use project::{Projection, SelectItem};
pub use search::SearchText;

use std::cmp::Ordering;

use super::{Error, Result, Schema};
use crate::record::{CborValue, Record};

/// Tests in one filter that came from outside, at most.
pub const MAX_TESTS: usize = 20;
/// Values of one `in` that came from outside, at most.
pub const MAX_IN: usize = 1_000;
/// Characters of one search that came from outside, at most.
pub const MAX_SEARCH: usize = 256;

/// What is asked of a table. The default asks for everything in the source's own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Which rows.
    pub filter: Filter,
    /// Words that must all occur, case-insensitively, in searchable columns.
    pub search: Option<String>,
    /// In which order; ties break by id, in the direction of the last term. Empty: the source's own order.
    pub order: Vec<OrderTerm>,
    /// What is shown of each row; empty shows it whole. Sources may ignore it: whoever answers projects.
    pub select: Vec<SelectItem>,
    /// At most so many rows.
    pub limit: Option<u64>,
    /// After skipping so many.
    pub offset: u64,
    /// Only rows behind this place. Sources never see it: it is for whoever has all rows.
    pub after: Option<Cursor>,
}

/// One term of an order. Nulls and missing values come last both ways unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrderTerm {
    /// The column, or a path into it.
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

impl Query {
    /// Whether filter and search let every row through.
    pub fn is_unfiltered(&self) -> bool {
        self.filter.is_everything() && self.search.as_deref().is_none_or(|words| words.trim().is_empty())
    }

    /// Compiles filter, search and order for rows of `schema`.
    pub fn prepare(&self, schema: &Schema) -> CompiledQuery {
        CompiledQuery::new(self, schema)
    }

    /// Whether `row` passes filter and search. Prepares anew each time: for many rows, [`Query::prepare`] once.
    pub fn matches(&self, row: &Record, schema: &Schema) -> bool {
        self.is_unfiltered() || self.prepare(schema).matches(row)
    }

    /// Order of two rows under this query's terms and their ids; as [`Query::matches`], for few rows.
    pub fn compare(&self, a: (&str, &Record), b: (&str, &Record), schema: &Schema) -> Ordering {
        self.prepare(schema).compare(a, b)
    }

    /// Checks that the cursor, if there is one, fits the rest.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another order, or beside an offset.
    pub fn check_after(&self) -> Result<()> {
        let Some(after) = &self.after else { return Ok(()) };
        if self.offset > 0 {
            return Err(Error::invalid(
                "after and offset cannot both be asked for: a cursor says itself where to go on",
            ));
        }
        after.check(&self.order)
    }

    /// The place behind `row` in this query's order, which is not the natural one.
    pub fn cursor(&self, id: &str, row: &impl Fields, schema: &Schema) -> Cursor {
        let cell = |term: &OrderTerm| {
            let cell = row.field(&Path::resolve(&term.column, schema));
            cell.map_or(CborValue::Null, std::borrow::Cow::into_owned)
        };
        Cursor::behind(&self.order, self.order.iter().map(cell).collect(), id)
    }

    /// Checks that every column named by filter, order and select exists, and that the cursor fits.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column, and the nearest one that does exist.
    pub fn validate(&self, schema: &Schema) -> Result<()> {
        let selected = self.select.iter().filter_map(SelectItem::column);
        let ordered = self.order.iter().map(|term| term.column.as_str());
        for column in self.filter.columns().into_iter().chain(ordered).chain(selected) {
            Path::checked(column, schema)
                .map_err(|detail| Error::Invalid { fields: [(column.to_string(), detail.clone())].into(), detail })?;
        }
        self.check_after()
    }
}
