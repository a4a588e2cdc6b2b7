//! The OpenAPI document says what the gateway does, and nothing else.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::dio::Settings;
use diorama::gateway::webhook::Hook;
use diorama::gateway::{Auth, Gateway, Loopback, MountOptions};
use diorama::inbound::{self, Scheme};
use diorama::vista::UnknownColumns;
use diorama::{Capabilities, Dio, Lens, Vista};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{App, products, rows};

async fn dio(name: &str, can: Capabilities) -> Dio {
    dio_with(name, can, |_| {}).await
}

async fn dio_with(name: &str, can: Capabilities, settings: impl FnOnce(&mut Settings)) -> Dio {
    let lens = Lens::new().cache_source(MemoryCache::default()).settings(settings).build().unwrap();
    let table = MemoryTable::new(products(), rows(2)).with_capabilities(can);
    let dio = lens.make_dio(Vista::new(name, table)).await.unwrap();
    dio.reconcile(dio.master().list_values().await.unwrap()).await.unwrap();
    dio
}

fn hook(name: &str) -> Hook {
    Hook::new(name, name, inbound::Hook::new(Scheme::None))
}

async fn gateway() -> Gateway {
    let writable = dio("products", Capabilities::all()).await;
    Gateway::new().mount(writable).mount(dio("fixed", Capabilities::reads()).await).try_hook(hook("products")).unwrap()
}

fn document(gateway: &Gateway) -> Value {
    serde_json::from_slice(&gateway.openapi()).unwrap()
}

/// Each operation with its path and method.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    all.collect()
}

#[tokio::test]
async fn the_document_is_served_as_the_library_makes_it() {
    let app = App::start().await;
    let answer = app.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json()["openapi"], "3.1.0");
    let made = Gateway::new().mount(app.dio.clone()).openapi();
    assert_eq!(answer.body, made);
    let known = app.send("GET", "/openapi.json", &[("If-None-Match", answer.header("etag"))], "").await;
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[tokio::test]
async fn every_operation_of_the_document_is_served_and_every_reference_leads_somewhere() {
    let gateway = gateway().await;
    let document = document(&gateway);
    let router = gateway.into_router();
    let mut ids = std::collections::HashSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}: {operation:#}");
        let url = path.replace("{id}", "1").replace("{code}", "not-found");
        let request = Request::builder().method(method.as_str()).uri(&url).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let nothing = problem["detail"].as_str().is_some_and(|detail| detail.starts_with("the path "));
        assert!(!nothing && problem["code"] != "dio-not-found", "{method} {path}: {problem}");
        let documented = operation["responses"].get(status.as_str());
        assert!(documented.is_some(), "{method} {path} answers {status}: {problem}");
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}

