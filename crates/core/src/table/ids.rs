//! Slots by id: a persistent linear hash table of small leaves.
//!
//! A leaf holds (hash, slot) pairs in hash order; the id itself is compared in the row. The number of leaves grows and shrinks
//! with the number of rows one leaf at a time, so a change touches at most two leaves.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::trie::{Trie, Weighted};
use super::{Slot, insert_tight};

/// Maximum average number of entries per leaf. A single leaf has up to about twice as many.
const MEAN: usize = 256;

/// Slots by id.
#[derive(Clone)]
pub(super) struct Ids {
    leaves: Trie<Leaf>,
    /// Number of leaves, including empty ones, which are not stored.
    buckets: u32,
    len: usize,
    /// Random seed of the hash, so that clients cannot choose ids that collide.
    seed: u64,
}

/// Cells in hash order.
#[derive(Clone, Default)]
struct Leaf(Vec<Cell>);

/// Hash of an id, and the slot of its row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) hash: u32,
    pub(super) slot: Slot,
}

impl Weighted for Leaf {
    fn weight(&self) -> u32 {
        self.0.len() as u32
    }
}

impl Leaf {
    /// Index of the first cell whose hash is not below `hash`. Interpolation search: hashes are evenly distributed, so the first
    /// guess is usually off by a cache line at most.
    fn seek(&self, hash: u32) -> usize {
        let cells = &self.0;
        let mut at = ((u64::from(hash) * cells.len() as u64) >> 32) as usize;
        while at > 0 && cells[at - 1].hash >= hash {
            at -= 1;
        }
        while at < cells.len() && cells[at].hash < hash {
            at += 1;
        }
        at
    }
}

/// Index of the leaf of `hash` among `buckets`: its low bits, one bit less if that leaf is not split off yet.
fn bucket(hash: u32, buckets: u32) -> u32 {
    let mask = buckets.next_power_of_two() - 1;
    let at = hash & mask;
    if at < buckets { at } else { at & (mask >> 1) }
}

impl Ids {
    pub(super) fn new() -> Ids {
        Ids { leaves: Trie::new(), buckets: 1, len: 0, seed: RandomState::new().build_hasher().finish() }
    }

    /// Fills an empty table with `cells`. `same` returns true if two slots hold the same id; then the higher slot is kept and the
    /// lower is returned.
    pub(super) fn fill(&mut self, cells: &[Cell], same: impl Fn(Slot, Slot) -> bool) -> Vec<Slot> {
        self.buckets = cells.len().div_ceil(MEAN).max(1) as u32;
        let mut leaves: Vec<Vec<Cell>> = Vec::new();
        leaves.resize_with(self.buckets as usize, || Vec::with_capacity(MEAN));
        for cell in cells {
            leaves[bucket(cell.hash, self.buckets) as usize].push(*cell);
        }
        let mut superseded = Vec::new();
        for (at, mut leaf) in leaves.into_iter().enumerate() {
            leaf.sort_unstable();
            drop_superseded(&mut leaf, &same, &mut superseded);
            leaf.shrink_to_fit();
            self.len += leaf.len();
            self.leaves.edit(at as u32, |entry| *entry = Some(Arc::new(Leaf(leaf))));
        }
        superseded
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn hash(&self, id: &str) -> u32 {
        xxh3_64_with_seed(id.as_bytes(), self.seed) as u32
    }

    /// Calls `accept` with the slots under `hash` and returns its first result.
    pub(super) fn find<T>(&self, hash: u32, accept: impl Fn(Slot) -> Option<T>) -> Option<T> {
        let leaf = self.leaves.get(bucket(hash, self.buckets))?;
        let equal = leaf.0[leaf.seek(hash)..].iter().take_while(|cell| cell.hash == hash);
        equal.map(|cell| cell.slot).find_map(accept)
    }

    /// Adds a slot, which must not be in the table.
    pub(super) fn insert(&mut self, hash: u32, slot: Slot) {
        self.leaves.edit(bucket(hash, self.buckets), |entry| {
            let leaf = Arc::make_mut(entry.get_or_insert_default());
            let at = leaf.seek(hash);
            insert_tight(&mut leaf.0, at, Cell { hash, slot });
        });
        self.len += 1;
        if self.len > self.buckets as usize * MEAN {
            self.split();
        }
    }

    pub(super) fn remove(&mut self, hash: u32, slot: Slot) {
        let found = self.leaves.edit(bucket(hash, self.buckets), |entry| {
            let Some(leaf) = entry else { return false };
            let leaf = Arc::make_mut(leaf);
            let at = leaf.seek(hash);
            let Some(found) = leaf.0[at..].iter().position(|cell| *cell == Cell { hash, slot }) else { return false };
            leaf.0.remove(at + found);
            true
        });
        self.len -= usize::from(found);
        if self.buckets > 1 && self.len < self.buckets as usize * (MEAN / 3) {
            self.merge();
        }
    }

    /// Adds a bucket and moves part of one leaf there.
    fn split(&mut self) {
        let new = self.buckets;
        self.buckets += 1;
        let moved = self.leaves.edit(bucket(new, new), |entry| {
            let leaf = entry.take()?;
            let (moved, kept) = leaf.0.iter().partition(|cell| bucket(cell.hash, new + 1) == new);
            *entry = Some(Arc::new(Leaf(kept)));
            Some(Arc::new(Leaf(moved)))
        });
        self.leaves.edit(new, |entry| *entry = moved);
    }

    /// Removes the last bucket and moves its cells back to the leaf they were split from.
    fn merge(&mut self) {
        self.buckets -= 1;
        let last = self.buckets;
        if let Some(moved) = self.leaves.edit(last, Option::take) {
            self.leaves.edit(bucket(last, last), |entry| {
                let mut cells = entry.take().map_or(Vec::new(), |leaf| leaf.0.clone());
                cells.extend_from_slice(&moved.0);
                cells.sort_unstable();
                *entry = Some(Arc::new(Leaf(cells)));
            });
        }
    }
}

/// Keeps one cell per id. Equal ids have equal hashes and so are neighbours, except for rare collisions.
fn drop_superseded(leaf: &mut Vec<Cell>, same: &impl Fn(Slot, Slot) -> bool, superseded: &mut Vec<Slot>) {
    if leaf.windows(2).all(|pair| pair[0].hash != pair[1].hash) {
        return;
    }
    let all = std::mem::take(leaf);
    for (at, cell) in all.iter().enumerate() {
        let mut later = all[at + 1..].iter().take_while(|other| other.hash == cell.hash);
        if later.any(|other| same(cell.slot, other.slot)) {
            superseded.push(cell.slot);
        } else {
            leaf.push(*cell);
        }
    }
}
