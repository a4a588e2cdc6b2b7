//! Limits of each principal and each address: requests and writes in a time, open sockets, live queries, bytes of exports.
//!
//! A request looks at no more than two limits, the first that fits its role for principals and the first for addresses. It is refused
//! before its body and query are read. Anonymous callers count by address in both. The state of callers is bounded ([`Recent`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::header::{HeaderMap, HeaderName};
use axum::http::{Extensions, Method};
use tokio::time::Instant;

use crate::access::Principal;
use crate::http::budget::{Budget, BudgetError, Budgets, Caller, Holder, Lease};
use crate::http::problem::{ApiError, Code};
use crate::http::recent::Recent;
use crate::http::response;
use crate::http::route::Route;
use diorama_core::dio::Bucket;

/// Remaining quota of the caller (draft-ietf-httpapi-ratelimit-headers).
pub(crate) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Quotas of the caller.
pub(crate) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Maximum number of callers that one limit distinguishes. All others share one quota.
const MOST: usize = 100_000;

/// Amount in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Number of requests or bytes, at least 1.
    pub amount: u64,
    /// Time, more than zero.
    pub period: Duration,
}

impl Rate {
    fn per_second(self) -> f64 {
        self.amount as f64 / self.period.as_secs_f64()
    }

    /// Describes the rate of things called `unit`, which begins with a space, or is empty.
    fn describe(self, unit: &str) -> String {
        match self.period.as_secs() {
            1 => format!("{}{unit} per second", self.amount),
            60 => format!("{}{unit} per minute", self.amount),
            3_600 => format!("{}{unit} per hour", self.amount),
            seconds => format!("{}{unit} in {seconds} s", self.amount),
        }
    }
}

/// Callers that share a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateSubject {
    /// Each principal, from all of its addresses. Anonymous callers count by address.
    Principal,
    /// Each address, for all of its principals. An IPv6 address counts as its /64 network.
    Address,
}

impl RateSubject {
    /// Word in configurations, messages and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            RateSubject::Principal => "principal",
            RateSubject::Address => "address",
        }
    }
}

/// Limit of the callers of a role. Of the limits for principals, and of those for addresses, the first that fits the role applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Role of the callers; `None` for every role.
    pub role: Option<String>,
    /// Callers that share the limit.
    pub per: RateSubject,
    /// Rate of requests, with WebSocket commands.
    pub requests: Option<Rate>,
    /// Number of requests without a pause (default: the amount of `requests`).
    pub burst: Option<u64>,
    /// Rate of requests that write rows.
    pub writes: Option<Rate>,
    /// Maximum number of open event sockets and streams.
    pub sockets: Option<usize>,
    /// Maximum number of distinct live queries and filters of subscribers.
    pub live_queries: Option<usize>,
    /// Rate of bytes of lists in pieces. An export that has begun is sent to its end, and the next one waits.
    pub export: Option<Rate>,
}

impl RateLimit {
    /// Creates a limit without quotas.
    pub fn new(role: Option<String>, per: RateSubject) -> RateLimit {
        RateLimit {
            role,
            per,
            requests: None,
            burst: None,
            writes: None,
            sockets: None,
            live_queries: None,
            export: None,
        }
    }
}

/// Kind of a request, as limits count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Request,
    Write,
}

impl Counted {
    /// Returns what a request to `route` counts as; `None` if it is not limited: health checks and static files are needed when
    /// nothing else is, and webhooks have a rate of their own.
    pub(crate) fn of(route: Route, method: &Method) -> Option<Counted> {
        match route {
            Route::Live | Route::Ready | Route::Asset | Route::Hook => None,
            Route::Rows | Route::Row if !method.is_safe() && method.as_str() != "QUERY" => Some(Counted::Write),
            _ => Some(Counted::Request),
        }
    }
}

/// Amount that callers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Sockets,
    LiveQueries,
}

