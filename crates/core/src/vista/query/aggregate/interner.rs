//! [`Interner`]: numbers for the distinct cells of a column that is grouped by.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::{Collation, Key};
use crate::record::CborValue;

/// Numbers of the cells of a column, from 0. Cells that compare as equal have the same number.
pub(super) struct Interner<'a> {
    collation: &'a Collation,
    /// Sort key and first cell of each number.
    distinct: Vec<(Key<'static>, CborValue)>,
    /// Numbers by the bytes of the key.
    numbers: HashMap<Box<[u8]>, u32>,
    integers: HashMap<i64, u32, Seed>,
    texts: HashMap<Box<str>, u32>,
    /// True once two cells that compare as equal were not identical.
    pub(super) unified: bool,
}

impl<'a> Interner<'a> {
    pub(super) fn new(collation: &'a Collation) -> Interner<'a> {
        Interner {
            collation,
            distinct: Vec::new(),
            numbers: HashMap::new(),
            integers: HashMap::with_hasher(Seed::new()),
            texts: HashMap::new(),
            unified: false,
        }
    }

    /// Number of distinct cells.
    pub(super) fn len(&self) -> usize {
        self.distinct.len()
    }

    /// The number of a cell.
    pub(super) fn cell(&mut self, cell: &CborValue) -> u32 {
        let key = Key::of(cell, self.collation);
        let mut bytes = Vec::new();
        key.bytes_into(&mut bytes);
        if let Some(number) = self.numbers.get(&*bytes) {
            self.unified |= !identical(&self.distinct[*number as usize].1, cell);
            return *number;
        }
        let number = self.distinct.len() as u32;
        self.distinct.push((key.into_owned(), cell.clone()));
        self.numbers.insert(bytes.into(), number);
        number
    }

    /// The number of an integer.
    pub(super) fn integer(&mut self, integer: i64) -> u32 {
        if let Some(number) = self.integers.get(&integer) {
            return *number;
        }
        let number = self.cell(&integer.into());
        self.integers.insert(integer, number);
        number
    }

    /// The number of a text.
    pub(super) fn text(&mut self, text: &str) -> u32 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = self.cell(&text.into());
        self.texts.insert(text.into(), number);
        number
    }

    /// The rank of each number in the order of the keys.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.distinct.len() as u32).collect();
        order.sort_unstable_by(|a, b| self.distinct[*a as usize].0.cmp(&self.distinct[*b as usize].0));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in order.into_iter().enumerate() {
            ranks[number as usize] = rank as u32;
        }
        ranks
    }

    /// The sort key of a number.
    pub(super) fn key(&self, number: u32) -> &Key<'static> {
        &self.distinct[number as usize].0
    }
}

/// True if two cells are certainly the same, not only equal: 3 is not 3.0.
pub(super) fn identical(a: &CborValue, b: &CborValue) -> bool {
    match (a, b) {
        (CborValue::Float(a), CborValue::Float(b)) => a.to_bits() == b.to_bits(),
        // Floats inside of these may differ in the sign of a zero.
        (CborValue::Array(_) | CborValue::Map(_) | CborValue::Tag(..), _) => false,
        _ => a == b,
    }
}

/// Hasher of integers with a random seed.
#[derive(Clone, Copy)]
pub(super) struct Seed(u64);

impl Seed {
    pub(super) fn new() -> Seed {
        Seed(RandomState::new().build_hasher().finish())
    }
}

impl BuildHasher for Seed {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded(self.0)
    }
}

/// State of a [`Seed`]: both halves of a product, folded.
pub(super) struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.write_u64(u64::from_le_bytes(padded));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // An odd number with bits all over: the fraction of the golden ratio.
        let product = u128::from(self.0 ^ number) * 0x9E37_79B9_7F4A_7C15;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }

    fn write_i64(&mut self, number: i64) {
        self.write_u64(number.cast_unsigned());
    }
}
