//! Circuit breaker with one probe, and a budget for repeated deliveries.
//!
//! Pure: time and chance are arguments. A source has one [`Upstream`] for its reads and deliveries. An `on_write` route
//! has another, because its failures are independent of the source's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::dio::settings::BreakerLimits;
use crate::record::Id;
use crate::vista::{Error, ErrorKind, Result};

/// Maximum delay that a master's `Retry-After` can set.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// State of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests are sent normally.
    Closed,
    /// The upstream failed too often: no requests are sent until the delay is over.
    Open,
    /// The delay is over: one request is sent as a probe.
    HalfOpen,
}

impl BreakerState {
    /// Name of the state in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// Reachability of a source or a write route.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reachability {
    /// State of its circuit breaker.
    pub state: BreakerState,
    /// Time until the next request, while the breaker is open.
    pub retry_in: Option<Duration>,
    /// Last error, while requests fail.
    pub error: Option<String>,
}

/// Requests that the breaker allows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallPermit {
    /// All requests.
    Closed,
    /// One probe.
    Due,
    /// No requests until that instant.
    Resting(Instant),
    /// No requests until the probe under way is answered.
    Probing,
}

/// Meaning of an answer for the breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AnswerKind {
    /// The upstream answered: it carried out the request, or refused it.
    Success,
    /// The upstream is unreachable, busy or slow.
    Failure { retry_after: Option<Duration>, error: String },
    /// The request was not sent.
    NotSent,
}

impl AnswerKind {
    fn of<T>(answer: &Result<T>) -> AnswerKind {
        match answer {
            Err(Error::Closed) => AnswerKind::NotSent,
            Err(error) if error.kind() != ErrorKind::Permanent => {
                AnswerKind::Failure { retry_after: error.retry_after(), error: error.to_string() }
            }
            Ok(_) | Err(_) => AnswerKind::Success,
        }
    }
}

/// State of the breaker with its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Instant },
    Probing,
}

/// Circuit breaker.
#[derive(Debug)]
struct Breaker {
    limits: BreakerLimits,
    phase: Phase,
    failures: u32,
    /// Rows whose failures have counted. A row counts once, so that a row that cannot be written does not block the others.
    rows: Vec<Id>,
    rest: Duration,
    error: Option<String>,
}

impl Breaker {
    fn new(limits: BreakerLimits) -> Breaker {
        Breaker { limits, phase: Phase::Closed, failures: 0, rows: Vec::new(), rest: limits.first, error: None }
    }

    fn permit(&self, now: Instant) -> CallPermit {
        match self.phase {
            Phase::Closed => CallPermit::Closed,
            Phase::Open { until } if until > now => CallPermit::Resting(until),
            Phase::Open { .. } => CallPermit::Due,
            Phase::Probing => CallPermit::Probing,
        }
    }

    fn state(&self, now: Instant) -> BreakerState {
        match self.permit(now) {
            CallPermit::Closed => BreakerState::Closed,
            CallPermit::Resting(_) => BreakerState::Open,
            CallPermit::Due | CallPermit::Probing => BreakerState::HalfOpen,
        }
    }

    /// Records an answer about `row`, `None` if it is about all rows.
    fn record(&mut self, row: Option<&Id>, answer: AnswerKind, now: Instant, chance: f64) {
        match answer {
            AnswerKind::NotSent => {}
            AnswerKind::Success => *self = Breaker::new(self.limits),
            AnswerKind::Failure { retry_after, error } => {
                self.error = Some(error);
                self.count(row);
                let retry_at = retry_after.map(|wait| now + wait.min(LONGEST_RETRY_AFTER));
                match (self.phase, retry_at) {
                    // The request was under way when the breaker opened.
                    (Phase::Open { until }, retry_at) => {
                        self.phase = Phase::Open { until: retry_at.map_or(until, |at| at.max(until)) }
                    }
                    (Phase::Probing, _) => self.open(now, retry_at, chance),
                    (Phase::Closed, Some(_)) => self.open(now, retry_at, chance),
                    (Phase::Closed, None) if self.failures >= self.limits.failures => self.open(now, retry_at, chance),
                    (Phase::Closed, None) => {}
                }
            }
        }
    }

