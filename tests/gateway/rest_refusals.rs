//! Every refusal is a problem+json with a code, and does nothing.

use diorama::gateway::{Gateway, Limits, MountOptions};
use diorama::{Capabilities, Lens};
use serde_json::json;

use crate::harness::{App, products, rows};

#[tokio::test]
async fn every_path_and_method_that_is_not_there_is_a_problem() {
    let app = App::start().await;
    assert_eq!(app.get("/products/99").await.refusal(), (404, "not-found".into()));
    let typo = app.get("/product").await;
    assert_eq!(typo.refusal(), (404, "dio-not-found".into()));
    assert!(typo.json()["hint"].as_str().unwrap().contains("products"));
    assert_eq!(app.get("/a/b/c/d").await.refusal(), (404, "not-found".into()));
    assert_eq!(app.get("/products/1/").await.refusal(), (404, "not-found".into()));
    assert_eq!(app.get("/operations/op_nope").await.refusal(), (404, "not-found".into()));
    for (method, path, allowed) in [
        ("TRACE", "/products/1", "PUT"),
        ("PUT", "/products", "QUERY"),
        ("GET", "/products/_refresh", "POST"),
        ("POST", "/healthz", "GET"),
    ] {
        let refused = app.send(method, path, &[], "").await;
        assert_eq!(refused.refusal(), (405, "method-not-allowed".into()), "{method} {path}");
        assert!(refused.header("allow").contains(allowed), "{method} {path}: {refused:?}");
    }
    let options = app.send("OPTIONS", "/products/1", &[], "").await;
    assert_eq!((options.status, options.body.len()), (204, 0));
    assert!(options.header("allow").contains("PATCH"), "{options:?}");
}

#[tokio::test]
async fn parameters_that_are_not_understood_are_never_ignored() {
    let app = App::start().await;
    for (query, code) in [
        ("pricee=1", "unknown-column"),
        ("price=gte.abc", "invalid-parameter"),
        ("limit=10001", "limit-too-large"),
        ("limit=-1", "invalid-parameter"),
        ("ofset=1", "unknown-parameter"),
        ("select=nope", "unknown-column"),
        ("order=nope", "unknown-column"),
        ("after=abc", "invalid-parameter"),
    ] {
        let refused = app.get(&format!("/products?{query}")).await;
        assert_eq!(refused.refusal(), (400, code.into()), "{query}");
    }
    assert!(app.get("/products?pricee=1").await.json()["hint"].as_str().unwrap().contains("price"));
    assert_eq!(app.get("/products/1?price=1").await.refusal().0, 400);
}

