//! Live queries over sockets, server-sent events and long polls.

use diorama::Record;
use diorama::gateway::MountOptions;
use serde_json::{Value, json};

use crate::events_stream::Source;
use crate::harness::{App, products, rows};
use crate::ws::{HANDSHAKE, Ws};

async fn price(app: &App, id: &str, price: i64) {
    let cells = [("name".to_string(), format!("Bun {id}").into()), ("price".to_string(), price.into())];
    app.dio.patched(id, Record::from_iter(cells)).await.unwrap();
}

/// Ids of a frame of rows.
fn ids(frame: &Value) -> Vec<&str> {
    assert_eq!(frame["type"], "rows", "{frame}");
    frame["rows"].as_array().unwrap().iter().map(|row| row[0].as_str().unwrap()).collect()
}

/// What a window frame says, without what it shows.
fn said(frame: &Value) -> Value {
    assert_eq!(frame["type"], "window", "{frame}");
    json!([frame["op"], frame["from"], frame["index"], frame["id"], frame["total"]])
}

#[tokio::test]
async fn a_socket_gets_the_window_and_every_change_of_it() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/products/live?order=price.desc&limit=3&price=gte.30").await;
    let hello = ws.json().await;
    assert_eq!(
        (&hello["type"], &hello["dio"], &hello["snapshot"]),
        (&json!("hello"), &json!("products"), &json!(true))
    );
    let begin = ws.json().await;
    assert_eq!((&begin["type"], &begin["count"], &begin["total"]), (&json!("snapshot_begin"), &json!(3), &json!(5)));
    assert_eq!(ids(&ws.json().await), ["7", "6", "5"]);
    assert_eq!(ws.json().await["type"], "snapshot_end");
    // To the top, from within.
    price(&app, "5", 100).await;
    let frame = ws.json().await;
    assert_eq!(said(&frame), json!(["move", 2, 0, "5", null]));
    assert_eq!(frame["record"], json!({"id": "5", "name": "Bun 5", "price": 100}));
    // Into the window, from below it: the last one goes.
    price(&app, "3", 99).await;
    let two = [ws.json().await, ws.json().await];
    assert_eq!(
        two.each_ref().map(said),
        [json!(["remove", null, 2, "6", null]), json!(["insert", null, 1, "3", null])]
    );
    assert_eq!((&two[0]["seq"], two[1]["seq"].as_u64()), (&Value::Null, Some(app.dio.position().seq)));
    // In its place.
    price(&app, "3", 98).await;
    assert_eq!(said(&ws.json().await), json!(["update", null, 1, "3", null]));
    // Out of the filter, beneath the window: only the total is another.
    price(&app, "4", 1).await;
    assert_eq!(said(&ws.json().await), json!([null, null, null, null, 4]));
}

#[tokio::test]
async fn event_sources_and_polls_say_the_same_and_go_on_from_where_they_were() {
    let app = App::start().await;
    let (answer, mut source) = Source::open(&app, "/products/live?order=price&limit=2", None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    let mut blocks = Vec::new();
    while blocks.len() < 5 {
        blocks.push(source.block().await.unwrap());
    }
    let kinds: Vec<_> = blocks[1..].iter().map(|block| block.json()["type"].clone()).collect();
    assert_eq!(kinds, ["hello", "snapshot_begin", "rows", "snapshot_end"]);
    assert_eq!(blocks[4].id.as_deref(), blocks[4].json()["position"].as_str(), "a list that is whole has a position");
    assert!(blocks[1..4].iter().all(|block| block.id.is_none()));
    price(&app, "7", 1).await;
    assert_eq!(said(&source.block().await.unwrap().json())[0], "remove");
    let last = source.block().await.unwrap();
    assert_eq!(said(&last.json()), json!(["insert", null, 0, "7", null]));
    // As long as somebody follows the same, who comes back gets what was missed.
    price(&app, "7", 2).await;
    let missed = source.block().await.unwrap();
    let (_, mut again) = Source::open(&app, "/products/live?order=price&limit=2", last.id.as_deref()).await;
    again.block().await.unwrap();
    assert_eq!(again.block().await.unwrap().json()["resumed"], true);
    assert_eq!(again.block().await.unwrap().json(), missed.json());
    // A poll is answered at once with the rows; from there on with what happens.
    let poll = |since: &str| format!("/products/live?order=price&limit=2&wait=20{since}");
    let headers = [("Accept", "application/json")];
    let first = app.send("GET", &poll(""), &headers, "").await.json();
    assert_eq!(ids(&first[2]), ["7", "1"]);
    let place = first.as_array().unwrap().last().unwrap()["position"].as_str().unwrap().to_string();
    let path = poll(&format!("&since={place}"));
    let (next, ()) = tokio::join!(app.send("GET", &path, &headers, ""), async {
        // The scenery that the first poll had is kept by the event source.
        price(&app, "7", 3).await;
    });
    let next = next.json();
    assert_eq!((&next[0]["resumed"], said(&next[1])), (&json!(true), json!(["update", null, 0, "7", null])));
}

#[tokio::test]
async fn aggregates_are_followed_too() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/products/_aggregate?select=count(),sum(price)&price=gte.50&live").await;
    ws.json().await;
    ws.json().await;
    let rows = ws.json().await;
    assert_eq!(rows["rows"], json!([["[]", {"count": 3, "sum_price": 180}]]));
    ws.json().await;
    price(&app, "1", 50).await;
    let frame = ws.json().await;
    assert_eq!((&frame["op"], &frame["record"]), (&json!("update"), &json!({"count": 4, "sum_price": 230})));
    let by = "/products/_aggregate?select=price,count()&order=count.desc,price&limit=2&live=true";
    let mut ws = Ws::open(&app, by).await;
    let begin = [ws.json().await, ws.json().await];
    assert_eq!((&begin[1]["count"], &begin[1]["total"]), (&json!(2), &json!(6)));
    assert_eq!(ids(&ws.json().await), ["[50]", "[20]"]);
    ws.json().await;
    price(&app, "2", 30).await;
    let mut total = Value::Null;
    let mut ops = Vec::new();
    while total.is_null() {
        let frame = ws.json().await;
        ops.push(json!([frame["op"], frame["index"], frame["id"]]));
        total = frame["total"].clone();
    }
    assert_eq!((ops, total), (vec![json!(["remove", 1, "[20]"]), json!(["insert", 0, "[30]"])], json!(5)));
    let plain = app.get("/products/_aggregate?select=count()&live=false").await;
    assert_eq!((plain.status, plain.json()), (200, json!([{"count": 7}])));
}

