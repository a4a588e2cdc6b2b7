//! What of a filter an index can answer: tests that every row must pass, each about one column.

use std::borrow::Cow;
use std::ops::Range;

use crate::record::CborValue;
use crate::table::Index;
use crate::table::Table;
use crate::vista::Filter;
use crate::vista::query::{Bound, IsTest, Test};

/// Ranges of one index that one access reads, at most: the product of the values of its `in`s.
const MOST_PIECES: usize = 1_000;
/// Tests of a filter that are looked at; others are checked row by row.
const MOST_PARTS: usize = 64;

/// A filter that every row must pass, and what an index can do with it.
#[derive(Debug)]
pub(super) struct Conjunct<'q> {
    pub(super) filter: &'q Filter,
    pub(super) clause: Option<Clause<'q>>,
}

/// A test that is a range of keys, or some.
#[derive(Debug)]
pub(super) struct Clause<'q> {
    pub(super) column: &'q str,
    pub(super) want: Restriction<'q>,
}

#[derive(Debug)]
pub(super) enum Restriction<'q> {
    /// One of these values; none is null.
    Points(Vec<Cow<'q, CborValue>>),
    /// Null or missing.
    Null,
    /// Greater or less, of the same kind.
    Bound(Bound, &'q CborValue),
}

impl Restriction<'_> {
    /// Whether all rows that pass are equal in the column.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Restriction::Points(points) => points.len() == 1,
            Restriction::Null => true,
            Restriction::Bound(..) => false,
        }
    }
}

/// The filters of a conjunction, inner conjunctions dissolved.
pub(super) fn parts(filter: &Filter) -> Vec<Conjunct<'_>> {
    let mut all = Vec::new();
    dissolve(filter, &mut all);
    let part = |(at, filter)| Conjunct { filter, clause: clause(filter).filter(|_| at < MOST_PARTS) };
    all.into_iter().enumerate().map(part).collect()
}

fn dissolve<'q>(filter: &'q Filter, out: &mut Vec<&'q Filter>) {
    match filter {
        Filter::All(parts) => parts.iter().for_each(|part| dissolve(part, out)),
        other => out.push(other),
    }
}

fn clause(filter: &Filter) -> Option<Clause<'_>> {
    match filter {
        Filter::Test { column, test } => {
            let want = match test {
                Test::Gt(value) => Restriction::Bound(Bound::Above, value),
                Test::Gte(value) => Restriction::Bound(Bound::From, value),
                Test::Lt(value) => Restriction::Bound(Bound::Below, value),
                Test::Lte(value) => Restriction::Bound(Bound::To, value),
                Test::Is(IsTest::Null | IsTest::Unknown) => Restriction::Null,
                other => Restriction::Points(points(other)?),
            };
            Some(Clause { column, want })
        }
        // One column that is equal to one of several values, as untyped columns are read.
        Filter::Any(any) => {
            let mut all = Vec::new();
            let mut name = None;
            for part in any {
                let Filter::Test { column, test } = part else { return None };
                if name.replace(column).is_some_and(|name| name != column) {
                    return None;
                }
                all.extend(points(test)?);
            }
            Some(Clause { column: name?, want: Restriction::Points(all) })
        }
        Filter::All(_) | Filter::Not(_) => None,
    }
}

/// The values one of which a cell must equal.
fn points(test: &Test) -> Option<Vec<Cow<'_, CborValue>>> {
    Some(match test {
        Test::Eq(value) => without_null(std::slice::from_ref(value)),
        Test::In(values) => without_null(values),
        Test::Is(IsTest::True) => vec![Cow::Owned(CborValue::Bool(true))],
        Test::Is(IsTest::False) => vec![Cow::Owned(CborValue::Bool(false))],
        _ => return None,
    })
}

/// Nothing equals null.
fn without_null(values: &[CborValue]) -> Vec<Cow<'_, CborValue>> {
    values.iter().filter(|value| !value.is_null()).map(Cow::Borrowed).collect()
}

/// What one index can say of a conjunction: the ranks between which the rows are that pass the parts it has used.
#[derive(Clone, Debug)]
pub(super) struct IndexMatch {
    /// Number of the index.
    pub(super) index: usize,
    /// Which parts need no further check.
    pub(super) used: u64,
    /// How many of the index' columns are held equal.
    pub(super) depth: usize,
    /// The one of them that has several values, and how long the key is before it.
    pub(super) several: Option<(usize, usize)>,
    /// More than one of them has.
    pub(super) product: bool,
    /// In the order of the index.
    pub(super) pieces: Vec<PrefixRange>,
}

