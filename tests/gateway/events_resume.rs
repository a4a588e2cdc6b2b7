//! Subscribers that come back after a long time, or while the server starts.

use std::time::Duration;

use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::gateway::{Gateway, Limits, MountOptions};
use diorama::{Dio, Lens, Record, Result};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::events_stream::Source;
use crate::harness::{App, products, rows};

/// Everything is to happen within this.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of the frames' heads that say how many events were told, and whether something went wrong.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    changed: usize,
    resets: usize,
}

/// Counts frames in a body while it is read, without keeping it.
async fn tally_body(app: &App, path: &str, accept: &str, enough: usize) -> Tally {
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let head = format!("GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", app.address);
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut tally, mut rest, mut piece) = (Tally::default(), Vec::new(), vec![0; 1 << 20]);
    const MARK: &[u8] = b"{\"type\":\"";
    while tally.changed < enough && tally.resets == 0 {
        let read = timeout(PATIENCE, stream.read(&mut piece)).await.expect("more of the body").unwrap();
        if read == 0 {
            break;
        }
        rest.extend_from_slice(&piece[..read]);
        let mut done = 0;
        while let Some(at) = memchr::memmem::find(&rest[done..], MARK) {
            let kind = &rest[done + at + MARK.len()..];
            if kind.len() < 16 {
                break;
            }
            tally.changed += usize::from(kind.starts_with(b"RecordChanged"));
            tally.resets += usize::from(kind.starts_with(b"reset"));
            done += at + MARK.len();
        }
        let keep = rest.len() - (rest.len() - done).min(64);
        rest.drain(..keep.max(done));
    }
    tally
}

async fn tally_socket(app: &App, path: &str, enough: usize) -> Tally {
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}{path}", app.address)).await.unwrap();
    let mut tally = Tally::default();
    while tally.changed < enough && tally.resets == 0 {
        let Message::Text(text) = timeout(PATIENCE, socket.next()).await.expect("a frame").unwrap().unwrap() else {
            continue;
        };
        tally.changed += usize::from(text.starts_with("{\"type\":\"RecordChanged"));
        tally.resets += usize::from(text.starts_with("{\"type\":\"reset"));
    }
    tally
}

