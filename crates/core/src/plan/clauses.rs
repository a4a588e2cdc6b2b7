//! Clauses: the parts of a filter that an index can answer. These are tests that every row must pass, each of one column.

use std::borrow::Cow;
use std::ops::Range;

use crate::record::CborValue;
use crate::table::Index;
use crate::table::Table;
use crate::vista::Filter;
use crate::vista::query::{Bound, IsTest, Test};

/// Maximum number of ranges of one index that one access reads: the product of the lengths of its `in`s.
const MAX_PIECES: usize = 1_000;
/// Maximum number of tests of a filter that are matched with indexes; others are checked row by row.
const MAX_PARTS: usize = 64;

/// A filter that every row must pass, and its clause if an index can answer it.
#[derive(Debug)]
pub(super) struct Conjunct<'q> {
    pub(super) filter: &'q Filter,
    pub(super) clause: Option<Clause<'q>>,
}

/// A test that is equivalent to one or several ranges of keys.
#[derive(Debug)]
pub(super) struct Clause<'q> {
    pub(super) column: &'q str,
    pub(super) restriction: Restriction<'q>,
}

/// Restriction of a column to values or to a range.
#[derive(Debug)]
pub(super) enum Restriction<'q> {
    /// One of these values; none is null.
    Points(Vec<Cow<'q, CborValue>>),
    /// Null or missing.
    Null,
    /// Greater or less, and of the same kind.
    Bound(Bound, &'q CborValue),
}

impl Restriction<'_> {
    /// True if all rows that pass are equal in the column.
    pub(super) fn is_fixed(&self) -> bool {
        match self {
            Restriction::Points(points) => points.len() == 1,
            Restriction::Null => true,
            Restriction::Bound(..) => false,
        }
    }
}

/// Filters of a conjunction, with inner conjunctions flattened.
pub(super) fn parts(filter: &Filter) -> Vec<Conjunct<'_>> {
    let mut all = Vec::new();
    flatten(filter, &mut all);
    let part = |(at, filter)| Conjunct { filter, clause: clause(filter).filter(|_| at < MAX_PARTS) };
    all.into_iter().enumerate().map(part).collect()
}

fn flatten<'q>(filter: &'q Filter, out: &mut Vec<&'q Filter>) {
    match filter {
        Filter::All(parts) => parts.iter().for_each(|part| flatten(part, out)),
        other => out.push(other),
    }
}

fn clause(filter: &Filter) -> Option<Clause<'_>> {
    match filter {
        Filter::Test { column, test } => {
            let restriction = match test {
                Test::Gt(value) => Restriction::Bound(Bound::Above, value),
                Test::Gte(value) => Restriction::Bound(Bound::From, value),
                Test::Lt(value) => Restriction::Bound(Bound::Below, value),
                Test::Lte(value) => Restriction::Bound(Bound::To, value),
                Test::Is(IsTest::Null | IsTest::Unknown) => Restriction::Null,
                other => Restriction::Points(points(other)?),
            };
            Some(Clause { column, restriction })
        }
        // One column that equals one of several values, which is how literals of untyped columns are parsed.
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
            Some(Clause { column: name?, restriction: Restriction::Points(all) })
        }
        Filter::All(_) | Filter::Not(_) => None,
    }
}

/// Values of which a cell must equal one, `None` if the test is not of this kind.
fn points(test: &Test) -> Option<Vec<Cow<'_, CborValue>>> {
    Some(match test {
        Test::Eq(value) => without_null(std::slice::from_ref(value)),
        Test::In(values) => without_null(values),
        Test::Is(IsTest::True) => vec![Cow::Owned(CborValue::Bool(true))],
        Test::Is(IsTest::False) => vec![Cow::Owned(CborValue::Bool(false))],
        _ => return None,
    })
}

/// Removes nulls, which nothing equals.
fn without_null(values: &[CborValue]) -> Vec<Cow<'_, CborValue>> {
    values.iter().filter(|value| !value.is_null()).map(Cow::Borrowed).collect()
}

