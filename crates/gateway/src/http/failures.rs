//! Rate limiter for requests that fail authentication: wrong or missing tokens, passwords and signatures.
//!
//! Each address may fail `auth_failures` times a second. Further failures are answered 429 in place of 401. An authenticated request is
//! never refused, because others may share its address.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::budget::Caller;
use crate::http::problem::{ApiError, Code};
use crate::http::recent::Recent;
use diorama_core::dio::Bucket;

/// Maximum number of addresses to distinguish within one second. All others share one rate.
const MOST: usize = 10_000;
/// Time without a failure after which an address has its whole rate again.
const REST: Duration = Duration::from_secs(1);

/// Rate limiter of failures, by address.
#[derive(Debug)]
pub(crate) struct Failures {
    rate: u32,
    recent: Recent<Caller, Bucket>,
    refused: AtomicU64,
    slowed: AtomicU64,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures::new(super::limits::Limits::default().auth_failures)
    }
}

impl Failures {
    /// Creates a rate limiter of `rate` failures a second for each address.
    pub(crate) fn new(rate: u32) -> Failures {
        Failures::with_most(rate, MOST)
    }

    fn with_most(rate: u32, most: usize) -> Failures {
        let recent = Recent::new(most, REST, Bucket::new(rate));
        Failures { rate, recent, refused: AtomicU64::new(0), slowed: AtomicU64::new(0) }
    }

    /// Returns the refusal for `caller` in place of `error`: 429 if `error` is a failed authentication beyond the rate, else `error`.
    pub(crate) fn limit(&self, caller: Caller, error: ApiError) -> ApiError {
        if !matches!(error.code(), Code::Unauthenticated | Code::SignatureInvalid) {
            return error;
        }
        let Err(wait) = self.take(caller, Instant::now()) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return error;
        };
        self.slowed.fetch_add(1, Ordering::Relaxed);
        ApiError::new(Code::RateLimited, "too many requests from this address failed authentication")
            .hint(
                "repeat after Retry-After with a valid token or signature; server.limits.auth_failures sets the limit",
            )
            .retry_after(Some(wait))
    }

    /// Returns the number of failures that were answered 401, and of those that were answered 429.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 2] {
        [("401", self.refused.load(Ordering::Relaxed)), ("429", self.slowed.load(Ordering::Relaxed))]
    }

    fn take(&self, caller: Caller, now: Instant) -> Result<(), Duration> {
        self.recent.with(&caller, now, || Bucket::new(self.rate), |bucket| bucket.take(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: u32) -> Caller {
        Caller::new(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn each_address_has_its_own_rate_of_failures() {
        let (failures, now) = (Failures::new(10), Instant::now());
        let passed = |caller, now| (0..300).filter(|_| failures.take(caller, now).is_ok()).count();
        assert_eq!(passed(caller(1), now), 10);
        assert_eq!(passed(caller(2), now), 10);
        for later in 1..=20 {
            let count = passed(caller(1), now + Duration::from_millis(500) * later);
            assert_eq!(count, 5, "half a second restores half the rate, in either generation ({later})");
        }
        assert_eq!(passed(caller(1), now + Duration::from_secs(60)), 10);
    }

    #[test]
    fn addresses_are_bounded_and_forgotten() {
        let (failures, now) = (Failures::with_most(1, 100), Instant::now());
        let passed = |now| (0..1_000).filter(|number| failures.take(caller(*number), now).is_ok()).count();
        assert_eq!(passed(now), 101, "addresses beyond the bound share one rate");
        assert_eq!(passed(now + REST), 101);
        assert!(failures.recent.len() <= 200);
        for seconds in 2..4 {
            let _ = failures.take(caller(7), now + REST * seconds);
        }
        assert_eq!(failures.recent.len(), 1);
    }

    #[test]
    fn only_failures_of_authentication_are_counted() {
        let failures = Failures::new(1);
        for code in Code::ALL.iter().filter(|code| code.status() != axum::http::StatusCode::UNAUTHORIZED) {
            let limited = failures.limit(caller(1), ApiError::new(*code, ""));
            assert_eq!(limited.code(), *code);
        }
        let limited = || failures.limit(caller(1), ApiError::new(Code::Unauthenticated, "")).code();
        assert_eq!((limited(), limited()), (Code::Unauthenticated, Code::RateLimited));
        let other = failures.limit(caller(2), ApiError::new(Code::SignatureInvalid, ""));
        assert_eq!(other.code(), Code::SignatureInvalid);
        assert_eq!(failures.counts(), [("401", 2), ("429", 1)]);
    }
}
