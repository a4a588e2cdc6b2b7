//! [`BlockFold`]: an aggregation over blocks of rows, column by column.
//!
//! The results are those of [`Aggregation::fold_within`], which is asked where this cannot tell: a cell cannot be added, or the order
//! of the rows decides which of two equal cells is shown.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::interner::{Interner, Seed, identical};
use super::{Aggregation, Compiled, Fold, Group, Groups, MAX_GROUPS, too_many_groups};
use crate::record::CborValue;
use crate::vista::query::block::{Block, Mask, Vector, cells_bytes};
use crate::vista::query::compare::Key;
use crate::vista::query::{Meter, Path};
use crate::vista::{ColumnType, Result};

/// Maximum number of groups of a block that are kept.
const MAX_KEPT: usize = 256;

/// The groups of one block.
#[derive(Debug)]
pub(crate) struct BlockGroups {
    groups: Vec<Group>,
    ambiguous: bool,
}

impl BlockGroups {
    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let group = |group: &Group| {
            size_of::<Group>() + cells_bytes(&group.shown) + group.folds.iter().map(Fold::bytes).sum::<usize>()
        };
        size_of::<BlockGroups>() + self.groups.iter().map(group).sum::<usize>()
    }
}

/// Groups of an aggregation while blocks are folded, in the order of their rows.
pub(crate) struct BlockFold<'a> {
    aggregation: &'a Aggregation,
    grouped: Vec<&'a Compiled>,
    folded: Vec<&'a Compiled>,
    interners: Vec<Interner<'a>>,
    /// For each grouped column after the first: numbers of the distinct pairs of the number before it and its own.
    pairs: Vec<HashMap<u64, u32, Seed>>,
    groups: Vec<Group>,
    /// Numbers of the groups' cells, those of one group after those of another.
    numbers: Vec<u32>,
    /// True once the order of the rows decides which of two equal cells is shown.
    ambiguous: bool,
    /// True if its groups are charged to the meter.
    charged: bool,
}

impl Aggregation {
    /// Paths of the columns that are read.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.items.iter().filter_map(|item| item.path.as_ref())
    }
}

impl<'a> BlockFold<'a> {
    /// A fold without rows.
    pub(crate) fn new(aggregation: &'a Aggregation) -> BlockFold<'a> {
        let (folded, grouped): (Vec<&Compiled>, Vec<&Compiled>) =
            aggregation.items.iter().partition(|item| item.function.is_some());
        let mut fold = BlockFold {
            aggregation,
            interners: grouped.iter().map(|item| Interner::new(&item.collation)).collect(),
            pairs: grouped.iter().skip(1).map(|_| HashMap::with_hasher(Seed::new())).collect(),
            grouped,
            folded,
            groups: Vec::new(),
            numbers: Vec::new(),
            ambiguous: false,
            charged: true,
        };
        if fold.grouped.is_empty() {
            fold.groups.push(Group::new(Vec::new(), &fold.folded));
        }
        fold
    }

    /// A fold of one block, whose few groups are not charged.
    pub(crate) fn of_block(aggregation: &'a Aggregation) -> BlockFold<'a> {
        BlockFold { charged: false, ..BlockFold::new(aggregation) }
    }

    /// Adds the `rows` of a block. False if a cell cannot be added.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for more than [`MAX_GROUPS`] groups, and as [`Meter::check`].
    pub(crate) fn add(&mut self, block: &impl Block, rows: &Mask, meter: &Meter) -> Result<bool> {
        let rows: Vec<usize> = rows.iter().collect();
        let groups = self.groups_of(block, &rows, meter)?;
        let mut added = true;
        for at in 0..self.folded.len() {
            added &= self.fold(at, block, &rows, &groups);
            meter.check()?;
        }
        Ok(added)
    }

    /// Adds the groups of a block.
    ///
    /// # Errors
    /// As [`BlockFold::add`].
    pub(crate) fn merge(&mut self, block: &BlockGroups, meter: &Meter) -> Result<bool> {
        self.ambiguous |= block.ambiguous;
        for other in &block.groups {
            let numbers = self.interners.iter_mut().zip(&other.shown).map(|(interner, cell)| interner.cell(cell));
            let numbers: Vec<u32> = numbers.collect();
            let at = self.number(&numbers) as usize;
            if at == self.groups.len() {
                self.begin(&numbers, other.shown.clone(), meter)?;
            }
            for ((fold, other), item) in self.groups[at].folds.iter_mut().zip(&other.folds).zip(&self.folded) {
                let Some(ambiguous) = fold.merge(other, item) else { return Ok(false) };
                self.ambiguous |= ambiguous;
            }
        }
        Ok(true)
    }

    /// The groups, to be merged into others; `None` if they are too many to be kept.
    pub(crate) fn into_block(self) -> Option<BlockGroups> {
        let ambiguous = self.is_ambiguous();
        (self.groups.len() <= MAX_KEPT).then_some(BlockGroups { groups: self.groups, ambiguous })
    }

    /// True if the result depends on the order of the blocks and of the rows in them.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous || self.interners.iter().any(|interner| interner.unified)
    }

    /// The groups, sorted by the columns that are grouped by.
    pub(crate) fn finish(self) -> Groups<'a> {
        let ranks: Vec<Vec<u32>> = self.interners.iter().map(Interner::ranks).collect();
        let columns = self.grouped.len();
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.sort_by_cached_key(|group| {
            let numbers = self.numbers[group * columns..].iter().zip(&ranks);
            numbers.map(|(number, ranks)| ranks[*number as usize]).collect::<Vec<u32>>()
        });
        Groups { aggregation: self.aggregation, order: order.into_iter(), groups: self.groups }
    }

