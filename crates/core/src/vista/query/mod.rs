//! The crate's query language: its AST ([`Query`], [`Filter`]) and its evaluator ([`CompiledQuery`]).
//!
//! Lists, counts, deletes by filter, sceneries and subscriptions all use this AST, this matcher and this comparator.
//! A query is compiled once per request and then applied to rows as [`Fields`]: decoded records or their JSON bytes.

mod aggregate;
mod block;
mod cell_key;
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
mod template;
#[cfg(test)]
mod tests;
pub mod url;

pub use aggregate::{AggregateItem, Aggregation, Function, GroupPage, Groups, MAX_GROUPS};
pub(crate) use aggregate::{BlockFold, BlockGroups};
pub(crate) use block::{BLOCK_ROWS, Block, Mask, Vector};
pub use cell_key::CellKeys;
pub use collation::Collation;
pub use compare::{Key, SortKey};
pub use cursor::Cursor;
pub use eval::{CompiledQuery, TopRows};
pub use fields::{Fields, JsonRow, Path};
pub use filter::{Equalities, Filter, IsTest, Test};
pub use json::{split_name, unquoted};
pub(crate) use keys::{Bound, KeyMaker, after_all_with};
pub use literal::{Literal, nearest};
pub use meter::{Meter, Rows as MeteredRows};
pub use pattern::{MAX_PATTERN, Pattern};
pub use project::{Projection, SelectItem};
pub use search::SearchText;
pub use template::FilterTemplate;

use std::cmp::Ordering;

use super::{Error, Result, Schema};
use crate::record::{CborValue, Record};

/// Maximum number of tests in a filter from a client.
pub const MAX_TESTS: usize = 20;
/// Maximum number of values in an `in` from a client.
pub const MAX_IN: usize = 1_000;
/// Maximum number of characters in a search from a client.
pub const MAX_SEARCH: usize = 256;

/// A query over a table. The default selects all rows in the source's own order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Query {
    /// Condition that rows must meet.
    pub filter: Filter,
    /// Words that must all occur, case-insensitively, in searchable columns.
    pub search: Option<String>,
    /// Sort order; ties break by id, in the direction of the last term. Empty for the source's own order.
    pub order: Vec<OrderTerm>,
    /// Projection of each row; empty for whole rows. Sources may ignore it, because the caller projects as well.
    pub select: Vec<SelectItem>,
    /// Maximum number of rows.
    pub limit: Option<u64>,
    /// Number of rows to skip.
    pub offset: u64,
    /// Position after which rows are returned. Never passed to sources: it needs a complete copy of the rows.
    pub after: Option<Cursor>,
}

/// One term of an order. Nulls and missing values come last in both directions unless `nulls_first` is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrderTerm {
    /// The column, or a path into it.
    pub column: String,
    /// Sorts from high to low.
    pub descending: bool,
    /// Sorts nulls before all other values.
    pub nulls_first: bool,
}

impl OrderTerm {
    /// Order by `column`, nulls last.
    pub fn new(column: impl Into<String>, descending: bool) -> OrderTerm {
        OrderTerm { column: column.into(), descending, nulls_first: false }
    }
}

impl Query {
    /// True if filter and search match every row.
    pub fn is_unfiltered(&self) -> bool {
        self.filter.is_everything() && self.search.as_deref().is_none_or(|words| words.trim().is_empty())
    }

    /// Compiles filter, search and order for rows of `schema`.
    pub fn prepare(&self, schema: &Schema) -> CompiledQuery {
        CompiledQuery::new(self, schema)
    }

    /// True if `row` matches filter and search. Compiles the query on every call; for many rows, use [`Query::prepare`] once.
    pub fn matches(&self, row: &Record, schema: &Schema) -> bool {
        self.is_unfiltered() || self.prepare(schema).matches(row)
    }

    /// Order of two rows by this query's terms and their ids. Compiles the query on every call, as [`Query::matches`].
    pub fn compare(&self, a: (&str, &Record), b: (&str, &Record), schema: &Schema) -> Ordering {
        self.prepare(schema).compare(a, b)
    }

    /// Checks that the cursor, if there is one, fits the rest of the query.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of another order, or combined with an offset.
    pub fn check_after(&self) -> Result<()> {
        let Some(after) = &self.after else { return Ok(()) };
        if self.offset > 0 {
            return Err(Error::invalid(
                "after and offset cannot be combined: a cursor already determines the position",
            ));
        }
        after.check(&self.order)
    }

    /// Cursor after `row` in this query's order, which must not be the natural order.
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
    /// [`Error::Invalid`] naming the column and the existing column with the most similar name.
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
