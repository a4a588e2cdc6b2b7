//! Sets of rows that contain all matches, and possibly others: ranges of indexes and their combinations.

use super::clauses::{Conjunct, IndexMatch, parts};
use crate::table::text::SlotSet;
use crate::table::{Slot, Table};
use crate::vista::Filter;

/// A set of slots, in no particular order.
#[derive(Clone, Debug)]
pub(super) enum SlotSource {
    /// Slots in ranges of an index.
    Ranges(IndexMatch),
    /// Slots that a search finds, and their approximate number.
    Words(usize),
    /// Union of these sets.
    Any(Vec<SlotSource>),
    /// Intersection of two sets; the first has fewer slots.
    Both(Box<(SlotSource, SlotSource)>),
}

impl SlotSource {
    /// Upper bound of the number of slots.
    pub(super) fn len(&self) -> usize {
        match self {
            SlotSource::Ranges(index_match) => index_match.len(),
            SlotSource::Words(about) => *about,
            SlotSource::Any(any) => any.iter().map(SlotSource::len).sum(),
            SlotSource::Both(both) => both.0.len(),
        }
    }

    /// Number of index entries read to compute the set.
    pub(super) fn entries(&self) -> usize {
        match self {
            SlotSource::Ranges(_) | SlotSource::Words(_) | SlotSource::Any(_) => self.len(),
            SlotSource::Both(both) => both.0.entries() + both.1.entries(),
        }
    }

    pub(super) fn ranges(&self) -> usize {
        match self {
            SlotSource::Ranges(index_match) => index_match.pieces.len(),
            SlotSource::Words(_) => 0,
            SlotSource::Any(any) => any.iter().map(SlotSource::ranges).sum(),
            SlotSource::Both(both) => both.0.ranges() + both.1.ranges(),
        }
    }

    pub(super) fn indexes(&self) -> Vec<usize> {
        match self {
            SlotSource::Ranges(index_match) => vec![index_match.index],
            SlotSource::Words(_) => Vec::new(),
            SlotSource::Any(any) => any.iter().flat_map(SlotSource::indexes).collect(),
            SlotSource::Both(both) => [both.0.indexes(), both.1.indexes()].concat(),
        }
    }

    /// The slots, ascending and without duplicates. `words` are the slots that the search finds.
    pub(super) fn slots(&self, table: &Table, words: Option<&SlotSet>) -> Vec<Slot> {
        let mut slots: Vec<Slot> = match self {
            SlotSource::Words(_) => return words.map_or(Vec::new(), |words| words.iter().collect()),
            SlotSource::Ranges(index_match) => {
                let order = table.indexes()[index_match.index].order();
                let ranges = index_match.pieces.iter().flat_map(|piece| order.range(piece.ranks.clone()));
                ranges.map(|entry| entry.slot).collect()
            }
            SlotSource::Any(any) => any.iter().flat_map(|source| source.slots(table, words)).collect(),
            SlotSource::Both(both) => {
                let few = both.0.slots(table, words);
                let mut many = both.1.slots(table, words).into_iter().peekable();
                // Both are ascending, so one pass is enough.
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

/// The index match with the fewest rows that answers at least one part.
pub(super) fn narrowest(index_matches: &[IndexMatch]) -> Option<&IndexMatch> {
    index_matches.iter().filter(|index_match| index_match.used != 0).min_by_key(|index_match| index_match.len())
}

/// Matches each index with a conjunction.
pub(super) fn index_matches(table: &Table, parts: &[Conjunct<'_>]) -> Vec<IndexMatch> {
    (0..table.indexes().len()).map(|index| IndexMatch::of(table, index, parts)).collect()
}

/// The rows of a disjunction, `None` unless an index narrows each of its branches.
pub(super) fn union(table: &Table, filter: &Filter) -> Option<SlotSource> {
    let Filter::Any(branches) = filter else { return None };
    let branch = |filter: &Filter| {
        let parts = parts(filter);
        let inner = parts.iter().find_map(|part| union(table, part.filter));
        let matches = index_matches(table, &parts);
        let index_match = narrowest(&matches).map(|index_match| SlotSource::Ranges(index_match.clone()));
        index_match.into_iter().chain(inner).min_by_key(SlotSource::len)
    };
    Some(SlotSource::Any(branches.iter().map(branch).collect::<Option<_>>()?))
}
