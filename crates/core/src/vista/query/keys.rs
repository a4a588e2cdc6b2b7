//! The keys of an index: what an order looks at in a row, as bytes that sort as the comparator does.

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
    path: Path,
    collation: Collation,
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
        TermKey::new(Key::of_cow(cell, &self.collation), self.descending, self.nulls_first)
    }
}

/// Makes the keys of rows under one order.
#[derive(Clone, Debug)]
pub(crate) struct KeyMaker {
    terms: Vec<Term>,
    integer_ids: bool,
}

/// One end of a range of cells: what comes before it is told from what comes after by the bytes of keys.
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
    /// For rows of `schema`.
    pub(crate) fn new(terms: &[OrderTerm], schema: &Schema) -> KeyMaker {
        let terms = terms.iter().map(|term| Term::new(term, schema)).collect();
        KeyMaker { terms, integer_ids: schema.layout().integer_id() }
    }

    /// Appends the cells of a row.
    pub(crate) fn row(&self, row: &impl Fields, out: &mut Vec<u8>) {
        self.terms.iter().for_each(|term| term.key(row).bytes_into(out));
    }

    /// Appends `value` as a cell of term number `at`.
    pub(crate) fn cell(&self, at: usize, value: &CborValue, out: &mut Vec<u8>) {
        self.terms[at].key_of(Some(Cow::Borrowed(value))).bytes_into(out);
    }

    /// Appends an id that breaks ties.
    pub(crate) fn id(&self, id: &str, descending: bool, out: &mut Vec<u8>) {
        IdKey::new(Cow::Borrowed(id), self.integer_ids).bytes_into(descending, out);
    }

    /// The bytes between which the cells of term number `at` stand for which `bound value` holds: from the first, up to and
    /// without the second. `None` if there are none.
    pub(crate) fn between(&self, at: usize, bound: Bound, value: &CborValue) -> Option<(Vec<u8>, Vec<u8>)> {
        let term = &self.terms[at];
        let key = Key::of(value, &term.collation);
        if key.is_null() {
            return None;
        }
        let mut own = Vec::new();
        term.key_of(Some(Cow::Borrowed(value))).bytes_into(&mut own);
        // The byte of the kind has a neighbour on either side: null has the first and the last.
        let kind = own[0];
        let (kind_start, kind_end) = (vec![kind], vec![kind + 1]);
        // Greater is before in an order that descends.
        let upwards = matches!(bound, Bound::Above | Bound::From) != term.descending;
        let inclusive = matches!(bound, Bound::From | Bound::To);
        Some(match (upwards, inclusive) {
            (true, true) => (own, kind_end),
            (true, false) => (after_all_with(own), kind_end),
            (false, true) => (kind_start, after_all_with(own)),
            (false, false) => (kind_start, own),
        })
    }

    /// The byte at which nulls of term number `at` meet other cells, and whether they come first.
    pub(crate) fn null_boundary(&self, at: usize) -> (u8, bool) {
        match self.terms[at].nulls_first {
            true => (NULL_FIRST + 1, true),
            false => (NULL_LAST, false),
        }
    }

    /// The cells and the id of the row behind which `cursor` is, `None` if it is at the beginning.
    pub(crate) fn cells(cursor: &Cursor) -> Option<(&[CborValue], &str)> {
        cursor.row()
    }
}

/// The first bytes after everything that begins with `bytes`; empty bytes are the end.
pub(crate) fn after_all_with(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&u8::MAX) {
        bytes.pop();
    }
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    bytes
}