    fn count(&mut self, row: Option<&Id>) {
        let known = row.is_some_and(|row| self.rows.contains(row));
        if !known && self.failures < self.limits.failures {
            self.failures += 1;
            self.rows.extend(row.cloned());
        }
    }

    /// Opens until `retry_at`, else for twice the last delay, with up to 20 % jitter.
    fn open(&mut self, now: Instant, retry_at: Option<Instant>, chance: f64) {
        let rest = self.rest.mul_f64(0.8 + 0.2 * chance.clamp(0.0, 1.0));
        if retry_at.is_none() {
            self.rest = (self.rest * 2).min(self.limits.most.max(self.limits.first));
        }
        self.phase = Phase::Open { until: retry_at.unwrap_or(now + rest) };
    }
}

/// Token bucket of repeated deliveries: one a second, plus one for every five first deliveries, so that a failing master
/// gets probes and not load.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Option<Instant>,
}

impl Budget {
    const MOST: f64 = 10.0;
    const PER_SECOND: f64 = 1.0;
    const PER_FIRST: f64 = 0.2;

    fn earn(&mut self) {
        self.tokens = (self.tokens + Self::PER_FIRST).min(Self::MOST);
    }

    /// Takes a token, or returns when the next one is available.
    fn take(&mut self, now: Instant) -> std::result::Result<(), Instant> {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * Self::PER_SECOND).min(Self::MOST);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(now + Duration::from_secs_f64((1.0 - self.tokens) / Self::PER_SECOND) + Duration::from_millis(1))
    }
}

/// Circuit breaker and retry budget of a master or a write route, shared by all its callers.
#[derive(Debug)]
pub(crate) struct Upstream {
    what: &'static str,
    breaker: Mutex<Breaker>,
    budget: Mutex<Budget>,
    /// Times of the first and the last answer to calls other than deliveries, since the last failure of one.
    other_calls: Mutex<Option<(Instant, Instant)>>,
    /// Number of recoveries.
    returns: AtomicU64,
}

impl Upstream {
    pub(crate) fn new(what: &'static str, limits: BreakerLimits) -> Upstream {
        let budget = Budget { tokens: Budget::MOST, at: None };
        Upstream {
            what,
            breaker: Mutex::new(Breaker::new(limits)),
            budget: Mutex::new(budget),
            other_calls: Mutex::default(),
            returns: AtomicU64::new(0),
        }
    }

    pub(crate) fn permit(&self, now: Instant) -> CallPermit {
        self.breaker.lock().permit(now)
    }

    /// Admits a background request. Returns true if it is the probe, or the time of the next attempt.
    pub(crate) fn admit(&self, now: Instant) -> std::result::Result<bool, Instant> {
        let mut breaker = self.breaker.lock();
        match breaker.permit(now) {
            CallPermit::Closed => Ok(false),
            CallPermit::Due => {
                breaker.phase = Phase::Probing;
                Ok(true)
            }
            CallPermit::Resting(until) => Err(until),
            CallPermit::Probing => Err(now + breaker.limits.first),
        }
    }

    /// Notes that a request has ended. If it was an unanswered probe, another may be sent.
    pub(crate) fn release(&self, probe: bool, now: Instant) {
        let mut breaker = self.breaker.lock();
        if probe && breaker.phase == Phase::Probing {
            breaker.phase = Phase::Open { until: now };
        }
    }

    /// Takes a token for a repeated delivery, or returns when the next one is available. `first` deliveries need none and
    /// earn a part of one.
    pub(crate) fn spend(&self, first: bool, now: Instant) -> std::result::Result<(), Instant> {
        let mut budget = self.budget.lock();
        if first {
            budget.earn();
            return Ok(());
        }
        budget.take(now)
    }