/// Match of one index with a conjunction: the ranges of ranks whose rows pass the parts that the index answers.
#[derive(Clone, Debug)]
pub(super) struct IndexMatch {
    /// Position of the index in the table.
    pub(super) index: usize,
    /// Bit set of the parts that need no further check.
    pub(super) used: u64,
    /// Number of the index's leading columns that are fixed by equalities.
    pub(super) depth: usize,
    /// The last of these columns with several values, and the length of the key before it.
    pub(super) several: Option<(usize, usize)>,
    /// True if more than one of these columns has several values.
    pub(super) product: bool,
    /// Ranges in the order of the index.
    pub(super) pieces: Vec<PrefixRange>,
}

/// Adjacent entries of an index with a common key prefix.
#[derive(Clone, Debug)]
pub(super) struct PrefixRange {
    pub(super) prefix: Vec<u8>,
    pub(super) ranks: Range<usize>,
}

impl IndexMatch {
    /// Matches the index at position `index` with `parts`.
    pub(super) fn of(table: &Table, index: usize, parts: &[Conjunct<'_>]) -> IndexMatch {
        let at = index;
        let index = &table.indexes()[at];
        let mut index_match =
            IndexMatch { index: at, used: 0, depth: 0, several: None, product: false, pieces: Vec::new() };
        let mut prefixes = vec![Vec::new()];
        for (depth, term) in index.spec().terms.iter().enumerate() {
            let Some(number) = equal(parts, &term.column, prefixes.len()) else { break };
            let cells = cells(index, depth, parts[number].clause.as_ref());
            if cells.len() > 1 {
                index_match.product |= index_match.several.is_some();
                index_match.several = Some((depth, prefixes[0].len()));
            }
            let joined = |prefix: &Vec<u8>| {
                let prefix = prefix.clone();
                cells.iter().map(move |cell| [&prefix[..], cell].concat())
            };
            prefixes = prefixes.iter().flat_map(joined).collect();
            index_match.used |= 1 << number;
            index_match.depth = depth + 1;
            if prefixes.is_empty() {
                break;
            }
        }
        let bounds = index_match.bounds(index, parts);
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
        index_match.pieces = prefixes.into_iter().map(piece).collect();
        index_match
    }

    /// Bounds on the column after those fixed by equalities.
    fn bounds(&mut self, index: &Index, parts: &[Conjunct<'_>]) -> Vec<Option<(Vec<u8>, Vec<u8>)>> {
        let Some(term) = index.spec().terms.get(self.depth) else { return Vec::new() };
        let mut bounds = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if let Some(Clause { column, restriction: Restriction::Bound(bound, value) }) = &part.clause
                && *column == term.column
            {
                bounds.push(index.keys().between(self.depth, *bound, value));
                self.used |= 1 << at;
            }
        }
        bounds
    }

    /// Number of rows in the ranges.
    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.ranks.len()).sum()
    }
}

/// The part that fixes `column` to the fewest values, unless `pieces` ranges times these values exceed [`MAX_PIECES`].
fn equal(parts: &[Conjunct<'_>], column: &str, pieces: usize) -> Option<usize> {
    let values = |part: &Conjunct<'_>| match part.clause.as_ref().filter(|clause| clause.column == column)?.restriction
    {
        Restriction::Points(ref points) => Some(points.len()),
        Restriction::Null => Some(1),
        Restriction::Bound(..) => None,
    };
    let (number, values) = parts
        .iter()
        .enumerate()
        .filter_map(|(at, part)| Some((at, values(part)?)))
        .min_by_key(|(_, values)| *values)?;
    (values * pieces <= MAX_PIECES).then_some(number)
}

/// Key bytes of the cells that a clause allows, sorted.
fn cells(index: &Index, depth: usize, clause: Option<&Clause<'_>>) -> Vec<Vec<u8>> {
    let cell = |value: &CborValue| {
        let mut out = Vec::new();
        index.keys().cell(depth, value, &mut out);
        out
    };
    let mut cells: Vec<Vec<u8>> = match clause.map(|clause| &clause.restriction) {
        Some(Restriction::Points(points)) => points.iter().map(|point| cell(point)).collect(),
        Some(Restriction::Null) => vec![cell(&CborValue::Null)],
        Some(Restriction::Bound(..)) | None => Vec::new(),
    };
    cells.sort_unstable();
    cells.dedup();
    cells
}
