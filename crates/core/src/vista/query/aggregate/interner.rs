//! [`Interner`]: numbers for the distinct cells of a column that is grouped by.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::{Collation, Key};
use crate::record::CborValue;

/// Numbers of the cells of a column, from 0. Cells that compare as equal have the same number.
pub(super) struct Interner<'a> {
    collation: &'a Collation,
    /// First cell of each number.
    cells: Vec<CborValue>,
    null: Option<u32>,
    integers: HashMap<i64, u32, Seed>,
    texts: HashMap<Box<str>, u32>,
    /// Numbers by the bytes of the key.
    keys: HashMap<Box<[u8]>, u32>,
    /// True if all numbers but null are in `keys`. False while there are only integers and texts that compare as such.
    has_keys: bool,
    /// True once two cells that compare as equal were not identical.
    pub(super) unified: bool,
}

impl<'a> Interner<'a> {
    pub(super) fn new(collation: &'a Collation) -> Interner<'a> {
        Interner {
            collation,
            cells: Vec::new(),
            null: None,
            integers: HashMap::with_hasher(Seed::new()),
            texts: HashMap::new(),
            keys: HashMap::new(),
            has_keys: *collation != Collation::Plain,
            unified: false,
        }
    }

    /// Number of distinct cells.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The number of a cell.
    pub(super) fn cell(&mut self, cell: &CborValue) -> u32 {
        match cell {
            CborValue::Text(text) => self.text(text),
            CborValue::Integer(integer) => match i64::try_from(*integer) {
                Ok(integer) => self.integer(integer),
                Err(_) => self.any(cell),
            },
            _ => self.any(cell),
        }
    }

    /// The number of an integer.
    pub(super) fn integer(&mut self, integer: i64) -> u32 {
        if let Some(number) = self.integers.get(&integer) {
            return *number;
        }
        let number = if self.has_keys { self.any(&integer.into()) } else { self.push(integer.into()) };
        self.integers.insert(integer, number);
        number
    }

    /// The number of a text.
    pub(super) fn text(&mut self, text: &str) -> u32 {
        if let Some(number) = self.texts.get(text) {
            return *number;
        }
        let number = if self.has_keys { self.any(&text.into()) } else { self.push(text.into()) };
        self.texts.insert(text.into(), number);
        number
    }

    /// The number of any cell, by its key.
    fn any(&mut self, cell: &CborValue) -> u32 {
        let key = Key::of(cell, self.collation);
        let mut bytes = Vec::new();
        let known = if key.is_null() {
            self.null
        } else {
            if !std::mem::replace(&mut self.has_keys, true) {
                self.list_keys();
            }
            key.bytes_into(&mut bytes);
            self.keys.get(&*bytes).copied()
        };
        if let Some(number) = known {
            self.unified |= !identical(&self.cells[number as usize], cell);
            return number;
        }
        let is_null = key.is_null();
        let number = self.push(cell.clone());
        if is_null {
            self.null = Some(number);
        } else {
            self.keys.insert(bytes.into(), number);
        }
        number
    }

    /// Gives a new number to a cell.
    fn push(&mut self, cell: CborValue) -> u32 {
        self.cells.push(cell);
        self.cells.len() as u32 - 1
    }

    /// Lists the keys of the numbers so far.
    fn list_keys(&mut self) {
        let keys = self.cells.iter().map(|cell| Key::of(cell, self.collation)).zip(0..);
        let listed = keys.filter(|(key, _)| !key.is_null()).map(|(key, number)| {
            let mut bytes = Vec::new();
            key.bytes_into(&mut bytes);
            (bytes.into(), number)
        });
        self.keys = listed.collect();
    }

    /// The rank of each number in the order of the keys.
    pub(super) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.cells.len()];
        let mut rank = |order: &mut dyn Iterator<Item = u32>| {
            order.zip(0..).for_each(|(number, rank)| ranks[number as usize] = rank);
        };
        if !self.has_keys && self.texts.is_empty() {
            let mut integers: Vec<(i64, u32)> =
                self.integers.iter().map(|(integer, number)| (*integer, *number)).collect();
            integers.sort_unstable();
            // Nulls come last.
            rank(&mut integers.into_iter().map(|(_, number)| number).chain(self.null));
        } else {
            let keys: Vec<Key<'_>> = self.cells.iter().map(|cell| Key::of(cell, self.collation)).collect();
            let mut order: Vec<u32> = (0..keys.len() as u32).collect();
            order.sort_unstable_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
            rank(&mut order.into_iter());
        }
        ranks
    }

    /// The sort key of a number.
    pub(super) fn key(&self, number: u32) -> Key<'_> {
        Key::of(&self.cells[number as usize], self.collation)
    }

    /// The first cells of the numbers.
    pub(super) fn into_cells(self) -> Vec<CborValue> {
        self.cells
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
