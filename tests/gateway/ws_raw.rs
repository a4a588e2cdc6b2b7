//! Event sockets, frame by frame.

use std::time::Duration;

use diorama::dio::RingLimits;
use diorama::gateway::{Auth, Gateway, MountOptions, Sockets};
use diorama::{LensBuilder, Record};
use serde_json::{Value, json};

use crate::harness::{App, products, rows};
use crate::ws::{CLOSE, CONTINUATION, FIN, Frame, HANDSHAKE, PING, PONG, TEXT, Ws};

async fn app(lens: impl FnOnce(LensBuilder) -> LensBuilder, gateway: impl FnOnce(Gateway) -> Gateway) -> App {
    App::with(products(), rows(3), lens, MountOptions::default(), gateway).await
}

async fn patch(app: &App, id: &str, name: String) {
    let record = Record::from_iter([("name".to_string(), name.into()), ("price".to_string(), 1.into())]);
    app.dio.patched(id, record).await.unwrap();
}

/// A socket that was greeted, and the greeting.
async fn greeted(app: &App, query: &str) -> (Ws, Value) {
    let mut ws = Ws::open(app, &format!("/products/events{query}")).await;
    let hello = ws.json().await;
    assert_eq!(hello["type"], "hello");
    (ws, hello)
}

#[tokio::test]
async fn every_event_a_handshake_is_answered_as_the_specification_says() {
    let app = App::start().await;
    let (answer, _) = Ws::handshake(&app, "/products/events", &HANDSHAKE).await;
    assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("upgrade").to_lowercase(), "websocket");
    let offers =
        [("Sec-WebSocket-Protocol", "graphql-ws, diorama.v1+json"), ("Sec-WebSocket-Extensions", "permessage-deflate")];
    let (answer, _) = Ws::handshake(&app, "/products/1/events", &[&HANDSHAKE[..], &offers].concat()).await;
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, "diorama.v1+json"));
    assert_eq!(answer.header("sec-websocket-extensions"), "", "what is not spoken is not promised");
}

#[tokio::test]
async fn every_event_a_handshake_that_is_none_is_426_with_the_version() {
    let app = App::start().await;
    let without = |name: &str| HANDSHAKE.into_iter().filter(|(own, _)| *own != name).collect::<Vec<_>>();
    let old = [&without("Sec-WebSocket-Version")[..], &[("Sec-WebSocket-Version", "8")]].concat();
    let wrong = [old, without("Sec-WebSocket-Version"), without("Upgrade"), without("Sec-WebSocket-Key")];
    for headers in wrong {
        let (answer, _) = Ws::handshake(&app, "/products/events", &headers).await;
        assert_eq!(answer.refusal(), (426, "upgrade-required".into()), "{headers:?}");
        assert_eq!((answer.header("sec-websocket-version"), answer.header("upgrade")), ("13", "websocket"));
    }
    assert_eq!(app.send("POST", "/products/events", &HANDSHAKE, "").await.status, 409);
}

#[tokio::test]
async fn a_browser_brings_its_token_as_a_subprotocol_and_never_gets_it_back() {
    let auth = Auth::tokens(["0123456789abcdef.~", "with/slash+and=pad"]);
    let app = app(|lens| lens, |gateway| gateway.auth(auth)).await;
    let try_with = async |offer: &str| {
        let headers = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", offer)]].concat();
        Ws::handshake(&app, "/products/events", &headers).await.0
    };
    let encoded = "diorama.v1+json, bearer.d2l0aC9zbGFzaCthbmQ9cGFk";
    for offer in ["diorama.v1+json, bearer.0123456789abcdef.~", "bearer.0123456789abcdef.~,diorama.v1+json", encoded] {
        let answer = try_with(offer).await;
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, "diorama.v1+json"), "{offer}");
        assert!(!answer.headers.iter().any(|(_, value)| value.contains("bearer")), "{answer:?}");
    }
    assert_eq!(try_with("bearer.0123456789abcdef.~").await.header("sec-websocket-protocol"), "");
    for offer in [
        "diorama.v1+json",
        "diorama.v1+json, bearer.0123456789abcdef",
        "diorama.v1+json, bearer.",
        "0123456789abcdef.~",
    ] {
        let refused = try_with(offer).await;
        assert_eq!(refused.refusal(), (401, "unauthenticated".into()), "{offer}");
        assert!(refused.header("www-authenticate").starts_with("Bearer"));
    }
    let plain = [("Sec-WebSocket-Protocol", "bearer.0123456789abcdef.~")];
    assert_eq!(app.send("GET", "/products", &plain, "").await.status, 401, "only sockets are opened so");
    let header = [&HANDSHAKE[..], &[("Authorization", "Bearer 0123456789abcdef.~")]].concat();
    assert_eq!(Ws::handshake(&app, "/products/events", &header).await.0.status, 101);
}

