//! The choice of a plan, by how many rows each would look at.

use super::clauses::{Conjunct, IndexMatch, Restriction, parts};
use super::source::{SlotSource, narrowest, reaches, union};
use super::walk::{Walk, free};
use super::{Access, Plan, clamp, natural_start};
use crate::table::Table;
use crate::table::{Spec, TieBreak};
use crate::vista::{Filter, OrderTerm, Query, Schema};

/// Rows from which an index is worth its memory.
const WORTH: usize = 256;
/// Columns of an index that is wished for, at most.
const MOST_TERMS: usize = 6;
/// Values of an `in`, at most, for which an index that begins with the column is wished for.
const MOST_VALUES: usize = 100;

/// A way to answer, and the rows it would look at. Rows that an index leads to count more than neighbours.
struct Candidate {
    weight: usize,
    cost: usize,
    access: Access,
    residual: Option<Query>,
}

struct Chooser<'a> {
    table: &'a Table,
    query: &'a Query,
    parts: Vec<Conjunct<'a>>,
    /// Whether there is a search that no index answers.
    search: bool,
    /// The index that answers the search, and about how many rows that finds.
    words: Option<(usize, usize)>,
    /// How many rows match, where ranks tell.
    total: Option<usize>,
}

pub(super) fn choose(table: &Table, query: &Query, schema: &Schema) -> Plan {
    let parts = parts(&query.filter);
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.filter.is_everything()).collect();
    let search = query.search.as_deref().filter(|words| !words.trim().is_empty());
    let words = search.and_then(|search| found_by_words(table, search, schema));
    let search = search.is_some() && words.is_none();
    let mut chooser = Chooser { table, query, parts, search, words, total: None };
    let found = reaches(table, &chooser.parts);
    chooser.total = match (search || words.is_some(), &chooser.parts[..]) {
        (true, _) => None,
        (false, []) => Some(table.len()),
        _ => found.iter().find(|reach| chooser.answers_all(reach.used)).map(IndexMatch::len),
    };
    let mut ways: Vec<Candidate> = vec![chooser.all()];
    ways.extend(found.iter().filter_map(|reach| chooser.along(reach, schema)));
    ways.extend(chooser.some(&found));
    let best = ways.into_iter().min_by_key(|way| way.weight);
    let Candidate { cost, access, residual, .. } = best.unwrap_or_else(|| chooser.all());
    let wanted_indexes = if cost > WORTH { chooser.wanted_indexes() } else { Vec::new() };
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

/// The index that knows the words of a search, and about how many rows have them all.
fn found_by_words(table: &Table, search: &str, schema: &Schema) -> Option<(usize, usize)> {
    let mut texts = table.indexes().iter().enumerate().filter_map(|(at, index)| Some((at, index.text(schema)?)));
    let (at, text) = texts.next()?;
    Some((at, text.lookup(search)?.estimate()))
}

/// What [`Plan::wishes`] would say of a query that costs enough.
#[cfg(test)]
pub(super) fn wanted_indexes(table: &Table, query: &Query) -> Vec<Spec> {
    Chooser { table, query, parts: parts(&query.filter), search: query.search.is_some(), words: None, total: None }
        .wanted_indexes()
}