/// Neighbours in an index that begin with the same bytes.
#[derive(Clone, Debug)]
pub(super) struct PrefixRange {
    pub(super) prefix: Vec<u8>,
    pub(super) ranks: Range<usize>,
}

impl IndexMatch {
    /// What index number `index` can say of `parts`.
    pub(super) fn of(table: &Table, index: usize, parts: &[Conjunct<'_>]) -> IndexMatch {
        let at = index;
        let index = &table.indexes()[at];
        let mut reach = IndexMatch { index: at, used: 0, depth: 0, several: None, product: false, pieces: Vec::new() };
        let mut prefixes = vec![Vec::new()];
        for (depth, term) in index.spec().terms.iter().enumerate() {
            let Some(number) = equal(parts, &term.column, prefixes.len()) else { break };
            let cells = cells(index, depth, parts[number].clause.as_ref());
            if cells.len() > 1 {
                reach.product |= reach.several.is_some();
                reach.several = Some((depth, prefixes[0].len()));
            }
            let joined = |prefix: &Vec<u8>| {
                let prefix = prefix.clone();
                cells.iter().map(move |cell| [&prefix[..], cell].concat())
            };
            prefixes = prefixes.iter().flat_map(joined).collect();
            reach.used |= 1 << number;
            reach.depth = depth + 1;
            if prefixes.is_empty() {
                break;
            }
        }
        let bounds = reach.bounds(index, parts);
        let piece = |prefix: Vec<u8>| {
            let mut ranks = match prefix.is_empty() {
                true => 0..index.order().len(),
                false => index.rank(&prefix, table)..index.rank_end(&prefix, table),
            };
            for bound in &bounds {
                let Some((from, to)) = bound else {
                    ranks.end = ranks.start;
                    break;
                };
                ranks.start = ranks.start.max(index.rank(&[&prefix[..], from].concat(), table));
                ranks.end = ranks.end.min(index.rank(&[&prefix[..], to].concat(), table));
            }
            ranks.end = ranks.end.max(ranks.start);
            PrefixRange { prefix, ranks }
        };
        reach.pieces = prefixes.into_iter().map(piece).collect();
        reach
    }

    /// The bounds on the column behind those that are held equal.
    fn bounds(&mut self, index: &Index, parts: &[Conjunct<'_>]) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(term) = index.spec().terms.get(self.depth) else { return Vec::new() };
        let mut bounds = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if let Some(Clause { column, want: Restriction::Bound(bound, value) }) = &part.clause
                && *column == term.column
            {
                bounds.push(index.keys().between(self.depth, *bound, value));
                self.used |= 1 << at;
            }
        }
        bounds
    }

    /// How many rows it leads to.
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.ranks.len()).sum()
    }
}

/// The part that holds `column` equal to the fewest values, if that makes no more than so many pieces of `pieces`.
fn equal(parts: &[Conjunct<'_>], column: &str, pieces: usize) -> Option<usize> {
    let values = |part: &Conjunct<'_>| match part.clause.as_ref().filter(|clause| clause.column == column)?.want {
        Restriction::Points(ref points) => Some(points.len()),
        Restriction::Null => Some(1),
        Restriction::Bound(..) => None,
    };
    let (number, values) = parts
        .iter()
        .enumerate()
        .filter_map(|(at, part)| Some((at, values(part)?)))
        .min_by_key(|(_, values)| *values)?;
    (values * pieces <= MOST_PIECES).then_some(number)
}

/// The bytes of the cells that a clause wants, in order.
fn cells(index: &Index, depth: usize, clause: Option<&Clause<'_>>) -> Vec<Vec<u8>> {
    let cell = |value: &CborValue| {
        let mut out = Vec::new();
        index.keys().cell(depth, value, &mut out);
        out
    };
    let mut cells: Vec<Vec<u8>> = match clause.map(|clause| &clause.want) {
        Some(Restriction::Points(points)) => points.iter().map(|point| cell(point)).collect(),
        Some(Restriction::Null) => vec![cell(&CborValue::Null)],
        Some(Restriction::Bound(..)) | None => Vec::new(),
    };
    cells.sort_unstable();
    cells.dedup();
    cells
}