#[tokio::test]
async fn bodies_that_are_not_rows_are_refused_and_write_nothing() {
    let app = App::start().await;
    let before = app.dio.position();
    for (body, status, code) in [
        ("{", 400, "malformed-body"),
        (r#"{"name":"a","name":"b"}"#, 400, "malformed-body"),
        (r#"{"name":"a"} x"#, 400, "malformed-body"),
        ("1", 422, "validation-failed"),
        (r#"{"price":1}"#, 422, "validation-failed"),
        (r#"{"name":null}"#, 422, "validation-failed"),
        (r#"{"name":"a","price":"x"}"#, 422, "validation-failed"),
        (r#"{"name":"a","price":1.5}"#, 422, "validation-failed"),
        (r#"{"id":1.5,"name":"a"}"#, 422, "validation-failed"),
        (r#"{"id":"events","name":"a"}"#, 409, "reserved-id"),
        (r#"{"id":"_x","name":"a"}"#, 409, "reserved-id"),
    ] {
        assert_eq!(app.json("POST", "/products", body).await.refusal(), (status, code.into()), "{body}");
    }
    let wrong = app.json("POST", "/products", r#"{"name":1,"price":true}"#).await.json();
    assert_eq!(wrong["errors"], json!({ "name": "must be text", "price": "must be a whole number" }));
    let wrong = app.json("POST", "/products", r#"{"id":1.5,"price":"x"}"#).await.json();
    assert_eq!(
        wrong["errors"],
        json!({
            "id": "cannot be an id: ids are text or whole numbers",
            "name": "is mandatory",
            "price": "must be a whole number"
        }),
        "everything that is wrong is said at once"
    );
    let deep = format!(r#"{{"name":"a","meta":{}1{}}}"#, "[".repeat(70), "]".repeat(70));
    assert_eq!(app.json("POST", "/products", &deep).await.refusal().1, "malformed-body");
    assert_eq!(app.json("PUT", "/products/1", r#"{"id":"2","name":"a"}"#).await.refusal(), (409, "id-mismatch".into()));
    assert_eq!(app.json("PATCH", "/products/1", r#"{"name":null}"#).await.refusal().0, 422);
    assert_eq!(app.json("PUT", "/products/live", r#"{"name":"a"}"#).await.refusal().1, "reserved-id");
    assert_eq!(app.dio.position(), before);
}

#[tokio::test]
async fn a_body_of_another_type_is_415_and_says_what_to_type() {
    let app = App::start().await;
    for media in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/json; charset=latin1",
        "application/json-patch+json",
    ] {
        let refused = app.send("POST", "/products", &[("Content-Type", media)], r#"{"name":"a"}"#).await;
        assert_eq!(refused.refusal(), (415, "unsupported-media-type".into()), "{media}");
        assert!(refused.json()["hint"].as_str().unwrap().contains("--json"));
    }
    assert_eq!(app.send("POST", "/products", &[], r#"{"name":"a"}"#).await.refusal().0, 415);
    assert_eq!(app.send("GET", "/products", &[("Accept", "image/png")], "").await.refusal().0, 406);
}

#[tokio::test]
async fn headers_that_cannot_be_read_are_refused() {
    let app = App::start().await;
    for (name, value) in
        [("If-None-Match", "\"x\", *"), ("If-Match", "*, \"x\""), ("Idempotency-Key", "a/b"), ("Idempotency-Key", "")]
    {
        let refused =
            app.send("PATCH", "/products/1", &[("Content-Type", "application/json"), (name, value)], "{}").await;
        assert_eq!(refused.refusal(), (400, "invalid-header".into()), "{name}: {value}");
    }
}

#[tokio::test]
async fn requests_are_bounded() {
    let limits = Limits { body: 1_000, uri: 500, ..Limits::default() };
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), |g| g.limits(limits)).await;
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(2_000));
    assert_eq!(app.json("POST", "/products", &large).await.refusal(), (413, "payload-too-large".into()));
    for media in ["application/json", "application/x-ndjson"] {
        let chunked = [("Content-Type", media), ("Transfer-Encoding", "chunked")];
        let body = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2_000));
        let refused = app.send("POST", "/products", &chunked, body).await;
        assert_eq!(refused.refusal(), (413, "payload-too-large".into()), "{media}");
    }
    let long = app.get(&format!("/products?name={}", "x".repeat(600))).await;
    assert_eq!(long.refusal(), (414, "uri-too-long".into()));
}

#[tokio::test]
async fn what_the_source_cannot_do_is_405() {
    let read_only = diorama::connect::MemoryTable::new(products(), rows(2)).with_capabilities(Capabilities::reads());
    let lens = Lens::new().cache_source(diorama::cache::MemoryCache::default()).build().unwrap();
    let dio = lens.make_dio(diorama::Vista::new("fixed", read_only)).await.unwrap();
    let router = Gateway::new().mount(dio).into_router();
    let request = axum::http::Request::delete("/fixed/1").body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "GET, HEAD");
}

#[tokio::test]
async fn a_dio_without_its_first_copy_says_when_to_come_again() {
    let lens = Lens::new()
        .cache_source(diorama::cache::MemoryCache::default())
        .on_start_blocking(false)
        .on_start(|_| std::future::pending())
        .build()
        .unwrap();
    let vista = diorama::connect::MemoryTable::vista("slow", products(), rows(2));
    let router = Gateway::new().mount(lens.make_dio(vista).await.unwrap()).into_router();
    for (path, status) in
        [("/slow", 503), ("/slow/1", 503), ("/readyz", 503), ("/healthz", 200), ("/slow/_schema", 200)]
    {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 503, "{path}");
    }
}

/// The library, `/readyz` and every route of the resource say the same of a first copy that could not be made.
#[tokio::test]
async fn a_first_copy_that_failed_is_said_with_its_reason_by_every_route() {
    let lens = Lens::new()
        .cache_source(diorama::cache::MemoryCache::default())
        .on_start_blocking(false)
        .on_start(|_| async { Err(diorama::Error::permanent("there is no such file")) })
        .build()
        .unwrap();
    let dio = lens.make_dio(diorama::connect::MemoryTable::vista("slow", products(), rows(2))).await.unwrap();
    let mut bus = dio.subscribe_events();
    while dio.status().refresh_failed.is_none() {
        bus.recv().await.unwrap();
    }
    assert!(matches!(dio.vista().list_values().await, Err(diorama::Error::NotReady { reason: Some(_), .. })));
    assert!(!dio.status().ready);
    let router = Gateway::new().mount(dio).into_router();
    let ask = async |method: &str, path: &str| {
        let request = axum::http::Request::builder().method(method).uri(path);
        let request = request.header("Content-Type", "application/json").body(axum::body::Body::from("{}")).unwrap();
        let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default())
    };
    for (method, path) in [
        ("GET", "/slow"),
        ("GET", "/slow/1"),
        ("GET", "/slow/_aggregate?select=count()"),
        ("POST", "/slow"),
        ("PUT", "/slow/1"),
        ("DELETE", "/slow/1"),
        ("GET", "/slow/events"),
    ] {
        let (status, problem) = ask(method, path).await;
        assert_eq!((status, problem["code"].as_str()), (503, Some("not-ready")), "{method} {path}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("there is no such file"), "{method} {path}: {detail}");
    }
    let (status, body) = ask("GET", "/readyz").await;
    assert_eq!((status, body["dios"]["slow"]["ready"].as_bool()), (503, Some(false)));
    let reasons = body["dios"]["slow"]["reasons"].to_string();
    assert!(reasons.contains("first copy") && reasons.contains("there is no such file"), "{reasons}");
}

#[tokio::test]
async fn names_that_cannot_be_resources_are_refused_and_never_panic() {
    for name in ["events", "healthz", "_x", "a b", "", "a/b", "{x}", "ä"] {
        let lens = Lens::new().cache_source(diorama::cache::MemoryCache::default()).build().unwrap();
        let dio = lens.make_dio(diorama::connect::MemoryTable::vista(name, products(), rows(1))).await.unwrap();
        assert!(Gateway::new().try_mount(dio.clone(), MountOptions::default()).is_err(), "{name}");
        drop(Gateway::new().mount(dio).into_router());
    }
}
