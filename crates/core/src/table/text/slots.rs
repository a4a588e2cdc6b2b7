//! Persistent sets of slots: blocks of neighbouring slots, each a list or a bitmap, whichever is smaller.

mod combine;

use std::sync::Arc;

pub(super) use self::combine::{intersection, union};
use crate::table::Slot;

/// Number of slots per block: small enough that a change copies little, large enough that a sparse set has few blocks.
const BLOCK: u32 = 1 << 14;
const WORDS: usize = BLOCK as usize / 64;
/// Maximum length of a list: a longer one is larger than the bitmap.
const MAX_LISTED: usize = WORDS * 4;

/// A set of slots in ascending order. Clones share their blocks.
#[derive(Clone, Debug, Default)]
pub struct SlotSet {
    /// Blocks by number, none empty.
    blocks: Vec<(u32, Arc<Block>)>,
    len: usize,
}

/// Slots of one block, relative to its first slot.
#[derive(Clone, Debug)]
pub(super) enum Block {
    Listed(Vec<u16>),
    Bits { words: Box<[u64; WORDS]>, len: u32 },
}

fn split(slot: Slot) -> (u32, u16) {
    (slot / BLOCK, (slot % BLOCK) as u16)
}

impl SlotSet {
    /// Number of slots.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if the set contains `slot`.
    pub fn contains(&self, slot: Slot) -> bool {
        let (number, offset) = split(slot);
        self.block(number).is_some_and(|block| block.contains(offset))
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.blocks
            .iter()
            .flat_map(|(number, block)| block.iter().map(move |offset| number * BLOCK + u32::from(offset)))
    }

    /// Adds a slot. Returns true if it is new.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (number, offset) = split(slot);
        let new = match self.at(number) {
            Ok(at) => Arc::make_mut(&mut self.blocks[at].1).insert(offset),
            Err(at) => {
                super::insert_tight(&mut self.blocks, at, (number, Arc::new(Block::Listed(vec![offset]))));
                true
            }
        };
        self.len += usize::from(new);
        new
    }

    /// Removes a slot. Returns true if it was in the set.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let (number, offset) = split(slot);
        let Ok(at) = self.at(number) else { return false };
        let block = Arc::make_mut(&mut self.blocks[at].1);
        let found = block.remove(offset);
        if block.len() == 0 {
            self.blocks.remove(at);
        }
        self.len -= usize::from(found);
        found
    }

    /// Intersection of two sets.
    #[must_use]
    pub fn and(&self, other: &SlotSet) -> SlotSet {
        self.combine(other, Block::and)
    }

    /// Difference: the slots in `self` that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &SlotSet) -> SlotSet {
        let blocks = self.blocks.iter().filter_map(|(number, block)| match other.block(*number) {
            None => Some((*number, Arc::clone(block))),
            Some(taken) => block.without(taken).map(|rest| (*number, Arc::new(rest))),
        });
        SlotSet::of(blocks.collect())
    }

    /// Union of two sets.
    #[must_use]
    pub fn or(&self, other: &SlotSet) -> SlotSet {
        let (mut blocks, mut others) = (Vec::with_capacity(self.blocks.len()), other.blocks.iter().peekable());
        for (number, block) in &self.blocks {
            while let Some(before) = others.next_if(|(other, _)| other < number) {
                blocks.push(before.clone());
            }
            blocks.push(match others.next_if(|(other, _)| other == number) {
                Some((_, same)) => (*number, Arc::new(block.or(same))),
                None => (*number, Arc::clone(block)),
            });
        }
        blocks.extend(others.cloned());
        SlotSet::of(blocks)
    }

    pub(crate) fn heap(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|(_, block)| block.heap() + 2 * size_of::<usize>()).sum();
        blocks + self.blocks.capacity() * size_of::<(u32, Arc<Block>)>()
    }

    /// Frees the spare capacity that pushes left.
    fn shrink(&mut self) {
        self.blocks.shrink_to_fit();
        if let Some(Block::Listed(offsets)) = self.blocks.last_mut().and_then(|(_, block)| Arc::get_mut(block)) {
            offsets.shrink_to_fit();
        }
    }

    /// Adds a slot, which must not be below any slot in the set.
    fn push(&mut self, slot: Slot) {
        let (number, offset) = split(slot);
        let new = match self.blocks.last_mut() {
            Some((last, block)) if *last == number => Arc::make_mut(block).push(offset),
            _ => {
                self.shrink();
                self.blocks.push((number, Arc::new(Block::Listed(vec![offset]))));
                true
            }
        };
        self.len += usize::from(new);
    }

    fn of(blocks: Vec<(u32, Arc<Block>)>) -> SlotSet {
        let len = blocks.iter().map(|(_, block)| block.len()).sum();
        SlotSet { blocks, len }
    }

    fn combine(&self, other: &SlotSet, with: impl Fn(&Block, &Block) -> Option<Block>) -> SlotSet {
        let (few, many) = if self.blocks.len() <= other.blocks.len() { (self, other) } else { (other, self) };
        let blocks = few.blocks.iter().filter_map(|(number, block)| {
            let both = with(block, many.block(*number)?)?;
            Some((*number, Arc::new(both)))
        });
        SlotSet::of(blocks.collect())
    }

    fn at(&self, number: u32) -> Result<usize, usize> {
        // Without gaps a block's number is its index.
        match self.blocks.get(number as usize) {
            Some((there, _)) if *there == number => Ok(number as usize),
            _ => self.blocks.binary_search_by_key(&number, |(number, _)| *number),
        }
    }

    fn block(&self, number: u32) -> Option<&Block> {
        self.at(number).ok().map(|at| &*self.blocks[at].1)
    }
}

