//! Age and size of a Dio's entries in the journal by position, to decide what to trim. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::journal::Seq;

/// Maximum number of marks. Beyond it, each two become one, and the bounds are kept less exactly.
const MOST: usize = 4_096;

/// Bounds of one Dio's events in the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    pub(crate) age: Duration,
}

impl Bounds {
    /// The bounds plus a tenth. Trimming starts beyond it, because each trim is a transaction of its own.
    pub(crate) fn with_slack(self) -> Bounds {
        Bounds {
            count: self.count.saturating_add((self.count / 10).max(1)),
            bytes: self.bytes.saturating_add(self.bytes / 10),
            age: self.age.saturating_add(self.age / 10),
        }
    }
}

/// End position, time and cumulative size of the entries in the journal.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    marks: VecDeque<Mark>,
    /// Bytes of all entries since the start, trimmed ones included.
    bytes: u64,
    /// Bytes of the trimmed entries.
    trimmed_bytes: u64,
    /// Number of notes that one mark covers.
    grain: u32,
}

/// End of a run of entries.
#[derive(Clone, Copy, Debug)]
struct Mark {
    seq: Seq,
    /// Unix milliseconds.
    at: u64,
    /// Bytes of all entries up to and including `seq`.
    bytes: u64,
    /// Number of notes that the mark covers.
    notes: u32,
}

impl Retention {
    /// Notes that entries up to `seq`, of `bytes` bytes, were written at `at` (Unix milliseconds).
    pub(crate) fn note(&mut self, seq: Seq, at: u64, bytes: usize) {
        self.bytes += bytes as u64;
        let new = Mark { seq, at, bytes: self.bytes, notes: 1 };
        match self.marks.back_mut().filter(|last| last.notes < self.grain) {
            Some(last) => *last = Mark { notes: last.notes + 1, ..new },
            None => self.marks.push_back(new),
        }
        if self.marks.len() > MOST {
            // The later of each two marks covers both.
            self.grain = (self.grain * 2).max(2);
            let mut number = 0;
            let newest = self.marks.len();
            self.marks.retain(|_| {
                number += 1;
                number % 2 == 0 || number == newest
            });
        }
    }

    /// Position before which entries have to be trimmed to keep the rest within `bounds` at `now` (Unix milliseconds).
    pub(crate) fn before(&self, bounds: Bounds, head: Seq, now: u64) -> Seq {
        let age = u64::try_from(bounds.age.as_millis()).unwrap_or(u64::MAX);
        let old = self.marks.iter().take_while(|mark| mark.at < now.saturating_sub(age)).last();
        let heavy = match self.bytes - self.trimmed_bytes > bounds.bytes {
            true => self.marks.iter().find(|mark| self.bytes - mark.bytes <= bounds.bytes),
            false => None,
        };
        let marked = [heavy, old].into_iter().flatten().map(|mark| mark.seq + 1).max();
        head.saturating_sub(bounds.count).max(marked.unwrap_or(0))
    }

    /// Notes that entries before `seq` were trimmed.
    pub(crate) fn trimmed(&mut self, seq: Seq) {
        while let Some(mark) = self.marks.front().copied().filter(|mark| mark.seq < seq) {
            self.trimmed_bytes = mark.bytes;
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Bounds = Bounds { count: 1_000, bytes: 1_000_000, age: Duration::from_secs(1_000) };

    /// Ten entries of 100 bytes, a second apart.
    fn ten() -> Retention {
        let mut retention = Retention::default();
        (1..=10).for_each(|seq| retention.note(seq, seq * 1_000, 100));
        retention
    }

    #[test]
    fn each_bound_applies_alone_and_the_narrowest_decides() {
        let (retention, now) = (ten(), 10_000);
        assert_eq!(retention.before(ALL, 10, now), 0);
        assert_eq!(retention.before(Bounds { count: 4, ..ALL }, 10, now), 6);
        assert_eq!(retention.before(Bounds { bytes: 350, ..ALL }, 10, now), 8, "three are left");
        assert_eq!(retention.before(Bounds { bytes: 50, ..ALL }, 10, now), 11, "none fits");
        assert_eq!(retention.before(Bounds { age: Duration::from_secs(3), ..ALL }, 10, now), 7);
        assert_eq!(retention.before(Bounds { age: Duration::from_secs(3), bytes: 250, ..ALL }, 10, now), 9);
    }

    #[test]
    fn trimmed_entries_do_not_count() {
        let mut retention = ten();
        let bounds = Bounds { bytes: 350, ..ALL };
        retention.trimmed(retention.before(bounds, 10, 0));
        assert_eq!(retention.before(bounds, 10, 0), 0, "the rest fits");
        retention.note(11, 11_000, 100);
        assert_eq!(retention.before(bounds, 11, 0), 9);
    }

    #[test]
    fn merged_marks_keep_the_sum_of_bytes() {
        let mut retention = Retention::default();
        (1..=100_000).for_each(|seq| retention.note(seq, seq, 10));
        assert!(retention.marks.len() <= MOST);
        let before = retention.before(Bounds { bytes: 500_000, count: u64::MAX, age: Duration::MAX }, 100_000, 0);
        assert!((50_001..50_200).contains(&before), "{before}");
    }
}
