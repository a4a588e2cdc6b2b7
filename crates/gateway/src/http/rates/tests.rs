//! Tests of the limits of principals and addresses.

use super::*;
use crate::access::{Identity, Verbs};
use diorama_core::record::CborValue;

fn principal(name: &str, role: &str) -> Principal {
    let claims = CborValue::Map(Vec::new());
    let (name, role, verbs) = (name.into(), role.into(), Verbs::ALL);
    Principal::from(Arc::new(Identity { name, role, claims, verbs, unrestricted: false, expires: None }))
}

fn caller(number: u8) -> Caller {
    Caller::new(std::net::IpAddr::from([10, 0, 0, number]))
}

fn per_second(amount: u64) -> Option<Rate> {
    Some(Rate { amount, period: Duration::from_secs(1) })
}

fn limit(role: Option<&str>, per: RateSubject) -> RateLimit {
    RateLimit::new(role.map(str::to_string), per)
}

fn passed(limits: &RateLimits, principal: &Principal, caller: Caller, counted: Counted) -> usize {
    let verdict = || limits.take(principal, caller, counted).map_or(Ok(()), |mut quota| quota.verdict());
    (0..100).filter(|_| verdict().is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn each_principal_has_its_quota_from_all_addresses_and_anonymous_callers_by_address() {
    let limits = RateLimits::new(&[RateLimit {
        requests: per_second(5),
        burst: Some(8),
        ..limit(None, RateSubject::Principal)
    }]);
    let (ann, bob, nobody) = (principal("key:ann", "member"), principal("key:bob", "member"), Principal::anonymous());
    let passed = |who, from| passed(&limits, who, caller(from), Counted::Request);
    assert_eq!((passed(&ann, 1), passed(&ann, 2), passed(&bob, 1)), (8, 0, 8));
    assert_eq!((passed(&nobody, 1), passed(&nobody, 1), passed(&nobody, 2)), (8, 0, 8));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!((passed(&ann, 3), passed(&nobody, 1)), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn the_first_limit_of_the_role_applies_for_principals_and_for_addresses() {
    let limits = RateLimits::new(&[
        limit(Some("admin"), RateSubject::Principal),
        RateLimit { requests: per_second(2), ..limit(Some("guest"), RateSubject::Principal) },
        RateLimit { requests: per_second(5), ..limit(None, RateSubject::Principal) },
        RateLimit { requests: per_second(7), ..limit(None, RateSubject::Address) },
    ]);
    let passed = |role: &str, name: &str, from| passed(&limits, &principal(name, role), caller(from), Counted::Request);
    assert_eq!((passed("guest", "a", 1), passed("member", "b", 2), passed("admin", "c", 3)), (2, 5, 7));
    assert_eq!(
        passed("member", "d", 2),
        0,
        "the first one has used the quota of the address, also with its refused requests"
    );
}

#[tokio::test(start_paused = true)]
async fn writes_have_a_quota_of_their_own_and_count_as_requests() {
    let rule = RateLimit { requests: per_second(10), writes: per_second(3), ..limit(None, RateSubject::Principal) };
    let (limits, ann) = (RateLimits::new(&[rule]), principal("ann", "member"));
    let take = |counted| limits.take(&ann, caller(1), counted).unwrap();
    let mut headers = HeaderMap::new();
    take(Counted::Write).write(&mut headers);
    assert_eq!(headers[RATE_LIMIT_POLICY], "\"principal-requests\";q=10;w=1, \"principal-writes\";q=3;w=1");
    assert_eq!(headers[RATE_LIMIT], "\"principal-requests\";r=9;t=1, \"principal-writes\";r=2;t=1");
    take(Counted::Request).write(&mut headers);
    assert_eq!(headers[RATE_LIMIT_POLICY], "\"principal-requests\";q=10;w=1");
    assert_eq!(headers[RATE_LIMIT], "\"principal-requests\";r=8;t=1");
    assert!(take(Counted::Write).verdict().is_ok() && take(Counted::Write).verdict().is_ok());
    let refused = take(Counted::Write).verdict().unwrap_err();
    assert_eq!(
        (refused.code(), refused.detail()),
        (Code::RateLimited, "this principal has used its limit of writes: 3 per second")
    );
    assert_eq!(limits.counts()[1], ("writes", "principal", 1));
}

#[test]
fn sockets_and_live_queries_are_returned_when_they_end() {
    let rule = RateLimit { sockets: Some(2), live_queries: Some(1), ..limit(None, RateSubject::Principal) };
    let (limits, ann, bob) = (RateLimits::new(&[rule]), principal("ann", "member"), principal("bob", "member"));
    let lease = |amount, who| limits.lease(amount, who, caller(1));
    let held = [lease(Amount::Sockets, &ann).unwrap(), lease(Amount::Sockets, &ann).unwrap()];
    let refused = lease(Amount::Sockets, &ann).unwrap_err();
    assert_eq!(refused.to_string(), "this principal has as many event sockets and streams as its limit permits");
    assert!(lease(Amount::Sockets, &bob).is_ok() && lease(Amount::LiveQueries, &ann).is_ok());
    drop(held);
    assert!(lease(Amount::Sockets, &ann).is_ok());
    assert!(limits.take(&ann, caller(1), Counted::Request).is_none(), "there is no limit of requests");
}

#[tokio::test(start_paused = true)]
async fn an_export_is_sent_to_its_end_and_the_next_one_waits() {
    let rule = RateLimit {
        export: Some(Rate { amount: 6_000, period: Duration::from_secs(60) }),
        ..limit(None, RateSubject::Principal)
    };
    let budgets = Arc::new(Budgets::new(&super::super::limits::Limits::default(), &[rule], 1_000));
    let begin = || ExportMeter::begin(Arc::clone(&budgets), principal("ann", "member"), caller(1));
    let first = begin().unwrap();
    (0..10).for_each(|_| first.count(1_000));
    assert_eq!(begin().err().unwrap().code(), Code::RateLimited);
    tokio::time::advance(Duration::from_secs(39)).await;
    assert!(begin().is_err());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(begin().is_ok());
    assert_eq!(budgets.rates.counts()[EXPORT], ("export", "principal", 2));
}

#[tokio::test(start_paused = true)]
async fn callers_beyond_the_maximum_share_a_quota_and_idle_ones_are_forgotten() {
    let rule = RateLimit { requests: per_second(1), ..limit(None, RateSubject::Principal) };
    let limits = RateLimits { rules: vec![Rule::with_most(rule, 50)] };
    let all = || {
        (0..200).filter(|at| {
            limits.take(&principal(&format!("p{at}"), "m"), caller(1), Counted::Request).unwrap().verdict().is_ok()
        })
    };
    assert_eq!((all().count(), limits.known()), (51, 50));
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(12)).await;
        limits.take(&principal("p1", "m"), caller(1), Counted::Request);
    }
    assert_eq!(limits.known(), 1);
}

#[test]
fn health_files_and_webhooks_are_not_limited_and_only_rows_are_written() {
    assert_eq!(Counted::of(Route::Live, &Method::GET), None);
    assert_eq!(Counted::of(Route::Hook, &Method::POST), None);
    assert_eq!(Counted::of(Route::Rows, &Method::POST), Some(Counted::Write));
    assert_eq!(Counted::of(Route::Row, &Method::GET), Some(Counted::Request));
    let query = Method::from_bytes(b"QUERY").unwrap();
    assert_eq!(Counted::of(Route::Rows, &query), Some(Counted::Request));
    assert_eq!(Counted::of(Route::Query, &Method::POST), Some(Counted::Request));
}
