//! Rate limit of log lines that callers can cause.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time between two lines of one kind.
const EVERY: Duration = Duration::from_secs(5);
/// Kinds that are told apart; more share one line, so that a kind may be made of what callers send.
const MOST: usize = 1_024;

/// Rate limit of log lines: one line of a kind in five seconds.
///
/// Whoever logs asks [`LogLimit::pass`] first, and writes how many lines of that kind were left out since the last one.
#[derive(Debug)]
pub struct LogLimit<K> {
    kinds: Mutex<HashMap<K, Kind>>,
    others: Mutex<Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    last: Option<Instant>,
    left_out: u64,
}

impl Kind {
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

impl<K> Default for LogLimit<K> {
    fn default() -> Self {
        LogLimit { kinds: Mutex::default(), others: Mutex::default() }
    }
}

impl<K: Eq + Hash> LogLimit<K> {
    /// Whether a line of this kind is to be written now: then how many of its kind were left out before it.
    pub fn pass(&self, kind: K) -> Option<u64> {
        self.pass_at(kind, Instant::now())
    }

    fn pass_at(&self, kind: K, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        if kinds.len() >= MOST && !kinds.contains_key(&kind) {
            return self.others.lock().pass(now);
        }
        kinds.entry(kind).or_default().pass(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_passes_in_five_seconds_and_says_how_many_did_not() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.pass_at("a", now), Some(0));
        for _ in 0..1_234 {
            assert_eq!(limit.pass_at("a", now + EVERY / 2), None);
        }
        assert_eq!(limit.pass_at("b", now + EVERY / 2), Some(0), "another kind has a line of its own");
        assert_eq!(limit.pass_at("a", now + EVERY), Some(1_234));
        assert_eq!(limit.pass_at("a", now + EVERY * 2), Some(0));
    }

    #[test]
    fn kinds_are_bounded_however_many_there_are() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        let passed = (0..3 * MOST).filter(|kind| limit.pass_at(*kind, now).is_some()).count();
        assert_eq!((passed, limit.kinds.lock().len()), (MOST + 1, MOST));
    }
}