/// Publishes `events` changes of 500 rows with `payload`, and reads all of them again in every way there is.
async fn resumes(events: usize, payload: &str) {
    let app = App::with(products(), rows(500), |lens| lens, MountOptions::default(), |gateway| gateway).await;
    let change = |n: usize| {
        let cells = [("name".to_string(), payload.into()), ("price".to_string(), (n as i64).into())];
        app.dio.patched((n % 500 + 1).to_string(), Record::from_iter(cells))
    };
    // The rows' first change is not one of those that are counted: their former names are in the log, too.
    stream::iter(0..500).for_each_concurrent(256, async |n| change(n).await.unwrap()).await;
    let since = app.dio.position();
    stream::iter(500..500 + events).for_each_concurrent(256, async |n| change(n).await.unwrap()).await;
    let expected = Tally { changed: events, resets: 0 };
    let path = format!("/products/events?since={since}&wait=1");
    assert_eq!(tally_socket(&app, &path, events).await, expected, "over a WebSocket");
    assert_eq!(tally_body(&app, &path, "text/event-stream", events).await, expected, "as server-sent events");
    assert_eq!(tally_body(&app, &path, "application/x-ndjson", usize::MAX).await, expected, "by polling, NDJSON");
    assert_eq!(tally_body(&app, &path, "application/json", usize::MAX).await, expected, "by polling, JSON");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_what_the_ring_has_not_any_more_is_read_again_on_every_transport() {
    resumes(15_000, "Bun").await;
    resumes(1_000, &"x".repeat(20_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; run after any change of how events are read from the journal"]
async fn every_event_a_hundred_thousand_small_events_are_read_again_on_every_transport() {
    resumes(99_000, "Bun").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; run after any change of how events are read from the journal"]
async fn every_event_250_mib_of_large_rows_are_read_again_on_every_transport() {
    resumes(12_500, &"x".repeat(20_000)).await;
}

/// A gateway over a Dio whose first copy waits for a gate.
struct Starting {
    address: std::net::SocketAddr,
    gate: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
    _dio: Dio,
    _lens: Lens,
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Starting {
    async fn new(start_wait: Duration) -> Starting {
        let gate = watch::Sender::new(false);
        let opened = gate.subscribe();
        let seed = move |dio: &Dio| {
            let (dio, mut opened) = (dio.clone(), opened.clone());
            async move {
                let _ = opened.wait_for(|open| *open).await;
                let rows = dio.master().list_values().await?;
                dio.cache().insert_values(rows).await?;
                Result::Ok(())
            }
        };
        let lens = Lens::new().cache_source(MemoryCache::default()).on_start_blocking(false).on_start(seed);
        let lens = lens.build().unwrap();
        let dio = lens.make_dio(MemoryTable::vista("products", products(), rows(3))).await.unwrap();
        let limits = Limits { start_wait, ..Limits::default() };
        let router = Gateway::new().mount(dio.clone()).limits(limits).into_router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "it is aborted when this is dropped")]
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Starting { address, gate, server, _dio: dio, _lens: lens }
    }

    async fn get(&self, path: &str, accept: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.0\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer
    }

    /// The first frame of a socket.
    async fn hello(&self, path: &str) -> Value {
        let url = format!("ws://{}{path}", self.address);
        let (mut socket, _) = timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await.unwrap().unwrap();
        let first = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        serde_json::from_str(first.to_text().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn streams_wait_while_the_server_starts() {
    let starting = Starting::new(PATIENCE).await;
    let open = async {
        // Whoever asks is waiting by now, or finds the gate open.
        tokio::task::yield_now().await;
        starting.gate.send_replace(true);
    };
    let poll = "/products/events?snapshot=full&wait=30";
    let (socket, live, many, polled, ()) = tokio::join!(
        starting.hello("/products/events"),
        starting.hello("/products/live"),
        starting.hello("/events?dio=products"),
        starting.get(poll, "application/json"),
        open,
    );
    for hello in [&socket, &live, &many] {
        assert_eq!((&hello["type"], &hello["dio"]), (&json!("hello"), &json!("products")), "{hello}");
    }
    let (head, body) = polled.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 OK"), "{head}");
    let frames: Value = serde_json::from_str(body).unwrap();
    assert_eq!(frames[2]["rows"].as_array().unwrap().len(), 3, "{frames}");
}

#[tokio::test]
async fn streams_that_have_waited_long_enough_are_told_to_come_again() {
    let starting = Starting::new(Duration::from_millis(50)).await;
    for path in
        ["/products/events", "/products/live", "/events?dio=products", "/products/_aggregate?select=count()&live=true"]
    {
        let answer = starting.get(path, "text/event-stream").await;
        // A refusal would end an event source for ever; the end of a stream does not.
        assert!(answer.contains(" 200 OK") && answer.contains("content-type: text/event-stream"), "{path}: {answer}");
        assert!(answer.contains("retry: 2000\n") && !answer.contains("data:"), "{path}: {answer}");
        let refused = starting.get(path, "application/json").await;
        assert!(refused.contains(" 503 ") && refused.contains("not-ready"), "a poll that does not wait: {refused}");
        assert!(refused.contains("retry-after: "), "{refused}");
    }
    let url = format!("ws://{}/products/events", starting.address);
    let refused = tokio_tungstenite::connect_async(url).await.unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
}

#[tokio::test]
async fn a_poll_gives_at_once_what_it_has() {
    let app = App::start().await;
    let started = Instant::now();
    for (query, kinds) in [
        ("snapshot=full", vec!["hello", "snapshot_begin", "rows", "snapshot_end", "heartbeat"]),
        ("since=OTHER:1", vec!["hello", "reset", "heartbeat"]),
        ("since=OTHER:1&snapshot=auto", vec!["hello", "reset", "snapshot_begin", "rows", "snapshot_end", "heartbeat"]),
    ] {
        let answer =
            app.send("GET", &format!("/products/events?{query}&wait=30"), &[("Accept", "application/json")], "").await;
        let frames = answer.json();
        let told: Vec<&str> = frames.as_array().unwrap().iter().map(|frame| frame["type"].as_str().unwrap()).collect();
        assert_eq!(told, kinds, "{query}");
    }
    assert!(started.elapsed() < Duration::from_secs(25), "nothing was waited for");
    let (_, mut source) = Source::open(&app, "/products/events?snapshot=full", None).await;
    assert_eq!(source.block().await.unwrap().retry.as_deref(), Some("2000"));
}