/// Kinds of limits, as in metrics.
const KINDS: [&str; 5] = ["requests", "writes", "sockets", "live_queries", "export"];
const REQUESTS: usize = 0;
const WRITES: usize = 1;
const SOCKETS: usize = 2;
const LIVE_QUERIES: usize = 3;
const EXPORT: usize = 4;

/// Limits of principals and addresses, with the state of their callers.
#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    rules: Vec<Rule>,
}

/// One limit with the state of its callers.
#[derive(Debug)]
struct Rule {
    limit: RateLimit,
    callers: Recent<Holder, Buckets>,
    sockets: Option<Arc<Budget>>,
    live_queries: Option<Arc<Budget>>,
    /// `RateLimit-Policy` of requests, and of writes.
    policies: [String; 2],
    limited: [AtomicU64; KINDS.len()],
}

/// Buckets of one caller.
#[derive(Debug)]
struct Buckets {
    requests: Option<Bucket>,
    writes: Option<Bucket>,
    export: Option<Bucket>,
}

/// Quota of a caller after a request, and the verdict on it.
#[derive(Debug)]
pub(crate) struct Quota {
    policy: String,
    state: String,
    verdict: Result<(), ApiError>,
}

impl Quota {
    /// Returns the verdict on the request, once.
    ///
    /// # Errors
    /// 429 if a quota is used up.
    pub(crate) fn verdict(&mut self) -> Result<(), ApiError> {
        std::mem::replace(&mut self.verdict, Ok(()))
    }

    /// Adds the headers of the quota to an answer.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(RATE_LIMIT_POLICY, response::text(self.policy.clone()));
        headers.insert(RATE_LIMIT, response::text(self.state.clone()));
    }
}

impl RateLimits {
    pub(crate) fn new(limits: &[RateLimit]) -> RateLimits {
        RateLimits { rules: limits.iter().cloned().map(Rule::new).collect() }
    }

    /// Takes a request to `route` from the quotas of the caller. `None` if it has none.
    pub(crate) fn admit(
        &self,
        principal: &Principal,
        extensions: &Extensions,
        route: Route,
        method: &Method,
    ) -> Option<Quota> {
        if self.rules.is_empty() {
            return None;
        }
        self.take(principal, Caller::of(extensions), Counted::of(route, method)?)
    }

    /// Takes a request from the quotas of the caller. `None` if it has none.
    pub(crate) fn take(&self, principal: &Principal, caller: Caller, counted: Counted) -> Option<Quota> {
        let now = Instant::now();
        let quotas = self.of(principal, caller).filter_map(|(rule, holder)| rule.take(&holder, counted, now));
        quotas.reduce(|mut one, other| {
            one.policy = one.policy + ", " + &other.policy;
            one.state = one.state + ", " + &other.state;
            one.verdict = one.verdict.and(other.verdict);
            one
        })
    }

    /// Takes one of an amount that callers hold, from each limit of the caller.
    ///
    /// # Errors
    /// [`BudgetError::Limit`].
    pub(crate) fn lease(
        &self,
        amount: Amount,
        principal: &Principal,
        caller: Caller,
    ) -> Result<Vec<Lease>, BudgetError> {
        self.of(principal, caller).filter_map(|(rule, holder)| rule.lease(amount, holder)).collect()
    }

