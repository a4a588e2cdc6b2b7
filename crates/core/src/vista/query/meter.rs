//! Limits of one query: its time, and the memory of its groups and sort keys.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::vista::{Error, Result};

/// Number of rows between two checks of the limits.
const ROWS_PER_CHECK: u32 = 64;

/// The limits of one query and its use of them so far.
///
/// Loops over rows pass them through [`Meter::rows`], which ends early once a limit is reached or the query is cancelled. So the
/// caller of such a loop must call [`Meter::check`] before it uses the result.
#[derive(Debug)]
pub struct Meter {
    until: Option<(Instant, Duration)>,
    memory: usize,
    used: AtomicUsize,
    /// True once the query is cancelled, because its caller no longer waits for the answer.
    cancelled: AtomicBool,
    background: bool,
}

impl Meter {
    /// A meter without limits.
    pub fn unbounded() -> Meter {
        Meter {
            until: None,
            memory: usize::MAX,
            used: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            background: false,
        }
    }

    /// A meter without limits for background work, which yields to queries.
    pub fn background() -> Meter {
        Meter { background: true, ..Meter::unbounded() }
    }

    /// A meter that allows `time` from now on, and `memory` bytes.
    pub fn new(time: Duration, memory: usize) -> Meter {
        let until = Instant::now().checked_add(time).map(|until| (until, time));
        Meter { until, memory, ..Meter::unbounded() }
    }

    /// True for background work, which yields to queries.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// Deadline, `None` if there is no time limit.
    pub fn until(&self) -> Option<Instant> {
        self.until.map(|(until, _)| until)
    }

    /// Cancels the query.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Adds `bytes` to the memory used by the query.
    pub fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Checks all limits.
    ///
    /// # Errors
    /// [`Error::QueryTime`] after the deadline or [`Meter::cancel`], [`Error::QueryMemory`] above the memory limit.
    pub fn check(&self) -> Result<()> {
        if self.used.load(Ordering::Relaxed) > self.memory {
            return Err(Error::QueryMemory { limit: self.memory });
        }
        let over = self.until.is_some_and(|(until, _)| Instant::now() > until);
        if over || self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::QueryTime { limit: self.until.map(|(_, time)| time).unwrap_or_default() });
        }
        Ok(())
    }

    /// Iterates over `rows` until a limit is reached.
    pub fn rows<I: Iterator>(&self, rows: I) -> Rows<'_, I> {
        Rows { meter: self, left: ROWS_PER_CHECK, rows }
    }

    /// Sorts a possibly large slice; stops early, unsorted, once a limit is reached.
    pub fn sort<T: Ord>(&self, items: &mut [T]) {
        /// Number of items sorted between two checks of the limits.
        const ITEMS: usize = 32 << 10;
        for run in items.chunks_mut(ITEMS) {
            if self.check().is_err() {
                return;
            }
            run.sort_unstable();
        }
        // The stable sort detects the sorted runs and only merges them.
        items.sort();
    }
}

/// An iterator that ends early when a limit of its [`Meter`] is reached.
#[derive(Debug)]
pub struct Rows<'a, I> {
    meter: &'a Meter,
    left: u32,
    rows: I,
}

impl<I: Iterator> Iterator for Rows<'_, I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        self.left -= 1;
        if self.left == 0 {
            if self.meter.check().is_err() {
                self.left = 1;
                return None;
            }
            self.left = ROWS_PER_CHECK;
        }
        self.rows.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_end_at_the_deadline_and_the_check_fails() {
        let meter = Meter::new(Duration::from_millis(1), usize::MAX);
        let seen = meter.rows(0_u64..).count();
        assert!(seen > 0 && matches!(meter.check(), Err(Error::QueryTime { .. })));
        assert!(meter.rows(0..100).count() < 100);
    }

    #[test]
    fn a_cancelled_query_ends() {
        let meter = Meter::new(Duration::from_secs(3_600), usize::MAX);
        meter.cancel();
        assert!(meter.rows(0_u64..).count() < 100 && meter.check().is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let meter = Meter::new(Duration::from_secs(3_600), 100);
        meter.charge(100);
        assert!(meter.check().is_ok());
        meter.charge(1);
        assert!(matches!(meter.check(), Err(Error::QueryMemory { limit: 100 })));
    }

    #[test]
    fn an_unbounded_meter_yields_all_rows_in_order() {
        let meter = Meter::unbounded();
        assert!(meter.rows(0..100_000).eq(0..100_000));
        let mut items: Vec<u64> = (0..100_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let mut sorted = items.clone();
        sorted.sort_unstable();
        meter.sort(&mut items);
        assert_eq!(items, sorted);
    }
}