#[tokio::test]
async fn every_event_messages_in_pieces_are_one_and_pings_are_answered_in_between() {
    let app = App::start().await;
    let (mut ws, hello) = greeted(&app, "").await;
    ws.send(TEXT, br#"{"type":"pi"#).await;
    ws.send(FIN | PING, b"are you there?").await;
    assert_eq!(ws.frame().await, Some(Frame { first: FIN | PONG, payload: b"are you there?".to_vec() }));
    ws.send(CONTINUATION, br#"ng","n":"cr"#).await;
    ws.send(CONTINUATION, b"\xC3").await;
    ws.send(FIN | CONTINUATION, b"\xA8me\"}").await;
    let pong = ws.json().await;
    assert_eq!((&pong["type"], &pong["n"], &pong["seq"]), (&json!("pong"), &json!("crème"), &hello["seq"]));
    ws.send(FIN | PONG, b"nobody asked").await;
    ws.send(FIN | PING, b"").await;
    assert_eq!(ws.frame().await, Some(Frame { first: FIN | PONG, payload: vec![] }));
}

#[tokio::test]
async fn any_input_what_is_not_understood_is_said_twice_and_then_closed() {
    let app = App::start().await;
    let (mut ws, _) = greeted(&app, "").await;
    for said in ["x".repeat(64 << 10), "[1]".into()] {
        ws.text(&said).await;
        let error = ws.json().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad-message")));
    }
    ws.text("").await;
    assert_eq!(ws.closed().await, 4508);
}

#[tokio::test]
async fn every_event_a_close_is_answered_with_its_code() {
    let app = App::start().await;
    for payload in [&b"\x0B\xB9going"[..], b"\x03\xE8", b""] {
        let (mut ws, _) = greeted(&app, "").await;
        ws.send(FIN | CLOSE, payload).await;
        let echo = ws.frame().await.unwrap();
        assert_eq!(echo.first, FIN | CLOSE);
        assert_eq!(echo.payload.get(..2), payload.get(..2));
        assert_eq!(ws.frame().await, None, "nothing follows a close");
    }
}

#[tokio::test]
async fn row_before_event_since_is_resumed_or_the_reason_is_told() {
    // What the ring has lost is in the journal.
    let ring = RingLimits { events: 3, bytes: 1 << 20 };
    let app = app(|lens| lens.ring(ring), |gateway| gateway).await;
    let (_, hello) = greeted(&app, "").await;
    let (epoch, start) = (hello["epoch"].as_str().unwrap().to_string(), hello["seq"].as_u64().unwrap());
    for n in 1..=5 {
        patch(&app, "1", format!("{n}")).await;
    }
    let end = start + 5;
    let (mut ws, hello) = greeted(&app, &format!("?since={epoch}:{}", end - 2)).await;
    assert_eq!((&hello["resumed"], &hello["missed"]), (&json!(true), &json!(2)));
    for n in ["4", "5"] {
        assert_eq!(ws.json().await["record"]["name"], n);
    }
    let (mut ws, hello) = greeted(&app, &format!("?since={epoch}:{end}")).await;
    assert_eq!((&hello["resumed"], &hello["missed"]), (&json!(true), &json!(0)));
    patch(&app, "2", "live".into()).await;
    assert_eq!(ws.json().await["seq"], end + 1);
    let (mut ws, hello) = greeted(&app, &format!("?since={epoch}:{start}")).await;
    assert_eq!((&hello["resumed"], &hello["missed"]), (&json!(true), &json!(6)));
    for seq in start + 1..=end + 1 {
        assert_eq!(ws.json().await["seq"], seq);
    }
    for (since, reason) in [(format!("{epoch}:{}", end + 2), "future"), (format!("ZZZZZZZZZZ:{end}"), "epoch")] {
        let (mut ws, hello) = greeted(&app, &format!("?since={since}")).await;
        assert_eq!(hello["resumed"], false, "{since}");
        let reset = ws.json().await;
        assert_eq!(
            (&reset["type"], &reset["reason"], &reset["seq"]),
            (&json!("reset"), &json!(reason), &json!(end + 1))
        );
    }
    assert_eq!(Ws::handshake(&app, "/products/events?since=x", &HANDSHAKE).await.0.refusal().0, 400);
}

#[tokio::test]
async fn every_event_heartbeats_carry_the_position_and_a_peer_that_is_gone_is_let_go() {
    let app = App::start().await;
    let (mut ws, _) = greeted(&app, "?heartbeat=5&ids=nobody").await;
    patch(&app, "1", "changed".into()).await;
    for _ in 0..5 {
        app.pass(Duration::from_secs(6)).await;
        let beat = ws.json().await;
        assert_eq!((&beat["type"], &beat["position"]), (&json!("heartbeat"), &json!(app.dio.position().to_string())));
        assert_eq!(ws.frame().await, Some(Frame { first: FIN | PING, payload: vec![] }));
        ws.send(FIN | PONG, b"").await;
        // The pong is read before its own echo of a ping.
        ws.send(FIN | PING, b"!").await;
        assert_eq!(ws.frame().await.unwrap().first, FIN | PONG);
    }
    app.pass(Duration::from_secs(21)).await;
    assert_eq!(ws.closed().await, 4001);
}

#[tokio::test]
async fn every_event_who_does_not_read_gets_the_newest_state_of_each_row_and_delays_nobody() {
    const EVENTS: usize = 120;
    let ring = RingLimits { events: 20, bytes: 64 << 20 };
    let app = app(|lens| lens.ring(ring), |gateway| gateway).await;
    let ((mut slow, _), (mut fast, hello)) = (greeted(&app, "").await, greeted(&app, "").await);
    let start = hello["seq"].as_u64().unwrap();
    for n in 1..=EVENTS {
        patch(&app, ["1", "2"][n % 2], format!("{n} {}", "x".repeat(100_000))).await;
        assert_eq!(fast.json().await["seq"], start + n as u64);
    }
    app.dio.vista().delete("2").await.unwrap();
    let mut last = start;
    let newest = loop {
        let frame = slow.json().await;
        if frame["conflated"] == true {
            break frame;
        }
        assert_eq!(frame["seq"], last + 1, "in order, without holes");
        last += 1;
    };
    assert!(last < start + EVENTS as u64 - 20, "the ring went on without the slow one: {last}");
    let rows = [newest, slow.json().await];
    let of = |id: &str| rows.iter().find(|row| row["id"] == id).unwrap();
    assert!(of("1")["record"]["name"].as_str().unwrap().starts_with("120 "), "{}", of("1")["seq"]);
    assert!(rows.iter().all(|row| row["seq"] == last), "whoever comes back now gets them again");
    assert_eq!(of("2")["type"], "RecordRemoved");
    let bookmark = slow.json().await;
    assert_eq!(bookmark["type"], "heartbeat");
    assert!(bookmark["seq"].as_u64().unwrap() > start + EVENTS as u64);
    patch(&app, "3", "and on".into()).await;
    while slow.json().await["record"]["name"] != "and on" {}
}

#[tokio::test]
async fn every_event_who_never_reads_is_let_go() {
    let sockets = Sockets::default();
    let app = app(|lens| lens, |gateway| gateway.sockets(sockets.clone())).await;
    let (_stuck, _) = greeted(&app, "?heartbeat=60").await;
    for n in 0..60 {
        patch(&app, "1", format!("{n} {}", "x".repeat(200_000))).await;
    }
    assert_eq!(sockets.open(), 1);
    for _ in 0..30 {
        if sockets.open() > 0 {
            app.pass(Duration::from_secs(1)).await;
        }
    }
    assert_eq!(sockets.open(), 0);
}

#[tokio::test]
async fn sockets_are_bounded_and_places_come_back() {
    let sockets = Sockets::new(1);
    let app = app(|lens| lens, |gateway| gateway.sockets(sockets.clone())).await;
    let (mut ws, _) = greeted(&app, "").await;
    let (refused, _) = Ws::handshake(&app, "/products/events", &HANDSHAKE).await;
    assert_eq!(refused.refusal(), (429, "rate-limited".into()));
    assert!(refused.header("retry-after").parse::<u64>().is_ok());
    ws.send(FIN | CLOSE, b"").await;
    ws.closed().await;
    while sockets.open() > 0 {
        tokio::task::yield_now().await;
    }
    greeted(&app, "").await;
}
