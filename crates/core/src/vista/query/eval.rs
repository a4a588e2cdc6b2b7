//! The evaluator: a query compiled for one schema and applied to rows.

mod blocks;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::collation::Collation;
use super::compare::{Key, SortKey, TermKey};
use super::fields::{Fields, Path, json_string};
use super::keys::Term;
use super::meter::Meter;
use super::pattern::Compiled;
use super::search::Search;
use super::{Cursor, Filter, IsTest, Query, Test};
use crate::record::CborValue;
use crate::vista::Schema;

/// A [`Query`] compiled for rows of one schema. Compiled once per request, applied to any number of rows.
#[derive(Clone, Debug)]
pub struct CompiledQuery {
    filter: Node,
    search: Option<Search>,
    order: Vec<Term>,
    integer_ids: bool,
    unfiltered: bool,
    /// Position after which rows are returned, if there is a cursor and an order.
    after: Option<SortKey<'static>>,
}

/// Result of [`CompiledQuery::top`].
#[derive(Debug)]
pub struct TopRows<R> {
    /// The rows of the page, in order.
    pub rows: Vec<R>,
    /// Number of matching rows before the page.
    pub before: u64,
    /// Number of matching rows in total.
    pub total: u64,
}

/// Compiled filter.
#[derive(Clone, Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test { path: Path, collation: Collation, check: Check },
}

