//! Event sockets beside a bare axum socket server: `cargo bench --bench gateway -- --sockets`.
//!
//! The bare server is what one would tune by hand: one shared frame of each event, 1 kB to read into, everything that waits is fed
//! and then flushed once. Both publish when told to, with the time in the row; a delivery is a frame that a socket has received.
//! Figures are deliveries in a second of server CPU, and how long after its publication an event is there.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::{Path as Segments, State};
use axum::routing::{get, post};
use diorama::gateway::Gateway;
use diorama::record::Body;
use diorama::{Dio, Lens, Record};
use futures_util::{SinkExt as _, StreamExt as _};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::client::{self, Ask};
use crate::servers::{self, Server};
use crate::{Plan, products, ready, text};

/// Rows that change in turn.
const ROWS: usize = 1_000;
/// An event is there by then, or it is not counted.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or_default()
}

/// A product whose price is the time.
fn stamped(at: usize) -> Record {
    let cells = products::record(at % ROWS);
    let cells = cells.iter().map(|(name, value)| match name.as_ref() {
        "price" => ("price".to_string(), now().into()),
        name => (name.to_string(), value.clone()),
    });
    cells.collect()
}

/// Publishes `count` events, `rate` a second whether or not those before are done; all at once if that is 0.
pub(crate) async fn publish<F>((count, rate): (usize, u64), one: impl Fn(usize) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut told = JoinSet::new();
    let mut pace = (rate > 0).then(|| interval(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(1)));
    for at in 0..count {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        told.spawn(one(at));
    }
    told.join_all().await;
}

/// Serves a Dio's events, and publishes when told to.
pub(crate) async fn ours(folder: &Path) {
    let rows = (0..ROWS).map(|at| (products::id(at), products::record(at)));
    let lens = Lens::new().cache_at(folder.join("sockets.redb")).build().expect("a Lens");
    let master = diorama::connect::MemoryTable::vista("products", products::schema(), rows);
    let dio = lens.make_dio(master).await.expect("a Dio");
    let told = async |State(dio): State<Dio>, Segments(load): Segments<(usize, u64)>| {
        publish(load, |at| {
            let dio = dio.clone();
            async move { dio.patched(products::id(at % ROWS), stamped(at)).await.expect("an event") }
        })
        .await;
    };
    let router = Router::new().route("/publish/{count}/{rate}", post(told)).with_state(dio.clone());
    servers::listen(router.fallback_service(Gateway::new().mount(dio).into_router())).await;
}

/// Serves the same frames without anything else.
pub(crate) async fn bare() {
    let (sender, _) = broadcast::channel::<Utf8Bytes>(1 << 14);
    let open = async |State(sender): State<broadcast::Sender<Utf8Bytes>>, upgrade: WebSocketUpgrade| {
        let events = sender.subscribe();
        upgrade.read_buffer_size(1 << 10).on_upgrade(|socket| follow(socket, events))
    };
    let told = async |State(sender): State<broadcast::Sender<Utf8Bytes>>, Segments(load): Segments<(usize, u64)>| {
        let schema = products::schema();
        publish(load, |at| {
            let id = products::id(at % ROWS);
            let row = Body::encode(&id, &stamped(at), schema.layout());
            let row = String::from_utf8_lossy(row.json());
            // About as long as ours, with version and position.
            let frame = format!(
                "{{\"type\":\"RecordChanged\",\"seq\":{at},\"id\":\"{id}\",\"at\":\"2026-11-23T00:00:00.000Z\",\"etag\":\"0123456789abcdef\",\"record\":{row}}}"
            );
            let sender = sender.clone();
            async move { drop(sender.send(frame.into())) }
        })
        .await;
    };
    let ready = get(async || "ready");
    let router = Router::new().route("/readyz", ready).route("/products/events", get(open));
    servers::listen(router.route("/publish/{count}/{rate}", post(told)).with_state(sender)).await;
}

async fn follow(mut socket: WebSocket, mut events: broadcast::Receiver<Utf8Bytes>) {
    loop {
        let mut next = tokio::select! {
            event = events.recv() => event.ok(),
            said = socket.next() => match said {
                Some(Ok(_)) => continue,
                _ => return,
            },
        };
        while let Some(frame) = next {
            if socket.feed(Message::Text(frame)).await.is_err() {
                return;
            }
            next = events.try_recv().ok();
        }
        if socket.flush().await.is_err() {
            return;
        }
    }
}