    /// Returns the numbers of refusals, by limit and by subject.
    pub(crate) fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let subjects = [RateSubject::Principal, RateSubject::Address];
        let each =
            subjects.into_iter().flat_map(|per| KINDS.iter().enumerate().map(move |(kind, name)| (per, kind, *name)));
        let count = |per, kind: usize| {
            let own = self.rules.iter().filter(|rule| rule.limit.per == per);
            own.map(|rule| rule.limited[kind].load(Ordering::Relaxed)).sum()
        };
        each.map(|(per, kind, name)| (name, per.as_str(), count(per, kind))).collect()
    }

    /// Returns the limits of the caller, at most one for each subject, with the name under which it counts.
    fn of(&self, principal: &Principal, caller: Caller) -> impl Iterator<Item = (&Rule, Holder)> {
        let role = principal.role();
        let first = |per| {
            let fits = |rule: &&Rule| rule.limit.per == per && rule.limit.role.as_deref().is_none_or(|own| own == role);
            self.rules.iter().find(fits)
        };
        let holder = || principal.name().map_or(Holder::Address(caller), |name| Holder::Principal(Arc::clone(name)));
        let by_principal = first(RateSubject::Principal).map(|rule| (rule, holder()));
        let by_address = first(RateSubject::Address).map(|rule| (rule, Holder::Address(caller)));
        by_principal.into_iter().chain(by_address)
    }

    #[cfg(test)]
    fn known(&self) -> usize {
        self.rules.iter().map(|rule| rule.callers.len()).sum()
    }
}

impl Rule {
    fn new(limit: RateLimit) -> Rule {
        Rule::with_most(limit, MOST)
    }

    fn with_most(limit: RateLimit, most: usize) -> Rule {
        let whose = limit.per.as_str();
        let budget = |name, key, share: Option<usize>| share.map(|share| Budget::new(name, key, usize::MAX, share));
        let rests = quotas(&limit).into_iter().flatten().map(|(rate, burst)| Bucket::longest_rest(rate, burst));
        let rest = rests.max().unwrap_or(Duration::from_secs(1));
        let policy = |name: &str, quota: Option<(f64, f64)>| {
            quota.map(|(rate, burst)| format!("\"{whose}-{name}\";q={burst};w={}", (burst / rate).ceil()))
        };
        let [requests, writes, _] = quotas(&limit);
        let requests = policy("requests", requests);
        let both = [requests.clone(), policy("writes", writes)].into_iter().flatten().collect::<Vec<_>>();
        Rule {
            callers: Recent::new(most, rest, Buckets::new(&limit)),
            sockets: budget("event sockets and streams", "sockets", limit.sockets),
            live_queries: budget("live queries", "live_queries", limit.live_queries),
            policies: [requests.unwrap_or_default(), both.join(", ")],
            limited: Default::default(),
            limit,
        }
    }

    fn take(&self, holder: &Holder, counted: Counted, now: Instant) -> Option<Quota> {
        let policy = match counted {
            Counted::Request => &self.policies[0],
            Counted::Write => &self.policies[1],
        };
        if policy.is_empty() {
            return None;
        }
        let made = || Buckets::new(&self.limit);
        let (state, refused) =
            self.callers.with(holder, now, made, |buckets| buckets.take(counted, self.limit.per, now));
        let verdict = match refused {
            None => Ok(()),
            Some((kind, wait)) => Err(self.refusal(kind, wait)),
        };
        Some(Quota { policy: policy.clone(), state, verdict })
    }

    /// Refuses a caller that has used a quota.
    fn refusal(&self, kind: usize, wait: Duration) -> ApiError {
        self.limited[kind].fetch_add(1, Ordering::Relaxed);
        let (name, whose) = (KINDS[kind], self.limit.per.as_str());
        let rate = match kind {
            REQUESTS => self.limit.requests,
            WRITES => self.limit.writes,
            _ => self.limit.export,
        };
        let unit = if kind == EXPORT { " bytes" } else { "" };
        let rate = rate.map(|rate| rate.describe(unit)).unwrap_or_default();
        let role = self.limit.role.as_deref().unwrap_or("*");
        let wait = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        ApiError::new(Code::RateLimited, format!("this {whose} has used its limit of {name}: {rate}"))
            .hint(format!(
                "repeat after Retry-After; {name} of the [[limit]] with role = {role:?} and per = {whose:?} sets it"
            ))
            .retry_after(Some(wait))
    }

