//! Rate limiter for requests that fail authentication: wrong or missing tokens, passwords and signatures.
//!
//! Each address may fail `auth_failures` times a second. Further failures are answered 429 in place of 401. An authenticated request is
//! never refused, because others may share its address.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::budget::Caller;
use crate::http::problem::{ApiError, Code};
use diorama_core::dio::Bucket;

/// Maximum number of addresses to distinguish within one second. Failures of all others are answered 429.
const MOST: usize = 10_000;
/// Time without a failure after which an address has its whole rate again.
const REST: Duration = Duration::from_secs(1);

/// Rate limiter of failures, by address.
#[derive(Debug)]
pub(crate) struct Failures {
    rate: u32,
    most: usize,
    recent: Mutex<Recent>,
    refused: AtomicU64,
    slowed: AtomicU64,
}

/// Addresses that failed recently, in two generations. An address that is only in the older one when the generations are swapped has not
/// failed for [`REST`], and is forgotten.
#[derive(Debug)]
struct Recent {
    began: Instant,
    young: HashMap<Caller, Bucket>,
    old: HashMap<Caller, Bucket>,
}

impl Default for Failures {
    fn default() -> Failures {
        Failures::new(super::limits::Limits::default().auth_failures)
    }
}

impl Failures {
    /// Creates a rate limiter of `rate` failures a second for each address.
    pub(crate) fn new(rate: u32) -> Failures {
        let recent = Recent { began: Instant::now(), young: HashMap::new(), old: HashMap::new() };
        let recent = Mutex::new(recent);
        Failures { rate, most: MOST, recent, refused: AtomicU64::new(0), slowed: AtomicU64::new(0) }
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
        let mut recent = self.recent.lock();
        if now.saturating_duration_since(recent.began) >= REST {
            recent.began = now;
            recent.old = std::mem::take(&mut recent.young);
        }
        if !recent.young.contains_key(&caller) {
            if recent.young.len() >= self.most {
                return Err(REST);
            }
            let bucket = recent.old.remove(&caller).unwrap_or_else(|| Bucket::new(self.rate));
            recent.young.insert(caller, bucket);
        }
        recent.young.get(&caller).map_or(Ok(()), |bucket| bucket.take(now))
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
        let (mut failures, now) = (Failures::new(1), Instant::now());
        failures.most = 100;
        let passed = |now| (0..1_000).filter(|number| failures.take(caller(*number), now).is_ok()).count();
        assert_eq!(passed(now), 100, "addresses beyond the bound are answered 429");
        assert_eq!(passed(now + REST), 100);
        let size = |failures: &Failures| {
            let recent = failures.recent.lock();
            recent.young.len() + recent.old.len()
        };
        assert!(size(&failures) <= 200);
        for seconds in 2..4 {
            let _ = failures.take(caller(7), now + REST * seconds);
        }
        assert_eq!(size(&failures), 1);
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
