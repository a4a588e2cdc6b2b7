//! Rate limits as documented.

use std::time::{Duration, Instant};

use diorama_servers::apis::{Double, GitHub, Limit};
use serde_json::json;

use crate::client::{Ask, Reply};
use crate::kinds::{KINDS, Kind};

const MINUTE: Duration = Duration::from_secs(60);

/// Sends the request until it has this status.
fn until(ask: &Ask, status: u16) -> Reply {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let reply = ask.send();
        if reply.status == status {
            return reply;
        }
        assert!(Instant::now() < end, "{}", reply.text());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn refused_by(api: &Double, ask: &Ask) -> Reply {
    api.set_limit(Limit::new(3, MINUTE));
    for _ in 0..3 {
        ask.send().expect(200);
    }
    let reply = ask.send();
    assert_eq!((api.refused(), api.count()), (1, 4));
    assert_eq!(api.most_within(MINUTE), 4);
    reply
}

#[tokio::test]
async fn requests_beyond_the_limit_are_refused_as_documented() {
    for kind in KINDS {
        let api = kind.start(10).await;
        let reply = refused_by(&api, &kind.first(&api, None));
        let status = if kind == Kind::GitHub { 403 } else { 429 };
        assert_eq!(reply.status, status, "{kind:?}");
        let retry = reply.header("retry-after");
        match kind {
            Kind::GitHub => {
                assert_eq!(
                    (reply.header("x-ratelimit-remaining"), reply.header("x-ratelimit-used"), retry),
                    (Some("0"), Some("3"), None)
                );
                assert!(reply.json()["message"].as_str().unwrap().starts_with("API rate limit exceeded"));
                assert_reset(reply.header("x-ratelimit-reset"));
            }
            Kind::GitLab | Kind::GitLabKeyset => {
                assert_eq!(reply.text(), "Retry later\n");
                assert_eq!(
                    (reply.header("ratelimit-limit"), reply.header("ratelimit-remaining")),
                    (Some("3"), Some("0"))
                );
                assert_reset(reply.header("ratelimit-reset"));
                assert!(reply.header("ratelimit-resettime").unwrap().ends_with(" GMT"));
                assert_eq!(retry, Some("60"));
            }
            Kind::Stripe => {
                assert_eq!((retry, reply.header("stripe-rate-limited-reason")), (None, Some("global-rate")));
                assert_eq!(reply.json()["error"]["code"], "rate_limit");
            }
            Kind::Shopify => {
                assert_eq!((retry, reply.header("x-shopify-shop-api-call-limit")), (Some("2.0"), Some("3/3")));
                assert!(reply.json()["errors"].as_str().unwrap().starts_with("Exceeded 2 calls per second"));
            }
            Kind::Airtable => assert_eq!((retry, &reply.json()["error"]["type"]), (None, &json!("TOO_MANY_REQUESTS"))),
            Kind::Notion => assert_eq!((retry, &reply.json()["code"]), (Some("60"), &json!("rate_limited"))),
            Kind::HubSpot => {
                let body = reply.json();
                assert_eq!(
                    (&body["errorType"], &body["policyName"]),
                    (&json!("RATE_LIMIT"), &json!("TEN_SECONDLY_ROLLING"))
                );
                assert_eq!((retry, reply.header("x-hubspot-ratelimit-remaining")), (None, Some("0")));
            }
            Kind::JsonApi => assert_eq!((retry, &reply.json()["errors"][0]["status"]), (Some("60"), &json!("429"))),
            Kind::OData => assert_eq!((retry, &reply.json()["error"]["code"]), (Some("60"), &json!("TooManyRequests"))),
            Kind::Strapi => assert_eq!((retry, &reply.json()["error"]["name"]), (None, &json!("RateLimitError"))),
        }
    }
}

fn assert_reset(header: Option<&str>) {
    let reset: i64 = header.unwrap().parse().unwrap();
    let now = jiff::Timestamp::now().as_second();
    assert!((now..=now + 61).contains(&reset), "{reset} {now}");
}

#[tokio::test]
async fn the_secondary_limit_of_github_has_retry_after() {
    let api = GitHub::start_secondary(GitHub::rows(3)).await;
    let reply = refused_by(&api, &Kind::GitHub.first(&api, None)).expect(429);
    assert_eq!((reply.header("retry-after"), reply.header("x-ratelimit-remaining")), (Some("60"), Some("4999")));
    assert!(reply.json()["message"].as_str().unwrap().contains("secondary rate limit"));
}

#[tokio::test]
async fn a_client_that_waits_is_served_again() {
    for kind in KINDS {
        let api = kind.start(10).await;
        api.set_penalty(Duration::from_millis(1));
        api.set_limit(Limit::new(2, Duration::from_millis(100)));
        let ask = kind.first(&api, None);
        until(&ask, if kind == Kind::GitHub { 403 } else { 429 });
        until(&ask, 200);
        api.set_limit(None);
        (0..5).for_each(|_| drop(ask.send().expect(200)));
    }
}

#[tokio::test]
async fn the_penalty_of_airtable_lasts_for_thirty_seconds() {
    for kind in KINDS {
        let penalty = (kind == Kind::Airtable).then_some(Duration::from_secs(30));
        assert_eq!(kind.start(1).await.penalty(), penalty, "{kind:?}");
    }
}

#[tokio::test]
async fn an_unchanged_answer_does_not_count() {
    let api = Kind::GitHub.start(3).await;
    api.set_limit(Limit::new(2, MINUTE));
    let ask = Kind::GitHub.first(&api, None);
    let first = ask.send().expect(200);
    let known = ask.with("if-none-match", first.header("etag").unwrap());
    for _ in 0..5 {
        let reply = known.send().expect(304);
        assert_eq!((reply.header("x-ratelimit-remaining"), reply.body.len()), (Some("1"), 0));
    }
    assert!(api.change("2", &json!({"title": "another"})));
    known.send().expect(200);
    known.send().expect(403);
}

#[tokio::test]
async fn searches_of_hubspot_do_not_tell_the_limit() {
    let api = Kind::HubSpot.start(3).await;
    let search = Ask::to(&api, "POST", format!("{}/search", api.list_url())).json(&json!({}));
    assert_eq!(search.send().expect(200).header("x-hubspot-ratelimit-max"), None);
    assert_eq!(Kind::HubSpot.first(&api, None).send().header("x-hubspot-ratelimit-max"), Some("100"));
}
