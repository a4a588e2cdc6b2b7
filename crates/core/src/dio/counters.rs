//! Counters of a Dio: plain atomics, cheap enough to be always on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::state::{OpChange, OpState};

/// Counters of a Dio since it was opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// Operations that were accepted.
    pub accepted: u64,
    /// Operations that the master or the write route accepted.
    pub applied: u64,
    /// Operations that the master refused.
    pub failed: u64,
    /// Operations that were parked. A retry counts as a new accepted operation.
    pub parked: u64,
    /// Operations that were discarded.
    pub discarded: u64,
    /// Published events.
    pub events: u64,
    /// Durations of successful refreshes.
    pub refreshed: Times,
    /// Durations of failed refreshes.
    pub refresh_failed: Times,
    /// End of the last successful refresh, in Unix milliseconds.
    pub last_refresh: Option<u64>,
    /// Durations of appends to the journal with changes of this Dio.
    pub appends: Times,
    /// Failed appends.
    pub append_failures: u64,
}

/// Bucket bounds of all histograms: from a read in memory to the refresh of a very slow master.
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

/// Histogram of durations in fixed buckets. Adding takes no lock.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One bucket per bound, and one for longer durations.
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// Snapshot of a [`Histogram`].
#[derive(Clone, Debug)]
pub struct Times {
    /// Upper bounds, each with the number of durations up to it.
    pub buckets: Vec<(Duration, u64)>,
    /// Number of durations.
    pub count: u64,
    /// Sum of all durations.
    pub total: Duration,
}

impl Histogram {
    /// Adds a duration.
    pub fn add(&self, took: Duration) {
        let at = BOUNDS.iter().position(|bound| took <= *bound).unwrap_or(BOUNDS.len());
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Takes a snapshot.
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

/// Numbers of operations that were accepted or settled, by state. Collected in a turn of the committer and counted once
/// it is durable.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpTransitions([u64; 5]);

impl OpTransitions {
    const ACCEPTED: usize = 0;
    const APPLIED: usize = 1;
    const FAILED: usize = 2;
    const PARKED: usize = 3;
    const DISCARDED: usize = 4;

    /// Index of the counter of `change`. An operation that the write route took counts as applied then, and not again
    /// once the master shows it.
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

/// Atomics behind [`Counters`].
#[derive(Debug)]
pub(super) struct CounterCells {
    transitions: [AtomicU64; 5],
    /// End of the ring when the Dio was opened: replayed events do not count as published.
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
            transitions: Default::default(),
            ring_start,
            refreshed: Histogram::default(),
            refresh_failed: Histogram::default(),
            last_refresh: AtomicU64::new(0),
            appends: Histogram::default(),
            append_failures: AtomicU64::new(0),
        }
    }

    /// Counts the transitions of a durable turn.
    pub(super) fn add_transitions(&self, transitions: OpTransitions) {
        for (total, new) in self.transitions.iter().zip(transitions.0).filter(|(_, new)| *new > 0) {
            total.fetch_add(new, Ordering::Relaxed);
        }
    }

    /// Counts a refresh that ended now.
    pub(super) fn refreshed(&self, success: bool, took: Duration) {
        if success {
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
        let count = |at: usize| self.transitions[at].load(Ordering::Relaxed);
        Counters {
            accepted: count(OpTransitions::ACCEPTED),
            applied: count(OpTransitions::APPLIED),
            failed: count(OpTransitions::FAILED),
            parked: count(OpTransitions::PARKED),
            discarded: count(OpTransitions::DISCARDED),
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
    fn buckets_are_cumulative_and_include_their_bound() {
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
