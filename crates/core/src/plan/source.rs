//! Sets of rows that hold all that match, and perhaps others: ranges of indexes, and what is made of them.

use super::clauses::{Conjunct, IndexMatch, parts};
use crate::table::text::SlotSet;
use crate::table::{Slot, Table};
use crate::vista::Filter;

/// Slots in no order that matters.
#[derive(Clone, Debug)]
pub(super) enum SlotSource {
    /// Those in ranges of an index.
    Reach(IndexMatch),
    /// Those that a search finds, about so many.
    Words(usize),
    /// Those in any of these.
    Any(Vec<SlotSource>),
    /// Those in both; the first has fewer.
    Both(Box<(SlotSource, SlotSource)>),
}

impl SlotSource {
    /// How many slots it has, at most.
    pub(super) fn len(&self) -> usize {
        match self {
            SlotSource::Reach(reach) => reach.len(),
            SlotSource::Words(about) => *about,
            SlotSource::Any(any) => any.iter().map(SlotSource::len).sum(),
            SlotSource::Both(both) => both.0.len(),
        }
    }

    /// How many index entries are read to know them.
    pub(super) fn entries(&self) -> usize {
        match self {
            SlotSource::Reach(_) | SlotSource::Words(_) | SlotSource::Any(_) => self.len(),
            SlotSource::Both(both) => both.0.entries() + both.1.entries(),
        }
    }

    pub(super) fn ranges(&self) -> usize {
        match self {
            SlotSource::Reach(reach) => reach.pieces.len(),
            SlotSource::Words(_) => 0,
            SlotSource::Any(any) => any.iter().map(SlotSource::ranges).sum(),
            SlotSource::Both(both) => both.0.ranges() + both.1.ranges(),
        }
    }

    pub(super) fn indexes(&self) -> Vec<usize> {
        match self {
            SlotSource::Reach(reach) => vec![reach.index],
            SlotSource::Words(_) => Vec::new(),
            SlotSource::Any(any) => any.iter().flat_map(SlotSource::indexes).collect(),
            SlotSource::Both(both) => [both.0.indexes(), both.1.indexes()].concat(),
        }
    }

    /// The slots, ascending, each once. `words` are those that the search finds.
    pub(super) fn slots(&self, table: &Table, words: Option<&SlotSet>) -> Vec<Slot> {
        let mut slots: Vec<Slot> = match self {
            SlotSource::Words(_) => return words.map_or(Vec::new(), |words| words.iter().collect()),
            SlotSource::Reach(reach) => {
                let order = table.indexes()[reach.index].order();
                let ranges = reach.pieces.iter().flat_map(|piece| order.range(piece.ranks.clone()));
                ranges.map(|entry| entry.slot).collect()
            }
            SlotSource::Any(any) => any.iter().flat_map(|source| source.slots(table, words)).collect(),
            SlotSource::Both(both) => {
                let few = both.0.slots(table, words);
                let mut many = both.1.slots(table, words).into_iter().peekable();
                // Both ascend: one pass.
                let in_many = |slot: &Slot| {
                    while many.next_if(|other| other < slot).is_some() {}
                    many.peek() == Some(slot)
                };
                return few.into_iter().filter(in_many).collect();
            }
        };
        slots.sort_unstable();
        slots.dedup();
        slots
    }
}

/// The smallest set that an index gives for a conjunction, and which of its parts that answers.
pub(super) fn narrowest(reaches: &[IndexMatch]) -> Option<&IndexMatch> {
    reaches.iter().filter(|reach| reach.used != 0).min_by_key(|reach| reach.len())
}

/// What each index can say of a conjunction.
pub(super) fn reaches(table: &Table, parts: &[Conjunct<'_>]) -> Vec<IndexMatch> {
    (0..table.indexes().len()).map(|index| IndexMatch::of(table, index, parts)).collect()
}

/// The rows of a disjunction, if an index narrows each of its branches.
pub(super) fn union(table: &Table, filter: &Filter) -> Option<SlotSource> {
    let Filter::Any(branches) = filter else { return None };
    let branch = |filter: &Filter| {
        let parts = parts(filter);
        let inner = parts.iter().find_map(|part| union(table, part.filter));
        let found = reaches(table, &parts);
        let reach = narrowest(&found).map(|reach| SlotSource::Reach(reach.clone()));
        reach.into_iter().chain(inner).min_by_key(SlotSource::len)
    };
    Some(SlotSource::Any(branches.iter().map(branch).collect::<Option<_>>()?))
}
