//! Sets of slots, persistent: blocks of neighbouring slots, each a list or a bitmap, whichever is smaller.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::table::Slot;

/// Slots of one block: small enough that a change copies little, large enough that a sparse set has few blocks.
const BLOCK: u32 = 1 << 14;
const WORDS: usize = BLOCK as usize / 64;
/// Beyond this a list is larger than the bitmap.
const MOST_LISTED: usize = WORDS * 4;

/// Slots in ascending order. A clone shares its blocks.
#[derive(Clone, Debug, Default)]
pub struct SlotSet {
    /// By number, none empty.
    blocks: Vec<(u32, Arc<Block>)>,
    len: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Block {
    Listed(Vec<u16>),
    Bits { words: Box<[u64; WORDS]>, len: u32 },
}

fn split(slot: Slot) -> (u32, u16) {
    (slot / BLOCK, (slot % BLOCK) as u16)
}

impl SlotSet {
    /// How many slots.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `slot` is among them.
    pub fn contains(&self, slot: Slot) -> bool {
        let (number, place) = split(slot);
        self.block(number).is_some_and(|block| block.contains(place))
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.blocks.iter().flat_map(|(number, block)| block.iter().map(move |place| number * BLOCK + u32::from(place)))
    }

    /// Adds a slot; says whether it is new.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (number, place) = split(slot);
        let new = match self.at(number) {
            Ok(at) => Arc::make_mut(&mut self.blocks[at].1).insert(place),
            Err(at) => {
                super::insert_tight(&mut self.blocks, at, (number, Arc::new(Block::Listed(vec![place]))));
                true
            }
        };
        self.len += usize::from(new);
        new
    }