    /// The group of each row. Groups that are new begin with it.
    fn groups_of(&mut self, block: &impl Block, rows: &[usize], meter: &Meter) -> Result<Vec<u32>> {
        if self.grouped.is_empty() {
            return Ok(vec![0; rows.len()]);
        }
        let (mut columns, mut vectors) = (Vec::new(), Vec::new());
        for (item, interner) in self.grouped.iter().zip(&mut self.interners) {
            let Some(path) = &item.path else { continue };
            let vector = block.vector(path);
            columns.push(numbers_of(interner, &vector, block, path, rows));
            vectors.push((vector, path));
            meter.check()?;
        }
        if let [column] = &mut columns[..]
            && self.interners[0].len() == self.groups.len()
        {
            return Ok(std::mem::take(column));
        }
        let mut groups = Vec::with_capacity(rows.len());
        let mut numbers = Vec::with_capacity(columns.len());
        for (at, row) in rows.iter().enumerate() {
            numbers.clear();
            numbers.extend(columns.iter().map(|column| column[at]));
            let group = self.number(&numbers);
            if group as usize == self.groups.len() {
                let shown = vectors.iter().map(|(vector, path)| vector.cell(*row, block, path).into_owned());
                self.begin(&numbers, shown.collect(), meter)?;
            }
            groups.push(group);
        }
        Ok(groups)
    }

    /// Number of the group of these cells, which is the number of groups if it is new.
    fn number(&mut self, numbers: &[u32]) -> u32 {
        let Some((first, others)) = numbers.split_first() else { return 0 };
        self.pairs.iter_mut().zip(others).fold(*first, |group, (pairs, number)| {
            let next = pairs.len() as u32;
            *pairs.entry(u64::from(group) << 32 | u64::from(*number)).or_insert(next)
        })
    }

    fn begin(&mut self, numbers: &[u32], shown: Vec<CborValue>, meter: &Meter) -> Result<()> {
        if self.groups.len() == MAX_GROUPS {
            return Err(too_many_groups());
        }
        if self.charged {
            let key = self.interners.iter().zip(numbers).map(|(interner, number)| interner.key(*number));
            meter.charge(self.aggregation.bytes(key));
        }
        self.numbers.extend_from_slice(numbers);
        self.groups.push(Group::new(shown, &self.folded));
        Ok(())
    }

    /// Adds the cells of one function's column. False if one cannot be added.
    fn fold(&mut self, at: usize, block: &impl Block, rows: &[usize], groups: &[u32]) -> bool {
        let item = self.folded[at];
        let Some(path) = &item.path else {
            for group in groups {
                if let Fold::Count(count) = &mut self.groups[*group as usize].folds[at] {
                    *count += 1;
                }
            }
            return true;
        };
        let vector = block.vector(path);
        if let Vector::Integers { cells, present, .. } = &*vector {
            for (row, group) in rows.iter().zip(groups).filter(|(row, _)| present.has(**row)) {
                self.ambiguous |= self.groups[*group as usize].folds[at].add_integer(cells[*row], item);
            }
            return true;
        }
        let mut next = groups.iter();
        let added = vector.each(rows.iter().copied(), block, path, |_, cell| {
            let Some(group) = next.next() else { return Ok(()) };
            if *cell == CborValue::Null {
                return Ok(());
            }
            let fold = &mut self.groups[*group as usize].folds[at];
            self.ambiguous |= fold.add_telling(item, cell).ok_or(())?;
            Ok::<(), ()>(())
        });
        added.is_ok()
    }
}

