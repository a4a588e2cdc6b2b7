//! Rate limit of requests that fail to prove who sent them: wrong or missing tokens, passwords and signatures.
//!
//! Each address may fail `auth_failures` times in a second; beyond, it is answered 429 in place of 401. Whoever proves who they
//! are is never refused, because others may share their address.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::budget::Caller;
use crate::http::problem::{ApiError, Code};
use diorama_core::dio::Bucket;

/// Addresses of one second that are told apart; if more fail, all others are told to come again.
const MOST: usize = 10_000;
/// After so long without a failure an address may fail as often as a new one.
const REST: Duration = Duration::from_secs(1);

/// Counts of failures, by address.
#[derive(Debug)]
pub(crate) struct Failures {
    rate: u32,
    most: usize,
    recent: Mutex<Recent>,
    refused: AtomicU64,
    slowed: AtomicU64,
}

/// Addresses that failed lately, in two generations: one that is not in the younger has rested when it becomes the older.
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
    /// Lets each address fail `rate` times in a second.
    pub(crate) fn new(rate: u32) -> Failures {
        let recent = Recent { began: Instant::now(), young: HashMap::new(), old: HashMap::new() };
        let recent = Mutex::new(recent);
        Failures { rate, most: MOST, recent, refused: AtomicU64::new(0), slowed: AtomicU64::new(0) }
    }

    /// What `caller` is answered that was going to be refused with `error`: 429 if that is a failure to prove something, and
    /// not the first of many.
    pub(crate) fn judge(&self, caller: Caller, error: ApiError) -> ApiError {
        if !matches!(error.code(), Code::Unauthenticated | Code::SignatureInvalid) {
            return error;
        }
        let Err(wait) = self.take(caller, Instant::now()) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return error;
        };
        self.slowed.fetch_add(1, Ordering::Relaxed);
        ApiError::new(Code::RateLimited, "too many requests of this address did not prove who sent them")
            .hint("come again after Retry-After with a valid token or signature; server.limits.auth_failures is the bound")
            .retry_after(Some(wait))
    }

    /// How many were answered 401, and how many 429.
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
    fn an_address_may_fail_at_the_rate_and_others_do_not_pay_for_it() {
        let (failures, now) = (Failures::new(10), Instant::now());
        let passed = |caller, now| (0..300).filter(|_| failures.take(caller, now).is_ok()).count();
        assert_eq!(passed(caller(1), now), 10);
        assert_eq!(passed(caller(2), now), 10);
        for later in 1..=20 {
            let count = passed(caller(1), now + Duration::from_millis(500) * later);
            assert_eq!(count, 5, "half a second is good for half, whichever generation the address is in ({later})");
        }
        assert_eq!(passed(caller(1), now + Duration::from_secs(60)), 10);
    }

    #[test]
    fn addresses_are_bounded_and_forgotten() {
        let (mut failures, now) = (Failures::new(1), Instant::now());
        failures.most = 100;
        let passed = |now| (0..1_000).filter(|number| failures.take(caller(*number), now).is_ok()).count();
        assert_eq!(passed(now), 100, "those that cannot be told apart are told to come again");
        assert_eq!(passed(now + REST), 100);
        let held = |failures: &Failures| {
            let recent = failures.recent.lock();
            recent.young.len() + recent.old.len()
        };
        assert!(held(&failures) <= 200);
        for seconds in 2..4 {
            let _ = failures.take(caller(7), now + REST * seconds);
        }
        assert_eq!(held(&failures), 1);
    }

    #[test]
    fn what_is_no_failure_to_prove_something_is_not_counted() {
        let failures = Failures::new(1);
        for code in Code::ALL.iter().filter(|code| code.status() != axum::http::StatusCode::UNAUTHORIZED) {
            let judged = failures.judge(caller(1), ApiError::new(*code, ""));
            assert_eq!(judged.code(), *code);
        }
        let judged = || failures.judge(caller(1), ApiError::new(Code::Unauthenticated, "")).code();
        assert_eq!((judged(), judged()), (Code::Unauthenticated, Code::RateLimited));
        let other = failures.judge(caller(2), ApiError::new(Code::SignatureInvalid, ""));
        assert_eq!(other.code(), Code::SignatureInvalid);
        assert_eq!(failures.counts(), [("401", 2), ("429", 1)]);
    }
}
