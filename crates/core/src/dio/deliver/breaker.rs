//! When a master is left alone: a circuit breaker with one probe, and a budget for repeated deliveries.
//!
//! Pure: time and chance are arguments. A source that others deliver to and this one reads from has one [`Upstream`]; an `on_write`
//! route has another, because what is wrong with it says nothing of the master.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::dio::settings::BreakerLimits;
use crate::record::Id;
use crate::vista::{Error, ErrorKind, Result};

/// The longest time that a master's own `Retry-After` is believed.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How a source is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// It is asked as if nothing had happened.
    Closed,
    /// It failed too often: nothing is asked of it until its rest is over.
    Open,
    /// Its rest is over: one request finds out.
    HalfOpen,
}

impl BreakerState {
    /// The state's name as logs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half-open",
        }
    }
}

/// How a source, or a write route, can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reachability {
    /// Whether it is asked.
    pub state: BreakerState,
    /// Time until it is asked again, if it rests.
    pub retry_in: Option<Duration>,
    /// What it said last, while it fails.
    pub error: Option<String>,
}

/// What may be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallPermit {
    /// Everything.
    Closed,
    /// One probe.
    Due,
    /// Nothing until then.
    Resting(Instant),
    /// Nothing until the probe under way is answered.
    Probing,
}

/// What an answer says of the one who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AnswerKind {
    /// It is there: it did what was asked, or understood and refused.
    Well,
    /// It is away, busy or slow.
    Failed { retry_after: Option<Duration>, said: String },
    /// Nothing: the question did not get there.
    Nothing,
}

impl AnswerKind {
    fn of<T>(answer: &Result<T>) -> AnswerKind {
        match answer {
            Err(Error::Closed) => AnswerKind::Nothing,
            Err(error) if error.kind() != ErrorKind::Permanent => {
                AnswerKind::Failed { retry_after: error.retry_after(), said: error.to_string() }
            }
            Ok(_) | Err(_) => AnswerKind::Well,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Instant },
    Probing,
}

/// The breaker itself.
#[derive(Debug)]
struct Breaker {
    limits: BreakerLimits,
    phase: Phase,
    failures: u32,
    /// Rows whose failures have counted: one that fails again says nothing new of its master, so that a row nobody can write
    /// keeps no other waiting.
    rows: Vec<Id>,
    rest: Duration,
    error: Option<String>,
}

impl Breaker {
    fn new(limits: BreakerLimits) -> Breaker {
        Breaker { limits, phase: Phase::Closed, failures: 0, rows: Vec::new(), rest: limits.first, error: None }
    }

    fn standing(&self, now: Instant) -> CallPermit {
        match self.phase {
            Phase::Closed => CallPermit::Closed,
            Phase::Open { until } if until > now => CallPermit::Resting(until),
            Phase::Open { .. } => CallPermit::Due,
            Phase::Probing => CallPermit::Probing,
        }
    }

    fn state(&self, now: Instant) -> BreakerState {
        match self.standing(now) {
            CallPermit::Closed => BreakerState::Closed,
            CallPermit::Resting(_) => BreakerState::Open,
            CallPermit::Due | CallPermit::Probing => BreakerState::HalfOpen,
        }
    }

