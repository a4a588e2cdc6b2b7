//! Wire formats as snapshots: whoever changes one sees it. `INSTA_UPDATE=always cargo nextest run --test gateway wire` writes them
//! anew; under `CI=true` a difference is a failure.

use std::time::Duration;

use diorama::gateway::webhook::Hook;
use diorama::gateway::{Gateway, MountOptions, Sockets};
use diorama::inbound::{self, Key, Scheme};
use diorama::{Error, Record};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::events_stream::Source;
use crate::harness::{Answer, App, products, rows};
use crate::ws::Ws;

// --- what differs from run to run ----------------------------------------------------------------------------------------

/// Members of JSON bodies and frames that differ, besides ids of operations.
const MEMBERS: [&str; 6] = ["request_id", "delivery", "received", "microseconds", "at", "age"];

/// Headers that differ, or that come from the HTTP server.
const HEADERS: [&str; 6] = ["x-request-id", "etag", "date", "content-length", "dio-operation", "age"];

/// `text` with the name of the log's epoch in place of the epoch, and with `HOST` in place of the address.
fn stable(app: &App, text: &str) -> String {
    text.replace(&app.dio.position().epoch.to_string(), "EPOCH").replace(&app.address.to_string(), "HOST")
}

/// `value` with the names of members that differ in place of their values.
fn redacted(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                *member = match member {
                    Value::Null | Value::Bool(_) => continue,
                    Value::Object(_) | Value::Array(_) => redacted(member.take()),
                    Value::String(text) if text.starts_with("op_") => json!("[operation]"),
                    _ if MEMBERS.contains(&&**name) => json!(format!("[{name}]")),
                    _ => continue,
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = redacted(item.take())),
        _ => {}
    }
    value
}

/// An answer as it travels: status, headers in the order of their names, body. JSON is spread over lines.
fn shown(app: &App, answer: &Answer) -> String {
    let mut headers = answer.headers.clone();
    headers.sort();
    let mut text = format!("{}\n", answer.status);
    for (name, value) in headers {
        match HEADERS.contains(&&*name) {
            true => text += &format!("{name}: [{name}]\n"),
            false => text += &format!("{name}: {value}\n"),
        }
    }
    let body = match answer.header("content-type") {
        "application/json" | "application/problem+json" => {
            serde_json::to_string_pretty(&redacted(answer.json())).unwrap()
        }
        "application/cbor" => format!("{:?}", ciborium::from_reader::<ciborium::Value, _>(&answer.body[..]).unwrap()),
        _ => answer.text().to_string(),
    };
    stable(app, &format!("{text}\n{body}"))
}

/// The first frame of each type, one on a line, in the order in which they came.
fn frames(app: &App, frames: Vec<Value>) -> String {
    let mut kinds: Vec<Value> = Vec::new();
    let mut lines = Vec::new();
    for frame in frames {
        if !kinds.contains(&frame["type"]) {
            kinds.push(frame["type"].clone());
            lines.push(redacted(frame).to_string());
        }
    }
    stable(app, &lines.join("\n"))
}

/// Frames until one of this type.
async fn until(ws: &mut Ws, kind: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    while frames.last().is_none_or(|frame: &Value| frame["type"] != kind) {
        frames.push(ws.json().await);
    }
    frames
}

async fn price(app: &App, id: &str, price: i64) {
    let cells = [("name".to_string(), "Bun".into()), ("price".to_string(), price.into())];
    app.dio.patched(id, Record::from_iter(cells)).await.unwrap();
}

// --- events --------------------------------------------------------------------------------------------------------------