/// What sockets have received.
#[derive(Default)]
pub(crate) struct Heard {
    /// Microseconds from publication.
    pub(crate) times: Vec<u32>,
    pub(crate) bytes: u64,
}

/// Prints a line for each case and server.
pub(crate) async fn compare(plan: &Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let own = std::env::current_exe().expect("a path");
    println!("| sockets | load | server | deliveries | bytes of one | per second of server CPU | p50 | p99 |");
    println!("|---|---|---|---|---|---|---|---|");
    for sockets in [1_000, 5_000] {
        for (load, count, rate) in [("100 a second", 500, 100), ("burst of 1,000", 1_000, 0)] {
            for stalled in [0, sockets / 100] {
                // Each round has servers of its own: what stalled readers leave behind is nobody's.
                let bare = Server::start(&own, &["--serve-sockets-bare"], plan.pinned);
                let ours = Server::start(&own, &["--serve-sockets", text(&fresh(folder.path()))], plan.pinned);
                for (name, server) in [("bare axum", &bare), ("diorama", &ours)] {
                    ready(server.address).await;
                    let line = round(server, sockets, stalled, (count, rate)).await;
                    println!("| {sockets}, {stalled} stalled | {load} | {name} | {line} |");
                }
            }
        }
    }
}

pub(crate) fn fresh(folder: &Path) -> std::path::PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let folder = folder.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::create_dir(&folder).expect("a folder");
    folder
}

async fn round(server: &Server, sockets: usize, stalled: usize, (count, rate): (usize, u64)) -> String {
    let (mut streams, mut asleep) = (Vec::new(), Vec::new());
    for at in 0..sockets {
        let stream = connect(server.address, at < stalled).await;
        if at < stalled { asleep.push(stream) } else { streams.push(stream) }
    }
    let mut readers = JoinSet::new();
    for mut stream in streams {
        readers.spawn(async move {
            let mut heard = Heard::default();
            // Whoever has not heard all by then says what it has.
            let _ = timeout(PATIENCE, read(&mut stream, count, &mut heard)).await;
            heard
        });
    }
    let before = server.cpu();
    let ask = Ask::new("POST", &format!("/publish/{count}/{rate}"), "", "", 200);
    let answer = client::ask(server.address, &ask).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let (mut times, mut bytes) = (Vec::new(), 0);
    while let Some(heard) = readers.join_next().await {
        let heard = heard.expect("a reader");
        bytes += heard.bytes;
        times.extend(heard.times);
    }
    let (spent, deliveries) = ((server.cpu() - before).as_secs_f64(), times.len());
    let [p50, p99] = [0.5, 0.99].map(|share| crate::writes::percentile(&mut times, share));
    let each = bytes / u64::try_from(deliveries.max(1)).unwrap_or(1);
    format!("{deliveries} | {each} | {:.0} | {p50:.1} ms | {p99:.1} ms", deliveries as f64 / spent)
}

async fn connect(server: SocketAddr, stalls: bool) -> TcpStream {
    subscribe(server, "/products/events", "", stalls).await
}

/// Opens an event socket. `headers` are whole lines.
pub(crate) async fn subscribe(server: SocketAddr, path: &str, headers: &str, stalls: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    if stalls {
        socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    }
    let mut stream = socket.connect(server).await.expect("a connection");
    let head = format!(
        "GET {path}?heartbeat=60 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a request");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream
}

/// Reads until `count` events have come; conflated ones stand for those that they replace.
pub(crate) async fn read(stream: &mut TcpStream, count: usize, heard: &mut Heard) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(16 << 10);
    while heard.times.len() < count {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let (mut at, now) = (0, now());
        while let Some((start, end)) = frame(&buffer[at..]) {
            let payload = &buffer[at + start..at + end];
            if let Some(published) = published(payload) {
                heard.times.push(u32::try_from((now - published) / 1_000).unwrap_or(u32::MAX));
                heard.bytes += payload.len() as u64;
            }
            at += end;
        }
        buffer.drain(..at);
    }
    Ok(())
}

/// Where the payload of the first frame begins and ends, if it is whole.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        length => (2, usize::from(length)),
    };
    (bytes.len() >= start + length).then_some((start, start + length))
}

fn published(payload: &[u8]) -> Option<i64> {
    let digits = &payload[memmem::find(payload, b"\"price\":")? + 8..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}
