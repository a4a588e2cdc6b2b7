//! Who may call: tokens, hosts, origins; and where the gateway is mounted.

use diorama::gateway::webhook::Hook;
use diorama::gateway::{Auth, Limits, Loopback, MountOptions};
use diorama::inbound::{self, Key, Scheme};

use crate::harness::{App, products, rows};

#[tokio::test]
async fn a_token_is_asked_on_every_route_but_health_and_webhooks() {
    let auth = Auth::tokens(["s3cret"]);
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), |g| g.auth(auth)).await;
    for path in ["/products", "/products/1", "/readyz", "/metrics", "/operations", "/nothing", "/"] {
        let refused = app.get(path).await;
        assert_eq!(refused.refusal(), (401, "unauthenticated".into()), "{path}");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.send("POST", "/webhooks/x", &[], "").await.refusal().0, 404);
    assert_eq!(app.send("GET", "/products", &[("Authorization", "Bearer s3cret")], "").await.status, 200);
    assert_eq!(app.send("GET", "/products", &[("Authorization", "Bearer s3cre")], "").await.status, 401);
}

#[tokio::test]
async fn a_loopback_server_answers_local_names_and_pages_only() {
    let guard = |gateway: diorama::gateway::Gateway| gateway.guard_host(Some(Loopback::default()));
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), guard).await;
    assert_eq!(
        app.send("GET", "/products", &[("Host", "evil.example")], "").await.refusal(),
        (421, "misdirected-host".into())
    );
    let evil = [("Origin", "http://evil.example"), ("Content-Type", "application/json")];
    assert_eq!(app.send("PATCH", "/products/1", &evil, "{}").await.refusal(), (403, "origin-not-allowed".into()));
    assert_eq!(app.send("GET", "/products", &evil[..1], "").await.refusal(), (403, "origin-not-allowed".into()));
    let local = app.send("GET", "/products", &[("Origin", "http://localhost:3000")], "").await;
    assert_eq!(local.header("access-control-allow-origin"), "http://localhost:3000");
    assert!(local.header("access-control-expose-headers").contains("X-Total-Count"));
    let ask = [("Origin", "http://localhost:3000"), ("Access-Control-Request-Method", "PATCH")];
    let preflight = app.send("OPTIONS", "/products/1", &ask, "").await;
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-methods").contains("PATCH"));
}

#[tokio::test]
async fn listed_origins_may_call_and_problems_are_readable_by_them() {
    let cors = |gateway: diorama::gateway::Gateway| gateway.cors(vec!["https://shop.example".into()]);
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), cors).await;
    let refused = app.send("GET", "/products/9", &[("Origin", "https://shop.example")], "").await;
    assert_eq!((refused.refusal().0, refused.header("access-control-allow-origin")), (404, "https://shop.example"));
}

