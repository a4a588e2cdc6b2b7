//! Choice of a plan by the number of rows that each candidate would examine.

use super::clauses::{Conjunct, IndexMatch, Restriction, parts};
use super::source::{SlotSource, index_matches, narrowest, union};
use super::walk::{Walk, free};
use super::{Access, Plan, clamp, natural_start};
use crate::table::Table;
use crate::table::{Spec, TieBreak};
use crate::vista::{Filter, OrderTerm, Query, Schema};

/// Minimum number of examined rows for which an index is worth its memory.
const MIN_INDEX_COST: usize = 256;
/// Maximum number of columns of a wanted index.
const MAX_TERMS: usize = 6;
/// Maximum number of values of an `in` for which an index beginning with its column is wanted.
const MAX_VALUES: usize = 100;

/// A candidate plan and its cost in examined rows. Rows reached through an index weigh more than neighbouring rows.
struct Candidate {
    weight: usize,
    cost: usize,
    access: Access,
    residual: Option<Query>,
}

/// Chooser among the candidates for one query.
struct Chooser<'a> {
    table: &'a Table,
    query: &'a Query,
    parts: Vec<Conjunct<'a>>,
    /// True if there is a search that no index answers.
    search: bool,
    /// The index that answers the search, and its approximate number of rows.
    words: Option<(usize, usize)>,
    /// Number of matching rows, if ranks give it.
    total: Option<usize>,
}

pub(super) fn choose(table: &Table, query: &Query, schema: &Schema) -> Plan {
    let parts = parts(&query.filter);
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.filter.is_everything()).collect();
    let search = query.search.as_deref().filter(|words| !words.trim().is_empty());
    let words = search.and_then(|search| search_index(table, search, schema));
    let search = search.is_some() && words.is_none();
    let mut chooser = Chooser { table, query, parts, search, words, total: None };
    let matches = index_matches(table, &chooser.parts);
    chooser.total = match (search || words.is_some(), &chooser.parts[..]) {
        (true, _) => None,
        (false, []) => Some(table.len()),
        _ => matches.iter().find(|index_match| chooser.answers_all(index_match.used)).map(IndexMatch::len),
    };
    let mut candidates: Vec<Candidate> = vec![chooser.all()];
    candidates.extend(matches.iter().filter_map(|index_match| chooser.along(index_match, schema)));
    candidates.extend(chooser.some(&matches));
    let best = candidates.into_iter().min_by_key(|candidate| candidate.weight);
    let Candidate { cost, access, residual, .. } = best.unwrap_or_else(|| chooser.all());
    let wanted_indexes = if cost > MIN_INDEX_COST { chooser.wanted_indexes() } else { Vec::new() };
    let words_only = chooser.parts.is_empty();
    Plan {
        access,
        residual,
        words: words.map(|(index, _)| index),
        words_only,
        total: chooser.total,
        cost,
        wanted_indexes,
    }
}

/// The text index that answers a search, and the approximate number of rows that contain all its words.
fn search_index(table: &Table, search: &str, schema: &Schema) -> Option<(usize, usize)> {
    let mut texts = table.indexes().iter().enumerate().filter_map(|(at, index)| Some((at, index.text(schema)?)));
    let (at, text) = texts.next()?;
    Some((at, text.lookup(search)?.estimate()))
}

/// [`Plan::wanted_indexes`] of a query that costs enough.
#[cfg(test)]
pub(super) fn wanted_indexes(table: &Table, query: &Query) -> Vec<Spec> {
    Chooser { table, query, parts: parts(&query.filter), search: query.search.is_some(), words: None, total: None }
        .wanted_indexes()
}

