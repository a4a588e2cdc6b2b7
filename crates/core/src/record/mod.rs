//! Values: [`Record`], its canonical bytes ([`Body`]), ordered sets of rows ([`Rows`]), conversion of CBOR and JSON.
//!
//! The lowest layer of the crate: independent of sources, caches and tasks.

mod bignum;
mod body;
mod body_ref;
mod json;
mod known;
mod layout;
mod merge;
mod pack;
mod rows;
mod serial;
#[cfg(test)]
mod testing;

pub use bignum::unmark;
pub use bignum::{as_big, marked, of_digits};
pub(crate) use body::Member;
pub use body::RowWriter;
pub use body::{Body, BodyError};
pub use body::{decode_parts, hash_parts, id_to_value};
pub use body_ref::BodyRef;
pub use json::NOT_UTF8;
pub use json::{JsonError, JsonLimits, parse_json, value_to_json};
pub(crate) use known::Baseline;
pub use layout::Layout;
pub use merge::{join_patches, merge_patch};
pub(crate) use pack::{Ends, PACK, Pack};
pub use rows::id_from_value;
pub use rows::{Rows, RowsIter, Stamp, Undecodable};

use std::sync::Arc;

use indexmap::IndexMap;

/// A CBOR value: the content of a row's cell.
pub type CborValue = ciborium::Value;

/// A row's id: immutable text, cheap to clone.
pub type Id = Arc<str>;

/// A position in a Dio's history. The first change has 1; 0 is before it.
pub type Seq = u64;

/// An insertion-ordered map of column name to value: one row.
///
/// `V` is nearly always [`CborValue`]; drivers may use other types in between.
///
/// Its serde form is an object of column name to value, in order; a duplicate column is an error. Text formats such as JSON get
/// cells as in HTTP answers: bytes as base64url, a tag as its content, NaN and infinities as text, and 64-bit integers exactly.
/// Only integers beyond 64 bits differ: they are decimal text here, plain digits in HTTP answers. Binary formats such as CBOR get
/// every cell exactly.
///
/// ```
/// use diorama_core::Record;
/// let bun: Record = serde_json::from_str(r#"{"name":"Bun","price":9007199254740993}"#)?;
/// assert_eq!(bun["price"], 9_007_199_254_740_993_i64.into());
/// assert_eq!(serde_json::to_string(&bun)?, r#"{"name":"Bun","price":9007199254740993}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Record<V = CborValue>(IndexMap<String, V>);

impl<V> Default for Record<V> {
    fn default() -> Self {
        Record(IndexMap::new())
    }
}

impl<V> Record<V> {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `column`, `None` if the record does not have it.
    pub fn get(&self, column: &str) -> Option<&V> {
        self.0.get(column)
    }

    /// Sets `column` and returns the replaced value. An existing column keeps its position.
    pub fn insert(&mut self, column: impl Into<String>, value: V) -> Option<V> {
        self.0.insert(column.into(), value)
    }

    /// Removes `column`, keeping the order of the others.
    pub fn remove(&mut self, column: &str) -> Option<V> {
        self.0.shift_remove(column)
    }

    /// True if the record has `column`.
    pub fn contains(&self, column: &str) -> bool {
        self.0.contains_key(column)
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are no columns.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Mutable values in the order of their columns.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.values_mut()
    }

    /// Columns and values in order.
    pub fn iter(&self) -> indexmap::map::Iter<'_, String, V> {
        self.0.iter()
    }

    /// Column names in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<V> FromIterator<(String, V)> for Record<V> {
    fn from_iter<I: IntoIterator<Item = (String, V)>>(iter: I) -> Self {
        Record(IndexMap::from_iter(iter))
    }
}

impl<V> Extend<(String, V)> for Record<V> {
    fn extend<I: IntoIterator<Item = (String, V)>>(&mut self, iter: I) {
        self.0.extend(iter);
    }
}

impl<V> IntoIterator for Record<V> {
    type Item = (String, V);
    type IntoIter = indexmap::map::IntoIter<String, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, V> IntoIterator for &'a Record<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = indexmap::map::Iter<'a, String, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<V> std::ops::Index<&str> for Record<V> {
    type Output = V;

    /// The value of `column`.
    ///
    /// # Panics
    /// Panics if the record has no such column; [`Record::get`] returns `None` instead.
    fn index(&self, column: &str) -> &V {
        &self.0[column]
    }
}
