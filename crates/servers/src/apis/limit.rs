//! Rate limits.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Number of requests in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Number of requests; of a leaky bucket, its size.
    pub requests: u32,
    /// Span of time; of a leaky bucket, the time in which a full one empties.
    pub window: Duration,
}

impl Limit {
    /// So many requests in each window.
    pub const fn new(requests: u32, window: Duration) -> Limit {
        Limit { requests, window }
    }
}

/// Way in which requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// A window begins with the first request after the last one.
    Fixed,
    /// Any span of time counts.
    Rolling,
    /// Requests fill a bucket that leaks.
    Leaky,
}

/// State of a limit as a request met it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) limit: Limit,
    /// Requests that count now, with this one unless it was refused.
    pub(super) used: u32,
    /// Time until the count is lower, or until a refused client may come again.
    pub(super) wait: Duration,
}

impl Usage {
    pub(super) fn remaining(&self) -> u32 {
        self.limit.requests.saturating_sub(self.used)
    }

    /// Whole seconds to wait, at least one.
    pub(super) fn seconds(&self) -> u64 {
        (self.wait.as_secs() + u64::from(self.wait.subsec_nanos() > 0)).max(1)
    }

    /// Time of the reset in seconds of the epoch, rounded up.
    pub(super) fn reset(&self) -> u64 {
        let time = (SystemTime::now() + self.wait).duration_since(UNIX_EPOCH).unwrap_or_default();
        time.as_secs() + u64::from(time.subsec_nanos() > 0)
    }
}

/// Counts requests, and refuses those beyond the limit once it is enforced.
#[derive(Debug)]
pub(super) struct Limiter {
    pace: Pace,
    limit: Limit,
    enforced: bool,
    /// Time after an excess in which nothing is admitted.
    pub(super) penalty: Option<Duration>,
    barred_until: Option<Instant>,
    /// Times of the requests that count; of a leaky bucket only the latest.
    times: VecDeque<Instant>,
    level: f64,
}

impl Limiter {
    pub(super) fn new(pace: Pace, limit: Limit) -> Limiter {
        let times = VecDeque::new();
        Limiter { pace, limit, enforced: false, penalty: None, barred_until: None, times, level: 0.0 }
    }

    pub(super) fn enforce(&mut self, limit: Limit) {
        *self = Limiter { enforced: true, penalty: self.penalty, ..Limiter::new(self.pace, limit) };
    }

    pub(super) fn lift(&mut self) {
        *self = Limiter { penalty: self.penalty, ..Limiter::new(self.pace, self.limit) };
    }

    /// Counts a request. `Err` if it is beyond the limit.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Usage, Usage> {
        if let Some(barred) = self.barred_until.filter(|until| *until > now) {
            return Err(Usage { limit: self.limit, used: self.limit.requests, wait: barred - now });
        }
        self.barred_until = None;
        self.forget(now);
        let used = self.used();
        if self.enforced && used >= self.limit.requests {
            let mut wait = self.wait(now);
            if let Some(penalty) = self.penalty {
                self.barred_until = Some(now + penalty);
                wait = penalty;
            }
            return Err(Usage { limit: self.limit, used, wait });
        }
        match self.pace {
            Pace::Leaky => {
                self.level += 1.0;
                self.times = VecDeque::from([now]);
            }
            Pace::Fixed | Pace::Rolling => self.times.push_back(now),
        }
        Ok(Usage { limit: self.limit, used: used + 1, wait: self.wait(now) })
    }

    /// Takes the latest request off the count.
    pub(super) fn refund(&mut self) {
        if self.pace != Pace::Leaky {
            self.times.pop_back();
        }
    }

    fn forget(&mut self, now: Instant) {
        match self.pace {
            Pace::Fixed => {
                if self.times.front().is_some_and(|start| now.duration_since(*start) >= self.limit.window) {
                    self.times.clear();
                }
            }
            Pace::Rolling => {
                while self.times.front().is_some_and(|time| now.duration_since(*time) >= self.limit.window) {
                    self.times.pop_front();
                }
            }
            Pace::Leaky => {
                if let Some(last) = self.times.pop_front() {
                    let leaked = now.duration_since(last).as_secs_f64() / self.limit.window.as_secs_f64();
                    self.level = (self.level - leaked * f64::from(self.limit.requests)).max(0.0);
                    self.times.push_front(now);
                }
            }
        }
    }

    fn used(&self) -> u32 {
        match self.pace {
            // A bucket with less room than a whole request is full.
            Pace::Leaky => self.level.ceil() as u32,
            Pace::Fixed | Pace::Rolling => u32::try_from(self.times.len()).unwrap_or(u32::MAX),
        }
    }

    fn wait(&self, now: Instant) -> Duration {
        match self.pace {
            Pace::Leaky => self.limit.window / self.limit.requests.max(1),
            Pace::Fixed | Pace::Rolling => self
                .times
                .front()
                .map_or(self.limit.window, |time| (*time + self.limit.window).saturating_duration_since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Answers of a limit of two in a second to requests at these milliseconds.
    fn admitted(mut limiter: Limiter, times: &[u64]) -> Vec<bool> {
        limiter.enforce(Limit::new(2, SECOND));
        let start = Instant::now();
        times.iter().map(|time| limiter.admit(start + Duration::from_millis(*time)).is_ok()).collect()
    }

    fn limiter(pace: Pace) -> Limiter {
        Limiter::new(pace, Limit::new(9, SECOND))
    }

    #[test]
    fn a_fixed_window_ends_as_a_whole() {
        assert_eq!(
            admitted(limiter(Pace::Fixed), &[0, 900, 950, 1000, 1010, 1020]),
            [true, true, false, true, true, false]
        );
    }

    #[test]
    fn a_rolling_window_forgets_each_request_on_its_own() {
        assert_eq!(
            admitted(limiter(Pace::Rolling), &[0, 900, 950, 1000, 1010, 1900]),
            [true, true, false, true, false, true]
        );
    }

    #[test]
    fn a_leaky_bucket_has_room_again_for_one_request_after_another() {
        let times = [0, 10, 20, 400, 510, 520, 1010, 1020];
        assert_eq!(admitted(limiter(Pace::Leaky), &times), [true, true, false, false, true, false, true, false]);
    }

    #[test]
    fn a_penalty_bars_requests_that_the_limit_would_admit() {
        let limiter = Limiter { penalty: Some(30 * SECOND), ..limiter(Pace::Rolling) };
        let times = [0, 10, 20, 5000, 30_019, 30_020, 30_030, 30_040];
        assert_eq!(admitted(limiter, &times), [true, true, false, false, false, true, true, false]);
    }

    #[test]
    fn a_refund_makes_room() {
        let mut limiter = limiter(Pace::Fixed);
        limiter.enforce(Limit::new(1, SECOND));
        let now = Instant::now();
        let usage = limiter.admit(now).unwrap();
        assert_eq!((usage.used, usage.remaining(), usage.seconds()), (1, 0, 1));
        limiter.admit(now).unwrap_err();
        limiter.refund();
        limiter.admit(now).unwrap();
    }

    #[test]
    fn a_limit_that_is_not_enforced_counts_all_the_same() {
        let (mut limiter, now) = (limiter(Pace::Rolling), Instant::now());
        let used: Vec<_> = (0..12).map(|_| limiter.admit(now).unwrap().used).collect();
        assert_eq!(used, (1..=12).collect::<Vec<_>>());
    }
}
