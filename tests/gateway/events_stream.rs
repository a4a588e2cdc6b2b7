//! Events without a socket: server-sent events and long polls; snapshots, filters and positions on them.

use std::time::Duration;

use diorama::gateway::{MountOptions, Sockets};
use diorama::{Query, Record};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Answer, App, products, rows};

const PATIENCE: Duration = Duration::from_secs(20);

/// An event source.
pub(crate) struct Source(BufReader<TcpStream>);

/// What came between two empty lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) comment: Option<String>,
    pub(crate) retry: Option<String>,
}

impl Block {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().unwrap_or("null")).unwrap()
    }
}

impl Source {
    pub(crate) async fn open(app: &App, path: &str, last: Option<&str>) -> (Answer, Source) {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        let host = app.address;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            raw.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(raw).unwrap().replace("transfer-encoding: chunked\r\n", "");
        (Answer::parse(head.as_bytes()), Source(BufReader::new(stream)))
    }

    /// The next block, `None` at the end. Pieces of the transfer encoding are one or more blocks each.
    pub(crate) async fn block(&mut self) -> Option<Block> {
        let mut block = Block::default();
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.0.read_line(&mut line)).await.expect("a line").ok()?;
            if read == 0 {
                return None;
            }
            if line.ends_with("\r\n") {
                // The size of a piece, or its end.
                if line == "0\r\n" {
                    return None;
                }
                continue;
            }
            let line = line.trim_end_matches('\n');
            let Some((name, value)) = line.split_once(": ") else {
                assert_eq!(line, "");
                return Some(block);
            };
            let field = match name {
                "id" => &mut block.id,
                "data" => &mut block.data,
                "retry" => &mut block.retry,
                "" => &mut block.comment,
                other => panic!("{other} is no field that is sent"),
            };
            *field = Some(value.to_string());
        }
    }

    async fn skip_to(&mut self, kind: &str) -> Block {
        loop {
            let block = self.block().await.expect("a block");
            if block.json()["type"] == kind {
                return block;
            }
        }
    }
}

async fn price(app: &App, id: &str, price: i64) {
    let cells = [("name".to_string(), "Bun".into()), ("price".to_string(), price.into())];
    app.dio.patched(id, Record::from_iter(cells)).await.unwrap();
}

