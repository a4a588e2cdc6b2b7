//! [`Folds`]: the states of one function, one for each group.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::interner::identical;
use super::total::Total;
use super::{Compiled, Function};
use crate::record::CborValue;
use crate::vista::query::block::cells_bytes;
use crate::vista::query::compare::Key;
use crate::vista::{ColumnType, Error, Result};

/// The states of one function of an aggregation, by the number of the group.
#[derive(Debug)]
pub(super) enum Folds {
    Counts(Vec<u64>),
    /// Sums, and means.
    Totals(Vec<Total>),
    /// Minima, or maxima: `None` while there are no cells.
    Extremes(Vec<Option<Extreme>>),
}

/// The least or greatest cell so far, with its key.
#[derive(Debug)]
pub(super) struct Extreme {
    key: Key<'static>,
    cell: CborValue,
}

impl Folds {
    pub(super) fn new(function: Function) -> Folds {
        match function {
            Function::Count => Folds::Counts(Vec::new()),
            Function::Sum | Function::Avg => Folds::Totals(Vec::new()),
            Function::Min | Function::Max => Folds::Extremes(Vec::new()),
        }
    }

    /// Size of one state in bytes, without what it has on the heap.
    pub(super) fn size(function: Function) -> usize {
        match function {
            Function::Count => size_of::<u64>(),
            Function::Sum | Function::Avg => size_of::<Total>(),
            Function::Min | Function::Max => size_of::<Option<Extreme>>(),
        }
    }

    /// Adds states of groups, up to `count` in total.
    pub(super) fn begin_all(&mut self, count: usize) {
        match self {
            Folds::Counts(counts) => counts.resize(count, 0),
            Folds::Totals(totals) => totals.resize_with(count, Total::default),
            Folds::Extremes(extremes) => extremes.resize_with(count, || None),
        }
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Folds::Counts(counts) => size_of_val(&**counts),
            Folds::Totals(totals) => size_of_val(&**totals) + totals.iter().map(Total::heap).sum::<usize>(),
            Folds::Extremes(extremes) => {
                let heap = |best: &Extreme| 2 * cells_bytes(std::slice::from_ref(&best.cell));
                size_of_val(&**extremes) + extremes.iter().flatten().map(heap).sum::<usize>()
            }
        }
    }

    /// Sets the count of a group.
    pub(super) fn set_count(&mut self, group: usize, rows: u64) {
        if let Folds::Counts(counts) = self {
            counts[group] = rows;
        }
    }

    /// Counts a row of a group.
    pub(super) fn add_row(&mut self, group: usize) {
        if let Folds::Counts(counts) = self {
            counts[group] += 1;
        }
    }

    /// Adds a cell that is not null, and tells if the order of the cells decides which of two equal ones is kept.
    ///
    /// # Errors
    /// The reason why the cell cannot be added.
    pub(super) fn add(&mut self, group: usize, item: &Compiled, cell: &CborValue) -> Result<bool, &'static str> {
        match self {
            Folds::Counts(counts) => counts[group] += 1,
            Folds::Totals(totals) => totals[group].add(cell, item.ty == ColumnType::Decimal)?,
            Folds::Extremes(extremes) => return Ok(offer(&mut extremes[group], item, cell)),
        }
        Ok(false)
    }

    /// Adds integers, each with its group, as [`Folds::add`].
    pub(super) fn add_integers(&mut self, integers: impl Iterator<Item = (u32, i64)>, item: &Compiled) -> bool {
        let mut ambiguous = false;
        match self {
            Folds::Counts(counts) => integers.for_each(|(group, _)| counts[group as usize] += 1),
            Folds::Totals(totals) => integers.for_each(|(group, integer)| totals[group as usize].add_integer(integer)),
            Folds::Extremes(extremes) => integers.for_each(|(group, integer)| {
                ambiguous |= offer(&mut extremes[group as usize], item, &integer.into());
            }),
        }
        ambiguous
    }

    /// [`Folds::add_integers`] for the only group of an aggregation.
    pub(super) fn add_all_integers(&mut self, integers: impl Iterator<Item = i64>, item: &Compiled) -> bool {
        match self {
            Folds::Counts(counts) => counts[0] += integers.count() as u64,
            Folds::Totals(totals) => integers.for_each(|integer| totals[0].add_integer(integer)),
            Folds::Extremes(extremes) => {
                let best = if item.function == Some(Function::Min) { integers.min() } else { integers.max() };
                return best.is_some_and(|best| offer(&mut extremes[0], item, &best.into()));
            }
        }
        false
    }

    /// Adds the states of other groups of the same function, to each of the `groups` one, as [`Folds::add`]. `None` if one cannot
    /// be added.
    pub(super) fn merge(&mut self, groups: &[u32], other: &Folds, item: &Compiled) -> Option<bool> {
        let mut ambiguous = false;
        let groups = groups.iter().map(|group| *group as usize);
        match (self, other) {
            (Folds::Counts(counts), Folds::Counts(others)) => {
                groups.zip(others).for_each(|(group, other)| counts[group] += other);
            }
            (Folds::Totals(totals), Folds::Totals(others)) => {
                groups.zip(others).try_for_each(|(group, other)| totals[group].merge(other))?;
            }
            (Folds::Extremes(extremes), Folds::Extremes(others)) => {
                for (group, other) in groups.zip(others) {
                    ambiguous |= other.as_ref().is_some_and(|other| offer(&mut extremes[group], item, &other.cell));
                }
            }
            _ => {}
        }
        Some(ambiguous)
    }

    /// The result for a group.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a sum that is too great.
    pub(super) fn value(&self, group: usize, item: &Compiled) -> Result<Cow<'_, CborValue>> {
        match self {
            Folds::Counts(counts) => Ok(Cow::Owned(counts[group].into())),
            Folds::Totals(totals) if item.function == Some(Function::Avg) => Ok(Cow::Owned(totals[group].mean())),
            Folds::Totals(totals) => totals[group]
                .sum()
                .map(Cow::Owned)
                .ok_or_else(|| Error::invalid(format!("{}: the sum is greater than an integer can be", item.name))),
            Folds::Extremes(extremes) => {
                let cell = extremes[group].as_ref().map(|best| Cow::Borrowed(&best.cell));
                Ok(cell.unwrap_or(Cow::Owned(CborValue::Null)))
            }
        }
    }

    /// True if [`Folds::value`] may fail.
    pub(super) fn may_fail(&self) -> bool {
        matches!(self, Folds::Totals(totals) if totals.iter().any(Total::may_overflow))
    }
}

/// Offers a cell to a minimum or maximum, which keeps the better one, the first of equal ones. True if they are equal and differ.
fn offer(best: &mut Option<Extreme>, item: &Compiled, cell: &CborValue) -> bool {
    let wanted = if item.function == Some(Function::Min) { Ordering::Less } else { Ordering::Greater };
    let key = Key::of(cell, &item.collation);
    match best.as_ref().map(|best| (key.cmp(&best.key), best)) {
        Some((Ordering::Equal, best)) => !identical(&best.cell, cell),
        Some((order, _)) if order != wanted => false,
        _ => {
            *best = Some(Extreme { key: key.into_owned(), cell: cell.clone() });
            false
        }
    }
}
