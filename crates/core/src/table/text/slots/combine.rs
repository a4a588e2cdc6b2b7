//! Unions and intersections of lists of slots.

use std::sync::Arc;

use super::{Block, List, SlotSet, WORDS, set_all, split};
use crate::table::Slot;

/// Number of listed slots that are sorted; more of them are set in bitmaps.
const MOST_SORTED: usize = if cfg!(test) { 16 } else { 4_096 };

/// Union of `lists`, restricted to `within` if it is given.
pub(in crate::table::text) fn union(lists: &[&List], within: Option<&SlotSet>) -> SlotSet {
    let mut few: Vec<Slot> = Vec::new();
    let mut many: Vec<&SlotSet> = Vec::new();
    for list in lists {
        match list {
            List::Few(slots) => few.extend(slots.iter().filter(|slot| within.is_none_or(|set| set.contains(**slot)))),
            List::Many(set) => many.push(set),
        }
    }
    match &many[..] {
        [] if few.len() <= MOST_SORTED => {
            few.sort_unstable();
            few.into_iter().collect()
        }
        [only] if few.is_empty() => within.map_or_else(|| (*only).clone(), |within| within.and(only)),
        _ => {
            let all = in_bitmaps(&many, &few);
            within.map_or_else(|| all.clone(), |within| within.and(&all))
        }
    }
}

/// Union of `sets` and of `slots`, which may be in any order, computed in bitmaps.
fn in_bitmaps(sets: &[&SlotSet], slots: &[Slot]) -> SlotSet {
    let blocks = || sets.iter().flat_map(|set| &set.blocks);
    let numbers = || blocks().map(|(number, _)| *number).chain(slots.iter().map(|slot| split(*slot).0));
    let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else { return SlotSet::default() };
    let mut bitmaps: Vec<Option<Box<[u64; WORDS]>>> = Vec::new();
    bitmaps.resize_with((last - first) as usize + 1, || None);
    let mut words_of = |number: u32, set: &mut dyn FnMut(&mut [u64; WORDS])| {
        set(bitmaps[(number - first) as usize].get_or_insert_with(|| Box::new([0; WORDS])));
    };
    for (number, block) in blocks() {
        words_of(*number, &mut |words| match &**block {
            Block::Listed(offsets) => set_all(words, offsets),
            Block::Bits { words: other, .. } => {
                words.iter_mut().zip(other.iter()).for_each(|(word, other)| *word |= other)
            }
        });
    }
    for slot in slots {
        let (number, offset) = split(*slot);
        words_of(number, &mut |words| set_all(words, &[offset]));
    }
    let blocks = (first..).zip(bitmaps).filter_map(|(number, words)| {
        let words = words?;
        let len = words.iter().map(|word| word.count_ones()).sum();
        Some((number, Arc::new(Block::Bits { words, len })))
    });
    SlotSet::of(blocks.collect())
}

/// Intersection of `lists`, restricted to `within` if it is given.
pub(in crate::table::text) fn intersection(lists: &mut [&List], within: Option<&SlotSet>) -> SlotSet {
    lists.sort_by_key(|list| list.len());
    let Some((rarest, rest)) = lists.split_first() else { return SlotSet::default() };
    let first = union(&[rarest], within);
    rest.iter().fold(first, |found, list| if found.is_empty() { found } else { union(&[list], Some(&found)) })
}
