//! Walks along an index in the order of a query.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::clauses::{Conjunct, IndexMatch, Restriction};
use crate::record::CborValue;
use crate::table::index::{Index, TieBreak, position_into};
use crate::table::order::{Entries, MAX_KEY};
use crate::table::{Slot, Table};
use crate::vista::query::KeyMaker;
use crate::vista::{OrderTerm, Query, Schema};

/// Ranges of an index, arranged so that rows are read in the order of a query.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) index: usize,
    /// True to read from the end to the beginning.
    pub(super) back: bool,
    /// Groups, read one after the other; the ranges of a group are merged.
    pub(super) groups: Vec<Group>,
    /// Ranges before the query's cursor.
    pub(super) skipped: Vec<Range<usize>>,
}

/// Ranges whose rows are read as one ordered sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Ranges, each with the length of its keys' prefix, which is ignored when ranges are merged.
    pub(super) runs: Vec<(usize, Range<usize>)>,
    /// True if the rows are null in the first sort column, false if not; `None` if nulls are not a separate group.
    null: Option<bool>,
}

/// Match of an index's terms with a query's order.
struct OrderMatch {
    back: bool,
    /// True if nulls of the first column are on the other side in the index.
    split: bool,
}

impl Walk {
    /// The walk through `index_match` in `query`'s order, `None` if the index has another order.
    pub(super) fn of(
        table: &Table,
        index_match: &IndexMatch,
        query: &Query,
        parts: &[Conjunct<'_>],
        schema: &Schema,
    ) -> Option<Walk> {
        let index = &table.indexes()[index_match.index];
        let (terms, tie) = (&index.spec().terms, index.spec().tie);
        let free = free(&query.order, parts);
        // An `in` on the first sort column: the ranges of its values are read one after the other.
        let leads = |column: &String| free.first().is_some_and(|term| term.column == *column);
        let chained = index_match.several.filter(|(at, _)| !index_match.product && leads(&terms[*at].column));
        let from = chained.map_or(index_match.depth, |(at, _)| at);
        let fit = match (query.order.last(), tie) {
            (None, TieBreak::Natural) => {
                terms[from..].is_empty().then_some(OrderMatch { back: false, split: false })?
            }
            (Some(last), TieBreak::Id { descending }) => {
                fit(&terms[from..], &free, descending == last.descending, chained.is_none())?
            }
            _ => return None,
        };
        let mut walk = Walk { index: index_match.index, back: fit.back, groups: Vec::new(), skipped: Vec::new() };
        let runs = index_match.pieces.iter().map(|piece| (piece.prefix.len(), piece.ranks.clone()));
        if chained.is_some() {
            walk.groups.extend(runs.map(|run| Group { runs: vec![run], null: None }));
            if fit.back {
                walk.groups.reverse();
            }
        } else if fit.split {
            walk.groups = split(table, index, index_match, free[0].nulls_first);
        } else {
            walk.groups.push(Group { runs: runs.collect(), null: None });
        }
        walk.skip_to_cursor(table, index_match, query, parts, (from, chained.map(|(_, len)| len)), schema)?;
        Some(walk)
    }

    /// Skips the entries before the query's cursor. `None` if its position cannot be determined.
    fn skip_to_cursor(
        &mut self,
        table: &Table,
        index_match: &IndexMatch,
        query: &Query,
        parts: &[Conjunct<'_>],
        (from, shared): (usize, Option<usize>),
        schema: &Schema,
    ) -> Option<()> {
        let Some(after) = &query.after else { return Some(()) };
        let index = &table.indexes()[self.index];
        let (mut tail, mut null) = (Vec::new(), None);
        match index.spec().tie {
            TieBreak::Words => return None,
            TieBreak::Natural => {
                let Some((ordinal, slot)) = after.numbers() else { return Some(()) };
                position_into(ordinal, slot, &mut tail);
            }
            TieBreak::Id { descending } => {
                let Some((cells, id)) = KeyMaker::cells(after) else { return Some(()) };
                let mut at = from;
                for (term, cell) in query.order.iter().zip(cells) {
                    if fixed(&term.column, parts)
                        .is_some_and(|restriction| !is_fixed_to(restriction, cell, term, schema))
                    {
                        return None;
                    }
                    if fixed(&term.column, parts).is_none() && first_of(&query.order, term) {
                        null = null.or(Some(cell.is_null()));
                        index.keys().cell(at, cell, &mut tail);
                        at += 1;
                    }
                }
                index.keys().id(id, descending, &mut tail);
            }
        }
        let current = self.groups.iter().position(|group| group.null.is_some() && group.null == null);
        for (number, group) in self.groups.iter_mut().enumerate() {
            for (run, piece) in group.runs.iter_mut().zip(index_match.pieces.iter().cycle()) {
                let ranks = &mut run.1;
                let (skipped, kept) = match current {
                    Some(current) if number < current => (ranks.clone(), ranks.end..ranks.end),
                    Some(current) if number > current => (ranks.start..ranks.start, ranks.clone()),
                    _ => {
                        let prefix = &piece.prefix[..shared.unwrap_or(piece.prefix.len())];
                        let key = [prefix, &tail].concat();
                        if self.back {
                            let end = index.rank(&key, table).clamp(ranks.start, ranks.end);
                            (end..ranks.end, ranks.start..end)
                        } else {
                            let start = index.rank_end(&key, table).clamp(ranks.start, ranks.end);
                            (ranks.start..start, start..ranks.end)
                        }
                    }
                };
                *ranks = kept;
                self.skipped.push(skipped);
            }
        }
        Some(())
    }

    /// Number of entries before the cursor.
    pub(super) fn before(&self) -> usize {
        self.skipped.iter().map(Range::len).sum()
    }

    /// Number of entries in the walk.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(Group::len).sum()
    }

    /// Slots before the cursor, in no particular order.
    pub(super) fn skipped<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = Slot> + 'a {
        let order = table.indexes()[self.index].order();
        self.skipped.iter().flat_map(move |ranks| order.range(ranks.clone())).map(|entry| entry.slot)
    }

