//! Index keys: the cells that an order compares, as bytes that sort as the comparator does.

use std::borrow::Cow;

use super::compare::bytes::{NULL_FIRST, NULL_LAST};
use super::compare::{IdKey, Key, TermKey};
use super::fields::{Fields, Path};
use super::{Collation, Cursor, OrderTerm};
use crate::record::CborValue;
use crate::vista::Schema;

/// One term of an order, compiled.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) path: Path,
    pub(super) collation: Collation,
    pub(super) descending: bool,
    nulls_first: bool,
}

impl Term {
    pub(super) fn new(term: &OrderTerm, schema: &Schema) -> Term {
        let path = Path::resolve(&term.column, schema);
        let collation = Collation::at(&path, schema);
        Term { path, collation, descending: term.descending, nulls_first: term.nulls_first }
    }

    pub(super) fn key<'a>(&self, row: &'a impl Fields) -> TermKey<'a> {
        self.key_of(row.field(&self.path))
    }

    pub(super) fn key_of<'a>(&self, cell: Option<Cow<'a, CborValue>>) -> TermKey<'a> {
        self.directed(Key::of_cow(cell, &self.collation))
    }

    pub(super) fn directed<'a>(&self, key: Key<'a>) -> TermKey<'a> {
        TermKey::new(key, self.descending, self.nulls_first)
    }
}

/// Encoder of index keys for one order.
#[derive(Clone, Debug)]
pub(crate) struct KeyMaker {
    terms: Vec<Term>,
    integer_ids: bool,
}

/// Comparison that bounds a range of cells from one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Greater.
    Above,
    /// Greater or equal.
    From,
    /// Less.
    Below,
    /// Less or equal.
    To,
}

impl KeyMaker {
    /// Creates an encoder for rows of `schema`.
    pub(crate) fn new(terms: &[OrderTerm], schema: &Schema) -> KeyMaker {
        let terms = terms.iter().map(|term| Term::new(term, schema)).collect();
        KeyMaker { terms, integer_ids: schema.layout().integer_id() }
    }

    /// Appends the key of a row, without its id.
    pub(crate) fn row(&self, row: &impl Fields, out: &mut Vec<u8>) {
        self.terms.iter().for_each(|term| term.key(row).bytes_into(out));
    }

    /// Appends `value` as the cell of the term at index `at`.
    pub(crate) fn cell(&self, at: usize, value: &CborValue, out: &mut Vec<u8>) {
        self.terms[at].key_of(Some(Cow::Borrowed(value))).bytes_into(out);
    }

    /// Appends an id, which breaks ties.
    pub(crate) fn id(&self, id: &str, descending: bool, out: &mut Vec<u8>) {
        IdKey::new(Cow::Borrowed(id), self.integer_ids).bytes_into(descending, out);
    }

    /// Range of key bytes (start inclusive, end exclusive) of the cells of the term at index `at` for which `bound value` holds.
    /// `None` if `value` is null, because no cell can match then.
    pub(crate) fn between(&self, at: usize, bound: Bound, value: &CborValue) -> Option<(Vec<u8>, Vec<u8>)> {
        let term = &self.terms[at];
        let key = Key::of(value, &term.collation);
        if key.is_null() {
            return None;
        }
        let mut own = Vec::new();
        term.key_of(Some(Cow::Borrowed(value))).bytes_into(&mut own);
        // The kind's byte has a neighbour on either side, because nulls have the first and the last value.
        let kind = own[0];
        let (kind_start, kind_end) = (vec![kind], vec![kind + 1]);
        // Greater values come first in a descending order.
        let upwards = matches!(bound, Bound::Above | Bound::From) != term.descending;
        let inclusive = matches!(bound, Bound::From | Bound::To);
        Some(match (upwards, inclusive) {
            (true, true) => (own, kind_end),
            (true, false) => (after_all_with(own), kind_end),
            (false, true) => (kind_start, after_all_with(own)),
            (false, false) => (kind_start, own),
        })
    }

    /// First byte after the boundary between nulls and other cells of the term at index `at`, and true if nulls come first.
    pub(crate) fn null_boundary(&self, at: usize) -> (u8, bool) {
        match self.terms[at].nulls_first {
            true => (NULL_FIRST + 1, true),
            false => (NULL_LAST, false),
        }
    }

    /// Cells and id of the row after which `cursor` is, `None` if it is at the beginning.
    pub(crate) fn cells(cursor: &Cursor) -> Option<(&[CborValue], &str)> {
        cursor.row()
    }
}

/// The lowest bytes after everything that begins with `bytes`; empty for the end.
pub(crate) fn after_all_with(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&u8::MAX) {
        bytes.pop();
    }
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    bytes
}
