//! Which slot an id has: a linear hash table of small leaves, persistent.
//!
//! A leaf holds (hash, slot) pairs in hash order; the id itself is compared in the row. The number of leaves follows the
//! number of rows one leaf at a time, so no change ever touches more than two of them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::trie::{Trie, Weighted};
use super::{Slot, insert_tight};

/// Entries per leaf on average, at most. Single leaves have up to twice as many.
const MEAN: usize = 256;

#[derive(Clone)]
pub(super) struct Ids {
    leaves: Trie<Leaf>,
    /// How many leaves the hash is spread over; empty ones are not stored.
    buckets: u32,
    len: usize,
    /// Ids come from outside: whoever does not know the seed cannot make them collide.
    seed: u64,
}

#[derive(Clone, Default)]
struct Leaf(Vec<Cell>);

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
    /// The first cell whose hash is not below `hash`. Hashes are evenly spread, so the guess is off by a cache line at most.
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

/// The leaf of `hash` among `buckets`: its low bits, one bit less where that leaf is not split off yet.
fn bucket(hash: u32, buckets: u32) -> u32 {
    let mask = buckets.next_power_of_two() - 1;
    let at = hash & mask;
    if at < buckets { at } else { at & (mask >> 1) }
}

impl Ids {
    pub(super) fn new() -> Ids {
        Ids { leaves: Trie::new(), buckets: 1, len: 0, seed: RandomState::new().build_hasher().finish() }
    }

    /// Takes all of `cells` into an empty table. `same` says whether two slots hold the same id; of such the higher slot
    /// stays and the lower is returned.
    pub(super) fn fill(&mut self, cells: &[Cell], same: impl Fn(Slot, Slot) -> bool) -> Vec<Slot> {
        self.buckets = cells.len().div_ceil(MEAN).max(1) as u32;
        let mut leaves: Vec<Vec<Cell>> = Vec::new();
        leaves.resize_with(self.buckets as usize, || Vec::with_capacity(MEAN));
        for cell in cells {
            leaves[bucket(cell.hash, self.buckets) as usize].push(*cell);
        }
        let mut beaten = Vec::new();
        for (at, mut leaf) in leaves.into_iter().enumerate() {
            leaf.sort_unstable();
            drop_beaten(&mut leaf, &same, &mut beaten);
            leaf.shrink_to_fit();
            self.len += leaf.len();
            self.leaves.edit(at as u32, |place| *place = Some(Arc::new(Leaf(leaf))));
        }
        beaten
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn hash(&self, id: &str) -> u32 {
        xxh3_64_with_seed(id.as_bytes(), self.seed) as u32
    }

    /// What `is` says of the first slot under `hash` that it accepts.
    pub(super) fn find<T>(&self, hash: u32, is: impl Fn(Slot) -> Option<T>) -> Option<T> {
        let leaf = self.leaves.get(bucket(hash, self.buckets))?;
        let equal = leaf.0[leaf.seek(hash)..].iter().take_while(|cell| cell.hash == hash);
        equal.map(|cell| cell.slot).find_map(is)
    }

    /// Adds a slot that is not there.
    pub(super) fn insert(&mut self, hash: u32, slot: Slot) {
        self.leaves.edit(bucket(hash, self.buckets), |place| {
            let leaf = Arc::make_mut(place.get_or_insert_default());
            let at = leaf.seek(hash);
            insert_tight(&mut leaf.0, at, Cell { hash, slot });
        });
        self.len += 1;
        if self.len > self.buckets as usize * MEAN {
            self.split();
        }
    }

    pub(super) fn remove(&mut self, hash: u32, slot: Slot) {
        let found = self.leaves.edit(bucket(hash, self.buckets), |place| {
            let Some(leaf) = place else { return false };
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

    /// Adds a bucket: part of one leaf moves there.
    fn split(&mut self) {
        let new = self.buckets;
        self.buckets += 1;
        let moved = self.leaves.edit(bucket(new, new), |place| {
            let leaf = place.take()?;
            let (moved, kept) = leaf.0.iter().partition(|cell| bucket(cell.hash, new + 1) == new);
            *place = Some(Arc::new(Leaf(kept)));
            Some(Arc::new(Leaf(moved)))
        });
        self.leaves.edit(new, |place| *place = moved);
    }

    /// Takes the last bucket away: its leaf goes back to where it came from.
    fn merge(&mut self) {
        self.buckets -= 1;
        let last = self.buckets;
        if let Some(moved) = self.leaves.edit(last, Option::take) {
            self.leaves.edit(bucket(last, last), |place| {
                let mut cells = place.take().map_or(Vec::new(), |leaf| leaf.0.clone());
                cells.extend_from_slice(&moved.0);
                cells.sort_unstable();
                *place = Some(Arc::new(Leaf(cells)));
            });
        }
    }
}

/// Leaves one cell for each id; equal ids have equal hashes and so are neighbours but for rare collisions.
fn drop_beaten(leaf: &mut Vec<Cell>, same: &impl Fn(Slot, Slot) -> bool, beaten: &mut Vec<Slot>) {
    if leaf.windows(2).all(|pair| pair[0].hash != pair[1].hash) {
        return;
    }
    let all = std::mem::take(leaf);
    for (at, cell) in all.iter().enumerate() {
        let mut later = all[at + 1..].iter().take_while(|other| other.hash == cell.hash);
        if later.any(|other| same(cell.slot, other.slot)) {
            beaten.push(cell.slot);
        } else {
            leaf.push(*cell);
        }
    }
}