#[tokio::test]
async fn every_event_server_sent_events_are_the_same_frames_and_resume_by_last_event_id() {
    let app = App::start().await;
    let (answer, mut source) = Source::open(&app, "/products/events", None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/event-stream"));
    assert_eq!((answer.header("cache-control"), answer.header("x-accel-buffering")), ("no-store", "no"));
    assert_eq!(source.block().await.unwrap().retry.as_deref(), Some("2000"));
    let hello = source.block().await.unwrap();
    assert_eq!(hello.json()["type"], "hello");
    assert_eq!(hello.id.as_deref(), hello.json()["position"].as_str());
    price(&app, "1", 5).await;
    let event = source.block().await.unwrap();
    assert_eq!((&event.json()["type"], &event.json()["record"]["price"]), (&json!("RecordChanged"), &json!(5)));
    let last = app.dio.position().to_string();
    assert_eq!(event.id.as_deref(), Some(&*last));
    drop(source);
    price(&app, "1", 6).await;
    let (_, mut source) = Source::open(&app, "/products/events?since=earliest", Some(&last)).await;
    assert_eq!(source.skip_to("hello").await.json()["resumed"], true);
    assert_eq!(source.block().await.unwrap().json()["record"]["price"], 6, "the header wins over since");
    let (answer, mut source) = Source::open(&app, "/products/events", Some("what is this")).await;
    assert_eq!(answer.status, 200, "a browser does not come back after a refusal");
    assert_eq!(source.skip_to("reset").await.json()["reason"], "epoch");
}

#[tokio::test]
async fn every_event_a_stream_that_hears_nothing_of_its_rows_still_gets_on() {
    let app = App::start().await;
    let (_, mut source) = Source::open(&app, "/products/events?heartbeat=5&price=gte.1000", None).await;
    source.skip_to("hello").await;
    price(&app, "1", 5).await;
    app.pass(Duration::from_secs(6)).await;
    let beat = source.block().await.unwrap();
    let position = app.dio.position().to_string();
    assert_eq!((beat.comment.as_deref(), beat.data, beat.id), (Some("heartbeat"), None, Some(position)));
}

#[tokio::test]
async fn every_event_streams_end_when_the_server_stops() {
    let sockets = Sockets::default();
    let gateway = |gateway: diorama::gateway::Gateway| gateway.sockets(sockets.clone());
    let app = App::with(products(), rows(3), |lens| lens, MountOptions::default(), gateway).await;
    let (_, mut source) = Source::open(&app, "/products/events", None).await;
    source.skip_to("hello").await;
    assert_eq!(sockets.open(), 1);
    tokio::join!(sockets.close(), async {
        assert_eq!(source.block().await.unwrap().json()["type"], "bye");
        assert_eq!(source.block().await, None);
    });
}

#[tokio::test]
async fn row_before_event_a_poll_brings_what_was_missed_and_where_to_go_on() {
    let app = App::start().await;
    let poll = async |query: &str| app.send("GET", &format!("/products/events{query}"), &[], "").await;
    let lines = |answer: &Answer| -> Vec<Value> {
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let since = app.get("/products").await.header("dio-position").to_string();
    let idle = poll("").await;
    assert_eq!((idle.status, idle.header("content-type")), (200, "application/x-ndjson"));
    let kinds: Vec<_> = lines(&idle).iter().map(|frame| frame["type"].clone()).collect();
    assert_eq!(kinds, ["hello", "heartbeat"]);
    price(&app, "1", 5).await;
    price(&app, "2", 6).await;
    let missed = lines(&poll(&format!("?since={since}&wait=30")).await);
    assert_eq!((missed.len(), &missed[1]["id"], &missed[2]["id"]), (4, &json!("1"), &json!("2")));
    let next = missed[3]["position"].as_str().unwrap();
    assert_eq!(next, app.dio.position().to_string());
    let (waited, ()) = tokio::join!(poll_json(&app, next), async {
        while app.dio.ring().watchers() == 0 {
            tokio::task::yield_now().await;
        }
        price(&app, "3", 7).await;
    });
    assert_eq!(waited.header("content-type"), "application/json");
    let frames = waited.json();
    assert_eq!((frames[1]["id"].as_str(), frames[2]["type"].as_str()), (Some("3"), Some("heartbeat")));
    let (status, _) = app.send("GET", "/products/events", &[("Accept", "text/html")], "").await.refusal();
    assert_eq!(status, 406);
}

async fn poll_json(app: &App, since: &str) -> Answer {
    app.send("GET", &format!("/products/events?since={since}&wait=30"), &[("Accept", "application/json")], "").await
}

#[tokio::test]
async fn every_event_filters_select_and_ops_hold_on_every_transport() {
    let app = App::start().await;
    let since = app.get("/products").await.header("dio-position").to_string();
    price(&app, "1", 500).await;
    price(&app, "1", 1).await;
    app.dio.vista().delete("7").await.unwrap();
    let told = async |query: &str| -> Vec<Value> {
        let path = format!("/products/events?since={since}&wait=0{query}");
        let frames = poll_at(&app, &path).await;
        let frames = frames.as_array().unwrap().clone();
        frames.into_iter().filter(|frame| frame["type"].as_str().unwrap().starts_with("Record")).collect()
    };
    let dear = told("&price=gte.100&select=price").await;
    assert_eq!((&dear[0]["entered"], &dear[0]["record"]), (&json!(true), &json!({"price": 500})));
    assert_eq!((&dear[1]["type"], &dear[1]["left"]), (&json!("RecordRemoved"), &json!(true)));
    assert_eq!(dear.len(), 2);
    let deletes = told("&ops=delete").await;
    assert_eq!((deletes.len(), &deletes[0]["id"]), (1, &json!("7")));
    assert!(told("&records=false").await.iter().all(|frame| frame.get("record").is_none()));
    let one = poll_at(&app, &format!("/products/7/events?since={since}")).await;
    assert_eq!((&one[1]["type"], &one[1]["id"]), (&json!("RecordRemoved"), &json!("7")));
    for query in ["?order=price", "?limit=5", "?offset=0", "?after="] {
        let refused = app.get(&format!("/products/events{query}")).await;
        assert_eq!(refused.refusal().0, 400, "{query}");
        assert!(refused.json()["hint"].as_str().unwrap().contains("/live"), "{query}");
    }
    assert_eq!(app.get("/products/events?colour=red").await.refusal().0, 400);
}

async fn poll_at(app: &App, path: &str) -> Value {
    app.send("GET", path, &[("Accept", "application/json")], "").await.json()
}

#[tokio::test]
async fn row_before_event_a_snapshot_is_all_rows_of_the_view_and_events_go_on_from_it() {
    let app = App::with(products(), rows(1_200), |lens| lens, MountOptions::default(), |gateway| gateway).await;
    let frames = poll_at(&app, "/products/events?snapshot=full&price=gte.50&select=name").await;
    let frames = frames.as_array().unwrap();
    let kinds: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..3], ["hello", "snapshot_begin", "rows"]);
    assert_eq!(kinds[kinds.len() - 2..], ["snapshot_end", "heartbeat"]);
    let rows: Vec<&Value> = frames.iter().filter_map(|frame| frame["rows"].as_array()).flatten().collect();
    assert_eq!(rows.len(), 1_196);
    assert_eq!(*rows[0], json!(["5", {"name": "Bun 5"}]));
    assert!(kinds.iter().filter(|kind| **kind == "rows").count() >= 3, "in pieces");
    let end = frames.iter().find(|frame| frame["type"] == "snapshot_end").unwrap()["position"].as_str().unwrap();
    price(&app, "9", 60).await;
    let after = poll_at(&app, &format!("/products/events?since={end}&snapshot=auto")).await;
    assert_eq!(
        (&after[0]["resumed"], &after[0]["snapshot"], &after[1]["id"]),
        (&json!(true), &json!(false), &json!("9"))
    );
    let lost = poll_at(&app, "/products/events?since=OTHER:1&snapshot=auto&ids=9,nobody").await;
    let kinds: Vec<_> = lost.as_array().unwrap().iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["hello", "reset", "snapshot_begin", "rows", "snapshot_end", "heartbeat"]);
    assert_eq!(lost[3]["rows"][0][1]["price"], 60);
    assert_eq!(app.dio.vista().shell().count(&Query::default()).await.unwrap(), 1_200);
}
