//! Values: [`Record`], its canonical bytes ([`Body`]), ordered sets of rows ([`Rows`]), CBOR <-> JSON.
//!
//! Knows nothing of sources, caches or tasks; everything above builds on it.

mod bignum;
mod body;
mod json;
mod layout;
mod merge;
mod rows;
mod serial;
#[cfg(test)]
mod testing;

pub use bignum::unmark;
pub use bignum::{as_big, marked, of_digits};
pub use body::RowWriter;
pub use body::{Body, BodyError};
pub use body::{decode_parts, hash_parts, id_to_value};
pub use json::NOT_UTF8;
pub use json::{JsonError, JsonLimits, parse_json, value_to_json};
pub use layout::Layout;
pub use merge::{join_patches, merge_patch};
pub use rows::id_from_value;
pub use rows::{Rows, RowsIter, Stamp, Undecodable};

use std::sync::Arc;

use indexmap::IndexMap;

/// A CBOR value: what a cell of a row holds.
pub type CborValue = ciborium::Value;

/// A row's id as the crate passes it around: immutable text, cheap to clone.
pub type Id = Arc<str>;

/// A position in a Dio's history. The first change has 1; 0 is before it.
pub type Seq = u64;

/// An insertion-ordered map of column name to value: one row.
///
/// `V` is [`CborValue`] nearly everywhere; drivers may use others on the way.
///
/// With serde it is an object of column name to value, in its order; a column that stands twice is an error. Text formats such
/// as JSON get cells as HTTP answers have them: bytes as base64url, a tag as its content, NaN and infinities as text; integers
/// beyond 64 bits, which are plain digits in HTTP answers, as decimal text; integers of 64 bits are exact. Binary formats such as CBOR get every cell exactly.
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

    /// The value of `column`, if the record has it.
    pub fn get(&self, column: &str) -> Option<&V> {
        self.0.get(column)
    }

    /// Sets `column`, keeping its place if it is already there; returns the value it replaces.
    pub fn insert(&mut self, column: impl Into<String>, value: V) -> Option<V> {
        self.0.insert(column.into(), value)
    }

    /// Takes `column` out, keeping the order of the others.
    pub fn remove(&mut self, column: &str) -> Option<V> {
        self.0.shift_remove(column)
    }

    /// Whether the record has `column`.
    pub fn contains(&self, column: &str) -> bool {
        self.0.contains_key(column)
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no column.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Values in the order of their columns.
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
    /// If the record has no such column; [`Record::get`] does not.
    fn index(&self, column: &str) -> &V {
        &self.0[column]
    }
}
