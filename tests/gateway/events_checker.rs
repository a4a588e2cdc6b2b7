//! A checker that knows every change: clients with filters that come and go, read slowly and outlive restarts end with what a
//! fresh read shows, having seen each event once and in order, or a reset.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use diorama::connect::MemoryTable;
use diorama::gateway::Gateway;
use diorama::{Dio, Lens, Record, Vista};
use diorama_core::dio::CursorRead;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::{Random, products};

const PATIENCE: Duration = Duration::from_secs(20);
const CHANGES: u64 = 400;

/// A gateway that can be started again on the same files.
struct Server {
    dio: Dio,
    lens: Lens,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(files: &Path, master: &Vista) -> Server {
        let lens = Lens::new().cache_at(files.join("cache.redb"));
        let lens = lens.settings(|settings| settings.ring.events = 50).build().unwrap();
        let dio = lens.make_dio(master.clone()).await.unwrap();
        let router = Gateway::new().mount(dio.clone()).into_router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "it is aborted at the stop")]
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Server { dio, lens, address, task }
    }

    async fn stop(self) {
        self.dio.close().await;
        self.task.abort();
        drop(self.dio);
        self.lens.close().await;
    }
}

/// Notes the numbers of all events in the ring after `seen`.
fn note(dio: &Dio, seen: &mut Vec<u64>) {
    let mut at = dio.ring().after(seen.last().copied().unwrap_or(0)).expect("it is looked at often enough");
    while let CursorRead::Item(item) = dio.ring().at(at) {
        seen.extend(item.seq.filter(|seq| seen.last().is_none_or(|last| seq > last)));
        at += 1;
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A client that keeps a copy of the rows it asks for.
struct Client {
    filter: &'static str,
    rows: BTreeMap<String, Value>,
    /// Rows of which a frame said that they may be others, and nothing more: they are read again.
    doubtful: BTreeSet<String>,
    /// Where to go on from, once there is a copy.
    since: Option<String>,
    /// Events seen since the last copy was taken, by number, and where that was.
    seen: Vec<u64>,
    from: u64,
    socket: Option<Socket>,
}

impl Client {
    async fn connect(&mut self, address: SocketAddr) {
        let since = self.since.as_ref().map_or(String::new(), |since| format!("&since={since}"));
        let url = format!("ws://{address}/products/events?snapshot=auto{since}{}", self.filter);
        self.socket = Some(connect_async(url).await.unwrap().0);
    }

    /// Takes frames until one reaches `seq`, or `most` of them.
    async fn read(&mut self, most: usize, seq: u64) {
        for _ in 0..most {
            let socket = self.socket.as_mut().unwrap();
            let frame: Value = match timeout(PATIENCE, socket.next()).await.expect("a frame") {
                Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Ping(_))) => continue,
                _ => return self.socket = None,
            };
            self.apply(&frame);
            let reached = frame["seq"].as_u64().is_some_and(|reached| reached >= seq);
            if reached && self.since.is_some() {
                return;
            }
        }
    }

    fn apply(&mut self, frame: &Value) {
        let id = || frame["id"].as_str().unwrap().to_string();
        match frame["type"].as_str().unwrap() {
            "hello" if frame["snapshot"] == false => {
                assert_eq!(frame["resumed"], true, "what was missed is told: {frame}");
            }
            "reset" | "snapshot_begin" => {
                self.rows.clear();
                self.doubtful.clear();
                self.seen.clear();
                self.since = None;
                self.from = frame["seq"].as_u64().unwrap();
            }
            "rows" => {
                for row in frame["rows"].as_array().unwrap() {
                    self.rows.insert(row[0].as_str().unwrap().to_string(), row[1].clone());
                }
            }
            "snapshot_end" | "heartbeat" => self.since = Some(frame["position"].as_str().unwrap().to_string()),
            "RecordInserted" | "RecordChanged" => {
                self.number(frame);
                match frame.get("record") {
                    Some(record) => {
                        self.rows.insert(id(), record.clone());
                        self.doubtful.remove(&id());
                    }
                    None => drop(self.doubtful.insert(id())),
                }
            }
            "RecordRemoved" => {
                self.number(frame);
                self.rows.remove(&id());
                self.doubtful.remove(&id());
            }
            "WriteCommitted" | "WriteFailed" | "Invalidated" => self.number(frame),
            _ => {}
        }
    }

    fn number(&mut self, frame: &Value) {
        assert_ne!(frame["conflated"], true, "nobody is that slow here");
        let seq = frame["seq"].as_u64().unwrap();
        assert!(self.seen.last().is_none_or(|last| seq > *last), "once, and in order: {frame}");
        self.seen.push(seq);
        let epoch = self.since.as_ref().and_then(|since| since.split_once(':')).unwrap().0;
        self.since = Some(format!("{epoch}:{seq}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_whoever_comes_and_goes_ends_with_what_a_fresh_read_shows() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, length) = (number("DIORAMA_STREAM_SEED").unwrap_or(7), number("DIORAMA_STREAM_SECONDS").unwrap_or(0));
    let end = std::time::Instant::now() + Duration::from_secs(length);
    for seed in first.. {
        if length > 0 {
            println!("DIORAMA_STREAM_SEED={seed}");
        }
        check(seed).await;
        if std::time::Instant::now() >= end {
            return;
        }
    }
}

/// One trial: its changes, the coming and going of its clients and the restarts follow from `seed`.
async fn check(seed: u64) {
    let files = tempfile::tempdir().unwrap();
    let master = MemoryTable::vista("products", products(), []);
    let mut server = Server::start(files.path(), &master).await;
    let filters = ["", "&price=gte.50", "&price=lt.20&select=price", "&q=bun", "&ids=1,2,3", "", "&price=gte.50", ""];
    let mut clients: Vec<Client> = filters
        .map(|filter| Client {
            filter,
            rows: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            since: None,
            seen: vec![],
            from: 0,
            socket: None,
        })
        .into();
    let (mut random, mut told) = (Random(seed), Vec::new());
    for n in 0..CHANGES {
        let id = random.below(20).to_string();
        let cells =
            [("name".to_string(), format!("Bun {n}").into()), ("price".to_string(), (random.below(100) as i64).into())];
        match random.below(6) {
            // Not there: nothing happens.
            0 => drop(server.dio.vista().delete(&id).await),
            _ => server.dio.patched(id, Record::from_iter(cells)).await.unwrap(),
        }
        note(&server.dio, &mut told);
        if n % 130 == 129 {
            let position = server.dio.position();
            server.stop().await;
            server = Server::start(files.path(), &master).await;
            assert_eq!(server.dio.position().epoch, position.epoch);
        }
        let client = &mut clients[random.below(filters.len()) as usize];
        match (&client.socket, random.below(4)) {
            (None, _) => client.connect(server.address).await,
            (Some(_), 0) => client.socket = None,
            // A few of what is there; some are left far behind.
            (Some(_), _) if client.since.is_none() => client.read(200, 0).await,
            // A few of what is there; some are left far behind.
            (Some(_), _) if client.filter.is_empty() => {
                let (here, last) =
                    (told.last().copied().unwrap_or(0), client.seen.last().copied().unwrap_or(client.from));
                if last < here {
                    client.read(5, here).await;
                }
            }
            (Some(_), _) => {}
        }
    }
    // Writes that were queued are settled, and the last change is one that every client is told of, or a bookmark.
    while server.dio.status().queued > 0 {
        tokio::task::yield_now().await;
    }
    let end = server.dio.position().seq;
    for client in &mut clients {
        // Filtered ones learn by the bookmark of a fresh connection's poll that nothing is missing.
        while client.since.is_none() {
            client.connect(server.address).await;
            client.read(200, 0).await;
        }
        client.socket = None;
        let since = client.since.clone().unwrap();
        let get = async |path: String| -> Value {
            let answer = crate::harness::get_at(server.address, &path).await;
            answer.json()
        };
        for frame in
            get(format!("/products/events?since={since}&snapshot=auto{}", client.filter)).await.as_array().unwrap()
        {
            client.apply(frame);
        }
        let list = client.filter.replace("ids=1,2,3", "id=in.(1,2,3)");
        let (shown, whole) = (
            get(format!("/products?limit=100{list}")).await,
            get(format!("/products?limit=100{}", list.replace("&select=price", ""))).await,
        );
        let ids = whole.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_string());
        let fresh: BTreeMap<String, Value> = ids.zip(shown.as_array().unwrap().iter().cloned()).collect();
        for id in std::mem::take(&mut client.doubtful) {
            match fresh.get(&id) {
                Some(row) => drop(client.rows.insert(id, row.clone())),
                None => drop(client.rows.remove(&id)),
            }
        }
        assert_eq!(client.rows, fresh, "{:?}", client.filter);
    }
    note(&server.dio, &mut told);
    for client in clients.iter().filter(|client| client.filter.is_empty()) {
        let all: Vec<u64> = told.iter().copied().filter(|seq| *seq > client.from && *seq <= end).collect();
        // A write may have been settled since.
        let seen: Vec<u64> = client.seen.iter().copied().filter(|seq| *seq <= end).collect();
        assert_eq!(seen, all, "each event, once");
    }
    server.stop().await;
}