    /// Records an answer and logs a change of state. Returns true if the upstream has recovered.
    pub(crate) fn record<T>(&self, dio: &str, row: Option<&Id>, answer: &Result<T>) -> bool {
        let (now, chance) = (Instant::now(), f64::from(crate::dio::clock::fraction()) / f64::from(u32::MAX));
        let (before, after, error, rest) = {
            let mut breaker = self.breaker.lock();
            let before = breaker.phase;
            breaker.record(row, AnswerKind::of(answer), now, chance);
            let rest = match breaker.phase {
                Phase::Open { until } => until.saturating_duration_since(now),
                Phase::Closed | Phase::Probing => Duration::ZERO,
            };
            (before, breaker.phase, breaker.error.clone(), rest)
        };
        let (what, error) = (self.what, error.unwrap_or_default());
        match (before, after) {
            (Phase::Closed, Phase::Open { .. }) => {
                tracing::warn!(
                    dio,
                    error,
                    rest_ms = rest.as_millis() as u64,
                    "breaker open: the {what} fails and gets no requests"
                );
            }
            (Phase::Probing, Phase::Open { .. }) => {
                tracing::info!(dio, error, rest_ms = rest.as_millis() as u64, "breaker open: the {what} still fails");
            }
            (Phase::Open { .. } | Phase::Probing, Phase::Closed) => {
                tracing::info!(dio, "breaker closed: the {what} is back");
                self.returns.fetch_add(1, Ordering::Release);
                return true;
            }
            (Phase::Closed, Phase::Closed | Phase::Probing)
            | (Phase::Open { .. }, Phase::Open { .. } | Phase::Probing)
            | (Phase::Probing, Phase::Probing) => {}
        }
        false
    }

    /// Records an answer to a call other than a delivery.
    pub(crate) fn note_other<T>(&self, answer: &Result<T>) {
        let now = Instant::now();
        let mut other_calls = self.other_calls.lock();
        match AnswerKind::of(answer) {
            AnswerKind::Success => *other_calls = Some((other_calls.map_or(now, |(first, _)| first), now)),
            AnswerKind::Failure { .. } => *other_calls = None,
            AnswerKind::NotSent => {}
        }
    }

    /// Returns true if all calls other than deliveries were answered for `patience` after `since`.
    pub(crate) fn answers_others(&self, since: Instant, patience: Duration) -> bool {
        self.other_calls.lock().is_some_and(|(first, last)| last >= first.max(since) + patience)
    }