/// Numbers of the cells of `rows`.
fn numbers_of(
    interner: &mut Interner<'_>,
    vector: &Vector,
    block: &impl Block,
    path: &Path,
    rows: &[usize],
) -> Vec<u32> {
    match vector {
        Vector::Coded { codes, cells } => {
            let mut numbers = vec![None; cells.len()];
            let mut number = |code: usize| *numbers[code].get_or_insert_with(|| interner.cell(&cells[code]));
            rows.iter().map(|at| number(usize::from(codes[*at]))).collect()
        }
        Vector::Integers { cells, present, .. } => {
            let mut number = |at: usize| match present.has(at) {
                true => interner.integer(cells[at]),
                false => interner.cell(&CborValue::Null),
            };
            rows.iter().map(|at| number(*at)).collect()
        }
        Vector::Texts { .. } => {
            let mut number = |at: usize| match vector.text(at) {
                Some(text) => interner.text(text),
                None => interner.cell(&CborValue::Null),
            };
            rows.iter().map(|at| number(*at)).collect()
        }
        _ => rows.iter().map(|at| interner.cell(&vector.cell(*at, block, path))).collect(),
    }
}

impl Fold {
    /// Heap memory and size in bytes, about.
    fn bytes(&self) -> usize {
        let heap = match self {
            Fold::Min(Some((_, cell))) | Fold::Max(Some((_, cell))) => 2 * cells_bytes(std::slice::from_ref(cell)),
            Fold::Sum(total) | Fold::Avg(total) => total.heap(),
            _ => 0,
        };
        size_of::<Fold>() + heap
    }

    /// Adds an integer, and tells if the order of the rows decides.
    fn add_integer(&mut self, number: i64, item: &Compiled) -> bool {
        match self {
            Fold::Count(count) => *count += 1,
            Fold::Sum(total) | Fold::Avg(total) => total.add_integer(number),
            Fold::Min(_) | Fold::Max(_) => return self.offer(item, &number.into()),
        }
        false
    }

    /// Adds a cell that is not null, and tells if the order of the rows decides. `None` if the cell cannot be added.
    fn add_telling(&mut self, item: &Compiled, cell: &CborValue) -> Option<bool> {
        match self {
            Fold::Count(count) => *count += 1,
            Fold::Sum(total) | Fold::Avg(total) => total.add(cell, item.ty == ColumnType::Decimal).ok()?,
            Fold::Min(_) | Fold::Max(_) => return Some(self.offer(item, cell)),
        }
        Some(false)
    }

    /// Adds what another fold of the same item has, as [`Fold::add_telling`].
    fn merge(&mut self, other: &Fold, item: &Compiled) -> Option<bool> {
        match (&mut *self, other) {
            (Fold::Count(count), Fold::Count(other)) => *count += other,
            (Fold::Sum(total) | Fold::Avg(total), Fold::Sum(other) | Fold::Avg(other)) => total.merge(other)?,
            (Fold::Min(_) | Fold::Max(_), Fold::Min(Some((_, cell))) | Fold::Max(Some((_, cell)))) => {
                return Some(self.offer(item, cell));
            }
            _ => {}
        }
        Some(false)
    }

    /// Offers a cell to a minimum or maximum, which keeps the better one, the first of equal ones. True if they are equal and differ.
    fn offer(&mut self, item: &Compiled, cell: &CborValue) -> bool {
        let (best, wanted) = match self {
            Fold::Min(best) => (best, Ordering::Less),
            Fold::Max(best) => (best, Ordering::Greater),
            _ => return false,
        };
        let key = Key::of(cell, &item.collation);
        match best.as_ref().map(|(best, _)| key.cmp(best)) {
            Some(Ordering::Equal) => best.as_ref().is_some_and(|(_, best)| !identical(best, cell)),
            Some(order) if order != wanted => false,
            _ => {
                *best = Some((key.into_owned(), cell.clone()));
                false
            }
        }
    }
}