#[tokio::test]
async fn a_read_only_resource_has_no_writes_and_says_so() {
    let gateway = gateway().await;
    let document = document(&gateway);
    let methods =
        |path: &str| -> Vec<String> { document["paths"][path].as_object().unwrap().keys().cloned().collect() };
    assert_eq!(
        (methods("/fixed"), methods("/fixed/{id}")),
        (vec!["get".into(), "head".into()], vec!["get".into(), "head".into()])
    );
    assert!(methods("/products").contains(&"post".into()) && methods("/products/{id}").contains(&"put".into()));
    let router = gateway.into_router();
    for (method, path, status, allow) in [
        ("OPTIONS", "/fixed", 204, "GET, HEAD, QUERY"),
        ("OPTIONS", "/fixed/1", 204, "GET, HEAD"),
        ("OPTIONS", "/products", 204, "GET, HEAD, POST, PATCH, DELETE, QUERY"),
        ("OPTIONS", "/webhooks/products", 204, "POST, OPTIONS"),
        ("POST", "/fixed", 405, "GET, HEAD, QUERY"),
        ("PUT", "/fixed/1", 405, "GET, HEAD"),
        ("TRACE", "/fixed/1", 405, "GET, HEAD"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let said = (response.status().as_u16(), response.headers()[header::ALLOW].to_str().unwrap().to_string());
        assert_eq!(said, (status, allow.to_string()), "{method} {path}");
    }
}

#[tokio::test]
async fn rows_have_the_types_of_their_columns() {
    let options = MountOptions { max_limit: 7, ..MountOptions::default() };
    let strict = dio_with("products", Capabilities::all(), |settings| {
        settings.unknown_columns = UnknownColumns::Refuse;
    });
    let gateway = Gateway::new().try_mount(strict.await, options).unwrap();
    let document = document(&gateway);
    let row = &document["components"]["schemas"]["ProductsRow"];
    assert_eq!(row["required"], json!(["id", "name"]));
    assert_eq!(row["additionalProperties"], false);
    assert_eq!(row["properties"]["name"]["type"], "string");
    assert_eq!(row["properties"]["price"]["type"], json!(["integer", "null"]));
    assert_eq!(document["components"]["schemas"]["ProductsInsert"]["required"], json!(["name"]));
    let parameters = document["paths"]["/products"]["get"]["parameters"].as_array().unwrap();
    let limit = parameters.iter().find(|parameter| parameter["name"] == "limit").unwrap();
    assert_eq!(limit["schema"]["maximum"], 7);
    assert!(parameters.iter().any(|parameter| parameter["name"] == "price"));
}

#[tokio::test]
async fn base_path_and_tokens_are_in_the_document() {
    let plain = document(&gateway().await);
    assert_eq!((plain["servers"][0]["url"].clone(), plain.get("security")), (json!("/"), None));
    let auth = Auth::tokens(["t"]);
    let guarded = gateway().await.base_path("/api/").auth(auth).guard_host(Some(Loopback::default()));
    let document = document(&guarded);
    assert_eq!(document["servers"][0]["url"], "/api");
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let cookie = &document["components"]["securitySchemes"]["session"];
    assert_eq!((&cookie["in"], &cookie["name"]), (&json!("cookie"), &json!("diorama_session")));
    assert_eq!(document["security"], json!([{ "bearer": [] }, { "session": [] }]));
    for (path, method, operation) in operations(&document) {
        let open = path == "/healthz"
            || path.starts_with("/static/")
            || path.starts_with("/webhooks/") && !path.contains("/deliveries");
        assert_eq!(operation["security"] == json!([]), open, "{method} {path}");
        assert_eq!(operation["responses"].get("401").is_some(), !open, "{method} {path}");
        assert!(operation["responses"].get("421").is_some(), "{method} {path}");
    }
}

#[tokio::test]
async fn words_of_the_url_are_no_ids_whatever_writes_them() {
    let app = App::start().await;
    for word in ["events", "_query", "_refresh", "_schema", "_other", "live"] {
        let refused = app.json("PUT", &format!("/products/{word}"), r#"{"name":"x"}"#).await;
        assert_eq!(refused.refusal(), (409, "reserved-id".into()), "{word}");
    }
    assert_eq!(app.send("GET", "/products/_refresh", &[], "").await.refusal().0, 405);
}

#[tokio::test]
async fn bulk_answers_say_where_the_rows_are_safe() {
    let app = App::start().await;
    let array = app.json("POST", "/products", r#"[{"id":"a","name":"A"}]"#).await;
    let patched = app.json("PATCH", "/products?id=a", r#"{"price":1}"#).await;
    let lines = [("Content-Type", "application/x-ndjson")];
    let lines = app.send("POST", "/products", &lines, "{\"id\":\"b\",\"name\":\"B\"}").await;
    let cleared = app.send("DELETE", "/products?all=true", &[], "").await;
    assert_eq!((cleared.status, cleared.json()["affected"].clone()), (202, json!(9)));
    for answer in [array, patched, lines, cleared] {
        let said = (answer.header("dio-durable"), answer.header("cache-control"));
        assert_eq!(said, ("disk", "no-store"), "{answer:?}");
    }
    assert_eq!(app.send("DELETE", "/products?all=maybe", &[], "").await.refusal(), (400, "invalid-parameter".into()));
}

#[tokio::test]
async fn lists_of_operations_refuse_what_they_do_not_understand() {
    let app = App::start().await;
    for (query, code) in
        [("state=lost", "invalid-parameter"), ("after=op_1", "invalid-parameter"), ("limit=1001", "limit-too-large")]
    {
        assert_eq!(app.get(&format!("/operations?{query}")).await.refusal(), (400, code.into()), "{query}");
    }
}

#[tokio::test]
async fn a_query_in_a_body_is_304_for_who_has_its_answer() {
    let app = App::start().await;
    let first = app.json("POST", "/products/_query", "{}").await;
    let headers = [("Content-Type", "application/json"), ("If-None-Match", first.header("etag"))];
    assert_eq!(app.send("POST", "/products/_query", &headers, "{}").await.status, 304);
}