impl Chooser<'_> {
    /// True if nothing is left to check once the parts in `used` are answered.
    fn answers_all(&self, used: u64) -> bool {
        !self.search && self.parts.iter().enumerate().all(|(at, _)| at < 64 && used & 1 << at != 0)
    }

    /// The query's filter without the parts in `used`, and its search; `None` if nothing is left.
    fn residual(&self, used: u64) -> Option<Query> {
        if self.answers_all(used) {
            return None;
        }
        let left = self.parts.iter().enumerate().filter(|(at, _)| *at >= 64 || used & 1 << at == 0);
        let filter = Filter::All(left.map(|(_, part)| part.filter.clone()).collect());
        let search = self.query.search.clone().filter(|_| self.search);
        Some(Query { filter, search, ..Query::default() })
    }

    /// Number of rows examined until the page is full, in a walk of `len` rows after the `before` rows before the cursor.
    fn walk_cost(&self, len: usize, before: usize, residual: bool) -> usize {
        let wanted = match self.query.limit {
            Some(0) if self.total.is_some() => 0,
            limit => limit.map_or(usize::MAX, clamp),
        };
        if !residual && self.words.is_none() {
            return wanted.min(len);
        }
        // Without a filter, the number of matches is that of the search.
        match self.total.or(self.words.map(|(_, about)| about).filter(|_| self.parts.is_empty())) {
            Some(total) if wanted < usize::MAX => {
                let page = clamp(self.query.offset).saturating_add(wanted);
                let share = (page as u128) * (len as u128) / (total.max(1) as u128);
                before + usize::try_from(share).unwrap_or(len).min(len)
            }
            _ => before + len,
        }
    }

    /// Candidate: all rows, one after the other.
    fn all(&self) -> Candidate {
        let (len, residual) = (self.table.len(), self.residual(0));
        if !self.query.order.is_empty() {
            let counted = self.query.limit == Some(0) && self.total.is_some() && self.query.after.is_none();
            let cost = if counted { 0 } else { len };
            return Candidate { weight: cost.saturating_mul(3), cost, access: Access::Scan, residual };
        }
        let start = natural_start(self.table, self.query);
        let cost = self.walk_cost(len - start, start, residual.is_some());
        // Checking a set of slots is cheaper than checking a row.
        let weight = if residual.is_none() && self.words.is_some() { cost / 4 } else { cost.saturating_mul(2) };
        Candidate { weight, cost, access: Access::Natural, residual }
    }

    /// Candidate: a walk along an index in the query's order.
    fn along(&self, index_match: &IndexMatch, schema: &Schema) -> Option<Candidate> {
        let walk = Walk::of(self.table, index_match, self.query, &self.parts, schema)?;
        let residual = self.residual(index_match.used);
        let cost = self.walk_cost(walk.len(), walk.before(), residual.is_some());
        // Merged ranges have to be read up to the page.
        let skipped = clamp(self.query.offset).min(walk.len()) / 4;
        let merged = if index_match.pieces.len() > 1 { skipped + index_match.pieces.len() } else { 0 };
        let each = if residual.is_none() && self.words.is_some() { cost / 3 } else { cost.saturating_mul(3) };
        Some(Candidate { weight: each.saturating_add(merged), cost, access: Access::Walk(walk), residual })
    }

    /// Candidate: the rows of the most selective parts, sorted afterwards.
    fn some(&self, matches: &[IndexMatch]) -> Option<Candidate> {
        let unions = self.parts.iter().filter_map(|part| union(self.table, part.filter));
        let index_match = narrowest(matches);
        if let Some((_, about)) = self.words
            && index_match.is_none_or(|index_match| about <= index_match.len())
        {
            let (residual, page) = (self.residual(0), self.walk_cost(about, 0, false));
            // In slot order the page is read directly from the set.
            let read = residual.is_none() && self.query.order.is_empty() && self.table.is_in_slot_order();
            let (cost, weight) = if read { (page.min(about), about / 64) } else { (about, about.saturating_mul(4)) };
            return Some(Candidate { weight, cost, access: Access::Some(SlotSource::Words(about)), residual });
        }
        let (mut source, mut used) = match (index_match, unions.min_by_key(SlotSource::len)) {
            (Some(index_match), Some(union)) if union.len() < index_match.len() => (union, 0),
            (Some(index_match), _) => (SlotSource::Ranges(index_match.clone()), index_match.used),
            (None, union) => (union?, 0),
        };
        let mut cost = source.len();
        // Reading entries of another index is cheaper than examining rows.
        let others = matches.iter().filter(|index_match| index_match.used & !used != 0 && index_match.used & used == 0);
        if let Some(other) = others.min_by_key(|index_match| index_match.len())
            && cost > MIN_INDEX_COST
            && other.len() / 16 < cost
        {
            let share = other.len() as f64 / self.table.len().max(1) as f64;
            let (one, two) = if other.len() < cost {
                (SlotSource::Ranges(other.clone()), source)
            } else {
                (source, SlotSource::Ranges(other.clone()))
            };
            cost = (cost as f64 * share) as usize;
            used |= other.used;
            source = SlotSource::Both(Box::new((one, two)));
        }
        let residual = self.residual(used);
        let weight = cost.saturating_mul(4).saturating_add(source.entries() / 4);
        Some(Candidate { weight, cost, access: Access::Some(source), residual })
    }

    /// Indexes that would answer this query directly.
    pub(super) fn wanted_indexes(&self) -> Vec<Spec> {
        let order = free(&self.query.order, &self.parts);
        let mut equal: Vec<&str> = self.clauses(|restriction| match restriction {
            Restriction::Points(points) => (1..=MAX_VALUES).contains(&points.len()),
            Restriction::Null => true,
            Restriction::Bound(..) => false,
        });
        equal.retain(|column| !order.iter().any(|term| term.column == *column));
        let equal: Vec<OrderTerm> = equal.into_iter().map(|column| OrderTerm::new(column, false)).collect();
        let mut wanted_indexes = Vec::new();
        if self.search && self.table.index(&Spec::words()).is_none() {
            wanted_indexes.push(Spec::words());
        }
        let mut suggest = |terms: Vec<OrderTerm>, tie| {
            let spec = Spec { terms, tie };
            let known = self.table.indexes().iter().any(|index| *index.spec() == spec);
            if !known && !wanted_indexes.contains(&spec) && (1..=MAX_TERMS).contains(&spec.terms.len()) {
                wanted_indexes.push(spec);
            }
        };
        match self.query.order.last() {
            None => {
                if !equal.is_empty() {
                    suggest(equal.clone(), TieBreak::Natural);
                }
            }
            Some(last) => {
                let (terms, descending) = canonical(&order, last.descending);
                suggest([&equal[..], &terms].concat(), TieBreak::Id { descending });
            }
        }
        for column in self.clauses(|restriction| matches!(restriction, Restriction::Bound(..))) {
            if order.first().is_none_or(|term| term.column != column) && !equal.iter().any(|term| term.column == column)
            {
                suggest([&equal[..], &[OrderTerm::new(column, false)]].concat(), TieBreak::Natural);
            }
        }
        for part in self.parts.iter().filter(|part| part.clause.is_none()) {
            let Filter::Any(branches) = part.filter else { continue };
            for branch in branches.iter().flat_map(parts) {
                if let Some(clause) = &branch.clause {
                    suggest(vec![OrderTerm::new(clause.column, false)], TieBreak::Natural);
                }
            }
        }
        wanted_indexes
    }

    /// Columns of the clauses that `accept` selects, sorted and without duplicates.
    fn clauses(&self, accept: impl Fn(&Restriction<'_>) -> bool) -> Vec<&str> {
        let clauses = self.parts.iter().filter_map(|part| part.clause.as_ref());
        let mut columns: Vec<&str> =
            clauses.filter(|clause| accept(&clause.restriction)).map(|clause| clause.column).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// The canonical one of two opposite orders, and the direction of its ties. One index serves both orders.
fn canonical(order: &[&OrderTerm], descending: bool) -> (Vec<OrderTerm>, bool) {
    let back = order.first().map_or(descending, |term| term.descending);
    let normalized = |(at, term): (usize, &&OrderTerm)| OrderTerm {
        column: term.column.clone(),
        descending: term.descending != back,
        // Nulls of the first column are read as a separate group, wherever they are.
        nulls_first: if at == 0 { false } else { term.nulls_first != back },
    };
    (order.iter().enumerate().map(normalized).collect(), descending != back)
}
