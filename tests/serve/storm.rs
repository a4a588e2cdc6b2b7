//! Many sockets that lose their connections at once, and come back. A few in the test command; `tests/storm.sh` has ten thousand.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader as Buffered};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::process::{Server, folder, serving};

/// Says to a process of this program that it is a client, of so many sockets.
const CLIENT: &str = "DIORAMA_STORM_CLIENT";
/// What a client prints begins so.
const WORD: &str = "storm: ";
/// Handshakes that a client process has under way, at most.
const AT_ONCE: usize = 400;
const WRITES: usize = 10;
/// Nothing takes longer.
const LONGEST: Duration = Duration::from_secs(60);

/// The sockets of one process: where each is, whether connected or not.
struct Fleet {
    places: Vec<Mutex<Place>>,
    epoch: Mutex<String>,
    greeted: AtomicUsize,
    handshakes: Semaphore,
    /// What must not happen, and how often it did.
    faults: Mutex<BTreeMap<String, usize>>,
}

/// Where a socket began, and the events that it was told since.
#[derive(Default)]
struct Place {
    start: Option<u64>,
    seen: Vec<u64>,
}

impl Place {
    fn last(&self) -> Option<u64> {
        self.seen.last().copied().or(self.start)
    }
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    seq: Option<u64>,
    epoch: Option<String>,
    resumed: Option<bool>,
    conflated: Option<bool>,
}

impl Fleet {
    fn fault(&self, what: impl Into<String>) {
        *self.faults.lock().entry(what.into()).or_default() += 1;
    }

    /// One socket: comes back until it is let in, and follows.
    async fn follow(&self, at: usize, address: &str) {
        loop {
            let open = async {
                let _turn = self.handshakes.acquire().await.unwrap();
                self.open(at, address).await
            };
            if let Ok(stream) = open.await {
                let _ = self.read(at, stream).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn open(&self, at: usize, address: &str) -> std::io::Result<Buffered<TcpStream>> {
        let since = match self.places[at].lock().last() {
            None => String::new(),
            Some(seq) => format!("&since={}:{seq}", self.epoch.lock()),
        };
        let mut stream = Buffered::with_capacity(512, TcpStream::connect(address).await?);
        let head = format!(
            "GET /orders/events?heartbeat=60{since} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
        }
        let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
        if status == "101" {
            return Ok(stream);
        }
        self.fault(format!("status {status}"));
        Err(std::io::ErrorKind::ConnectionRefused.into())
    }

    async fn read(&self, at: usize, mut stream: Buffered<TcpStream>) -> std::io::Result<()> {
        let mut payload = Vec::new();
        loop {
            let first = stream.read_u8().await?;
            let length = match stream.read_u8().await? {
                126 => usize::from(stream.read_u16().await?),
                length => usize::from(length),
            };
            payload.resize(length, 0);
            stream.read_exact(&mut payload).await?;
            if first == 0x81 {
                self.hear(at, &serde_json::from_slice(&payload)?);
            }
        }
    }

    fn hear(&self, at: usize, said: &Said) {
        let (mut place, seq) = (self.places[at].lock(), said.seq.unwrap_or_default());
        match said.kind.as_str() {
            "hello" => {
                self.greeted.fetch_add(1, Ordering::Relaxed);
                if place.start.is_none() {
                    *self.epoch.lock() = said.epoch.clone().unwrap();
                    place.start = Some(seq);
                } else if said.resumed != Some(true) {
                    self.fault("not resumed");
                }
            }
            "heartbeat" => {}
            kind if said.conflated == Some(true) => self.fault(format!("conflated {kind}")),
            "RecordInserted" | "RecordChanged" | "WriteCommitted" => place.seen.push(seq),
            kind => self.fault(kind),
        }
    }

    /// Waits until every socket is greeted and was told the last of `log`, the numbers of all events; it must have been told each
    /// since it began, once and in order.
    async fn reach(&self, log: &[u64]) {
        let last = log.last().copied();
        let deadline = Instant::now() + LONGEST;
        let here = || self.places.iter().filter(|place| place.lock().last() >= last).count();
        while self.greeted.load(Ordering::Relaxed) < self.places.len() || here() < self.places.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if Instant::now() > deadline {
                return self.fault(format!("only {} came to {last:?}, {:?} are greeted", here(), self.greeted));
            }
        }
        for place in &self.places {
            let place = place.lock();
            let missed = &log[log.partition_point(|seq| Some(*seq) <= place.start)..];
            if !place.seen.starts_with(missed) {
                self.fault("not each event, once and in order");
            }
        }
    }
}

/// Lines come in (`open ADDRESS`, `reach 1,2,4`, `drop`), and each is answered when it is done, with the faults so far.
async fn client(sockets: usize) {
    let fleet = Arc::new(Fleet {
        places: (0..sockets).map(|_| Mutex::default()).collect(),
        epoch: Mutex::default(),
        greeted: AtomicUsize::new(0),
        handshakes: Semaphore::new(AT_ONCE),
        faults: Mutex::default(),
    });
    let mut connected = JoinSet::new();
    // Nothing else is read here, and nobody waits for the runtime meanwhile but the sockets, which have its other threads.
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("open", address) => {
                for at in 0..sockets {
                    let (fleet, address) = (Arc::clone(&fleet), address.to_string());
                    connected.spawn(async move { fleet.follow(at, &address).await });
                }
            }
            ("reach", log) => fleet.reach(&log.split(',').map(|seq| seq.parse().unwrap()).collect::<Vec<_>>()).await,
            _ => {
                connected.shutdown().await;
                fleet.greeted.store(0, Ordering::Relaxed);
            }
        }
        println!("\n{WORD}{:?}", fleet.faults.lock());
    }
}

