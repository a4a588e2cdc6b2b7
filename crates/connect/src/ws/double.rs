//! A sender for tests: rows in memory, and a WebSocket that tells their changes, as bodies of webhooks or as another Diorama does.
//! The rows are served as those of another Diorama, too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use diorama_core::Dio;
use diorama_core::lens::Lens;
use diorama_core::record::Record;
use diorama_core::vista::{Column, ColumnType, Query, Schema, Vista, WriteOp};
use diorama_inbound::{Hook, Scheme};
use futures_util::SinkExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::WsFeed;
use crate::connector::FeedFormat;
use crate::contract::feed::{Abilities, Change, Sender, feeds};
use crate::memory::MemoryTable;

/// State of the sender, with its subscribers.
struct Told {
    master: Vista,
    /// True if it tells events as another Diorama does.
    is_diorama: bool,
    epoch: u32,
    /// Events of the epoch.
    events: Vec<String>,
    sockets: Vec<WebSocketStream<TcpStream>>,
}

/// A sender of changes.
pub(crate) struct Double {
    address: SocketAddr,
    is_diorama: bool,
    told: Arc<Mutex<Told>>,
    serving: JoinSet<()>,
}

impl Double {
    pub(crate) async fn start(is_diorama: bool) -> Double {
        let columns = vec![Column::new("id", ColumnType::String), Column::new("n", ColumnType::Integer)];
        let rows = (1..=20).map(|id: u32| (id.to_string(), record(id, 0)));
        let master = MemoryTable::vista("t", Schema::new("id", columns), rows);
        let told = Told { master, is_diorama, epoch: 1, events: Vec::new(), sockets: Vec::new() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut double = Double { address, is_diorama, told: Arc::new(Mutex::new(told)), serving: JoinSet::new() };
        double.serve(listener);
        double
    }

    /// Its resource, without a scheme.
    pub(crate) fn place(&self) -> String {
        format!("{}/t", self.address)
    }

    fn serve(&mut self, listener: TcpListener) {
        let told = Arc::clone(&self.told);
        self.serving.spawn(async move {
            let mut answering = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let told = Arc::clone(&told);
                answering.spawn(async move {
                    // A client that ends early is none of the test's.
                    let _ = answer(stream, &told).await;
                });
            }
        });
    }
}

fn record(id: u32, n: i64) -> Record {
    Record::from_iter([("id".to_string(), id.to_string().into()), ("n".to_string(), n.into())])
}

