//! `POST /{dio}/_purge`.

use diorama::gateway::webhook::Hook;
use diorama::gateway::{Gateway, Loopback, MountOptions};
use diorama::inbound::{self, Scheme};
use diorama::{LensBuilder, Record};
use serde_json::{Value, json};

use crate::harness::{Answer, App, products, rows};
use crate::ws::Ws;

/// A name that nobody must find any more.
const MARK: &str = "Hidden name";

async fn start(lens: impl FnOnce(LensBuilder) -> LensBuilder) -> App {
    let hook = || Hook::new("shop", "products", inbound::Hook::new(Scheme::None));
    App::with(products(), rows(7), lens, MountOptions::default(), |gateway: Gateway| gateway.try_hook(hook()).unwrap())
        .await
}

async fn purge(app: &App, body: &str) -> Answer {
    app.json("POST", "/products/_purge", body).await
}

async fn name(app: &App, id: &str, name: &str) {
    app.dio.patched(id, Record::from_iter([("name".to_string(), name.into())])).await.unwrap();
}

/// Frames after `since`.
async fn frames(app: &App, since: &str, query: &str) -> Vec<Value> {
    let answer = app.get(&format!("/products/events?since={since}&{query}")).await;
    let lines = answer.text().lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_purged_row_is_in_no_answer_any_more() {
    let app = start(|lens| lens).await;
    let since = app.dio.position().to_string();
    let written = app.json("PATCH", "/products/3", &format!(r#"{{"name":"{MARK}"}}"#)).await;
    assert_eq!(written.status, 202, "{written:?}");
    let operation = written.header("dio-operation").to_string();
    app.get(&format!("{operation}?wait=10")).await;
    let told = format!(r#"{{"op":"update","id":"3","new":{{"name":"{MARK} again"}}}}"#);
    assert_eq!(app.json("POST", "/webhooks/shop", &told).await.status, 200);
    app.dio.invalidate_record("3");
    app.master.lose(["3".to_string()]).await;
    let etag = app.get("/products").await.header("etag").to_string();
    let done = purge(&app, r#"{"ids":["3"]}"#).await;
    assert_eq!(done.status, 200, "{done:?}");
    let report = done.json();
    assert_eq!((&report["rows"], &report["operations"], &report["deliveries"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!((&report["returned"], &report["in_source"]), (&json!([]), &json!(null)), "a source that only lists");
    assert!(report["entries"].as_u64() >= Some(3), "{report}");
    assert_eq!(report["position"], app.dio.position().to_string());
    let list = app.send("GET", "/products", &[("If-None-Match", &etag)], "").await;
    assert_eq!((list.status, list.ids().len()), (200, 6), "the list's ETag has moved");
    for path in [
        "/products".to_string(),
        "/products?q=hidden".into(),
        "/products?name=like.Hidden*".into(),
        "/products/3".into(),
        format!("/products/events?since={since}"),
        format!("/products/events?since={since}&name=like.Hidden*"),
        "/products/events?since=earliest".into(),
        "/operations".into(),
        operation.clone(),
        "/webhooks/shop/deliveries".into(),
        "/products/_aggregate?min=name&max=name".into(),
    ] {
        let answer = app.get(&path).await;
        assert!(!answer.text().contains("idden name"), "{path}: {answer:?}");
    }
    assert_eq!(app.get("/products/3").await.status, 404);
    assert_eq!(app.get(&operation).await.json()["state"], "applied", "what it was is known");
    let again = purge(&app, r#"{"ids":["3","nobody"]}"#).await.json();
    let counts = ["rows", "entries", "operations", "deliveries"].map(|count| again[count].clone());
    assert_eq!(counts, [0, 0, 0, 0].map(|zero| json!(zero)), "{again}");
    assert_eq!(again["position"], report["position"]);
}

#[tokio::test]
async fn whoever_follows_or_comes_back_is_told_that_the_row_is_gone() {
    let app = start(|lens| lens).await;
    let since = app.dio.position().to_string();
    let mut plain = Ws::open(&app, "/products/events").await;
    let mut filtered = Ws::open(&app, "/products/events?price=gte.50").await;
    let mut window = Ws::open(&app, "/products/live?order=price.desc&limit=2").await;
    for socket in [&mut plain, &mut filtered] {
        assert_eq!(socket.json().await["type"], "hello");
    }
    while window.json().await["type"] != "snapshot_end" {}
    assert_eq!(purge(&app, r#"{"ids":["7"]}"#).await.status, 200);
    for socket in [&mut plain, &mut filtered] {
        let frame = socket.json().await;
        assert_eq!((&frame["type"], &frame["id"]), (&json!("RecordRemoved"), &json!("7")), "{frame}");
        assert_eq!(frame.get("record"), None);
    }
    let frame = window.json().await;
    assert_eq!((&frame["op"], &frame["id"]), (&json!("remove"), &json!("7")), "{frame}");
    for query in ["", "price=gte.50", "price=lt.0"] {
        let frames = frames(&app, &since, query).await;
        let kinds: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
        assert!(kinds.contains(&"RecordRemoved") && !kinds.contains(&"reset"), "{query}: {frames:?}");
    }
}

#[tokio::test]
async fn events_from_the_ring_and_from_the_journal_are_the_same_after_a_purge() {
    // A ring of two events leaves the others to the journal.
    let app = start(|lens| lens.settings(|settings| settings.ring.events = 2)).await;
    let other = start(|lens| lens).await;
    let mut told = Vec::new();
    for app in [&app, &other] {
        let since = app.dio.position().to_string();
        name(app, "1", MARK).await;
        name(app, "2", "Plain").await;
        name(app, "1", "Hidden again").await;
        name(app, "new", MARK).await;
        assert_eq!(purge(app, r#"{"ids":["1","new"]}"#).await.status, 200);
        name(app, "2", "Plain again").await;
        name(app, "3", "Plain").await;
        let mut all = Vec::new();
        for query in ["", "name=like.Plain*", "ops=delete", "select=id"] {
            for mut frame in frames(app, &since, query).await {
                ["at", "position", "epoch", "heartbeat", "missed"]
                    .iter()
                    .for_each(|own| drop(frame.as_object_mut().unwrap().remove(*own)));
                all.push(frame);
            }
        }
        assert!(!json!(all).to_string().contains("Hidden"), "{all:?}");
        told.push(all);
    }
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn what_is_not_settled_is_a_conflict_that_says_what_to_do() {
    let app = start(|lens| lens).await;
    app.master.writes().close();
    assert_eq!(app.json("PATCH", "/products/3", r#"{"name":"Held"}"#).await.status, 202);
    let refused = purge(&app, r#"{"ids":["1","3"]}"#).await;
    assert_eq!(refused.refusal(), (409, "conflict".into()));
    assert!(refused.json()["hint"].as_str().unwrap().contains("/operations"), "{refused:?}");
    assert_eq!(app.get("/products").await.ids().len(), 7, "nothing is changed");
    app.master.writes().open();
}

#[tokio::test]
async fn a_body_that_is_no_list_of_ids_is_refused_with_the_form_that_is_right() {
    let app = start(|lens| lens).await;
    let many = json!({ "ids": (0..1_001).map(|id| id.to_string()).collect::<Vec<_>>() }).to_string();
    for body in [r#"{"ids":[]}"#, r#"{"ids":"3"}"#, r#"{"ids":[3]}"#, r#"["3"]"#, r#"{"ids":["3"],"all":true}"#, &many]
    {
        let refused = purge(&app, body).await;
        assert_eq!(refused.refusal(), (422, "validation-failed".into()), "{body}");
        assert!(refused.json()["hint"].as_str().unwrap().contains(r#"{"ids": ["42"]}"#));
    }
    assert_eq!(purge(&app, "{").await.refusal(), (400, "malformed-body".into()));
    let guard = |gateway: Gateway| gateway.guard_host(Some(Loopback::default()));
    let app = App::with(products(), rows(7), |lens| lens, MountOptions::default(), guard).await;
    let evil = [("Origin", "https://evil.example"), ("Content-Type", "application/json")];
    let refused = app.send("POST", "/products/_purge", &evil, r#"{"ids":["3"]}"#).await;
    assert_eq!(refused.refusal(), (403, "origin-not-allowed".into()));
    assert_eq!(app.get("/products/_purge").await.refusal(), (405, "method-not-allowed".into()));
    assert_eq!(app.json("PUT", "/products/_purge", r#"{"name":"x"}"#).await.refusal(), (409, "reserved-id".into()));
    assert_eq!(app.get("/products").await.ids().len(), 7);
}

#[tokio::test]
async fn a_live_query_that_comes_back_gets_the_rows_and_not_changes_with_erased_ones() {
    let app = start(|lens| lens).await;
    let path = "/products/live?order=id.desc&limit=3";
    // As long as somebody follows, changes are kept.
    let mut window = Ws::open(&app, path).await;
    while window.json().await["type"] != "snapshot_end" {}
    let since = app.dio.position().to_string();
    name(&app, "7", MARK).await;
    while window.json().await["id"] != "7" {}
    assert_eq!(purge(&app, r#"{"ids":["7"]}"#).await.status, 200);
    while window.json().await["op"] != "remove" {}
    let again = app.get(&format!("{path}&since={since}")).await;
    assert!(!again.text().contains(MARK) && again.text().contains("Bun 6"), "{again:?}");
}
