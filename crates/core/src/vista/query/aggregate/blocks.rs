//! [`BlockFold`]: an aggregation over blocks of rows, column by column.
//!
//! The results are those of [`Aggregation::fold_within`], which is asked where this cannot tell: a cell cannot be added, or the order
//! of the rows decides which of two equal cells is shown.

use std::collections::HashMap;

use super::groups::{GroupTable, Groups};
use super::interner::{Interner, Seed};
use super::{Aggregation, Collation, Compiled, MAX_GROUPS, too_many_groups};
use crate::record::CborValue;
use crate::vista::Result;
use crate::vista::query::block::{BLOCK_ROWS, Block, Mask, Vector, cells_bytes};
use crate::vista::query::{Meter, Path};

/// Maximum number of groups of a block that are kept.
const MAX_KEPT: usize = 256;

/// The groups of one block.
#[derive(Debug)]
pub(crate) struct BlockGroups {
    groups: GroupTable,
    ambiguous: bool,
}

impl BlockGroups {
    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let folds: usize = self.groups.folds.iter().map(|folds| size_of_val(folds) + folds.bytes()).sum();
        size_of::<BlockGroups>() + cells_bytes(&self.groups.shown) + folds
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
    groups: GroupTable,
    /// Numbers of the groups' cells, those of one group after those of another, if several columns are grouped by.
    numbers: Vec<u32>,
    /// True once the order of the rows decides which of two equal cells is shown.
    ambiguous: bool,
    /// True for a fold of one block, whose groups are few and not charged to the meter.
    is_of_block: bool,
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
            groups: GroupTable::new(aggregation),
            numbers: Vec::new(),
            ambiguous: false,
            is_of_block: false,
        };
        if fold.grouped.is_empty() {
            fold.groups.begin([]);
        }
        fold
    }

    /// A fold of one block. It ends, without a result, once there are too many groups to be kept.
    pub(crate) fn of_block(aggregation: &'a Aggregation) -> BlockFold<'a> {
        BlockFold { is_of_block: true, ..BlockFold::new(aggregation) }
    }

    /// Adds the `rows` of a block. False if a cell cannot be added.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for more than [`MAX_GROUPS`] groups, and as [`Meter::check`].
    pub(crate) fn add(&mut self, block: &impl Block, rows: &Mask, meter: &Meter) -> Result<bool> {
        let rows: Vec<usize> = rows.iter().collect();
        let groups = self.groups_of(block, &rows, meter)?;
        if self.has_too_many() {
            return Ok(true);
        }
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
        let mut groups = Vec::with_capacity(block.groups.len());
        if let [interner] = &mut self.interners[..] {
            groups.extend(block.groups.shown.iter().map(|cell| interner.cell(cell)));
            self.begin_distinct(meter)?;
        } else {
            let mut numbers = Vec::with_capacity(self.interners.len());
            for other in 0..block.groups.len() {
                let shown = block.groups.shown(other);
                numbers.clear();
                numbers.extend(self.interners.iter_mut().zip(shown).map(|(interner, cell)| interner.cell(cell)));
                let group = self.number(&numbers);
                if group as usize == self.groups.len() {
                    self.begin(&numbers, shown.iter().cloned(), meter)?;
                }
                groups.push(group);
            }
        }
        for ((folds, other), item) in self.groups.folds.iter_mut().zip(&block.groups.folds).zip(&self.folded) {
            let Some(ambiguous) = folds.merge(&groups, other, item) else { return Ok(false) };
            self.ambiguous |= ambiguous;
        }
        Ok(true)
    }

    /// The groups, to be merged into others; `None` if they are too many to be kept.
    pub(crate) fn into_block(self) -> Option<BlockGroups> {
        let ambiguous = self.is_ambiguous();
        (!self.has_too_many()).then(|| BlockGroups { groups: self.into_groups(), ambiguous })
    }

    /// True for a fold of one block with too many groups.
    fn has_too_many(&self) -> bool {
        self.is_of_block
            && self.interners.iter().map(Interner::len).chain([self.groups.len()]).any(|len| len > MAX_KEPT)
    }

    /// True if the result depends on the order of the blocks and of the rows in them.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.ambiguous || self.interners.iter().any(|interner| interner.unified)
    }

    /// The groups, sorted by the columns that are grouped by.
    pub(crate) fn finish(self) -> Groups<'a> {
        let columns = self.grouped.len();
        let ranks: Vec<Vec<u32>> = self.interners.iter().map(Interner::ranks).collect();
        let mut order: Vec<u32> = (0..self.groups.len() as u32).collect();
        if let [ranks] = &ranks[..] {
            ranks.iter().zip(0..).for_each(|(rank, group)| order[*rank as usize] = group);
        } else {
            let ranks: Vec<u32> =
                self.numbers.iter().zip((0..columns).cycle()).map(|(number, at)| ranks[at][*number as usize]).collect();
            let of = |group: &u32| &ranks[*group as usize * columns..][..columns];
            order.sort_unstable_by(|a, b| of(a).cmp(of(b)));
        }
        Groups::new(self.aggregation, order, self.into_groups())
    }

    fn into_groups(self) -> GroupTable {
        let mut groups = self.groups;
        let mut interners = self.interners.into_iter();
        if let (Some(only), None) = (interners.next(), interners.next()) {
            groups.show(only.into_cells());
        }
        groups
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
            let mut numbers = Vec::with_capacity(rows.len());
            // The distinct cells of other vectors may be too many.
            let is_few = !self.is_of_block || matches!(*vector, Vector::Coded { .. });
            for rows in rows.chunks(if is_few { BLOCK_ROWS } else { MAX_KEPT }) {
                numbers_into(&mut numbers, interner, (&vector, path), block, rows);
                if self.is_of_block && interner.len() > MAX_KEPT {
                    return Ok(Vec::new());
                }
            }
            columns.push(numbers);
            vectors.push((vector, path));
            meter.check()?;
        }
        if let [column] = &mut columns[..] {
            self.begin_distinct(meter)?;
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
                self.begin(&numbers, shown, meter)?;
                if self.has_too_many() {
                    break;
                }
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

    /// Begins the groups of the new cells of the only column that is grouped by: their numbers are those of the groups.
    fn begin_distinct(&mut self, meter: &Meter) -> Result<()> {
        let Some(interner) = self.interners.first() else { return Ok(()) };
        if interner.len() > MAX_GROUPS {
            return Err(too_many_groups());
        }
        let new = self.groups.len()..interner.len();
        if !self.is_of_block {
            let bytes = new.clone().map(|number| self.aggregation.bytes([&interner.key(number as u32)]));
            meter.charge(bytes.sum());
        }
        self.groups.begin_all(new.len());
        Ok(())
    }

    fn begin(&mut self, numbers: &[u32], shown: impl Iterator<Item = CborValue>, meter: &Meter) -> Result<()> {
        if self.groups.len() == MAX_GROUPS {
            return Err(too_many_groups());
        }
        if !self.is_of_block {
            let key = self.interners.iter().zip(numbers).map(|(interner, number)| interner.key(*number));
            meter.charge(self.aggregation.bytes(&key.collect::<Vec<_>>()));
        }
        self.numbers.extend_from_slice(numbers);
        self.groups.begin(shown);
        Ok(())
    }

    /// Adds the cells of one function's column. False if one cannot be added.
    fn fold(&mut self, at: usize, block: &impl Block, rows: &[usize], groups: &[u32]) -> bool {
        let (item, folds) = (self.folded[at], &mut self.groups.folds[at]);
        let Some(path) = &item.path else {
            groups.iter().for_each(|group| folds.add_row(*group as usize));
            return true;
        };
        let vector = block.vector(path);
        if let Vector::Integers { cells, present, .. } = &*vector {
            let is_present = |row: &usize| present.has(*row);
            self.ambiguous |= if self.grouped.is_empty() && item.collation == Collation::Plain {
                folds.add_all_integers(rows.iter().filter(|row| is_present(row)).map(|row| cells[*row]), item)
            } else {
                let integers = rows.iter().zip(groups).filter(|(row, _)| is_present(row));
                folds.add_integers(integers.map(|(row, group)| (*group, cells[*row])), item)
            };
            return true;
        }
        let mut next = groups.iter();
        let added = vector.each(rows.iter().copied(), block, path, |_, cell| {
            let Some(group) = next.next() else { return Ok(()) };
            if *cell != CborValue::Null {
                self.ambiguous |= folds.add(*group as usize, item, cell).map_err(drop)?;
            }
            Ok::<(), ()>(())
        });
        added.is_ok()
    }
}

/// Appends the numbers of the cells of `rows`.
fn numbers_into(
    numbers: &mut Vec<u32>,
    interner: &mut Interner<'_>,
    (vector, path): (&Vector, &Path),
    block: &impl Block,
    rows: &[usize],
) {
    match vector {
        Vector::Coded { codes, cells } => {
            let mut known = vec![None; cells.len()];
            let mut number = |code: usize| *known[code].get_or_insert_with(|| interner.cell(&cells[code]));
            numbers.extend(rows.iter().map(|at| number(usize::from(codes[*at]))));
        }
        Vector::Integers { cells, present, .. } => numbers.extend(rows.iter().map(|at| match present.has(*at) {
            true => interner.integer(cells[*at]),
            false => interner.cell(&CborValue::Null),
        })),
        Vector::Texts { .. } => numbers.extend(rows.iter().map(|at| match vector.text(*at) {
            Some(text) => interner.text(text),
            None => interner.cell(&CborValue::Null),
        })),
        _ => numbers.extend(rows.iter().map(|at| interner.cell(&vector.cell(*at, block, path)))),
    }
}