/// Answers a request for rows, or begins to tell events.
async fn answer(mut stream: TcpStream, told: &Mutex<Told>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut head = vec![0; 8 << 10];
    let length = loop {
        let length = stream.peek(&mut head).await?;
        if length == 0 || head[..length].ends_with(b"\r\n\r\n") {
            break length;
        }
        tokio::task::yield_now().await;
    };
    let head = String::from_utf8_lossy(&head[..length]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    // Nothing changes between the last event that is resent and the first that is told.
    let mut told = told.lock().await;
    if path.contains("/events") {
        return told.greet(stream).await;
    }
    let (status, body) = told.page(path.split('?').next().unwrap_or_default()).await;
    drop(told);
    stream.read_exact(&mut vec![0; length]).await?;
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close");
    stream.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

impl Told {
    fn position(&self) -> String {
        format!("E{}:{}", self.epoch, self.events.len())
    }

    /// Accepts a subscriber, and resends the events after its position.
    async fn greet(&mut self, stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut since = None;
        #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let note = |request: &Request, response: Response| {
            since = request.uri().query().and_then(|query| query.strip_prefix("since=").map(str::to_string));
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, note).await?;
        if self.is_diorama {
            let own = format!("E{}:", self.epoch);
            let seq = since.and_then(|since| since.strip_prefix(&own)?.parse::<usize>().ok());
            let seq = seq.filter(|seq| *seq <= self.events.len());
            let (position, first) = match seq {
                Some(seq) => (format!("{own}{seq}"), seq),
                None => (self.position(), self.events.len()),
            };
            let hello = json!({ "type": "hello", "position": position, "resumed": seq.is_some() });
            socket.send(Message::text(hello.to_string())).await?;
            for event in &self.events[first..] {
                socket.send(Message::text(event.clone())).await?;
            }
        }
        self.sockets.push(socket);
        Ok(())
    }

    /// The page of another Diorama at `path`.
    async fn page(&self, path: &str) -> (&'static str, String) {
        let row = |row: &Record| json!({ "id": row["id"].as_text(), "n": number(row) });
        let found = match path.strip_prefix("/t").unwrap_or_default() {
            "/_schema" => Some(json!({
                "id": "id",
                "columns": [{ "name": "id", "type": "string" }, { "name": "n", "type": "integer" }],
                "capabilities": { "refused": ["insert", "update", "delete"] },
                "limits": { "max_limit": 1_000 },
            })),
            "" | "/" => {
                let rows = self.master.shell().list(&Query::default()).await.unwrap();
                Some(rows.iter().map(|(_, record)| row(&record)).collect())
            }
            id => self.master.shell().get(&id[1..]).await.unwrap().as_ref().map(row),
        };
        match found {
            Some(found) => ("200 OK", found.to_string()),
            None => ("404 Not Found", "{}".into()),
        }
    }

    /// Makes a change, and tells it.
    async fn change(&mut self, (id, n): Change) {
        let name = id.to_string();
        let was = self.master.shell().get(&name).await.unwrap().is_some();
        if !was && n.is_none() {
            return;
        }
        let op = match n {
            Some(n) => WriteOp::Replace { id: name.clone(), record: record(id, n) },
            None => WriteOp::Delete { id: name.clone() },
        };
        self.master.shell().write(&op).await.unwrap();
        let row = json!({ "id": name, "n": n });
        let text = if self.is_diorama {
            let seq = self.events.len() + 1;
            match n {
                Some(_) if was => json!({ "type": "RecordChanged", "seq": seq, "id": name, "record": row }),
                Some(_) => json!({ "type": "RecordInserted", "seq": seq, "id": name, "record": row }),
                None => json!({ "type": "RecordRemoved", "seq": seq, "id": name }),
            }
        } else {
            match n {
                Some(_) => json!({ "op": if was { "update" } else { "insert" }, "id": name, "new": row }),
                None => json!({ "op": "delete", "id": name }),
            }
        };
        self.events.push(text.to_string());
        self.tell(&text.to_string()).await;
    }

    async fn tell(&mut self, text: &str) {
        for mut socket in std::mem::take(&mut self.sockets) {
            if socket.send(Message::text(text)).await.is_ok() {
                self.sockets.push(socket);
            }
        }
    }
}

fn number(row: &Record) -> Option<i64> {
    row["n"].as_integer().and_then(|n| i64::try_from(n).ok())
}

/// How a Dio of the sender's rows is made.
#[async_trait]
pub(crate) trait Follow: Send + Sync {
    async fn follow(&self, lens: &Lens, double: &Double) -> Dio;
}

/// A sender under the contract of feeds.
pub(crate) struct Sending<F> {
    pub(crate) double: Double,
    pub(crate) follow: F,
}

#[async_trait]
impl<F: Follow> Sender for Sending<F> {
    fn abilities(&self) -> Abilities {
        Abilities { resumes: self.double.is_diorama, never_back: false, in_order: false, refreshes_at_start: 1 }
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        self.follow.follow(lens, &self.double).await
    }

    async fn change(&self, changes: &[Change]) {
        for change in changes {
            self.double.told.lock().await.change(*change).await;
            tokio::task::yield_now().await;
        }
    }

    async fn cut(&self) {
        self.double.told.lock().await.sockets.clear();
    }

    async fn restart(&mut self) {
        self.double.serving.shutdown().await;
        self.cut().await;
        let listener = loop {
            match TcpListener::bind(self.double.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        self.double.serve(listener);
    }

    /// Its history begins anew, or is shorter than it was.
    async fn lose_positions(&mut self, way: usize) -> bool {
        let mut told = self.double.told.lock().await;
        match way {
            _ if !told.is_diorama => return false,
            0 => told.epoch += 1,
            1 => {}
            _ => return false,
        }
        told.events.clear();
        true
    }

    async fn send_nonsense(&self) -> bool {
        self.double.told.lock().await.tell("{").await;
        true
    }
}

/// A table whose changes arrive as bodies of webhooks.
struct Bodies;

#[async_trait]
impl Follow for Bodies {
    async fn follow(&self, lens: &Lens, double: &Double) -> Dio {
        let master = double.told.lock().await.master.clone();
        let dio = lens.dio(master).make().await.unwrap();
        let format = FeedFormat::Inbound(Box::new(Hook::new(Scheme::None)));
        let backoff = (Duration::from_millis(5), Duration::from_millis(20));
        WsFeed { backoff, ..WsFeed::new(format!("ws://{}/events", double.place()), format) }.start(&dio).unwrap();
        dio
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_websocket_keep_the_contract_of_feeds() {
    feeds(Sending { double: Double::start(false).await, follow: Bodies }).await;
}