#[tokio::test]
async fn links_know_the_base_path() {
    let app = App::with(products(), rows(3), |l| l, MountOptions::default(), |g| g.base_path("/api/v1/")).await;
    let page = app.get("/api/v1/products?limit=1").await;
    assert!(page.header("link").contains("</api/v1/products?limit=1&offset=1>; rel=\"next\""), "{page:?}");
    let made = app.json("POST", "/api/v1/products/x", r#"{"name":"x"}"#).await;
    assert_eq!(made.header("location"), "/api/v1/products/x");
    assert_eq!(app.get(made.header("dio-operation")).await.status, 200);
    assert_eq!(app.get("/products").await.refusal().0, 404);
    assert_eq!(app.get("/api/v1/healthz").await.status, 200);
}

#[tokio::test]
async fn request_ids_are_kept_if_they_can_be_logged() {
    let app = App::start().await;
    assert_eq!(app.send("GET", "/products", &[("X-Request-Id", "abc-1")], "").await.header("x-request-id"), "abc-1");
    assert_eq!(app.send("GET", "/products", &[("X-Request-Id", "a b")], "").await.header("x-request-id").len(), 16);
}

type Headers = [(&'static str, &'static str)];

#[tokio::test]
async fn who_fails_to_prove_who_they_are_is_slowed_down_and_who_does_is_not() {
    let key = || vec![Key::plain("s3cr3t").unwrap()];
    let configured = |gateway: diorama::gateway::Gateway| {
        let hook = |name: &str, scheme| Hook::new(name, "products", inbound::Hook::new(scheme));
        let gateway = gateway.limits(Limits { auth_failures: 3, ..Limits::default() });
        let gateway = gateway.auth(Auth::tokens(["s3cret"]));
        let gateway = gateway.try_hook(hook("bearer", Scheme::Bearer(key()))).unwrap();
        let gateway = gateway.try_hook(hook("basic", Scheme::Basic(key()))).unwrap();
        gateway.try_hook(hook("signed", Scheme::Hmac(inbound::Hmac::github(key())))).unwrap()
    };
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), configured).await;
    let socket = [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "diorama.v1+json, bearer.wrong"),
    ];
    let json = ("Content-Type", "application/json");
    let attempts: [(&str, &str, &Headers); 6] = [
        ("GET", "/products", &[]),
        ("GET", "/products", &[("Authorization", "Bearer wrong")]),
        ("GET", "/products/events", &socket),
        ("POST", "/webhooks/bearer", &[json, ("Authorization", "Bearer wrong")]),
        ("POST", "/webhooks/basic", &[json, ("Authorization", "Basic d3Jvbmc6d3Jvbmc=")]),
        ("POST", "/webhooks/signed", &[json, ("X-Hub-Signature-256", "sha256=00")]),
    ];
    let slowed = || async { app.send("GET", "/nothing", &[], "").await.status == 429 };
    for (method, path, headers) in attempts {
        let mut seen = std::collections::BTreeMap::new();
        for _ in 0..30 {
            let refused = app.send(method, path, headers, "{}").await;
            let (status, code) = refused.refusal();
            if status == 429 {
                assert_eq!((code.as_str(), refused.header("retry-after")), ("rate-limited", "1"));
                assert_eq!(refused.header("www-authenticate"), "");
            }
            *seen.entry(status).or_insert(0) += 1;
        }
        assert!(
            seen[&429] >= 10 && seen.keys().all(|status| [401, 429].contains(status)),
            "{path} {headers:?}: {seen:?}"
        );
        while !slowed().await {}
        let own = app.send("GET", "/products", &[("Authorization", "Bearer s3cret")], "").await;
        assert_eq!(own.status, 200, "a valid token passes, whoever fails beside it");
        let delivered = app.send("POST", "/webhooks/bearer", &[json, ("Authorization", "Bearer s3cr3t")], "{}").await;
        assert!(delivered.status < 400 || delivered.status == 422, "{delivered:?}");
    }
    let metrics = app.send("GET", "/metrics", &[("Authorization", "Bearer s3cret")], "").await;
    let count = |status: u16| {
        let start = format!("diorama_auth_failures_total{{status=\"{status}\"}} ");
        metrics.text().lines().find_map(|line| line.strip_prefix(&start)?.parse::<u64>().ok()).unwrap()
    };
    assert!(count(401) >= 3 && count(429) >= 60);
}

#[tokio::test]
async fn an_absolute_url_and_the_host_header_are_judged_as_one() {
    let guard = |gateway: diorama::gateway::Gateway| gateway.guard_host(Some(Loopback::default()));
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), guard).await;
    let ask = async |target: &str, host: &str| app.send("GET", target, &[("Host", host)], "").await;
    for (target, host) in [
        ("http://evil.example/products", "evil.example"),
        ("http://evil.example/products", "localhost"),
        ("http://evil.example:80/", "localhost"),
        ("http://localhost.evil.example/products", "localhost"),
        ("/products", "evil.example"),
        ("/products", ""),
    ] {
        let refused = ask(target, host).await;
        assert_eq!(refused.refusal(), (421, "misdirected-host".into()), "{target} {host}");
    }
    let wins = ask("http://localhost:9/products", "evil.example").await;
    assert_eq!((wins.status, wins.ids().len()), (200, 1), "the URL wins");
    for (target, host) in
        [("http://me@localhost/products", "localhost"), ("/products", "a, b"), ("/products", "me@localhost")]
    {
        assert_eq!(ask(target, host).await.refusal().0, 400, "{target} {host}");
    }
    let page = [("Host", "evil.example"), ("Origin", "http://evil.example"), ("Content-Type", "application/json")];
    let posed = app.send("PATCH", "http://localhost/products/1", &page, "{}").await;
    assert_eq!(
        posed.refusal(),
        (403, "origin-not-allowed".into()),
        "a page is not its own host's by a header that counts for nothing"
    );
}

#[tokio::test]
async fn a_request_has_one_host_header() {
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), |g| g).await;
    for path in ["/products", "/", "/healthz", "/nothing", "/webhooks/x"] {
        let twice = [("Host", "localhost"), ("Host", "localhost")];
        assert_eq!(app.send("GET", path, &twice, "").await.refusal(), (400, "invalid-header".into()), "{path}");
    }
}
