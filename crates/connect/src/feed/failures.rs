//! Failed connections in the log.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Time after which the same failure of a connection is logged again.
const FAILURE_REST: Duration = Duration::from_secs(600);
/// Number of different failures that are known at a time.
const MAX_FAILURES: usize = 16;

/// Failures that were logged lately. A cause that stays is logged at intervals, and not at each attempt.
#[derive(Default)]
pub(super) struct Failures(VecDeque<(String, Instant)>);

impl Failures {
    /// Returns true if a failure is to be logged, and notes it.
    pub(super) fn is_new(&mut self, error: &str) -> bool {
        let now = Instant::now();
        self.0.retain(|(_, logged)| now.duration_since(*logged) < FAILURE_REST);
        if self.0.iter().any(|(known, _)| known == error) {
            return false;
        }
        if self.0.len() >= MAX_FAILURES {
            self.0.pop_front();
        }
        self.0.push_back((error.to_string(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_stays_is_logged_at_intervals() {
        let mut failures = Failures::default();
        assert!(failures.is_new("a") && failures.is_new("b"));
        for _ in 0..100 {
            assert!(!failures.is_new("a") && !failures.is_new("b"));
        }
        tokio::time::advance(FAILURE_REST).await;
        assert!(failures.is_new("a"));
        for n in 0..1_000 {
            failures.is_new(&n.to_string());
        }
        assert_eq!(failures.0.len(), MAX_FAILURES);
    }
}