    /// Takes a slot out; says whether it was there.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let (number, place) = split(slot);
        let Ok(at) = self.at(number) else { return false };
        let block = Arc::make_mut(&mut self.blocks[at].1);
        let found = block.remove(place);
        if block.len() == 0 {
            self.blocks.remove(at);
        }
        self.len -= usize::from(found);
        found
    }

    /// The slots in both.
    #[must_use]
    pub fn and(&self, other: &SlotSet) -> SlotSet {
        self.combine(other, Block::and)
    }

    /// The slots in `self` that are not in `other`.
    #[must_use]
    pub fn without(&self, other: &SlotSet) -> SlotSet {
        let blocks = self.blocks.iter().filter_map(|(number, block)| match other.block(*number) {
            None => Some((*number, Arc::clone(block))),
            Some(taken) => block.without(taken).map(|rest| (*number, Arc::new(rest))),
        });
        SlotSet::of(blocks.collect())
    }

    /// The slots in either.
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

    /// Gives back what pushing reserved.
    fn shrink(&mut self) {
        self.blocks.shrink_to_fit();
        if let Some(Block::Listed(places)) = self.blocks.last_mut().and_then(|(_, block)| Arc::get_mut(block)) {
            places.shrink_to_fit();
        }
    }

    /// Adds a slot that is not below any there.
    fn push(&mut self, slot: Slot) {
        let (number, place) = split(slot);
        let new = match self.blocks.last_mut() {
            Some((last, block)) if *last == number => Arc::make_mut(block).push(place),
            _ => {
                self.shrink();
                self.blocks.push((number, Arc::new(Block::Listed(vec![place]))));
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
        // Without holes a block's number is its place.
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
    /// The slots have to come in ascending order; equal ones count once.
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> SlotSet {
        let mut set = SlotSet::default();
        slots.into_iter().for_each(|slot| set.push(slot));
        set
    }
}

impl Block {
    fn len(&self) -> usize {
        match self {
            Block::Listed(places) => places.len(),
            Block::Bits { len, .. } => *len as usize,
        }
    }

    fn heap(&self) -> usize {
        size_of::<Block>()
            + match self {
                Block::Listed(places) => places.capacity() * size_of::<u16>(),
                Block::Bits { .. } => size_of::<[u64; WORDS]>(),
            }
    }

    fn contains(&self, place: u16) -> bool {
        match self {
            Block::Listed(places) => places.binary_search(&place).is_ok(),
            Block::Bits { words, .. } => bit(words, place),
        }
    }

    fn insert(&mut self, place: u16) -> bool {
        match self {
            Block::Listed(places) => {
                let Err(at) = places.binary_search(&place) else { return false };
                super::insert_tight(places, at, place);
                self.settle();
                true
            }
            Block::Bits { words, len } => {
                let new = !bit(words, place);
                words[usize::from(place) / 64] |= 1 << (place % 64);
                *len += u32::from(new);
                new
            }
        }
    }

    fn push(&mut self, place: u16) -> bool {
        match self {
            Block::Listed(places) if places.last() == Some(&place) => false,
            Block::Listed(places) => {
                places.push(place);
                self.settle();
                true
            }
            Block::Bits { .. } => self.insert(place),
        }
    }

    fn remove(&mut self, place: u16) -> bool {
        match self {
            Block::Listed(places) => {
                let Ok(at) = places.binary_search(&place) else { return false };
                places.remove(at);
                true
            }
            Block::Bits { words, len } => {
                let there = bit(words, place);
                words[usize::from(place) / 64] &= !(1 << (place % 64));
                *len -= u32::from(there);
                // Well below the limit, so that a block at it does not change to and fro.
                if (*len as usize) < MOST_LISTED / 2 {
                    *self = Block::Listed(self.iter().collect());
                }
                there
            }
        }
    }

    /// A list that has become too long becomes a bitmap.
    fn settle(&mut self) {
        if let Block::Listed(places) = self
            && places.len() > MOST_LISTED
        {
            let mut words = Box::new([0; WORDS]);
            set_all(&mut words, places);
            *self = Block::Bits { words, len: places.len() as u32 };
        }
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        let (listed, words) = match self {
            Block::Listed(places) => (&places[..], &[][..]),
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
            (Block::Listed(places), Block::Bits { words, .. }) | (Block::Bits { words, .. }, Block::Listed(places)) => {
                listed(places.iter().copied().filter(|place| bit(words, *place)))
            }
            (Block::Listed(a), Block::Listed(b)) => {
                let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
                if many.len() / 16 > few.len() {
                    return listed(few.iter().copied().filter(|place| many.binary_search(place).is_ok()));
                }
                let mut rest = many.iter().copied().peekable();
                listed(few.iter().copied().filter(|place| {
                    while rest.next_if(|other| other < place).is_some() {}
                    rest.peek() == Some(place)
                }))
            }
        }
    }

    fn without(&self, other: &Block) -> Option<Block> {
        match (self, other) {
            (Block::Bits { words: a, .. }, Block::Bits { words: b, .. }) => of_words(|at| a[at] & !b[at]),
            (Block::Bits { words, len }, Block::Listed(places)) => {
                let mut rest = Block::Bits { words: words.clone(), len: *len };
                places.iter().for_each(|place| {
                    rest.remove(*place);
                });
                (rest.len() > 0).then_some(rest)
            }
            (Block::Listed(places), other) => listed(places.iter().copied().filter(|place| !other.contains(*place))),
        }
    }

    fn or(&self, other: &Block) -> Block {
        match (self, other) {
            (Block::Bits { words: a, .. }, Block::Bits { words: b, .. }) => {
                of_words(|at| a[at] | b[at]).unwrap_or_else(|| self.clone())
            }
            (Block::Listed(places), Block::Bits { words, len })
            | (Block::Bits { words, len }, Block::Listed(places)) => {
                let (mut words, mut len) = (words.clone(), *len);
                for place in places {
                    len += u32::from(!bit(&words, *place));
                    words[usize::from(*place) / 64] |= 1 << (place % 64);
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

fn bit(words: &[u64; WORDS], place: u16) -> bool {
    words[usize::from(place) / 64] >> (place % 64) & 1 == 1
}

fn set_all(words: &mut [u64; WORDS], places: &[u16]) {
    for place in places {
        words[usize::from(*place) / 64] |= 1 << (place % 64);
    }
}

fn listed(places: impl Iterator<Item = u16>) -> Option<Block> {
    let places: Vec<u16> = places.collect();
    (!places.is_empty()).then_some(Block::Listed(places))
}

fn of_words(word: impl Fn(usize) -> u64) -> Option<Block> {
    let words: Box<[u64; WORDS]> = Box::new(std::array::from_fn(word));
    let len: u32 = words.iter().map(|word| word.count_ones()).sum();
    (len > 0).then_some(Block::Bits { words, len })
}

/// Slots of one term: a bare list while there are few.
#[derive(Clone, Debug)]
pub(super) enum List {
    Few(Vec<Slot>),
    Many(SlotSet),
}

const MOST_FEW: usize = 128;

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

    /// Adds a slot that is not below any there.
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
                if set.len() < MOST_FEW / 2 {
                    *self = List::Few(set.iter().collect());
                }
            }
        }
    }

    fn settle(&mut self) {
        if let List::Few(slots) = self
            && slots.len() > MOST_FEW
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

/// The slots that any of `lists` has, all of them or those `within` a set.
pub(super) fn union(lists: &[&List], within: Option<&SlotSet>) -> SlotSet {
    let mut few: Vec<Slot> = Vec::new();
    let mut many: Vec<&SlotSet> = Vec::new();
    for list in lists {
        match list {
            List::Few(slots) => few.extend(slots.iter().filter(|slot| within.is_none_or(|set| set.contains(**slot)))),
            List::Many(set) => many.push(set),
        }
    }
    few.sort_unstable();
    let few: SlotSet = few.into_iter().collect();
    let masked = |set: &SlotSet| within.map_or_else(|| set.clone(), |within| within.and(set));
    match &many[..] {
        [] => few,
        [only] if few.is_empty() => masked(only),
        _ => {
            many.push(&few);
            let all = gather(&many);
            within.map_or_else(|| all.clone(), |within| within.and(&all))
        }
    }
}

/// The slots in any of `sets`, put together in bitmaps.
fn gather(sets: &[&SlotSet]) -> SlotSet {
    let mut bitmaps: BTreeMap<u32, Box<[u64; WORDS]>> = BTreeMap::new();
    for (number, block) in sets.iter().flat_map(|set| &set.blocks) {
        let words = bitmaps.entry(*number).or_insert_with(|| Box::new([0; WORDS]));
        match &**block {
            Block::Listed(places) => set_all(words, places),
            Block::Bits { words: other, .. } => {
                words.iter_mut().zip(other.iter()).for_each(|(word, other)| *word |= other)
            }
        }
    }
    let blocks = bitmaps.into_iter().filter_map(|(number, words)| {
        let len = words.iter().map(|word| word.count_ones()).sum();
        (len > 0).then(|| (number, Arc::new(Block::Bits { words, len })))
    });
    SlotSet::of(blocks.collect())
}

/// The slots that all of `lists` have, of those `within` a set if one is given.
pub(super) fn intersection(lists: &mut [&List], within: Option<&SlotSet>) -> SlotSet {
    lists.sort_by_key(|list| list.len());
    let Some((rarest, rest)) = lists.split_first() else { return SlotSet::default() };
    let first = union(&[rarest], within);
    rest.iter().fold(first, |found, list| if found.is_empty() { found } else { union(&[list], Some(&found)) })
}