impl FromIterator<Slot> for SlotSet {
    /// Collects slots, which must be in ascending order; equal ones count once.
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> SlotSet {
        let mut set = SlotSet::default();
        slots.into_iter().for_each(|slot| set.push(slot));
        set
    }
}

impl Block {
    fn len(&self) -> usize {
        match self {
            Block::Listed(offsets) => offsets.len(),
            Block::Bits { len, .. } => *len as usize,
        }
    }

    fn heap(&self) -> usize {
        size_of::<Block>()
            + match self {
                Block::Listed(offsets) => offsets.capacity() * size_of::<u16>(),
                Block::Bits { .. } => size_of::<[u64; WORDS]>(),
            }
    }

    fn contains(&self, offset: u16) -> bool {
        match self {
            Block::Listed(offsets) => offsets.binary_search(&offset).is_ok(),
            Block::Bits { words, .. } => bit(words, offset),
        }
    }

    fn insert(&mut self, offset: u16) -> bool {
        match self {
            Block::Listed(offsets) => {
                let Err(at) = offsets.binary_search(&offset) else { return false };
                super::insert_tight(offsets, at, offset);
                self.settle();
                true
            }
            Block::Bits { words, len } => {
                let new = !bit(words, offset);
                words[usize::from(offset) / 64] |= 1 << (offset % 64);
                *len += u32::from(new);
                new
            }
        }
    }

    fn push(&mut self, offset: u16) -> bool {
        match self {
            Block::Listed(offsets) if offsets.last() == Some(&offset) => false,
            Block::Listed(offsets) => {
                offsets.push(offset);
                self.settle();
                true
            }
            Block::Bits { .. } => self.insert(offset),
        }
    }

    fn remove(&mut self, offset: u16) -> bool {
        match self {
            Block::Listed(offsets) => {
                let Ok(at) = offsets.binary_search(&offset) else { return false };
                offsets.remove(at);
                true
            }
            Block::Bits { words, len } => {
                let there = bit(words, offset);
                words[usize::from(offset) / 64] &= !(1 << (offset % 64));
                *len -= u32::from(there);
                // Well below the limit, so that a block near it does not change back and forth.
                if (*len as usize) < MAX_LISTED / 2 {
                    *self = Block::Listed(self.iter().collect());
                }
                there
            }
        }
    }

