//! Position of a feed in a stream, and what the stream's counters say about entries that are missing.
//!
//! A stream has no name of its own, and an entry that was removed leaves no trace but in counters: `entries-added` counts all entries
//! that were ever added. A feed counts the entries that it has read, and the two must agree where it has read all.

use std::sync::Arc;

use super::entry::EntryId;

/// Counters of a stream, as `XINFO STREAM` returns them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Number of entries in the stream.
    pub(super) length: u64,
    /// Number of entries that were ever added.
    pub(super) added: u64,
    /// Id of the first entry; zero if there is none.
    pub(super) first: EntryId,
    /// Highest id that was ever given.
    pub(super) last: EntryId,
}

/// Place in a stream, written `EPOCH;ID;COUNT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// Time, in milliseconds, at which the feed began without a position.
    epoch: i64,
    /// Id of the last entry that was read.
    pub(super) id: EntryId,
    /// Number of entries that were added up to it.
    pub(super) count: u64,
}

/// Entries that a feed has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Nothing, as far as the counters tell.
    Nothing,
    /// Entries that were removed before they were read.
    Entries,
    /// The stream is another one, or has lost entries that were read.
    Stream,
}

impl Position {
    /// Place behind all entries, as of now.
    pub(super) fn at_end(counters: Counters, epoch: i64) -> Position {
        Position { epoch, id: counters.last, count: counters.added }
    }

    pub(super) fn parse(text: &[u8]) -> Option<Position> {
        let mut parts = std::str::from_utf8(text).ok()?.splitn(3, ';');
        let epoch = parts.next()?.parse().ok()?;
        Some(Position { epoch, id: parts.next()?.parse().ok()?, count: parts.next()?.parse().ok()? })
    }

    pub(super) fn write(&self) -> String {
        format!("{};{};{}", self.epoch, self.id, self.count)
    }

    /// Name of the stream as a [log](crate::feed::LogPlace).
    pub(super) fn log(&self) -> Arc<str> {
        format!("redis:{:x}", self.epoch).into()
    }

    /// Number of entries behind this position; `None` if the stream has entries on both sides of it.
    fn behind(&self, counters: Counters) -> Option<u64> {
        match (counters.first > self.id, counters.last <= self.id) {
            (true, _) => Some(counters.length),
            (_, true) => Some(0),
            _ => None,
        }
    }

    /// Compares the position with the stream before anything is read.
    pub(super) fn check(&self, counters: Counters) -> Missed {
        if counters.last < self.id || counters.added < self.count {
            return Missed::Stream;
        }
        match self.behind(counters) {
            Some(behind) if self.count + behind != counters.added => Missed::Entries,
            _ => Missed::Nothing,
        }
    }

    /// Moves behind `entries` entries that were read, up to `last`. All entries were read if `is_all`. The `counters` are of the same
    /// time. Where entries are missing, the count becomes that of the stream.
    pub(super) fn advance(&mut self, entries: u64, last: Option<EntryId>, is_all: bool, counters: Counters) -> Missed {
        if counters.last < self.id || counters.added < self.count + entries {
            return Missed::Stream;
        }
        self.id = last.unwrap_or(self.id);
        self.count += entries;
        let behind = if is_all { Some(0) } else { self.behind(counters) };
        if is_all {
            // The newest entry may have been removed.
            self.id = counters.last;
        }
        match behind.map(|behind| counters.added.saturating_sub(behind)) {
            Some(count) if count < self.count => Missed::Stream,
            Some(count) if count > self.count => {
                self.count = count;
                Missed::Entries
            }
            _ => Missed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A stream in memory.
    #[derive(Clone, Debug, Default)]
    struct Model {
        entries: BTreeMap<u64, ()>,
        added: u64,
        last: u64,
    }

    fn id(number: u64) -> EntryId {
        format!("{number}-0").parse().unwrap()
    }

    impl Model {
        fn add(&mut self) {
            (self.last, self.added) = (self.last + 1, self.added + 1);
            self.entries.insert(self.last, ());
        }

        fn counters(&self) -> Counters {
            let first = self.entries.keys().next().map_or_else(EntryId::default, |first| id(*first));
            Counters { length: self.entries.len() as u64, added: self.added, first, last: id(self.last) }
        }

        /// Entries behind `position`, at most `most`.
        fn read(&self, position: &Position, most: usize) -> Vec<u64> {
            self.entries.keys().copied().filter(|entry| id(*entry) > position.id).take(most).collect()
        }
    }

    /// Reads once as a feed does.
    fn read(model: &Model, position: &mut Position, most: usize) -> (Vec<u64>, Missed) {
        let entries = model.read(position, most);
        let last = entries.last().map(|last| id(*last));
        let missed = position.advance(entries.len() as u64, last, entries.len() < most, model.counters());
        (entries, missed)
    }

    #[test]
    fn positions_are_read_as_they_were_written() {
        let position = Position { epoch: 5, id: id(7), count: 3 };
        assert_eq!(Position::parse(position.write().as_bytes()), Some(position));
        for text in ["", "5", "5;7-0", "5;7;3", "x;7-0;3", "5;7-0;-1", "5;7-0;3;"] {
            assert_eq!(Position::parse(text.as_bytes()), None, "{text}");
        }
    }

    /// A stream made anew gives higher ids: only the counters tell.
    #[test]
    fn a_stream_that_was_made_anew_is_noticed() {
        let mut old = Model::default();
        (0..3).for_each(|_| old.add());
        let position = Position::at_end(old.counters(), 1);
        for added in 1..10 {
            let mut new = Model { last: 100, ..Model::default() };
            (0..added).for_each(|_| new.add());
            let at_start = position.check(new.counters()) != Missed::Nothing;
            let while_reading = read(&new, &mut position.clone(), 100).1 != Missed::Nothing;
            assert!(at_start && while_reading, "{added} entries");
        }
    }

    proptest! {
        /// Over random additions, removals and reads, a feed that has read everything knows exactly whether it has missed an entry.
        #[test]
        fn exactly_the_entries_that_were_removed_too_early_are_missed(
            steps in prop::collection::vec((0u8..4, 1usize..6), 1..60),
        ) {
            let mut model = Model::default();
            let mut position = Position::at_end(model.counters(), 1);
            let (mut seen, mut missed) = (0, 0);
            let mut told = false;
            for (step, size) in steps.into_iter().chain([(3, 1_000)]) {
                match step {
                    0 | 1 => (0..size).for_each(|_| model.add()),
                    // The oldest entries are removed.
                    2 => for _ in 0..size {
                        let Some((entry, ())) = model.entries.pop_first() else { break };
                        missed += u64::from(id(entry) > position.id);
                    },
                    _ => {
                        if position.check(model.counters()) == Missed::Entries {
                            prop_assert!(missed > 0);
                        }
                        let (entries, gap) = read(&model, &mut position, size);
                        prop_assert_ne!(gap, Missed::Stream);
                        seen += entries.len() as u64;
                        told |= gap == Missed::Entries;
                    }
                }
            }
            prop_assert_eq!(told, missed > 0);
            prop_assert_eq!(seen + missed, model.added);
            prop_assert_eq!(position.count, model.added);
        }
    }
}
