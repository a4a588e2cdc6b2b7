//! [`Mask`]: a set of rows of a block.

/// Maximum number of rows of a block.
pub(crate) const BLOCK_ROWS: usize = 2_048;
const WORDS: usize = BLOCK_ROWS / 64;

/// A set of rows of a block, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mask([u64; WORDS]);

impl Mask {
    /// No rows.
    pub(crate) const NONE: Mask = Mask([0; WORDS]);

    /// The first `len` rows.
    pub(crate) fn first(len: usize) -> Mask {
        let mut mask = Mask::NONE;
        for (word, bits) in mask.0.iter_mut().enumerate() {
            *bits = match len.saturating_sub(word * 64) {
                64.. => u64::MAX,
                left => (1 << left) - 1,
            };
        }
        mask
    }

    /// The rows among the first `len` for which `holds`.
    pub(crate) fn of(len: usize, mut holds: impl FnMut(usize) -> bool) -> Mask {
        let mut mask = Mask::NONE;
        for (word, bits) in mask.0.iter_mut().enumerate() {
            for at in word * 64..len.min(word * 64 + 64) {
                *bits |= u64::from(holds(at)) << (at % 64);
            }
        }
        mask
    }

    /// Adds a row.
    pub(crate) fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// True if the set has the row.
    pub(crate) fn has(&self, at: usize) -> bool {
        self.0[at / 64] & 1 << (at % 64) != 0
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// True if there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The rows that are in both sets.
    pub(crate) fn and(mut self, other: &Mask) -> Mask {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= other);
        self
    }

    /// The rows of either set.
    pub(crate) fn or(mut self, other: &Mask) -> Mask {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
        self
    }

    /// The rows that the other set does not have.
    pub(crate) fn without(mut self, other: &Mask) -> Mask {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word &= !other);
        self
    }

    /// The rows, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let at = (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)?;
                bits &= bits - 1;
                Some(at)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn masks_are_sets(a in proptest::collection::btree_set(0..300usize, 0..99), b in proptest::collection::btree_set(0..300usize, 0..99)) {
            let mask = |set: &std::collections::BTreeSet<usize>| Mask::of(300, |at| set.contains(&at));
            let rows = |mask: Mask| mask.iter().collect::<Vec<_>>();
            prop_assert_eq!(rows(mask(&a).and(&mask(&b))), a.intersection(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(rows(mask(&a).or(&mask(&b))), a.union(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!(rows(mask(&a).without(&mask(&b))), a.difference(&b).copied().collect::<Vec<_>>());
            prop_assert_eq!((mask(&a).len(), mask(&a).is_empty()), (a.len(), a.is_empty()));
            prop_assert!((0..300).all(|at| mask(&a).has(at) == a.contains(&at)));
            prop_assert_eq!(Mask::first(a.len()), Mask::of(BLOCK_ROWS, |at| at < a.len()));
        }
    }
}
