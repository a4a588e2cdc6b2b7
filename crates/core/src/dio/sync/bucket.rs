//! [`Bucket`]: token-bucket rate limiter.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Maximum debt of a bucket, in bursts.
const MOST_DEBT: f64 = 10.0;

/// Token-bucket rate limiter: tokens come at a constant rate, up to a burst.
#[derive(Debug)]
pub struct Bucket {
    /// Tokens per second.
    rate: f64,
    burst: f64,
    level: Mutex<(f64, Option<Instant>)>,
}

impl Bucket {
    /// Full bucket of `rate` tokens per second, at least 1, with bursts of one second's tokens.
    pub fn new(rate: u32) -> Bucket {
        let rate = f64::from(rate.max(1));
        Bucket::with_burst(rate, rate)
    }

    /// Full bucket of `rate` tokens per second and bursts of `burst` tokens, at least 1. The rate must be more than 0.
    pub fn with_burst(rate: f64, burst: f64) -> Bucket {
        let burst = burst.max(1.0);
        Bucket { rate, burst, level: Mutex::new((burst, None)) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// Time until the next token, if there is none.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut level = self.level.lock();
        let left = self.level_at(*level, now);
        let enough = left >= 1.0;
        *level = (if enough { left - 1.0 } else { left }, Some(now));
        if enough { Ok(()) } else { Err(self.time_for(1.0 - left)) }
    }

    /// Takes `amount` tokens, more than there are if need be. [`Bucket::take`] then fails until the debt is paid, which is at most ten
    /// bursts.
    pub fn spend(&self, amount: f64, now: Instant) {
        let mut level = self.level.lock();
        let left = (self.level_at(*level, now) - amount).max(-MOST_DEBT * self.burst);
        *level = (left, Some(now));
    }

    /// Returns the time after which every bucket of `rate` and `burst` is full again.
    pub fn longest_rest(rate: f64, burst: f64) -> Duration {
        Duration::try_from_secs_f64((1.0 + MOST_DEBT) * burst.max(1.0) / rate).unwrap_or(Duration::MAX)
    }

    /// Returns the number of tokens, which is negative in debt.
    pub fn left(&self, now: Instant) -> f64 {
        self.level_at(*self.level.lock(), now)
    }

    /// Returns the time until the bucket is full.
    pub fn full_in(&self, now: Instant) -> Duration {
        Duration::try_from_secs_f64((self.burst - self.left(now)) / self.rate).unwrap_or(Duration::MAX)
    }

    fn level_at(&self, (level, at): (f64, Option<Instant>), now: Instant) -> f64 {
        let passed = at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (level + passed.as_secs_f64() * self.rate).min(self.burst)
    }

    fn time_for(&self, tokens: f64) -> Duration {
        let wait = Duration::try_from_secs_f64(tokens / self.rate).unwrap_or(Duration::MAX);
        wait.saturating_add(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tokens_come_at_the_rate_and_a_burst_is_one_second() {
        let (bucket, now) = (Bucket::new(10), Instant::now());
        let taken = |now| std::iter::from_fn(|| bucket.take(now).ok()).take(100).count();
        assert_eq!(taken(now), 10);
        let wait = bucket.take(now).unwrap_err();
        assert!(wait > Duration::from_millis(99) && wait < Duration::from_millis(103));
        assert_eq!(taken(now + wait), 1);
        assert_eq!(taken(now + Duration::from_secs(60)), 10);
    }

    #[test]
    fn a_debt_is_paid_before_the_next_token() {
        let (bucket, now) = (Bucket::with_burst(10.0, 20.0), Instant::now());
        bucket.spend(50.0, now);
        assert_eq!((bucket.left(now), bucket.full_in(now)), (-30.0, Duration::from_secs(5)));
        assert!(bucket.take(now + Duration::from_secs(3)).is_err());
        bucket.take(now + Duration::from_millis(3_200)).unwrap();
        bucket.spend(1e9, now);
        assert_eq!(bucket.full_in(now), Bucket::longest_rest(10.0, 20.0));
    }

    proptest! {
        #[test]
        fn no_window_has_more_tokens_than_the_burst_and_the_rate_permit(
            rate in 1u32..50,
            burst in 1u32..100,
            steps in prop::collection::vec((0u64..400, 0usize..30), 1..60),
        ) {
            let bucket = Bucket::with_burst(f64::from(rate), f64::from(burst));
            let (start, mut at, mut taken) = (Instant::now(), Duration::ZERO, Vec::new());
            for (wait, attempts) in steps {
                at += Duration::from_millis(wait);
                let passed = (0..attempts).filter(|_| bucket.take(start + at).is_ok());
                taken.extend(passed.map(|_| at));
            }
            for (first, begin) in taken.iter().enumerate() {
                for (last, end) in taken.iter().enumerate().skip(first) {
                    let most = f64::from(burst) + f64::from(rate) * (*end - *begin).as_secs_f64();
                    prop_assert!((last - first + 1) as f64 <= most + 1e-6, "{} in {:?}", last - first + 1, *end - *begin);
                }
            }
        }

        #[test]
        fn a_refused_caller_is_served_after_the_time_it_was_told(rate in 1u32..50, burst in 1u32..100, debt in 0u32..500) {
            let (bucket, now) = (Bucket::with_burst(f64::from(rate), f64::from(burst)), Instant::now());
            bucket.spend(f64::from(debt), now);
            if let Err(wait) = bucket.take(now) {
                prop_assert!(bucket.take(now + wait).is_ok());
            }
        }
    }
}