    fn lease(&self, amount: Amount, holder: Holder) -> Option<Result<Lease, BudgetError>> {
        let (budget, kind) = match amount {
            Amount::Sockets => (self.sockets.as_ref()?, SOCKETS),
            Amount::LiveQueries => (self.live_queries.as_ref()?, LIVE_QUERIES),
        };
        Some(budget.take(holder, 1).map_err(|error| {
            self.limited[kind].fetch_add(1, Ordering::Relaxed);
            match error {
                BudgetError::Share { name, key } => BudgetError::Limit { whose: self.limit.per.as_str(), name, key },
                other => other,
            }
        }))
    }
}

/// Returns rate and burst of requests, writes and bytes of exports.
fn quotas(limit: &RateLimit) -> [Option<(f64, f64)>; 3] {
    let quota = |rate: Option<Rate>, burst: Option<u64>| {
        rate.map(|rate| (rate.per_second(), burst.unwrap_or(rate.amount).max(1) as f64))
    };
    [quota(limit.requests, limit.burst), quota(limit.writes, None), quota(limit.export, None)]
}

impl Buckets {
    fn new(limit: &RateLimit) -> Buckets {
        let [requests, writes, export] = quotas(limit);
        let bucket = |quota: Option<(f64, f64)>| quota.map(|(rate, burst)| Bucket::with_burst(rate, burst));
        Buckets { requests: bucket(requests), writes: bucket(writes), export: bucket(export) }
    }

    /// Takes a request. Returns `RateLimit`, and the kind of a limit that is used up with the time to wait.
    fn take(&self, counted: Counted, per: RateSubject, now: Instant) -> (String, Option<(usize, Duration)>) {
        let writes = self.writes.as_ref().filter(|_| counted == Counted::Write);
        let (mut state, mut refused) = (String::new(), None);
        for (kind, bucket) in [(REQUESTS, self.requests.as_ref()), (WRITES, writes)] {
            let Some(bucket) = bucket else { continue };
            if refused.is_none() {
                refused = bucket.take(now).err().map(|wait| (kind, wait));
            }
            let (left, full) = (bucket.left(now).max(0.0).floor(), bucket.full_in(now).as_secs_f64().ceil());
            let comma = if state.is_empty() { "" } else { ", " };
            state += &format!("{comma}\"{}-{}\";r={left};t={full}", per.as_str(), KINDS[kind]);
        }
        (state, refused)
    }
}

/// Counter of the bytes of an export, for the limits of its caller.
pub(crate) struct ExportMeter {
    budgets: Arc<Budgets>,
    principal: Principal,
    caller: Caller,
    /// True if the caller has such a limit.
    limited: bool,
}

impl ExportMeter {
    /// Begins an export.
    ///
    /// # Errors
    /// 429 if earlier exports of the caller have used its limit.
    pub(crate) fn begin(budgets: Arc<Budgets>, principal: Principal, caller: Caller) -> Result<ExportMeter, ApiError> {
        let (now, mut limited) = (Instant::now(), false);
        for (rule, holder) in budgets.rates.of(&principal, caller).filter(|(rule, _)| rule.limit.export.is_some()) {
            limited = true;
            let taken = rule.callers.with(
                &holder,
                now,
                || Buckets::new(&rule.limit),
                |buckets| buckets.export.as_ref().map_or(Ok(()), |bucket| bucket.take(now)),
            );
            taken.map_err(|wait| rule.refusal(EXPORT, wait))?;
        }
        Ok(ExportMeter { budgets, principal, caller, limited })
    }

    /// Counts bytes that are about to be sent.
    pub(crate) fn count(&self, bytes: usize) {
        if !self.limited {
            return;
        }
        let now = Instant::now();
        for (rule, holder) in self.budgets.rates.of(&self.principal, self.caller) {
            rule.callers.with(
                &holder,
                now,
                || Buckets::new(&rule.limit),
                |buckets| {
                    if let Some(bucket) = &buckets.export {
                        bucket.spend(bytes as f64, now);
                    }
                },
            );
        }
    }
}

#[cfg(test)]
mod tests;