    /// Takes note of an answer about `row` (`None`: about all of them).
    fn hear(&mut self, row: Option<&Id>, heard: AnswerKind, now: Instant, chance: f64) {
        match heard {
            AnswerKind::Nothing => {}
            AnswerKind::Well => *self = Breaker::new(self.limits),
            AnswerKind::Failed { retry_after, said } => {
                self.error = Some(said);
                self.count(row);
                let asked = retry_after.map(|wait| now + wait.min(LONGEST_RETRY_AFTER));
                match (self.phase, asked) {
                    // What was under way when it opened.
                    (Phase::Open { until }, asked) => {
                        self.phase = Phase::Open { until: asked.map_or(until, |at| at.max(until)) }
                    }
                    (Phase::Probing, _) => self.open(now, asked, chance),
                    (Phase::Closed, Some(_)) => self.open(now, asked, chance),
                    (Phase::Closed, None) if self.failures >= self.limits.failures => self.open(now, asked, chance),
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

    /// Rests as long as it asked for, else twice as long as the last time; a fifth less at most, lest all come back at once.
    fn open(&mut self, now: Instant, asked: Option<Instant>, chance: f64) {
        let rest = self.rest.mul_f64(0.8 + 0.2 * chance.clamp(0.0, 1.0));
        if asked.is_none() {
            self.rest = (self.rest * 2).min(self.limits.most.max(self.limits.first));
        }
        self.phase = Phase::Open { until: asked.unwrap_or(now + rest) };
    }
}

/// Repeated deliveries: one a second, and one for every five first ones, so that a failing master gets probes and not load.
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

    /// Takes leave for one, or says when to ask again.
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

/// The way to a master or to a write route, shared by all who ask.
#[derive(Debug)]
pub(crate) struct Upstream {
    what: &'static str,
    breaker: Mutex<Breaker>,
    budget: Mutex<Budget>,
    /// The first and the last answer to calls that are no deliveries, since one of them failed.
    others: Mutex<Option<(Instant, Instant)>>,
    /// How often it came back after a rest.
    returns: AtomicU64,
}

impl Upstream {
    pub(crate) fn new(what: &'static str, limits: BreakerLimits) -> Upstream {
        let budget = Budget { tokens: Budget::MOST, at: None };
        Upstream {
            what,
            breaker: Mutex::new(Breaker::new(limits)),
            budget: Mutex::new(budget),
            others: Mutex::default(),
            returns: AtomicU64::new(0),
        }
    }

    pub(crate) fn standing(&self, now: Instant) -> CallPermit {
        self.breaker.lock().standing(now)
    }

    /// Leave for a request that nobody waits for: whether it is the probe, or when to ask again.
    pub(crate) fn admit(&self, now: Instant) -> std::result::Result<bool, Instant> {
        let mut breaker = self.breaker.lock();
        match breaker.standing(now) {
            CallPermit::Closed => Ok(false),
            CallPermit::Due => {
                breaker.phase = Phase::Probing;
                Ok(true)
            }
            CallPermit::Resting(until) => Err(until),
            CallPermit::Probing => Err(now + breaker.limits.first),
        }
    }

    /// A probe has ended without an answer: another may be sent.
    pub(crate) fn release(&self, probe: bool, now: Instant) {
        let mut breaker = self.breaker.lock();
        if probe && breaker.phase == Phase::Probing {
            breaker.phase = Phase::Open { until: now };
        }
    }

    /// Leave for another delivery of something; first ones earn for others.
    pub(crate) fn spend(&self, first: bool, now: Instant) -> std::result::Result<(), Instant> {
        let mut budget = self.budget.lock();
        if first {
            budget.earn();
            return Ok(());
        }
        budget.take(now)
    }

    /// Takes note of an answer; says so if that changes how it is treated, and whether it is back after a rest.
    pub(crate) fn hear<T>(&self, dio: &str, row: Option<&Id>, answer: &Result<T>) -> bool {
        let (now, chance) = (Instant::now(), f64::from(crate::dio::clock::fraction()) / f64::from(u32::MAX));
        let (before, after, error, rest) = {
            let mut breaker = self.breaker.lock();
            let before = breaker.phase;
            breaker.hear(row, AnswerKind::of(answer), now, chance);
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
                    "breaker open: the {what} fails and is left alone"
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

    /// Takes note of an answer to a call that is not a delivery.
    pub(crate) fn note_other<T>(&self, answer: &Result<T>) {
        let now = Instant::now();
        let mut others = self.others.lock();
        match AnswerKind::of(answer) {
            AnswerKind::Well => *others = Some((others.map_or(now, |(first, _)| first), now)),
            AnswerKind::Failed { .. } => *others = None,
            AnswerKind::Nothing => {}
        }
    }

    /// Whether all calls that are no deliveries were answered for `patience` after `since`.
    pub(crate) fn answers_others(&self, since: Instant, patience: Duration) -> bool {
        self.others.lock().is_some_and(|(first, last)| last >= first.max(since) + patience)
    }

    /// How often it came back after a rest.
    pub(crate) fn returns(&self) -> u64 {
        self.returns.load(Ordering::Acquire)
    }

    /// When the next request may go out, if it is not now.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        match self.standing(Instant::now()) {
            CallPermit::Resting(until) => Some(until),
            CallPermit::Closed | CallPermit::Due | CallPermit::Probing => None,
        }
    }

    /// What the source said last, while it fails.
    pub(crate) fn error(&self) -> Option<String> {
        self.breaker.lock().error.clone()
    }

    pub(crate) fn reach(&self) -> Reachability {
        let now = Instant::now();
        let breaker = self.breaker.lock();
        let retry_in = match breaker.standing(now) {
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
        AnswerKind::Failed { retry_after: retry_after.map(Duration::from_secs), said: "away".into() }
    }

    fn open(at: Instant) -> Breaker {
        let mut breaker = Breaker::new(LIMITS);
        (0..3).for_each(|_| breaker.hear(None, failed(None), at, 1.0));
        breaker
    }

    #[test]
    fn it_opens_after_so_many_failures_without_an_answer_between_them() {
        let at = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        breaker.hear(None, failed(None), at, 1.0);
        breaker.hear(None, failed(None), at, 1.0);
        breaker.hear(None, AnswerKind::Well, at, 1.0);
        breaker.hear(None, failed(None), at, 1.0);
        breaker.hear(None, failed(None), at, 1.0);
        assert_eq!(breaker.standing(at), CallPermit::Closed);
        breaker.hear(None, failed(None), at, 1.0);
        assert_eq!(breaker.standing(at), CallPermit::Resting(at + LIMITS.first));
        assert_eq!(breaker.state(at), BreakerState::Open);
        assert_eq!(breaker.state(at + LIMITS.first), BreakerState::HalfOpen);
    }

    #[test]
    fn a_row_that_fails_again_says_nothing_new_of_its_master() {
        let at = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        let (poison, other) = (Id::from("7"), Id::from("8"));
        (0..100).for_each(|_| breaker.hear(Some(&poison), failed(None), at, 1.0));
        breaker.hear(Some(&other), failed(None), at, 1.0);
        assert_eq!(breaker.standing(at), CallPermit::Closed);
        breaker.hear(None, failed(None), at, 1.0);
        assert!(matches!(breaker.standing(at), CallPermit::Resting(_)));
    }

    #[test]
    fn rests_double_up_to_the_longest_and_begin_anew_after_an_answer() {
        let mut at = Instant::now();
        let mut breaker = open(at);
        for seconds in [1, 2, 4, 4] {
            assert_eq!(breaker.standing(at), CallPermit::Resting(at + Duration::from_secs(seconds)));
            at += Duration::from_secs(seconds);
            assert_eq!(breaker.standing(at), CallPermit::Due);
            breaker.phase = Phase::Probing;
            breaker.hear(None, failed(None), at, 1.0);
        }
        breaker.hear(None, AnswerKind::Well, at, 1.0);
        assert_eq!((breaker.standing(at), breaker.rest), (CallPermit::Closed, LIMITS.first));
    }

    #[test]
    fn one_probe_at_a_time_and_another_if_it_was_never_answered() {
        let line = Upstream::new("source", BreakerLimits { first: Duration::ZERO, ..LIMITS });
        let away: Result<()> = Err(Error::transient("away"));
        (0..3).for_each(|_| assert!(!line.hear("dio", None, &away)));
        let now = Instant::now();
        assert_eq!(line.admit(now), Ok(true));
        assert!(line.admit(now).is_err(), "one");
        line.release(false, now);
        assert!(line.admit(now).is_err(), "somebody else has nothing to give back");
        line.release(true, now);
        assert_eq!(line.admit(now), Ok(true));
        assert!(!line.hear("dio", None, &Err::<(), _>(Error::Closed)), "no answer");
        assert!(line.hear("dio", None, &Err::<(), _>(Error::permanent("no"))), "who refuses is there");
        assert_eq!(line.admit(now), Ok(false));
    }

    #[test]
    fn a_master_that_says_when_to_come_back_is_left_alone_until_then() {
        let at = Instant::now();
        let mut breaker = Breaker::new(LIMITS);
        breaker.hear(None, failed(Some(30)), at, 0.0);
        assert_eq!(breaker.standing(at), CallPermit::Resting(at + Duration::from_secs(30)));
        breaker.hear(None, failed(Some(10)), at, 0.0);
        assert_eq!(breaker.standing(at), CallPermit::Resting(at + Duration::from_secs(30)), "never sooner");
        breaker.hear(None, failed(Some(86_400)), at, 0.0);
        assert_eq!(breaker.standing(at), CallPermit::Resting(at + LONGEST_RETRY_AFTER));
    }

    #[test]
    fn repeated_deliveries_are_one_a_second_and_a_fifth_of_the_first_ones() {
        let line = Upstream::new("source", LIMITS);
        let now = Instant::now();
        let spent = |now| std::iter::from_fn(|| line.spend(false, now).ok()).take(1_000).count();
        assert_eq!(spent(now), 10);
        (0..20).for_each(|_| line.spend(true, now).unwrap());
        assert_eq!(spent(now), 4);
        let next = line.spend(false, now).unwrap_err();
        assert!(next > now + Duration::from_millis(900) && next < now + Duration::from_millis(1_100));
        assert_eq!(spent(next), 1);
        assert_eq!(spent(next + Duration::from_secs(3_600)), 10, "what is not used is not kept for ever");
    }
}
