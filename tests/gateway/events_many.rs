//! Several subscriptions on one connection, and frames as CBOR.

use std::time::Duration;

use ciborium::Value as Cbor;
use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::gateway::auth::Key;
use diorama::gateway::{Auth, Gateway, MountOptions};
use diorama::{Lens, Record};
use serde_json::{Value, json};

use crate::events_stream::Source;
use crate::harness::{App, products, rows};
use crate::ws::{BINARY, FIN, HANDSHAKE, Ws};

async fn price(app: &App, id: &str, price: i64) {
    let cells = [("name".to_string(), "Bun".into()), ("price".to_string(), price.into())];
    app.dio.patched(id, Record::from_iter(cells)).await.unwrap();
}

async fn say(ws: &mut Ws, said: Value) {
    ws.text(&said.to_string()).await;
}

#[tokio::test]
async fn every_event_one_socket_carries_several_filters_of_one_resource() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/events?dio=products").await;
    let hello = ws.json().await;
    assert_eq!(
        (&hello["sub"], &hello["type"], &hello["dio"]),
        (&json!("products"), &json!("hello"), &json!("products"))
    );
    say(&mut ws, json!({"type": "subscribe", "sub": "dear", "dio": "products", "where": {"price": {"gte": 100}}}))
        .await;
    assert_eq!(ws.json().await["sub"], "dear");
    price(&app, "1", 5).await;
    assert_eq!(ws.json().await["sub"], "products");
    price(&app, "1", 500).await;
    let two = [ws.json().await, ws.json().await];
    let of = |sub: &str| two.iter().find(|frame| frame["sub"] == sub).unwrap();
    assert_eq!((&of("products")["type"], &of("dear")["type"]), (&json!("RecordChanged"), &json!("RecordInserted")));
    say(&mut ws, json!({"type": "unsubscribe", "sub": "products"})).await;
    assert_eq!(ws.json().await, json!({"sub": "products", "type": "unsubscribed"}));
    price(&app, "1", 501).await;
    assert_eq!(ws.json().await["sub"], "dear");
    say(&mut ws, json!({"type": "ping", "n": 1})).await;
    assert_eq!(ws.json().await, json!({"type": "pong", "n": 1}));
}

#[tokio::test]
async fn every_event_what_cannot_be_subscribed_to_is_said_and_the_rest_goes_on() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/events?dio=products").await;
    ws.json().await;
    for (said, code) in [
        (json!({"type": "subscribe", "dio": "nothing"}), "dio-not-found"),
        (json!({"type": "subscribe", "dio": "products"}), "invalid-parameter"),
        (
            json!({"type": "subscribe", "sub": "a", "dio": "products", "where": {"colour": {"eq": 1}}}),
            "invalid-parameter",
        ),
        (json!({"type": "subscribe", "sub": "a", "dio": "products", "limit": 5}), "invalid-parameter"),
        (json!({"type": "subscribe", "sub": "a", "dio": "products", "since": "x"}), "invalid-parameter"),
        (json!({"type": "subscribe", "sub": "a", "dio": "products", "records": 1}), "invalid-parameter"),
        (json!({"type": "unsubscribe", "sub": "a"}), "not-found"),
        (json!({"type": "auth", "token": "any"}), "-"),
    ] {
        say(&mut ws, said.clone()).await;
        let answer = ws.json().await;
        assert_eq!(answer["code"].as_str().unwrap_or("-"), code, "{said} {answer}");
    }
    price(&app, "1", 5).await;
    assert_eq!(ws.json().await["id"], "1");
    for refused in ["?dio=nothing", "?dio=products&price=5", "?dio=products,products", "?dio=products&since=x=E:1"] {
        let (answer, _) = Ws::handshake(&app, &format!("/events{refused}"), &HANDSHAKE).await;
        assert!((400..500).contains(&answer.refusal().0), "{refused}");
    }
    assert_eq!(app.get("/events").await.refusal().0, 400, "nobody could subscribe later");
}

#[tokio::test]
async fn row_before_event_positions_are_kept_per_subscription() {
    let app = App::start().await;
    let since = app.dio.position().to_string();
    price(&app, "1", 5).await;
    let mut ws = Ws::open(&app, &format!("/events?dio=products&since=products={since}")).await;
    assert_eq!(ws.json().await["resumed"], true);
    assert_eq!(ws.json().await["id"], "1");
    say(&mut ws, json!({"type": "subscribe", "sub": "all", "dio": "products", "snapshot": "full", "ids": ["1", 2]}))
        .await;
    let kinds = [ws.json().await, ws.json().await, ws.json().await, ws.json().await].map(|frame| frame["type"].clone());
    assert_eq!(kinds, ["hello", "snapshot_begin", "rows", "snapshot_end"]);
    let (_, mut source) = Source::open(&app, &format!("/events?dio=products&since={since}"), None).await;
    source.block().await.unwrap();
    source.block().await.unwrap();
    let event = source.block().await.unwrap();
    assert_eq!(event.json()["sub"], "products");
    assert_eq!(event.id, Some(format!("products={}", app.dio.position())));
}

