//! What one query may take: time, and memory for its groups and for what it sorts by.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::vista::{Error, Result};

/// Rows between two looks at the clock.
const ROWS_PER_LOOK: u32 = 64;

/// The bounds of one query and what it has used of them.
///
/// Loops over rows pass them through [`Meter::rows`], which ends early once the time is up or nobody waits for the answer. So
/// whoever has run such a loop asks [`Meter::check`] before the result is believed.
#[derive(Debug)]
pub struct Meter {
    until: Option<(Instant, Duration)>,
    memory: usize,
    used: AtomicUsize,
    /// Whether nobody waits for the answer any more.
    cancelled: AtomicBool,
    background: bool,
}

impl Meter {
    /// No bounds.
    pub fn unbounded() -> Meter {
        Meter {
            until: None,
            memory: usize::MAX,
            used: AtomicUsize::new(0),
            cancelled: AtomicBool::new(false),
            background: false,
        }
    }

    /// No bounds, for work that nobody waits for: queries go first.
    pub fn background() -> Meter {
        Meter { background: true, ..Meter::unbounded() }
    }

    /// At most `time` from now on, and `memory` bytes.
    pub fn new(time: Duration, memory: usize) -> Meter {
        let until = Instant::now().checked_add(time).map(|until| (until, time));
        Meter { until, memory, ..Meter::unbounded() }
    }

    /// Whether queries go first.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// When the time is up.
    pub fn until(&self) -> Option<Instant> {
        self.until.map(|(until, _)| until)
    }

    /// Gives the query up.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Takes `bytes` of the query's memory.
    pub fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Checks all bounds.
    ///
    /// # Errors
    /// [`Error::QueryTime`] once the time is up or the query was given up, [`Error::QueryMemory`] if it holds too much.
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

    /// `rows` as long as the bounds hold.
    pub fn rows<I: Iterator>(&self, rows: I) -> Rows<'_, I> {
        Rows { meter: self, left: ROWS_PER_LOOK, rows }
    }

    /// Sorts what may be much, within the bounds.
    pub fn sort<T: Ord>(&self, items: &mut [T]) {
        /// Items that are sorted between two looks at the clock.
        const ITEMS: usize = 32 << 10;
        for run in items.chunks_mut(ITEMS) {
            if self.check().is_err() {
                return;
            }
            run.sort_unstable();
        }
        // Runs that are sorted are only merged.
        items.sort();
    }
}

/// An iterator that ends early when a [`Meter`]'s bounds are reached.
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
            self.left = ROWS_PER_LOOK;
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
    fn rows_end_when_the_time_is_up_and_the_check_says_so() {
        let meter = Meter::new(Duration::from_millis(1), usize::MAX);
        let seen = meter.rows(0_u64..).count();
        assert!(seen > 0 && matches!(meter.check(), Err(Error::QueryTime { .. })));
        assert!(meter.rows(0..100).count() < 100);
    }

    #[test]
    fn a_query_that_is_given_up_ends() {
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
    fn without_bounds_all_rows_are_seen_in_order() {
        let meter = Meter::unbounded();
        assert!(meter.rows(0..100_000).eq(0..100_000));
        let mut items: Vec<u64> = (0..100_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let mut sorted = items.clone();
        sorted.sort_unstable();
        meter.sort(&mut items);
        assert_eq!(items, sorted);
    }
}
