//! Place of a feed in the changes of a database: the transactions of the last seconds.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Time for which a change can stay invisible after it got its number.
pub(super) const LATENESS: Duration = Duration::from_secs(5);
/// The same for changes that reads and writes wait for.
pub(super) const USUAL_LATENESS: Duration = Duration::from_millis(250);
/// Maximum number of seen transactions in a position.
const MAX_SEEN: usize = 1_024;
/// First byte of a position.
const FORMAT: u8 = 1;

/// Changes that are applied.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Begin of what is read while every transaction that was seen is remembered: a moment as SurrealQL writes it. Empty afterwards.
    since: String,
    /// Numbers of the last transactions, and when they were first seen.
    seen: BTreeMap<u64, Instant>,
}

impl Place {
    /// Returns a place that begins at a moment, which SurrealQL writes so.
    pub(super) fn since(since: String) -> Place {
        Place { since, seen: BTreeMap::new() }
    }

    /// Returns the number of the newest transaction that was seen.
    pub(super) fn newest(&self) -> Option<u64> {
        self.seen.last_key_value().map(|(newest, _)| *newest)
    }

    /// Returns true if the transaction was seen.
    pub(super) fn has_seen(&self, number: u64) -> bool {
        self.seen.contains_key(&number)
    }

    /// Notes a transaction, and forgets those that are too old to be read again, except for the last one of them.
    pub(super) fn see(&mut self, number: u64) {
        let now = Instant::now();
        self.seen.insert(number, now);
        let is_old = |seen: &Instant| now.duration_since(*seen) > LATENESS;
        while self.seen.len() > MAX_SEEN || self.seen.values().nth(1).is_some_and(is_old) {
            self.seen.pop_first();
            // What is before the others was seen, but is not remembered.
            self.since.clear();
        }
    }

    /// Returns the begin of a round that finds what was late by so much: the last transaction before those that were seen in that
    /// time, because the numbers of late ones may be lower than those of all of them.
    pub(super) fn first(&self, lateness: Duration) -> String {
        let now = Instant::now();
        let is_recent = |seen: &Instant| now.duration_since(*seen) <= lateness;
        let recent = self.seen.iter().find(|(_, seen)| is_recent(seen)).map_or(u64::MAX, |(number, _)| *number);
        let before = self.seen.range(..recent).next_back().or_else(|| self.seen.first_key_value());
        match before {
            Some((number, _)) if *number < recent || self.since.is_empty() => number.to_string(),
            _ => self.since.clone(),
        }
    }

    /// Returns the position for the mark: the numbers, each as the difference to the one before. `None` if there is none.
    pub(super) fn position(&self) -> Option<Bytes> {
        self.seen.last_key_value()?;
        let mut bytes = vec![FORMAT];
        let mut last = 0;
        for number in self.seen.keys() {
            let mut rest = number - last;
            while rest >= 0x80 {
                bytes.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            last = *number;
        }
        Some(bytes.into())
    }

    /// Reads a position; `None` if it is not one.
    pub(super) fn parse(position: &[u8]) -> Option<Place> {
        let (&FORMAT, rest) = position.split_first()? else { return None };
        let now = Instant::now();
        let (mut seen, mut last, mut difference, mut shift) = (BTreeMap::new(), 0_u64, 0_u64, 0_u32);
        for byte in rest {
            difference |= u64::from(byte & 0x7f).checked_shl(shift)?;
            shift += 7;
            if byte & 0x80 == 0 {
                last = last.checked_add(difference)?;
                seen.insert(last, now);
                (difference, shift) = (0, 0);
            }
        }
        (shift == 0 && !seen.is_empty() && seen.len() <= MAX_SEEN).then_some(Place { since: String::new(), seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_keeps_the_last_seconds() {
        let mut place = Place::since("d\"x\"".into());
        assert_eq!((place.first(LATENESS), place.position()), ("d\"x\"".into(), None));
        place.see(100);
        assert_eq!(place.first(LATENESS), "d\"x\"", "what is late may have a lower number than the first");
        tokio::time::advance(Duration::from_secs(9)).await;
        place.see(110);
        assert_eq!(place.first(LATENESS), "100", "what is late may have a lower number than the only recent one");
        tokio::time::advance(Duration::from_secs(4)).await;
        place.see(105);
        place.see(120);
        assert_eq!(place.first(LATENESS), "100");
        assert_eq!(place.first(USUAL_LATENESS), "100");
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(place.first(LATENESS), "100");
        assert_eq!(place.first(USUAL_LATENESS), "120", "the newest one is always read again");
        let numbers = |place: &Place| place.seen.keys().copied().collect::<Vec<_>>();
        place.see(130);
        assert_eq!(numbers(&place), [100, 105, 110, 120, 130]);
        tokio::time::advance(LATENESS * 2).await;
        place.see(140);
        assert_eq!(numbers(&place), [130, 140]);
        for number in 1_000..3_000 {
            place.see(number);
        }
        assert_eq!((place.seen.len(), place.first(LATENESS)), (MAX_SEEN, "1976".into()), "no more than is remembered");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_begins_in_a_crowd_reads_nothing_again() {
        let mut place = Place::since("d\"x\"".into());
        for number in 0..2_000 {
            place.see(number);
        }
        assert_eq!(place.first(LATENESS), (2_000 - MAX_SEEN).to_string());
    }

    #[tokio::test]
    async fn positions_are_read_as_they_were_written() {
        let mut place = Place::since(String::new());
        for number in [0, 1, 127, 128, 117_705_251_738_746_880, 117_705_251_738_746_881, u64::MAX] {
            place.see(number);
        }
        let position = place.position().unwrap();
        assert_eq!(
            Place::parse(&position).unwrap().seen.keys().collect::<Vec<_>>(),
            place.seen.keys().collect::<Vec<_>>()
        );
        for wrong in
            [&b""[..], &[1], &[2, 1], &[1, 0x80], &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            assert!(Place::parse(wrong).is_none(), "{wrong:?}");
        }
        assert!(Place::parse(&position[..position.len() - 1]).is_none());
    }
}