    /// At most `limit` slots in order after skipping `offset`. Copies parts of leaves, except where ranges have to be merged.
    pub(super) fn page(&self, table: &Table, mut offset: usize, limit: usize) -> Vec<Slot> {
        let index = &table.indexes()[self.index];
        let mut slots = Vec::with_capacity(limit.min(self.len().saturating_sub(offset)));
        for group in &self.groups {
            let (have, len) = (slots.len(), group.len());
            if offset >= len {
                offset -= len;
                continue;
            }
            let count = (limit - have).min(len - offset);
            match &group.runs[..] {
                [(_, ranks)] if self.back => {
                    index.order().slots_into(ranks.end - offset - count..ranks.end - offset, &mut slots);
                    slots[have..].reverse();
                }
                [(_, ranks)] => {
                    index.order().slots_into(ranks.start + offset..ranks.start + offset + count, &mut slots);
                }
                runs => slots.extend(Merge::new(table, index, runs, self.back, offset).take(count)),
            }
            offset = 0;
        }
        slots
    }

    /// Iterates over slots in order after skipping `offset`.
    pub(super) fn slots<'a>(&'a self, table: &'a Table, mut offset: usize) -> impl Iterator<Item = Slot> + 'a {
        let index = &table.indexes()[self.index];
        let mut groups = &self.groups[..];
        while let Some((first, rest)) = groups.split_first()
            && first.len() <= offset
        {
            offset -= first.len();
            groups = rest;
        }
        let back = self.back;
        groups.iter().enumerate().flat_map(move |(at, group)| {
            let skip = if at == 0 { offset } else { 0 };
            match &group.runs[..] {
                [(_, ranks)] => Run::one(index, ranks, back, skip),
                runs => Run::Merged(Merge::new(table, index, runs, back, skip)),
            }
        })
    }
}

impl Group {
    fn len(&self) -> usize {
        self.runs.iter().map(|(_, ranks)| ranks.len()).sum()
    }
}

/// The terms of an order that distinguish rows: without terms in which all rows are equal, and without repeated columns.
pub(super) fn free<'q>(order: &'q [OrderTerm], parts: &[Conjunct<'_>]) -> Vec<&'q OrderTerm> {
    order.iter().filter(|term| fixed(&term.column, parts).is_none() && first_of(order, term)).collect()
}

fn first_of(order: &[OrderTerm], term: &OrderTerm) -> bool {
    order.iter().find(|other| other.column == term.column).is_some_and(|first| std::ptr::eq(first, term))
}

/// The restriction that fixes `column` to one value in all rows.
fn fixed<'a, 'q>(column: &str, parts: &'a [Conjunct<'q>]) -> Option<&'a Restriction<'q>> {
    let clauses = parts.iter().filter_map(|part| part.clause.as_ref());
    clauses
        .filter(|clause| clause.column == column)
        .map(|clause| &clause.restriction)
        .find(|restriction| restriction.is_fixed())
}

fn is_fixed_to(restriction: &Restriction<'_>, cell: &CborValue, term: &OrderTerm, schema: &Schema) -> bool {
    let keys = KeyMaker::new(std::slice::from_ref(term), schema);
    let bytes = |value: &CborValue| {
        let mut out = Vec::new();
        keys.cell(0, value, &mut out);
        out
    };
    match restriction {
        Restriction::Points(points) => points.iter().all(|point| bytes(point) == bytes(cell)),
        Restriction::Null => cell.is_null(),
        Restriction::Bound(..) => false,
    }
}