    /// Converts a list that has become too long to a bitmap.
    fn settle(&mut self) {
        if let Block::Listed(offsets) = self
            && offsets.len() > MAX_LISTED
        {
            let mut words = Box::new([0; WORDS]);
            set_all(&mut words, offsets);
            *self = Block::Bits { words, len: offsets.len() as u32 };
        }
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let (listed, words) = match self {
            Block::Listed(offsets) => (&offsets[..], &[][..]),
            Block::Bits { words, .. } => (&[][..], &words[..]),
        };
        let bits = words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some((at * 64) as u16 + bit as u16)
            })
        });
        listed.iter().copied().chain(bits)
    }

    fn and(&self, other: &Block) -> Option<Block> {
        match (self, other) {
            (Block::Bits { words: a, .. }, Block::Bits { words: b, .. }) => of_words(|at| a[at] & b[at]),
            (Block::Listed(list), Block::Bits { words, .. }) | (Block::Bits { words, .. }, Block::Listed(list)) => {
                listed(list.iter().copied().filter(|offset| bit(words, *offset)))
            }
            (Block::Listed(a), Block::Listed(b)) => {
                let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
                if many.len() / 16 > few.len() {
                    return listed(few.iter().copied().filter(|offset| many.binary_search(offset).is_ok()));
                }
                let mut rest = many.iter().copied().peekable();
                listed(few.iter().copied().filter(|offset| {
                    while rest.next_if(|other| other < offset).is_some() {}
                    rest.peek() == Some(offset)
                }))
            }
        }
    }

    fn without(&self, other: &Block) -> Option<Block> {
        match (self, other) {
            (Block::Bits { words: a, .. }, Block::Bits { words: b, .. }) => of_words(|at| a[at] & !b[at]),
            (Block::Bits { words, len }, Block::Listed(offsets)) => {
                let mut rest = Block::Bits { words: words.clone(), len: *len };
                offsets.iter().for_each(|offset| {
                    rest.remove(*offset);
                });
                (rest.len() > 0).then_some(rest)
            }
            (Block::Listed(list), other) => listed(list.iter().copied().filter(|offset| !other.contains(*offset))),
        }
    }

    fn or(&self, other: &Block) -> Block {
        match (self, other) {
            (Block::Bits { words: a, .. }, Block::Bits { words: b, .. }) => {
                of_words(|at| a[at] | b[at]).unwrap_or_else(|| self.clone())
            }
            (Block::Listed(list), Block::Bits { words, len }) | (Block::Bits { words, len }, Block::Listed(list)) => {
                let (mut words, mut len) = (words.clone(), *len);
                for offset in list {
                    len += u32::from(!bit(&words, *offset));
                    words[usize::from(*offset) / 64] |= 1 << (offset % 64);
                }
                Block::Bits { words, len }
            }
            (Block::Listed(a), Block::Listed(b)) => {
                let mut all = Vec::with_capacity(a.len() + b.len());
                all.extend_from_slice(a);
                all.extend_from_slice(b);
                all.sort_unstable();
                all.dedup();
                let mut block = Block::Listed(all);
                block.settle();
                block
            }
        }
    }
}

fn bit(words: &[u64; WORDS], offset: u16) -> bool {
    words[usize::from(offset) / 64] >> (offset % 64) & 1 == 1
}

fn set_all(words: &mut [u64; WORDS], offsets: &[u16]) {
    for offset in offsets {
        words[usize::from(*offset) / 64] |= 1 << (offset % 64);
    }
}

fn listed(offsets: impl Iterator<Item = u16>) -> Option<Block> {
    let offsets: Vec<u16> = offsets.collect();
    (!offsets.is_empty()).then_some(Block::Listed(offsets))
}

fn of_words(word: impl Fn(usize) -> u64) -> Option<Block> {
    let words: Box<[u64; WORDS]> = Box::new(std::array::from_fn(word));
    let len: u32 = words.iter().map(|word| word.count_ones()).sum();
    (len > 0).then_some(Block::Bits { words, len })
}

/// The slots of one term: a plain list while there are few.
#[derive(Clone, Debug)]
pub(super) enum List {
    Few(Vec<Slot>),
    Many(SlotSet),
}

const MAX_FEW: usize = 128;

impl Default for List {
    fn default() -> List {
        List::Few(Vec::new())
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        match self {
            List::Few(slots) => slots.len(),
            List::Many(set) => set.len(),
        }
    }

    /// Adds a slot, which must not be below any slot in the list.
    pub(super) fn push(&mut self, slot: Slot) {
        match self {
            List::Few(slots) if slots.last() == Some(&slot) => {}
            List::Few(slots) => {
                slots.push(slot);
                self.settle();
            }
            List::Many(set) => set.push(slot),
        }
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        match self {
            List::Few(slots) => {
                if let Err(at) = slots.binary_search(&slot) {
                    super::insert_tight(slots, at, slot);
                    self.settle();
                }
            }
            List::Many(set) => {
                set.insert(slot);
            }
        }
    }

    pub(super) fn remove(&mut self, slot: Slot) {
        match self {
            List::Few(slots) => {
                if let Ok(at) = slots.binary_search(&slot) {
                    slots.remove(at);
                }
            }
            List::Many(set) => {
                set.remove(slot);
                if set.len() < MAX_FEW / 2 {
                    *self = List::Few(set.iter().collect());
                }
            }
        }
    }

    fn settle(&mut self) {
        if let List::Few(slots) = self
            && slots.len() > MAX_FEW
        {
            *self = List::Many(slots.iter().copied().collect());
        }
    }

    pub(super) fn shrink(&mut self) {
        match self {
            List::Few(slots) => slots.shrink_to_fit(),
            List::Many(set) => set.shrink(),
        }
    }

    pub(super) fn heap(&self) -> usize {
        size_of::<List>()
            + 2 * size_of::<usize>()
            + match self {
                List::Few(slots) => slots.capacity() * size_of::<Slot>(),
                List::Many(set) => set.heap(),
            }
    }
}
