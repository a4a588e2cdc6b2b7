//! What a Dio counts: plain atomics, cheap enough to be always on, read by whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::state::{OpChange, OpState};

/// What a Dio has counted since it was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// Operations that were accepted.
    pub accepted: u64,
    /// Operations that the master or the write route took.
    pub applied: u64,
    /// Operations that the master refused.
    pub failed: u64,
    /// Operations that were given up for now; one that is tried again is accepted anew.
    pub parked: u64,
    /// Operations that were given up for good.
    pub discarded: u64,
    /// Events that subscribers were told of.
    pub events: u64,
    /// Refreshes that went well, and how long they took.
    pub refreshed: Times,
    /// Refreshes that failed, and how long they took.
    pub refresh_failed: Times,
    /// Unix milliseconds of the end of the last refresh that went well.
    pub last_refresh: Option<u64>,
    /// Appends to the journal that carried this Dio's changes, and how long they took.
    pub appends: Times,
    /// Appends that failed.
    pub append_failures: u64,
}

/// The bounds of all histograms: from a read out of memory to the refresh of a very slow master.
const BOUNDS: [Duration; 17] = [
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
];

/// Durations in fixed buckets. Adding one takes no lock.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One per bound, and one for what is longer.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// What a [`Histogram`] holds.
#[derive(Clone, Debug)]
pub struct Times {
    /// Upper bounds, and how many took at most so long.
    pub buckets: Vec<(Duration, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long they took together.
    pub total: Duration,
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&self, took: Duration) {
        let at = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// What it holds now.
    pub fn read(&self) -> Times {
        let mut count = 0;
        let mut upto = |at: usize| {
            count += self.counts[at].load(Ordering::Relaxed);
            count
        };
        let buckets = BOUNDS.iter().enumerate().map(|(at, bound)| (*bound, upto(at))).collect();
        let count = upto(BOUNDS.len());
        Times { buckets, count, total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)) }
    }
}

/// Operations that were accepted or ended, by kind; gathered by a turn of the committer, counted once it is durable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpTransitions([u64; 5]);

impl OpTransitions {
    const ACCEPTED: usize = 0;
    const APPLIED: usize = 1;
    const FAILED: usize = 2;
    const PARKED: usize = 3;
    const DISCARDED: usize = 4;

    /// Where `change` is counted. What the write route took counts as applied then, not again when the master tells of it.
    pub(super) fn of(change: &OpChange) -> Option<usize> {
        Some(match change {
            OpChange::Stage(_) => Self::ACCEPTED,
            OpChange::Settle { state: OpState::Routed | OpState::Applied, .. } => Self::APPLIED,
            OpChange::Settle { state: OpState::Failed, .. } => Self::FAILED,
            OpChange::Settle { state: OpState::Parked, .. } => Self::PARKED,
            OpChange::Settle { state: OpState::Discarded, .. } => Self::DISCARDED,
            OpChange::Settle { state: OpState::Queued, .. }
            | OpChange::None
            | OpChange::Join
            | OpChange::Merge { .. }
            | OpChange::Absorb(_) => {
                return None;
            }
        })
    }

    pub(super) fn add(&mut self, at: Option<usize>) {
        if let Some(count) = at.and_then(|at| self.0.get_mut(at)) {
            *count += 1;
        }
    }
}

/// What [`Counters`] are read from.
#[derive(Debug)]
pub(super) struct CounterCells {
    moves: [AtomicU64; 5],
    /// End of the ring when the Dio was opened: what was replayed into it is nobody's news.
    ring_start: u64,
    refreshed: Histogram,
    refresh_failed: Histogram,
    /// Unix milliseconds, 0 for never.
    last_refresh: AtomicU64,
    pub(super) appends: Histogram,
    append_failures: AtomicU64,
}

impl CounterCells {
    pub(super) fn new(ring_start: u64) -> CounterCells {
        CounterCells {
            moves: Default::default(),
            ring_start,
            refreshed: Histogram::default(),
            refresh_failed: Histogram::default(),
            last_refresh: AtomicU64::new(0),
            appends: Histogram::default(),
            append_failures: AtomicU64::new(0),
        }
    }

    /// Counts what a turn made durable.
    pub(super) fn moved(&self, moves: OpTransitions) {
        for (total, new) in self.moves.iter().zip(moves.0).filter(|(_, new)| *new > 0) {
            total.fetch_add(new, Ordering::Relaxed);
        }
    }

    /// Counts a refresh that ended now.
    pub(super) fn refreshed(&self, well: bool, took: Duration) {
        if well {
            self.refreshed.add(took);
            self.last_refresh.store(crate::dio::clock::now(), Ordering::Relaxed);
        } else {
            self.refresh_failed.add(took);
        }
    }

    pub(super) fn append_failed(&self) {
        self.append_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, ring_end: u64) -> Counters {
        let moved = |at: usize| self.moves[at].load(Ordering::Relaxed);
        Counters {
            accepted: moved(OpTransitions::ACCEPTED),
            applied: moved(OpTransitions::APPLIED),
            failed: moved(OpTransitions::FAILED),
            parked: moved(OpTransitions::PARKED),
            discarded: moved(OpTransitions::DISCARDED),
            events: ring_end.saturating_sub(self.ring_start),
            refreshed: self.refreshed.read(),
            refresh_failed: self.refresh_failed.read(),
            last_refresh: Some(self.last_refresh.load(Ordering::Relaxed)).filter(|at| *at > 0),
            appends: self.appends.read(),
            append_failures: self.append_failures.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_hold_their_bound() {
        assert!(BOUNDS.is_sorted());
        let histogram = Histogram::default();
        for took in [BOUNDS[0], BOUNDS[0] + Duration::from_nanos(1), BOUNDS[16], BOUNDS[16] * 2] {
            histogram.add(took);
        }
        let Times { buckets, count, total } = histogram.read();
        assert_eq!((buckets[0], buckets[1].1, buckets[15].1, buckets[16].1), ((BOUNDS[0], 1), 2, 2, 3));
        assert_eq!((count, total), (4, 2 * BOUNDS[0] + 3 * BOUNDS[16] + Duration::from_nanos(1)));
    }
}