/// No test by itself: a process of its own for half of the sockets.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_storm() {
    if let Ok(sockets) = std::env::var(CLIENT) {
        client(sockets.parse().unwrap()).await;
    }
}

/// A client process.
struct Client {
    child: Child,
    orders: ChildStdin,
    words: BufReader<ChildStdout>,
}

impl Client {
    fn start(sockets: usize) -> Client {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["storm::a_client_of_the_storm", "--exact", "--nocapture"]).env(CLIENT, sockets.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, words) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Client { child, orders, words }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// Waits until an order is carried out.
    fn done(&mut self) {
        let mut line = String::new();
        while !line.starts_with(WORD) {
            line.clear();
            assert!(self.words.read_line(&mut line).unwrap() > 0, "a client has ended");
        }
        assert_eq!(line.trim(), format!("{WORD}{{}}"), "what must not happen to a socket, and how often it did");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Storm {
    server: Server,
    clients: Vec<Client>,
    written: usize,
}

impl Storm {
    fn all(&mut self, order: &str) {
        self.clients.iter_mut().for_each(|client| client.order(order));
        self.clients.iter_mut().for_each(Client::done);
    }

    fn write(&mut self) {
        for _ in 0..WRITES {
            self.written += 1;
            let written = self.server.post(&format!("/orders/o{}", self.written), r#"{"item":"Bun","price":150}"#);
            assert!((200..300).contains(&written.status), "{}", written.body);
        }
    }

    /// Every socket comes to the end of the log.
    fn reach(&mut self) {
        self.all(&format!("reach {}", self.log()));
    }

    /// The numbers of all events.
    fn log(&self) -> String {
        let (epoch, mut at) = (self.epoch(), 0);
        let mut seqs: Vec<String> = Vec::new();
        loop {
            let polled = self.server.get(&format!("/orders/events?since={epoch}:{at}")).body;
            let before = seqs.len();
            // The sizes of the chunks stand between.
            for line in polled.lines().filter(|line| line.starts_with('{')) {
                let said: Said = serde_json::from_str(line).unwrap();
                let is_event = !["hello", "heartbeat", "reset"].contains(&said.kind.as_str());
                at = said.seq.filter(|_| is_event).unwrap_or(at);
                seqs.extend(said.seq.filter(|_| is_event).map(|seq| seq.to_string()));
            }
            if seqs.len() == before {
                return seqs.join(",");
            }
        }
    }

    fn epoch(&self) -> String {
        let answer = self.server.get("/orders?limit=1");
        answer.raw_header("dio-position").unwrap().split(':').next().unwrap().to_string()
    }

    /// All sockets come back and get what they missed; how long that takes.
    fn resume(&mut self) -> Duration {
        let (start, order) = (Instant::now(), format!("open {}", self.server.address));
        self.all(&order);
        self.reach();
        start.elapsed()
    }

    /// Reads of the source.
    fn refreshes(&self) -> Vec<String> {
        let metrics = self.server.get("/metrics").body;
        metrics.lines().filter(|line| line.starts_with("diorama_dio_refreshes_total")).map(String::from).collect()
    }

    fn settle(&self) {
        for state in ["queued", "running"] {
            while self.server.get(&format!("/operations?state={state}")).body != "[]" {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn start(dir: &std::path::Path) -> Server {
    let mut serve = serving(dir, &[]);
    // Another build of the command, for figures.
    if let Some(program) = std::env::var_os("DIORAMA_STORM_SERVER") {
        let mut other = Command::new(program);
        other.current_dir(dir).args(serve.get_args()).stdout(Stdio::piped());
        serve = other;
    }
    let mut server = Server::spawn(serve.stderr(Stdio::inherit()));
    server.wait_for("ready");
    server
}

#[test]
fn every_event_a_storm_of_sockets_comes_back_without_a_gap_a_reset_or_a_call_of_the_source() {
    let sockets = std::env::var("DIORAMA_STORM_SOCKETS").map_or(400, |text| text.parse::<usize>().unwrap());
    let dir = folder();
    let text = "[server.limits]\nper_address = 40_000\nmax_sockets = 30_000\nmax_connections = 40_000\n\
         [dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let clients = (0..2).map(|_| Client::start(sockets / 2)).collect();
    let mut storm = Storm { server: start(dir.path()), clients, written: 0 };
    storm.write();
    storm.settle();
    #[cfg(target_os = "linux")]
    let before = storm.server.memory();
    println!("{sockets} sockets opened in {:?}", storm.resume());
    #[cfg(target_os = "linux")]
    let idle = storm.server.memory();
    storm.write();
    storm.settle();
    storm.reach();
    #[cfg(target_os = "linux")]
    {
        let each = |now: usize| now.saturating_sub(before) / sockets;
        println!("memory of a socket: {} bytes new, {} after events", each(idle), each(storm.server.memory()));
    }
    // Nobody can read or write the source any more.
    let source = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    source.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let refreshes = storm.refreshes();
    assert!(!refreshes.is_empty());
    storm.all("drop");
    storm.write();
    println!("back after their connections were cut: {:?}", storm.resume());
    assert_eq!(storm.refreshes(), refreshes);
    source.execute_batch("COMMIT").unwrap();
    drop(source);
    storm.settle();
    storm.all("drop");
    storm.write();
    storm.server.kill();
    storm.server = start(dir.path());
    println!("back after kill -9 of the server: {:?}", storm.resume());
    storm.settle();
    storm.reach();
}