/// Compiled test.
#[derive(Clone, Debug)]
enum Check {
    Compare(Key<'static>, fn(Option<Ordering>) -> bool),
    /// Sorted keys; the flag is true if null is among them.
    In(Vec<Key<'static>>, bool),
    Pattern(Compiled),
    Is(IsTest),
    IsDistinct(Key<'static>),
}

impl CompiledQuery {
    pub(super) fn new(query: &Query, schema: &Schema) -> CompiledQuery {
        let search = query.search.as_deref().and_then(|words| Search::new(words, schema));
        let order = query.order.iter().map(|term| Term::new(term, schema));
        let mut prepared = CompiledQuery {
            filter: Node::new(&query.filter, schema),
            unfiltered: query.filter.is_everything() && search.is_none(),
            search,
            order: order.collect(),
            integer_ids: schema.layout().integer_id(),
            after: None,
        };
        prepared.after = query.after.as_ref().and_then(|after| prepared.key_of(after));
        prepared
    }

    /// True if every row matches.
    pub fn is_unfiltered(&self) -> bool {
        self.unfiltered
    }

    /// Approximate memory of the compiled patterns in bytes.
    pub fn pattern_bytes(&self) -> usize {
        self.filter.pattern_bytes()
    }

    /// True if the query has an order; without one, rows keep their input order.
    pub fn has_order(&self) -> bool {
        !self.order.is_empty()
    }

    /// True if the last term of the order is descending, and with it the order of ids.
    pub(super) fn is_descending(&self) -> bool {
        self.order.last().is_some_and(|term| term.descending)
    }

    /// True if `row` matches filter and search.
    pub fn matches(&self, row: &impl Fields) -> bool {
        self.unfiltered
            || (self.filter.eval(row) == Some(true) && self.search.as_ref().is_none_or(|search| search.matches(row)))
    }

    /// Order of two rows, each with its id; by ids alone if the query has no order. Total, because ids are unique.
    pub fn compare<F: Fields>(&self, a: (&str, &F), b: (&str, &F)) -> Ordering {
        for term in &self.order {
            let order = term.key(a.1).cmp(&term.key(b.1));
            if order.is_ne() {
                return order;
            }
        }
        self.key_of_id(Vec::new(), Cow::Borrowed(a.0)).cmp(&self.key_of_id(Vec::new(), Cow::Borrowed(b.0)))
    }

    /// Sort key of a row: compares as [`CompiledQuery::compare`] does.
    pub fn sort_key(&self, id: &str, row: &impl Fields) -> SortKey<'static> {
        let terms = self.order.iter().map(|term| term.key(row).into_owned()).collect();
        self.key_of_id(terms, Cow::Owned(id.to_string()))
    }

    /// Sort key of `cursor`. `None` if the cursor is at the beginning or the query has no order.
    pub fn key_of(&self, cursor: &Cursor) -> Option<SortKey<'static>> {
        let (cells, id) = cursor.row().filter(|_| self.has_order())?;
        let terms =
            self.order.iter().zip(cells).map(|(term, cell)| term.key_of(Some(Cow::Borrowed(cell))).into_owned());
        Some(self.key_of_id(terms.collect(), Cow::Owned(id.to_string())))
    }

    /// Selects a page of the matching `rows`: sorts them (if the query has an order), starts after the cursor, skips `offset`
    /// and keeps at most `limit`.
    pub fn top<I, F>(&self, rows: impl IntoIterator<Item = (I, F)>, offset: u64, limit: Option<u64>) -> TopRows<(I, F)>
    where
        I: AsRef<str>,
        F: Fields,
    {
        self.top_within(rows, offset, limit, &Meter::unbounded())
    }

    /// [`CompiledQuery::top`] within the bounds of `meter`. The result is valid only if [`Meter::check`] succeeds afterwards.
    pub fn top_within<I, F>(
        &self,
        rows: impl IntoIterator<Item = (I, F)>,
        offset: u64,
        limit: Option<u64>,
        meter: &Meter,
    ) -> TopRows<(I, F)>
    where
        I: AsRef<str>,
        F: Fields,
    {
        let mut before = offset;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = limit.map(|limit| offset.saturating_add(usize::try_from(limit).unwrap_or(usize::MAX)));
        let mut total = 0;
        let matching = meter.rows(rows.into_iter()).filter(|(_, row)| self.matches(row)).inspect(|_| total += 1);
        let behind = |keyed: &Keyed<(I, F)>| {
            let behind = self.after.as_ref().is_none_or(|after| keyed.key > *after);
            before += u64::from(!behind);
            behind
        };
        let rows = match (self.has_order(), end) {
            (false, end) => {
                // No early end: matches outside of the page are counted too.
                let range = offset..end.unwrap_or(usize::MAX);
                matching.enumerate().filter(|(at, _)| range.contains(at)).map(|(_, row)| row).collect()
            }
            (true, Some(end)) => {
                let least = self.least(matching, behind, end, meter);
                least.into_iter().skip(offset).map(|keyed| keyed.row).collect()
            }
            (true, None) => {
                let keyed = matching.map(|row| self.keyed(row)).filter(behind);
                let mut sorted: Vec<_> = keyed.inspect(|keyed| meter.charge(keyed.bytes())).collect();
                meter.sort(&mut sorted);
                sorted.into_iter().skip(offset).map(|keyed| keyed.row).collect()
            }
        };
        TopRows { rows, before, total }
    }

    /// The first `count` rows in order for which `counts` holds, with at most that many in memory.
    fn least<I: AsRef<str>, F: Fields>(
        &self,
        rows: impl Iterator<Item = (I, F)>,
        mut counts: impl FnMut(&Keyed<(I, F)>) -> bool,
        count: usize,
        meter: &Meter,
    ) -> Vec<Keyed<(I, F)>> {
        let mut heap: BinaryHeap<Keyed<(I, F)>> = BinaryHeap::new();
        for row in rows {
            let full = heap.len() >= count;
            // Most rows are behind the last one; no key is made of them.
            if full
                && let Some(last) = heap.peek()
                && !self.is_before((row.0.as_ref(), &row.1), &last.key)
            {
                continue;
            }
            let keyed = self.keyed(row);
            if !counts(&keyed) {
                continue;
            }
            if !full {
                meter.charge(keyed.bytes());
                heap.push(keyed);
            } else if let Some(mut last) = heap.peek_mut() {
                *last = keyed;
            }
        }
        heap.into_sorted_vec()
    }

    /// True if a row comes before the one of `key`.
    fn is_before(&self, (id, row): (&str, &impl Fields), key: &SortKey<'_>) -> bool {
        for (term, other) in self.order.iter().zip(key.terms()) {
            match term.key(row).cmp(other) {
                Ordering::Equal => {}
                order => return order.is_lt(),
            }
        }
        key.cmp_to_id(id, self.integer_ids).is_gt()
    }

    fn keyed<I: AsRef<str>, F: Fields>(&self, row: (I, F)) -> Keyed<(I, F)> {
        Keyed { key: self.sort_key(row.0.as_ref(), &row.1), row }
    }

    fn key_of_id<'a>(&self, terms: Vec<TermKey<'a>>, id: Cow<'a, str>) -> SortKey<'a> {
        SortKey::new(terms, id, self.integer_ids, self.is_descending())
    }
}

/// A row that compares by its key.
struct Keyed<T> {
    key: SortKey<'static>,
    row: T,
}

impl<T> Keyed<T> {
    /// Approximate memory in bytes.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.heap()
    }
}

impl<T> Ord for Keyed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl<T> PartialOrd for Keyed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Keyed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Keyed<T> {}