    /// Number of recoveries.
    pub(crate) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// Time of the next request, `None` if one may be sent now.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        match self.permit(Instant::now()) {
            CallPermit::Resting(until) => Some(until),
            CallPermit::Closed | CallPermit::Due | CallPermit::Probing => None,
        }
    }

    /// Last error, while the upstream fails.
    pub(crate) fn error(&self) -> Option<String> {
        self.breaker.lock().error.clone()
    }

    pub(crate) fn reach(&self) -> Reachability {
        let now = Instant::now();
        let breaker = self.breaker.lock();
        let retry_in = match breaker.permit(now) {
            CallPermit::Resting(until) => Some(until.saturating_duration_since(now)),
            CallPermit::Closed | CallPermit::Due | CallPermit::Probing => None,
        };
        Reachability { state: breaker.state(now), retry_in, error: breaker.error.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BreakerLimits =
        BreakerLimits { failures: 3, first: Duration::from_secs(1), most: Duration::from_secs(4) };

    fn failed(retry_after: Option<u64>) -> AnswerKind {
        AnswerKind::Failure { retry_after: retry_after.map(Duration::from_secs), error: "away".into() }
    }

    fn open(at: Instant) -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        (0..3).for_each(|_| breaker.record(None, failed(None), at, 1.0));
        breaker
    }

    #[test]
    fn it_opens_after_the_limit_of_consecutive_failures() {
        let at = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        breaker.record(None, failed(None), at, 1.0);
        breaker.record(None, failed(None), at, 1.0);
        breaker.record(None, AnswerKind::Success, at, 1.0);
        breaker.record(None, failed(None), at, 1.0);
        breaker.record(None, failed(None), at, 1.0);
        assert_eq!(breaker.permit(at), CallPermit::Closed);
        breaker.record(None, failed(None), at, 1.0);
        assert_eq!(breaker.permit(at), CallPermit::Resting(at + LIMITS.first));
        assert_eq!(breaker.state(at), BreakerState::Open);
        assert_eq!(breaker.state(at + LIMITS.first), BreakerState::HalfOpen);
    }

    #[test]
    fn repeated_failures_of_one_row_count_once() {
        let at = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        let (poison, other) = (Id::from("7"), Id::from("8"));
        (0..100).for_each(|_| breaker.record(Some(&poison), failed(None), at, 1.0));
        breaker.record(Some(&other), failed(None), at, 1.0);
        assert_eq!(breaker.permit(at), CallPermit::Closed);
        breaker.record(None, failed(None), at, 1.0);
        assert!(matches!(breaker.permit(at), CallPermit::Resting(_)));
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_start_again_after_an_answer() {
        let mut at = Instant::now();
        let mut breaker = open(at);
        for seconds in [1, 2, 4, 4] {
            assert_eq!(breaker.permit(at), CallPermit::Resting(at + Duration::from_secs(seconds)));
            at += Duration::from_secs(seconds);
            assert_eq!(breaker.permit(at), CallPermit::Due);
            breaker.phase = Phase::Probing;
            breaker.record(None, failed(None), at, 1.0);
        }
        breaker.record(None, AnswerKind::Success, at, 1.0);
        assert_eq!((breaker.permit(at), breaker.rest), (CallPermit::Closed, LIMITS.first));
    }

    #[test]
    fn one_probe_at_a_time_and_another_after_an_unanswered_one() {
        let upstream = Upstream::new("source", BreakerLimits { first: Duration::ZERO, ..LIMITS });
        let away: Result<()> = Err(Error::transient("away"));
        (0..3).for_each(|_| assert!(!upstream.record("dio", None, &away)));
        let now = Instant::now();
        assert_eq!(upstream.admit(now), Ok(true));
        assert!(upstream.admit(now).is_err(), "only one probe");
        upstream.release(false, now);
        assert!(upstream.admit(now).is_err(), "only the probe can be released");
        upstream.release(true, now);
        assert_eq!(upstream.admit(now), Ok(true));
        assert!(!upstream.record("dio", None, &Err::<(), _>(Error::Closed)), "no answer");
        assert!(upstream.record("dio", None, &Err::<(), _>(Error::permanent("no"))), "a refusal is an answer");
        assert_eq!(upstream.admit(now), Ok(false));
    }

    #[test]
    fn a_masters_retry_after_is_respected_up_to_its_maximum() {
        let at = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        breaker.record(None, failed(Some(30)), at, 0.0);
        assert_eq!(breaker.permit(at), CallPermit::Resting(at + Duration::from_secs(30)));
        breaker.record(None, failed(Some(10)), at, 0.0);
        assert_eq!(breaker.permit(at), CallPermit::Resting(at + Duration::from_secs(30)), "never sooner");
        breaker.record(None, failed(Some(86_400)), at, 0.0);
        assert_eq!(breaker.permit(at), CallPermit::Resting(at + LONGEST_RETRY_AFTER));
    }

    #[test]
    fn repeated_deliveries_get_one_token_a_second_and_one_for_five_first_ones() {
        let upstream = Upstream::new("source", LIMITS);
        let now = Instant::now();
        let spent = |now| std::iter::from_fn(|| upstream.spend(false, now).ok()).take(1_000).count();
        assert_eq!(spent(now), 10);
        (0..20).for_each(|_| upstream.spend(true, now).unwrap());
        assert_eq!(spent(now), 4);
        let next = upstream.spend(false, now).unwrap_err();
        assert!(next > now + Duration::from_millis(900) && next < now + Duration::from_millis(1_100));
        assert_eq!(spent(next), 1);
        assert_eq!(spent(next + Duration::from_secs(3_600)), 10, "unused tokens are limited");
    }
}