/// Causes one event of every kind: a changed, a new and a removed row, a write that is taken, one that is refused, a refresh.
async fn cause_every_event(app: &App) {
    price(app, "1", 5).await;
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    assert_eq!(app.send("POST", "/products", &wait, r#"{"id":"new","name":"New"}"#).await.status, 201);
    assert_eq!(app.send("DELETE", "/products/7", &wait, "").await.status, 200);
    app.master.refuse("2", Error::permanent("no more buns"));
    assert_eq!(app.send("PATCH", "/products/2", &wait, r#"{"price":1}"#).await.status, 502);
    app.dio.refresh().await.unwrap();
}

#[tokio::test]
async fn wire_frames_of_a_socket_of_events() {
    let sockets = Sockets::default();
    let mount = |gateway: Gateway| gateway.sockets(sockets.clone());
    let app = App::with(products(), rows(7), |lens| lens, MountOptions::default(), mount).await;
    let mut ws = Ws::open(&app, "/products/events?snapshot=full&since=OTHER00000:1&heartbeat=5").await;
    let mut seen = until(&mut ws, "snapshot_end").await;
    cause_every_event(&app).await;
    seen.extend(until(&mut ws, "Invalidated").await);
    ws.text(r#"{"type":"ping","n":1}"#).await;
    seen.extend(until(&mut ws, "pong").await);
    ws.text("?").await;
    seen.extend(until(&mut ws, "error").await);
    app.pass(Duration::from_secs(6)).await;
    seen.extend(until(&mut ws, "heartbeat").await);
    let ((), last) = tokio::join!(sockets.close(), async {
        let last = until(&mut ws, "bye").await;
        ws.closed().await;
        last
    });
    seen.extend(last);
    assert_snapshot!(frames(&app, seen));
}

#[tokio::test]
async fn wire_frames_of_a_socket_of_subscriptions() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/events").await;
    ws.text(r#"{"type":"auth","token":"x"}"#).await;
    ws.text(r#"{"type":"subscribe","dio":"nothing"}"#).await;
    let mut seen = until(&mut ws, "error").await;
    ws.text(r#"{"type":"subscribe","dio":"products","sub":"a","live":true}"#).await;
    seen.extend(until(&mut ws, "snapshot_end").await);
    ws.text(r#"{"type":"unsubscribe","sub":"a"}"#).await;
    seen.extend(until(&mut ws, "unsubscribed").await);
    assert_snapshot!(frames(&app, seen));
}

#[tokio::test]
async fn wire_frames_of_a_live_query() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/products/live?order=price.desc&limit=3&price=gte.30").await;
    let mut seen = until(&mut ws, "snapshot_end").await;
    // To the top, from below the window, in its place.
    for (id, to, count) in [("5", 100, 1), ("3", 99, 2), ("3", 98, 1)] {
        price(&app, id, to).await;
        for _ in 0..count {
            seen.push(ws.json().await);
        }
    }
    let lines: Vec<String> = seen.into_iter().map(|frame| redacted(frame).to_string()).collect();
    assert_snapshot!(stable(&app, &lines.join("\n")));
}

#[tokio::test]
async fn wire_blocks_of_server_sent_events() {
    let app = App::start().await;
    let (answer, mut source) = Source::open(&app, "/products/events?snapshot=full", None).await;
    let mut text = shown(&app, &answer);
    let mut kinds = Vec::new();
    let mut block = source.block().await.unwrap();
    loop {
        let kind = block.json()["type"].clone();
        if !kinds.contains(&kind) {
            for (field, value) in [("retry", &block.retry), ("id", &block.id), ("", &block.comment)] {
                text += &value.as_ref().map_or(String::new(), |value| format!("{field}: {value}\n"));
            }
            if block.data.is_some() {
                text += &format!("data: {}\n", redacted(block.json()));
            }
            text += "\n";
            if kind == "snapshot_end" {
                cause_every_event(&app).await;
            }
            kinds.push(kind.clone());
        }
        if kind == "Invalidated" {
            break;
        }
        block = source.block().await.unwrap();
    }
    assert_snapshot!(stable(&app, &text));
}

// --- rows ----------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn wire_a_page_of_a_list() {
    let app = App::start().await;
    assert_snapshot!(shown(&app, &app.get("/products?price=gt.10&order=price.desc&offset=2&limit=2").await));
}

#[tokio::test]
async fn wire_an_explanation() {
    let app = App::start().await;
    assert_snapshot!(shown(&app, &app.get("/products?price=gt.10&order=name&limit=2&explain=true").await));
}

#[tokio::test]
async fn wire_an_export_of_each_format() {
    let app = App::start().await;
    app.dio.patched("2", Record::from_iter([("name".to_string(), "Bun, \"2\"".into())])).await.unwrap();
    for (name, media) in [
        ("json", "application/json"),
        ("ndjson", "application/x-ndjson"),
        ("csv", "text/csv"),
        ("cbor", "application/cbor"),
    ] {
        let answer = app.send("GET", "/products?id=in.(1,2)", &[("Accept", media)], "").await;
        assert_snapshot!(format!("wire_an_export_of_each_format_{name}"), shown(&app, &answer));
    }
}

// --- the rest ------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn wire_a_problem_of_each_kind() {
    let app = App::start().await;
    let json = [("Content-Type", "application/json")];
    let twice = r#"[{"id":"a","name":"A"},{"id":"a","name":"B"}]"#;
    let mut text = String::new();
    for (method, path, headers, body) in [
        ("POST", "/products", &json[..], "{"),
        ("GET", "/products?limit=many", &[], ""),
        ("GET", "/products/1?limit=1", &[], ""),
        ("GET", "/products?select=colour", &[], ""),
        ("GET", "/products?limit=1000000", &[], ""),
        ("PATCH", "/products?price=gt.0", &[json[0], ("Prefer", "max-affected=1")], r#"{"price":1}"#),
        ("PATCH", "/products/1", &[json[0], ("If-Match", "*, \"x\"")], "{}"),
        ("GET", "/products/99", &[], ""),
        ("GET", "/nothing", &[], ""),
        ("TRACE", "/products", &[], ""),
        ("GET", "/products/1", &[("Accept", "image/png")], ""),
        ("POST", "/products", &json, r#"{"id":"1","name":"Another"}"#),
        ("PUT", "/products/1", &json, r#"{"id":"2","name":"Another"}"#),
        ("PUT", "/products/events", &json, r#"{"name":"Another"}"#),
        ("PATCH", "/products/1", &[json[0], ("If-Match", "\"other\"")], r#"{"price":1}"#),
        ("POST", "/products", &[("Content-Type", "image/png")], "x"),
        ("POST", "/products", &json, r#"{"id":"x","price":"dear"}"#),
        ("POST", "/products", &[json[0], ("Prefer", "handling=strict")], twice),
        ("GET", "/products/events", &[("Upgrade", "websocket")], ""),
    ] {
        let answer = app.send(method, path, headers, body).await;
        answer.refusal();
        let body = serde_json::to_string_pretty(&redacted(answer.json())).unwrap();
        text += &format!("{method} {path} {headers:?} {body}\n\n");
    }
    assert_snapshot!(stable(&app, &text));
    assert_snapshot!("wire_a_problem_with_its_headers", shown(&app, &app.get("/products/99").await));
}

#[tokio::test]
async fn wire_answers_to_deliveries() {
    let scheme = Scheme::Bearer(vec![Key::plain("hunter2-hunter2-hunter2").unwrap()]);
    let inbound = inbound::Hook::new(scheme).delivery_header(Some("x-delivery".parse().unwrap()));
    let hook = Hook::new("shop", "products", inbound);
    let mount = |gateway: Gateway| gateway.try_hook(hook).unwrap();
    let app = App::with(products(), rows(7), |lens| lens, MountOptions::default(), mount).await;
    let send = async |token: &str, body: &str| {
        let headers = [("Content-Type", "application/json"), ("Authorization", token), ("X-Delivery", "d1")];
        shown(&app, &app.send("POST", "/webhooks/shop", &headers, body).await)
    };
    let update = r#"{"op":"update","id":"1","new":{"name":"Bun 1","price":5}}"#;
    assert_snapshot!("wire_a_delivery_that_is_applied", send("Bearer hunter2-hunter2-hunter2", update).await);
    assert_snapshot!("wire_a_delivery_that_came_before", send("Bearer hunter2-hunter2-hunter2", update).await);
    assert_snapshot!("wire_a_delivery_that_is_refused", send("Bearer hunter3", update).await);
}

#[tokio::test]
async fn wire_health_and_readiness() {
    let app = App::start().await;
    assert_snapshot!("wire_health", shown(&app, &app.get("/healthz").await));
    assert_snapshot!("wire_readiness", shown(&app, &app.get("/readyz").await));
}

#[tokio::test]
async fn wire_the_head_of_the_asyncapi_document() {
    let app = App::start().await;
    let mut document = app.get("/asyncapi.json").await.json();
    let members = document.as_object_mut().unwrap();
    // The rest is compared with the document that is checked in (`openapi/asyncapi.json`).
    for part in ["channels", "operations", "components"] {
        members.remove(part);
    }
    let head = serde_json::to_string_pretty(&document).unwrap();
    assert_snapshot!(stable(&app, &head));
}