/// Matches index `terms` with `order` in either direction. `ties` is true if ids have the same direction, `nulls` if the first
/// column may have nulls. `None` if the orders differ.
fn fit(terms: &[OrderTerm], order: &[&OrderTerm], ties: bool, nulls: bool) -> Option<OrderMatch> {
    let same = terms.len() == order.len() && terms.iter().zip(order).all(|(term, other)| term.column == other.column);
    let back = !ties;
    let directed = |(term, other): (&OrderTerm, &&OrderTerm)| (term.descending == other.descending) != back;
    if !same || !terms.iter().zip(order).all(directed) {
        return None;
    }
    let same_nulls = |(term, other): (&OrderTerm, &&OrderTerm)| (term.nulls_first == other.nulls_first) != back;
    if !terms.iter().zip(order).skip(1).all(same_nulls) {
        return None;
    }
    Some(OrderMatch { back, split: nulls && !terms.iter().zip(order).take(1).all(same_nulls) })
}

/// Splits the ranges into a group of rows with null in the first sort column, and a group of the others.
fn split(table: &Table, index: &Index, index_match: &IndexMatch, nulls_first: bool) -> Vec<Group> {
    let (boundary, nulls_lead) = index.keys().null_boundary(index_match.depth);
    let (mut nulls, mut others) =
        (Group { null: Some(true), ..Group::default() }, Group { null: Some(false), ..Group::default() });
    for piece in &index_match.pieces {
        let ranks = &piece.ranks;
        let between = index.rank(&[&piece.prefix[..], &[boundary]].concat(), table).clamp(ranks.start, ranks.end);
        let (before, behind) = (ranks.start..between, between..ranks.end);
        let (null, other) = if nulls_lead { (before, behind) } else { (behind, before) };
        nulls.runs.push((piece.prefix.len(), null));
        others.runs.push((piece.prefix.len(), other));
    }
    if nulls_first { vec![nulls, others] } else { vec![others, nulls] }
}

/// Iterator over the slots of a group.
enum Run<'a> {
    Forward(Entries<'a>),
    Backward(std::iter::Rev<Entries<'a>>),
    Merged(Merge<'a>),
}

impl<'a> Run<'a> {
    fn one(index: &'a Index, ranks: &Range<usize>, back: bool, skip: usize) -> Run<'a> {
        if back {
            Run::Backward(index.order().range(ranks.start..ranks.end - skip.min(ranks.len())).rev())
        } else {
            Run::Forward(index.order().range(ranks.start + skip.min(ranks.len())..ranks.end))
        }
    }
}

impl Iterator for Run<'_> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        match self {
            Run::Forward(entries) => entries.next().map(|entry| entry.slot),
            Run::Backward(entries) => entries.next().map(|entry| entry.slot),
            Run::Merged(merge) => merge.next(),
        }
    }
}

/// K-way merge of sorted ranges.
struct Merge<'a> {
    table: &'a Table,
    index: &'a Index,
    back: bool,
    runs: Vec<(usize, Entries<'a>)>,
    heads: BinaryHeap<Head>,
}

/// The next entry of a run. The first in order is the greatest, because `BinaryHeap` is a max-heap.
#[derive(PartialEq, Eq)]
struct Head {
    key: Vec<u8>,
    slot: Slot,
    run: usize,
    back: bool,
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        let order = (&self.key, self.slot).cmp(&(&other.key, other.slot));
        if self.back { order } else { order.reverse() }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Merge<'a> {
    fn new(table: &'a Table, index: &'a Index, runs: &[(usize, Range<usize>)], back: bool, skip: usize) -> Merge<'a> {
        let entries = |(prefix, ranks): &(usize, Range<usize>)| (*prefix, index.order().range(ranks.clone()));
        let runs: Vec<_> = runs.iter().map(entries).collect();
        let mut merge = Merge { table, index, back, heads: BinaryHeap::with_capacity(runs.len()), runs };
        for run in 0..merge.runs.len() {
            merge.pull(run, Vec::new());
        }
        merge.by_ref().take(skip).for_each(drop);
        merge
    }

    /// Moves the next entry of a run to the heap.
    fn pull(&mut self, run: usize, mut key: Vec<u8>) {
        let (prefix, entries) = &mut self.runs[run];
        let Some(entry) = (if self.back { entries.next_back() } else { entries.next() }) else { return };
        entry.key_into(&mut key);
        // A truncated key: compute the full one from the row.
        if key.len() >= MAX_KEY
            && let Some(row) = self.table.at(entry.slot)
        {
            key = self.index.key_of(&row);
        }
        key.drain(..*prefix);
        self.heads.push(Head { key, slot: entry.slot, run, back: self.back });
    }
}

impl Iterator for Merge<'_> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        let Head { key, slot, run, .. } = self.heads.pop()?;
        self.pull(run, key);
        Some(slot)
    }
}