impl Chooser<'_> {
    /// Whether nothing is left to check once these parts are answered.
    fn answers_all(&self, used: u64) -> bool {
        !self.search && self.parts.iter().enumerate().all(|(at, _)| at < 64 && used & 1 << at != 0)
    }

    /// The query's filter without these parts, and its search.
    fn residual(&self, used: u64) -> Option<Query> {
        if self.answers_all(used) {
            return None;
        }
        let left = self.parts.iter().enumerate().filter(|(at, _)| *at >= 64 || used & 1 << at == 0);
        let filter = Filter::All(left.map(|(_, part)| part.filter.clone()).collect());
        let search = self.query.search.clone().filter(|_| self.search);
        Some(Query { filter, search, ..Query::default() })
    }

    /// Rows that are looked at in a walk of `len` rows, of which `before` come before the cursor, until the page is full.
    fn walked(&self, len: usize, before: usize, residual: bool) -> usize {
        let wanted = match self.query.limit {
            Some(0) if self.total.is_some() => 0,
            limit => limit.map_or(usize::MAX, clamp),
        };
        if !residual && self.words.is_none() {
            return wanted.min(len);
        }
        // With nothing but a search, the number of matches is that of the words.
        match self.total.or(self.words.map(|(_, about)| about).filter(|_| self.parts.is_empty())) {
            Some(total) if wanted < usize::MAX => {
                let page = clamp(self.query.offset).saturating_add(wanted);
                let share = (page as u128) * (len as u128) / (total.max(1) as u128);
                before + usize::try_from(share).unwrap_or(len).min(len)
            }
            _ => before + len,
        }
    }

    /// All rows, one after the other.
    fn all(&self) -> Candidate {
        let (len, residual) = (self.table.len(), self.residual(0));
        if !self.query.order.is_empty() {
            let counted = self.query.limit == Some(0) && self.total.is_some() && self.query.after.is_none();
            let cost = if counted { 0 } else { len };
            return Candidate { weight: cost.saturating_mul(3), cost, access: Access::Scan, residual };
        }
        let start = natural_start(self.table, self.query);
        let cost = self.walked(len - start, start, residual.is_some());
        // A look into a set of slots is less than one at a row.
        let weight = if residual.is_none() && self.words.is_some() { cost / 4 } else { cost.saturating_mul(2) };
        Candidate { weight, cost, access: Access::Natural, residual }
    }

    /// Along an index whose order is the query's.
    fn along(&self, reach: &IndexMatch, schema: &Schema) -> Option<Candidate> {
        let walk = Walk::of(self.table, reach, self.query, &self.parts, schema)?;
        let residual = self.residual(reach.used);
        let cost = self.walked(walk.len(), walk.before(), residual.is_some());
        // Ranges that are merged are gone through up to the page.
        let skipped = clamp(self.query.offset).min(walk.len()) / 4;
        let merged = if reach.pieces.len() > 1 { skipped + reach.pieces.len() } else { 0 };
        let each = if residual.is_none() && self.words.is_some() { cost / 3 } else { cost.saturating_mul(3) };
        Some(Candidate { weight: each.saturating_add(merged), cost, access: Access::Walk(walk), residual })
    }

    /// The rows of the most selective parts, sorted afterwards.
    fn some(&self, found: &[IndexMatch]) -> Option<Candidate> {
        let unions = self.parts.iter().filter_map(|part| union(self.table, part.filter));
        let reach = narrowest(found);
        if let Some((_, about)) = self.words
            && reach.is_none_or(|reach| about <= reach.len())
        {
            let (residual, page) = (self.residual(0), self.walked(about, 0, false));
            // In the order of slots the page is read off the set.
            let read = residual.is_none() && self.query.order.is_empty() && self.table.is_in_slot_order();
            let (cost, weight) = if read { (page.min(about), about / 64) } else { (about, about.saturating_mul(4)) };
            return Some(Candidate { weight, cost, access: Access::Some(SlotSource::Words(about)), residual });
        }
        let (mut source, mut used) = match (reach, unions.min_by_key(SlotSource::len)) {
            (Some(reach), Some(union)) if union.len() < reach.len() => (union, 0),
            (Some(reach), _) => (SlotSource::Reach(reach.clone()), reach.used),
            (None, union) => (union?, 0),
        };
        let mut cost = source.len();
        // Reading entries of another index is cheap beside looking at rows.
        let others = found.iter().filter(|reach| reach.used & !used != 0 && reach.used & used == 0);
        if let Some(other) = others.min_by_key(|reach| reach.len())
            && cost > WORTH
            && other.len() / 16 < cost
        {
            let share = other.len() as f64 / self.table.len().max(1) as f64;
            let (one, two) = if other.len() < cost {
                (SlotSource::Reach(other.clone()), source)
            } else {
                (source, SlotSource::Reach(other.clone()))
            };
            cost = (cost as f64 * share) as usize;
            used |= other.used;
            source = SlotSource::Both(Box::new((one, two)));
        }
        let residual = self.residual(used);
        let weight = cost.saturating_mul(4).saturating_add(source.entries() / 4);
        Some(Candidate { weight, cost, access: Access::Some(source), residual })
    }

    /// Indexes that this query could be answered from at once.
    pub(super) fn wanted_indexes(&self) -> Vec<Spec> {
        let order = free(&self.query.order, &self.parts);
        let mut equal: Vec<&str> = self.clauses(|want| match want {
            Restriction::Points(points) => (1..=MOST_VALUES).contains(&points.len()),
            Restriction::Null => true,
            Restriction::Bound(..) => false,
        });
        equal.retain(|column| !order.iter().any(|term| term.column == *column));
        let equal: Vec<OrderTerm> = equal.into_iter().map(|column| OrderTerm::new(column, false)).collect();
        let mut wanted_indexes = Vec::new();
        if self.search && self.table.index(&Spec::words()).is_none() {
            wanted_indexes.push(Spec::words());
        }
        let mut wish = |terms: Vec<OrderTerm>, tie| {
            let spec = Spec { terms, tie };
            let known = self.table.indexes().iter().any(|index| *index.spec() == spec);
            if !known && !wanted_indexes.contains(&spec) && (1..=MOST_TERMS).contains(&spec.terms.len()) {
                wanted_indexes.push(spec);
            }
        };
        match self.query.order.last() {
            None => {
                if !equal.is_empty() {
                    wish(equal.clone(), TieBreak::Natural);
                }
            }
            Some(last) => {
                let (terms, descending) = canonical(&order, last.descending);
                wish([&equal[..], &terms].concat(), TieBreak::Id { descending });
            }
        }
        for column in self.clauses(|want| matches!(want, Restriction::Bound(..))) {
            if order.first().is_none_or(|term| term.column != column) && !equal.iter().any(|term| term.column == column)
            {
                wish([&equal[..], &[OrderTerm::new(column, false)]].concat(), TieBreak::Natural);
            }
        }
        for part in self.parts.iter().filter(|part| part.clause.is_none()) {
            let Filter::Any(branches) = part.filter else { continue };
            for branch in branches.iter().flat_map(parts) {
                if let Some(clause) = &branch.clause {
                    wish(vec![OrderTerm::new(clause.column, false)], TieBreak::Natural);
                }
            }
        }
        wanted_indexes
    }

    /// The columns of clauses that `take` accepts, each once, by name.
    fn clauses(&self, take: impl Fn(&Restriction<'_>) -> bool) -> Vec<&str> {
        let clauses = self.parts.iter().filter_map(|part| part.clause.as_ref());
        let mut columns: Vec<&str> = clauses.filter(|clause| take(&clause.want)).map(|clause| clause.column).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}

/// The one of two opposite orders that an index is made for, and the direction of its ties: both are served by it.
fn canonical(order: &[&OrderTerm], descending: bool) -> (Vec<OrderTerm>, bool) {
    let back = order.first().map_or(descending, |term| term.descending);
    let turn = |(at, term): (usize, &&OrderTerm)| OrderTerm {
        column: term.column.clone(),
        descending: term.descending != back,
        // Nulls of the first column are set apart, wherever they are.
        nulls_first: if at == 0 { false } else { term.nulls_first != back },
    };
    (order.iter().enumerate().map(turn).collect(), descending != back)
}