#[tokio::test]
async fn one_socket_carries_events_and_live_queries_and_each_fails_alone() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/events?dio=products").await;
    ws.json().await;
    for (said, code) in [
        (json!({"sub": "x", "limit": 1_001}), "limit-too-large"),
        (json!({"sub": "x", "snapshot": "full"}), "invalid-parameter"),
        (json!({"sub": "x", "order": ["colour"]}), "invalid-parameter"),
        (json!({"sub": "x", "live": 1}), "invalid-parameter"),
        (json!({"sub": "x", "since": "now"}), "invalid-parameter"),
    ] {
        let mut subscribe = json!({"type": "subscribe", "dio": "products", "live": true});
        subscribe.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        ws.text(&subscribe.to_string()).await;
        let answer = ws.json().await;
        assert_eq!((&answer["sub"], answer["code"].as_str()), (&json!("x"), Some(code)), "{answer}");
    }
    let top = json!({"type": "subscribe", "sub": "top", "dio": "products", "live": true, "limit": 2,
        "order": [{"column": "price", "desc": true}], "where": {"price": {"gte": 0}}});
    ws.text(&top.to_string()).await;
    let mut frames = Vec::new();
    while frames.len() < 4 {
        frames.push(ws.json().await);
    }
    assert!(frames.iter().all(|frame| frame["sub"] == "top"));
    assert_eq!(ids(&frames[2]), ["7", "6"]);
    price(&app, "6", 61).await;
    let two = [ws.json().await, ws.json().await];
    let of = |sub: &str| two.iter().find(|frame| frame["sub"] == sub).unwrap();
    assert_eq!(
        (&of("products")["type"], said(of("top"))),
        (&json!("RecordChanged"), json!(["update", null, 1, "6", null]))
    );
    ws.text(&json!({"type": "unsubscribe", "sub": "top"}).to_string()).await;
    assert_eq!(ws.json().await, json!({"sub": "top", "type": "unsubscribed"}));
}

#[tokio::test]
async fn what_cannot_be_followed_is_said() {
    let options = MountOptions { max_live: 1, ..MountOptions::default() };
    let app = App::with(products(), rows(7), |lens| lens, options, |gateway| gateway).await;
    for (query, code) in [
        ("limit=1001", "limit-too-large"),
        ("after=x", "invalid-parameter"),
        ("since=now", "invalid-parameter"),
        ("colour=red", "unknown-column"),
        ("snapshot=full", "unknown-column"),
        ("live=true", "unknown-parameter"),
        ("wait=31", "invalid-parameter"),
    ] {
        let refused = app.get(&format!("/products/live?{query}")).await.refusal();
        assert!(refused.0 == 400 && (refused.1 == code || refused.1.starts_with("unknown")), "{query} {refused:?}");
    }
    assert_eq!(app.get("/products/_aggregate?select=count()&live=maybe").await.refusal().0, 400);
    let mut one = Ws::open(&app, "/products/live?limit=1").await;
    one.json().await;
    let (answer, _) = Ws::handshake(&app, "/products/live?limit=2", &HANDSHAKE).await;
    assert_eq!(answer.refusal(), (503, "too-many-views".into()));
    assert!(!answer.header("retry-after").is_empty());
    let mut same = Ws::open(&app, "/products/live?limit=1").await;
    assert_eq!(same.json().await["type"], "hello", "what is followed already costs nothing");
}
