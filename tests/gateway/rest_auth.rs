//! Who may call: tokens, hosts, origins; and where the gateway is mounted.

use diorama::gateway::{Auth, Loopback, MountOptions};

use crate::harness::{App, products, rows};

#[tokio::test]
async fn c6_a_token_is_asked_on_every_route_but_health_and_webhooks() {
    let auth = Auth::Tokens(vec!["s3cret".into()]);
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
async fn c6_a_loopback_server_answers_local_names_and_pages_only() {
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
async fn c6_listed_origins_may_call_and_problems_are_readable_by_them() {
    let cors = |gateway: diorama::gateway::Gateway| gateway.cors(vec!["https://shop.example".into()]);
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), cors).await;
    let refused = app.send("GET", "/products/9", &[("Origin", "https://shop.example")], "").await;
    assert_eq!((refused.refusal().0, refused.header("access-control-allow-origin")), (404, "https://shop.example"));
}

#[tokio::test]
async fn c6_links_know_the_base_path() {
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
async fn c6_request_ids_are_kept_if_they_can_be_logged() {
    let app = App::start().await;
    assert_eq!(app.send("GET", "/products", &[("X-Request-Id", "abc-1")], "").await.header("x-request-id"), "abc-1");
    assert_eq!(app.send("GET", "/products", &[("X-Request-Id", "a b")], "").await.header("x-request-id").len(), 16);
}
