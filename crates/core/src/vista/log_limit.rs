//! Rate limiter for log lines that callers can cause.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Minimum time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(5);
/// Maximum number of kinds with a limit of their own. Further kinds share one, so that kinds may derive from callers' input.
const MAX_KINDS: usize = 1_024;

/// Rate limiter for log lines: one line of a kind per five seconds.
///
/// Call [`LogLimit::pass`] before logging, and log the number of lines of that kind that it left out since the last one.
#[derive(Debug)]
pub struct LogLimit<K> {
    kinds: Mutex<HashMap<K, Kind>>,
    others: Mutex<Kind>,
}

/// State of one kind of line.
#[derive(Debug, Default)]
struct Kind {
    last: Option<Instant>,
    left_out: u64,
}

impl Kind {
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
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
    /// Number of lines of this kind left out before this one, or `None` if this line is to be left out too.
    pub fn pass(&self, kind: K) -> Option<u64> {
        self.pass_at(kind, Instant::now())
    }

    fn pass_at(&self, kind: K, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock();
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            return self.others.lock().pass(now);
        }
        kinds.entry(kind).or_default().pass(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_passes_per_interval_with_the_number_left_out() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        assert_eq!(limit.pass_at("a", now), Some(0));
        for _ in 0..1_234 {
            assert_eq!(limit.pass_at("a", now + INTERVAL / 2), None);
        }
        assert_eq!(limit.pass_at("b", now + INTERVAL / 2), Some(0), "another kind has a line of its own");
        assert_eq!(limit.pass_at("a", now + INTERVAL), Some(1_234));
        assert_eq!(limit.pass_at("a", now + INTERVAL * 2), Some(0));
    }

    #[test]
    fn the_number_of_tracked_kinds_is_bounded() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        let passed = (0..3 * MAX_KINDS).filter(|kind| limit.pass_at(*kind, now).is_some()).count();
        assert_eq!((passed, limit.kinds.lock().len()), (MAX_KINDS + 1, MAX_KINDS));
    }
}
