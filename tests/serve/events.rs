//! `/{dio}/events` with a WebSocket client.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::process::{PATIENCE, Server, folder};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn connect(server: &Server, path: &str) -> Socket {
    connect_async(server.url(path)).await.unwrap().0
}

/// The next frame; a close is its code.
pub(crate) async fn frame<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Value {
    loop {
        match timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
            Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code).into(),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Value::Null,
        }
    }
}

fn orders(dir: &std::path::Path) -> Server {
    let text = "[lens]\ncache = \"memory\"\n[dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";
    std::fs::write(dir.join("diorama.toml"), text).unwrap();
    Server::start(dir, &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_sees_writes_and_may_come_back() {
    let dir = folder();
    let server = orders(dir.path());
    let mut socket = connect(&server, "/orders/events").await;
    let hello = frame(&mut socket).await;
    assert_eq!((hello["type"].as_str(), hello["dio"].as_str()), (Some("hello"), Some("orders")));
    let written = server.post("/orders/o1", r#"{"item":"Bun","price":150}"#);
    assert!((200..300).contains(&written.status), "{}", written.body);
    let inserted = frame(&mut socket).await;
    assert_eq!((inserted["type"].as_str(), inserted["id"].as_str()), (Some("RecordInserted"), Some("o1")));
    assert_eq!(inserted["record"]["item"], "Bun");
    assert_eq!(frame(&mut socket).await["type"], "WriteCommitted");
    drop(socket);
    server.request("DELETE", "/orders/o1", &[], "");
    let since = format!("{}:{}", hello["epoch"].as_str().unwrap(), inserted["seq"]);
    let mut socket = connect(&server, &format!("/orders/events?since={since}&records=false")).await;
    assert_eq!(frame(&mut socket).await["resumed"], true);
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        kinds.push(frame(&mut socket).await["type"].as_str().unwrap().to_string());
    }
    assert!(kinds.contains(&"RecordRemoved".to_string()), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_refused_for_a_reason_before_they_open() {
    let dir = folder();
    let server = orders(dir.path());
    let plain = server.request("GET", "/orders/events", &[("Sec-WebSocket-Version", "8")], "");
    assert_eq!((plain.status, plain.json()["code"].as_str()), (426, Some("upgrade-required")));
    assert!(plain.head.contains("upgrade: websocket"), "{}", plain.head);
    assert_eq!(server.get("/orders/events").status, 200, "without a socket it is a poll");
    assert_eq!(server.get("/orders/events?colour=red").json()["code"], "unknown-column");
    assert_eq!(server.get("/nothing/events").status, 404);
    for (origin, welcome) in [("https://evil.example", false), ("http://localhost:3000", true)] {
        let mut request = server.url("/orders/events").into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(connect_async(request).await.is_ok(), welcome, "{origin}");
    }
    let mut request = server.url("/orders/events").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "diorama.v1+json".parse().unwrap());
    let (_, answer) = connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "diorama.v1+json");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_can_be_watched() {
    let dir = folder();
    let server = orders(dir.path());
    let mut socket = connect(&server, "/orders/b/events").await;
    frame(&mut socket).await;
    server.post("/orders/a", r#"{"item":"Bun","price":150}"#);
    server.post("/orders/b", r#"{"item":"Muffin","price":175}"#);
    assert_eq!(frame(&mut socket).await["id"], "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_and_binary_messages_close_with_their_codes() {
    let dir = folder();
    let server = orders(dir.path());
    for (message, code) in [(Message::text("x".repeat(70_000)), 1009), (Message::binary(vec![1]), 1003)] {
        let mut socket = connect(&server, "/orders/events").await;
        frame(&mut socket).await;
        socket.send(message).await.unwrap();
        assert_eq!(frame(&mut socket).await, code);
    }
}