#[tokio::test]
async fn every_event_frames_are_cbor_where_that_is_offered() {
    let app = App::start().await;
    let offers = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", "diorama.v1+cbor")]].concat();
    let (answer, mut ws) = Ws::handshake(&app, "/events?dio=products", &offers).await;
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, "diorama.v1+cbor"));
    let member = |frame: &Cbor, name: &str| {
        let members = frame.as_map().unwrap();
        members.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value.clone())
    };
    assert_eq!(member(&ws.cbor().await, "type"), Some("hello".into()));
    price(&app, "1", 5).await;
    let event = ws.cbor().await;
    assert_eq!((member(&event, "sub"), member(&event, "id")), (Some("products".into()), Some("1".into())));
    assert_eq!(member(&member(&event, "record").unwrap(), "price"), Some(5.into()));
    let ping = Cbor::Map(vec![("type".into(), "ping".into()), ("n".into(), Cbor::Tag(1, Box::new(7.into())))]);
    let mut said = Vec::new();
    ciborium::into_writer(&ping, &mut said).unwrap();
    ws.send(FIN | BINARY, &said).await;
    assert_eq!(member(&ws.cbor().await, "n"), Some(Cbor::Tag(1, Box::new(7.into()))));
    ws.text("{}").await;
    assert_eq!(ws.closed().await, 1003);
    let both = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", "diorama.v1+cbor, diorama.v1+json")]].concat();
    let (answer, _) = Ws::handshake(&app, "/products/events", &both).await;
    assert_eq!(answer.header("sec-websocket-protocol"), "diorama.v1+json");
}

#[tokio::test]
async fn any_input_a_client_that_talks_too_much_is_let_go() {
    let app = App::start().await;
    let mut ws = Ws::open(&app, "/products/events").await;
    for n in 0..60 {
        say(&mut ws, json!({"type": "ping", "n": n})).await;
    }
    assert_eq!(ws.closed().await, 4429);
}

#[tokio::test]
async fn every_event_one_socket_follows_many_resources_and_each_event_reaches_those_who_asked() {
    let lens = Lens::new().cache_source(MemoryCache::default()).build().unwrap();
    let mut others = Vec::new();
    for number in 0..8 {
        others.push(lens.make_dio(MemoryTable::vista(format!("shelf{number}"), products(), rows(2))).await.unwrap());
    }
    let mount = |gateway: Gateway| others.iter().fold(gateway, |gateway, dio| gateway.mount(dio.clone()));
    let app = App::with(products(), rows(1), |lens| lens, MountOptions::default(), mount).await;
    let names: Vec<_> = others.iter().map(|dio| dio.name().to_string()).collect();
    let mut ws = Ws::open(&app, &format!("/events?dio={}", names.join(","))).await;
    for _ in &names {
        assert_eq!(ws.json().await["type"], "hello");
    }
    // Seven more of each, of which half are live queries: 64 in all.
    for name in &names {
        for number in 0..7 {
            let sub = format!("{name}-{number}");
            let live = number % 2 == 0;
            let least = json!({"price": {"gte": if number < 4 { 0 } else { 1_000 }}});
            say(&mut ws, json!({"type": "subscribe", "sub": sub, "dio": name, "live": live, "where": least})).await;
            let last = if live { "snapshot_end" } else { "hello" };
            while ws.json().await["type"] != last {}
        }
        if *name == names[4] {
            // A client may say 40 things at once, and then 20 a second.
            tokio::time::sleep(Duration::from_millis(1_200)).await;
        }
    }
    say(&mut ws, json!({"type": "subscribe", "sub": "more", "dio": "products"})).await;
    assert_eq!(ws.json().await["code"], "limit-too-large");
    for dio in &others {
        dio.patched("1", Record::from_iter([("name".to_string(), "Bun".into()), ("price".to_string(), 7.into())]))
            .await
            .unwrap();
        let mut told = Vec::new();
        while told.len() < 5 {
            told.push(ws.json().await["sub"].as_str().unwrap().to_string());
        }
        told.sort_unstable();
        let name = dio.name();
        let expected = [name.to_string()].into_iter().chain((0..4).map(|number| format!("{name}-{number}")));
        assert_eq!(told, expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_newer_token_prolongs_a_socket_only_for_the_same_caller() {
    let keys = Auth::builder()
        .key(Key::new("own", "viewer").token("first").token("second"))
        .key(Key::new("other", "viewer").token("third"));
    let auth = keys.build().unwrap();
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), |gateway| gateway.auth(auth)).await;
    let offers = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", "diorama.v1+json, bearer.first")]].concat();
    let (_, mut ws) = Ws::handshake(&app, "/events?dio=products", &offers).await;
    ws.json().await;
    for (token, code) in [("second", "-"), ("third", "conflict"), ("fourth", "unauthenticated"), ("first", "-")] {
        say(&mut ws, json!({"type": "auth", "token": token})).await;
        let answer = ws.json().await;
        assert_eq!(answer["code"].as_str().unwrap_or("-"), code, "{token} {answer}");
    }
}
