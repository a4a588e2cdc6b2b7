//! A walk along an index in the order that a query asks for.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use super::clauses::{Conjunct, IndexMatch, Restriction};
use crate::record::CborValue;
use crate::table::index::{Index, TieBreak, place_into};
use crate::table::order::{Entries, MOST_KEY};
use crate::table::{Slot, Table};
use crate::vista::query::KeyMaker;
use crate::vista::{OrderTerm, Query, Schema};

/// Ranges of an index, put together so that rows come in the order of a query.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) index: usize,
    /// From the end to the beginning.
    pub(super) back: bool,
    /// One after the other; the ranges of one group are merged.
    pub(super) groups: Vec<Group>,
    /// What comes before the query's cursor.
    pub(super) skipped: Vec<Range<usize>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Each with the length of what its keys begin with, which does not count among ranges.
    pub(super) runs: Vec<(usize, Range<usize>)>,
    /// Whether its rows have null in the first column they are sorted by, where that was set apart.
    null: Option<bool>,
}

/// How far along the terms of an index a query's order is.
struct OrderMatch {
    back: bool,
    /// Nulls of the first column are on the other side.
    split: bool,
}

impl Walk {
    /// The walk that answers `query`'s order through `reach`, if there is one.
    pub(super) fn of(
        table: &Table,
        reach: &IndexMatch,
        query: &Query,
        parts: &[Conjunct<'_>],
        schema: &Schema,
    ) -> Option<Walk> {
        let index = &table.indexes()[reach.index];
        let (terms, tie) = (&index.spec().terms, index.spec().tie);
        let free = free(&query.order, parts);
        // An `in` on the very column that is sorted by: its values follow each other.
        let leads = |column: &String| free.first().is_some_and(|term| term.column == *column);
        let chained = reach.several.filter(|(at, _)| !reach.product && leads(&terms[*at].column));
        let from = chained.map_or(reach.depth, |(at, _)| at);
        let fit = match (query.order.last(), tie) {
            (None, TieBreak::Natural) => {
                terms[from..].is_empty().then_some(OrderMatch { back: false, split: false })?
            }
            (Some(last), TieBreak::Id { descending }) => {
                fit(&terms[from..], &free, descending == last.descending, chained.is_none())?
            }
            _ => return None,
        };
        let mut walk = Walk { index: reach.index, back: fit.back, groups: Vec::new(), skipped: Vec::new() };
        let runs = reach.pieces.iter().map(|piece| (piece.prefix.len(), piece.ranks.clone()));
        if chained.is_some() {
            walk.groups.extend(runs.map(|run| Group { runs: vec![run], null: None }));
            if fit.back {
                walk.groups.reverse();
            }
        } else if fit.split {
            walk.groups = split(table, index, reach, free[0].nulls_first);
        } else {
            walk.groups.push(Group { runs: runs.collect(), null: None });
        }
        walk.skip_to_cursor(table, reach, query, parts, (from, chained.map(|(_, len)| len)), schema)?;
        Some(walk)
    }

    /// Leaves out what comes before the query's cursor. `None` if it cannot be told.
    fn skip_to_cursor(
        &mut self,
        table: &Table,
        reach: &IndexMatch,
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
                place_into(ordinal, slot, &mut tail);
            }
            TieBreak::Id { descending } => {
                let Some((cells, id)) = KeyMaker::cells(after) else { return Some(()) };
                let mut at = from;
                for (term, cell) in query.order.iter().zip(cells) {
                    if fixed(&term.column, parts).is_some_and(|want| !is_fixed_to(want, cell, term, schema)) {
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
        let place = self.groups.iter().position(|group| group.null.is_some() && group.null == null);
        for (number, group) in self.groups.iter_mut().enumerate() {
            for (run, piece) in group.runs.iter_mut().zip(reach.pieces.iter().cycle()) {
                let ranks = &mut run.1;
                let (skipped, kept) = match place {
                    Some(place) if number < place => (ranks.clone(), ranks.end..ranks.end),
                    Some(place) if number > place => (ranks.start..ranks.start, ranks.clone()),
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

    /// How many entries come before the cursor.
    pub(super) fn before(&self) -> usize {
        self.skipped.iter().map(Range::len).sum()
    }

    /// How many entries it goes along.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(Group::len).sum()
    }

    /// Slots before the cursor, in no order.
    pub(super) fn skipped<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = Slot> + 'a {
        let order = table.indexes()[self.index].order();
        self.skipped.iter().flat_map(move |ranks| order.range(ranks.clone())).map(|entry| entry.slot)
    }

    /// `limit` slots in order, `offset` left out: pieces of leaves, where ranges need not be merged.
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

    /// Slots in order, `offset` left out.
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
                runs => Run::Many(Merge::new(table, index, runs, back, skip)),
            }
        })
    }
}

impl Group {
    fn len(&self) -> usize {
        self.runs.iter().map(|(_, ranks)| ranks.len()).sum()
    }
}

/// The terms of an order that tell rows apart: not those in which all rows are equal, nor a second one of the same column.
pub(super) fn free<'q>(order: &'q [OrderTerm], parts: &[Conjunct<'_>]) -> Vec<&'q OrderTerm> {
    order.iter().filter(|term| fixed(&term.column, parts).is_none() && first_of(order, term)).collect()
}

fn first_of(order: &[OrderTerm], term: &OrderTerm) -> bool {
    order.iter().find(|other| other.column == term.column).is_some_and(|first| std::ptr::eq(first, term))
}

/// What all rows are equal to in `column`.
fn fixed<'a, 'q>(column: &str, parts: &'a [Conjunct<'q>]) -> Option<&'a Restriction<'q>> {
    let clauses = parts.iter().filter_map(|part| part.clause.as_ref());
    clauses.filter(|clause| clause.column == column).map(|clause| &clause.want).find(|want| want.is_fixed())
}

fn is_fixed_to(want: &Restriction<'_>, cell: &CborValue, term: &OrderTerm, schema: &Schema) -> bool {
    let keys = KeyMaker::new(std::slice::from_ref(term), schema);
    let bytes = |value: &CborValue| {
        let mut out = Vec::new();
        keys.cell(0, value, &mut out);
        out
    };
    match want {
        Restriction::Points(points) => points.iter().all(|point| bytes(point) == bytes(cell)),
        Restriction::Null => cell.is_null(),
        Restriction::Bound(..) => false,
    }
}

/// Whether `terms` sort as `order` does, one way or the other. `ties` says whether ids go the same way; `nulls` whether the
/// first column has any.
fn fit(terms: &[OrderTerm], order: &[&OrderTerm], ties: bool, nulls: bool) -> Option<OrderMatch> {
    let same = terms.len() == order.len() && terms.iter().zip(order).all(|(term, other)| term.column == other.column);
    let back = !ties;
    let directed = |(term, other): (&OrderTerm, &&OrderTerm)| (term.descending == other.descending) != back;
    if !same || !terms.iter().zip(order).all(directed) {
        return None;
    }
    let nulls_stand = |(term, other): (&OrderTerm, &&OrderTerm)| (term.nulls_first == other.nulls_first) != back;
    if !terms.iter().zip(order).skip(1).all(nulls_stand) {
        return None;
    }
    Some(OrderMatch { back, split: nulls && !terms.iter().zip(order).take(1).all(nulls_stand) })
}

/// Rows with null in the column that is sorted by, and the others, each a group.
fn split(table: &Table, index: &Index, reach: &IndexMatch, nulls_first: bool) -> Vec<Group> {
    let (boundary, stand_first) = index.keys().null_boundary(reach.depth);
    let (mut nulls, mut others) =
        (Group { null: Some(true), ..Group::default() }, Group { null: Some(false), ..Group::default() });
    for piece in &reach.pieces {
        let ranks = &piece.ranks;
        let between = index.rank(&[&piece.prefix[..], &[boundary]].concat(), table).clamp(ranks.start, ranks.end);
        let (before, behind) = (ranks.start..between, between..ranks.end);
        let (null, other) = if stand_first { (before, behind) } else { (behind, before) };
        nulls.runs.push((piece.prefix.len(), null));
        others.runs.push((piece.prefix.len(), other));
    }
    if nulls_first { vec![nulls, others] } else { vec![others, nulls] }
}

/// Slots of a group.
enum Run<'a> {
    On(Entries<'a>),
    Back(std::iter::Rev<Entries<'a>>),
    Many(Merge<'a>),
}

impl<'a> Run<'a> {
    fn one(index: &'a Index, ranks: &Range<usize>, back: bool, skip: usize) -> Run<'a> {
        if back {
            Run::Back(index.order().range(ranks.start..ranks.end - skip.min(ranks.len())).rev())
        } else {
            Run::On(index.order().range(ranks.start + skip.min(ranks.len())..ranks.end))
        }
    }
}

impl Iterator for Run<'_> {
    type Item = Slot;

    fn next(&mut self) -> Option<Slot> {
        match self {
            Run::On(entries) => entries.next().map(|entry| entry.slot),
            Run::Back(entries) => entries.next().map(|entry| entry.slot),
            Run::Many(merge) => merge.next(),
        }
    }
}

/// Ranges that are each in order, as one.
struct Merge<'a> {
    table: &'a Table,
    index: &'a Index,
    back: bool,
    runs: Vec<(usize, Entries<'a>)>,
    heads: BinaryHeap<Head>,
}

/// The next entry of a run. The first to come is the greatest, as a heap has it.
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

    /// Puts the next entry of a run among the heads.
    fn pull(&mut self, run: usize, mut key: Vec<u8>) {
        let (prefix, entries) = &mut self.runs[run];
        let Some(entry) = (if self.back { entries.next_back() } else { entries.next() }) else { return };
        entry.key_into(&mut key);
        // Kept in part only: the row has all of it.
        if key.len() >= MOST_KEY
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
