//! [`Bucket`]: token-bucket rate limiter.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Token-bucket rate limiter of `rate` per second, with bursts of one second's tokens.
#[derive(Debug)]
pub struct Bucket {
    rate: f64,
    level: Mutex<(f64, Option<Instant>)>,
}

impl Bucket {
    /// Full bucket of `rate` tokens per second, at least 1.
    pub fn new(rate: u32) -> Bucket {
        let rate = f64::from(rate.max(1));
        Bucket { rate, level: Mutex::new((rate, None)) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// Time until the next token, if there is none.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut level = self.level.lock();
        let passed = level.1.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let left = (level.0 + passed.as_secs_f64() * self.rate).min(self.rate);
        let enough = left >= 1.0;
        *level = (if enough { left - 1.0 } else { left }, Some(now));
        if enough { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - left) / self.rate) + Duration::from_millis(1)) }
    }
}

#[cfg(test)]
mod tests {
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
}
