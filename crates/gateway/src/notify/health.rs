//! [`Health`]: when a receiver that fails is left alone.

use std::time::Duration;

use diorama_core::dio::Backoff;

/// Number of failures in a row after which a receiver is left alone.
const MOST_FAILURES: u32 = 5;
/// First and longest pause of a receiver that fails.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// State of a receiver. While it rests nothing is sent; then one message tries it.
#[derive(Debug)]
pub(super) struct Health {
    failures: u32,
    backoff: Backoff,
    /// Unix milliseconds of the end of the rest; `None` while the receiver is well.
    rests_until: Option<u64>,
}

impl Default for Health {
    fn default() -> Health {
        Health { failures: 0, backoff: Backoff::new(PAUSE.0, PAUSE.1), rests_until: None }
    }
}

impl Health {
    /// Returns true if a message may be sent at `now`, while `sending` are under way.
    pub(super) fn may_send(&self, now: u64, sending: usize) -> bool {
        self.rests_until.is_none_or(|until| now >= until && sending == 0)
    }

    /// End of the rest in Unix milliseconds; `None` while the receiver is well.
    pub(super) fn rests_until(&self) -> Option<u64> {
        self.rests_until
    }

    /// Notes a failure. A receiver that names a time is left alone until then.
    pub(super) fn failed(&mut self, now: u64, retry_after: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let pause = (self.failures >= MOST_FAILURES).then(|| self.backoff.rest_jittered());
        if let Some(pause) = pause.max(retry_after) {
            let until = now.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            self.rests_until = self.rests_until.max(Some(until));
        }
    }

    /// Notes a success. Returns true if the receiver was left alone before it.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.backoff.reset();
        self.rests_until.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_fails_is_left_alone_and_then_tried_with_one_message() {
        let mut health = Health::default();
        for _ in 1..MOST_FAILURES {
            health.failed(1_000, None);
            assert!(health.may_send(1_000, 3));
        }
        health.failed(1_000, None);
        assert!(!health.may_send(1_001, 0));
        let until = health.rests_until().unwrap();
        assert!((1_500..=2_000).contains(&until), "{until}");
        assert!(health.may_send(until, 0) && !health.may_send(until, 1));
        health.failed(until, None);
        assert!(health.rests_until().unwrap() >= until + 1_000, "the pause grows");
        assert!(health.succeeded() && !health.succeeded());
        assert!(health.may_send(0, 9));
    }

    #[test]
    fn a_receiver_that_names_a_time_is_left_alone_until_then() {
        let mut health = Health::default();
        health.failed(0, Some(Duration::from_secs(30)));
        assert_eq!(health.rests_until(), Some(30_000));
        health.failed(0, Some(Duration::from_secs(10)));
        assert_eq!(health.rests_until(), Some(30_000), "an earlier message does not shorten it");
    }
}