impl Node {
    fn new(filter: &Filter, schema: &Schema) -> Node {
        let all = |parts: &[Filter]| parts.iter().map(|part| Node::new(part, schema)).collect();
        match filter {
            Filter::All(parts) => Node::All(all(parts)),
            Filter::Any(parts) => Node::Any(all(parts)),
            Filter::Not(inner) => Node::Not(Box::new(Node::new(inner, schema))),
            Filter::Test { column, test } => {
                let path = Path::resolve(column, schema);
                let collation = Collation::at(&path, schema);
                let check = Check::new(test, &collation);
                Node::Test { path, collation, check }
            }
        }
    }

    fn pattern_bytes(&self) -> usize {
        match self {
            Node::All(parts) | Node::Any(parts) => parts.iter().map(Node::pattern_bytes).sum(),
            Node::Not(inner) => inner.pattern_bytes(),
            Node::Test { check: Check::Pattern(pattern), .. } => pattern.bytes(),
            Node::Test { .. } => 0,
        }
    }

    /// Evaluates the node; `None` is SQL's unknown.
    fn eval(&self, row: &impl Fields) -> Option<bool> {
        match self {
            Node::All(parts) => fold(parts, row, false),
            Node::Any(parts) => fold(parts, row, true),
            Node::Not(inner) => inner.eval(row).map(|matches| !matches),
            Node::Test { path, collation, check } => {
                let cell = row.field(path).unwrap_or(Cow::Owned(CborValue::Null));
                check.eval(&cell, collation)
            }
        }
    }
}

/// Combines the parts of a conjunction or disjunction. A part whose value is `decisive` decides the result; otherwise an unknown
/// part makes it unknown.
fn fold(parts: &[Node], row: &impl Fields, decisive: bool) -> Option<bool> {
    let mut result = Some(!decisive);
    for part in parts {
        match part.eval(row) {
            Some(answer) if answer == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

impl Check {
    fn new(test: &Test, collation: &Collation) -> Check {
        let key = |value| Key::of(value, collation).into_owned();
        match test {
            Test::Eq(value) => Check::Compare(key(value), |order| order == Some(Ordering::Equal)),
            Test::Neq(value) => Check::Compare(key(value), |order| order != Some(Ordering::Equal)),
            Test::Gt(value) => Check::Compare(key(value), |order| order.is_some_and(Ordering::is_gt)),
            Test::Gte(value) => Check::Compare(key(value), |order| order.is_some_and(Ordering::is_ge)),
            Test::Lt(value) => Check::Compare(key(value), |order| order.is_some_and(Ordering::is_lt)),
            Test::Lte(value) => Check::Compare(key(value), |order| order.is_some_and(Ordering::is_le)),
            Test::Like(pattern) | Test::Ilike(pattern) | Test::Match(pattern) | Test::Imatch(pattern) => {
                Check::Pattern(pattern.compile())
            }
            Test::In(values) => {
                let mut keys: Vec<_> = values.iter().map(key).collect();
                keys.sort();
                let null = keys.last().is_some_and(Key::is_null);
                Check::In(keys, null)
            }
            Test::Is(truth) => Check::Is(*truth),
            Test::IsDistinct(value) => Check::IsDistinct(key(value)),
        }
    }

    fn eval(&self, cell: &CborValue, collation: &Collation) -> Option<bool> {
        match self {
            Check::Is(IsTest::Null | IsTest::Unknown) => return Some(Key::plain(cell).is_null()),
            Check::Is(IsTest::True) => return Some(*cell == CborValue::Bool(true)),
            Check::Is(IsTest::False) => return Some(*cell == CborValue::Bool(false)),
            Check::Pattern(pattern) => return text_of(cell).map(|text| pattern.is_match(&text)),
            _ => {}
        }
        let cell = Key::of(cell, collation);
        match self {
            Check::IsDistinct(value) => Some(cell.cmp(value).is_ne()),
            Check::Compare(value, holds) => {
                (!cell.is_null() && !value.is_null()).then(|| holds(cell.compare_within_kind(value)))
            }
            Check::In(values, with_null) => {
                if cell.is_null() {
                    return None;
                }
                match values.binary_search_by(|value| value.cmp(&cell)) {
                    Ok(_) => Some(true),
                    Err(_) => (!with_null).then_some(false),
                }
            }
            Check::Pattern(_) | Check::Is(_) => None,
        }
    }
}

/// The text of a cell for patterns: its text, or its JSON for other kinds; `None` for null.
fn text_of(cell: &CborValue) -> Option<Cow<'_, str>> {
    match cell {
        CborValue::Text(text) => Some(Cow::Borrowed(text)),
        CborValue::Null => None,
        other => Some(Cow::Owned(json_string(other))),
    }
}
