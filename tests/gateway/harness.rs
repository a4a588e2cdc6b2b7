//! A bakery behind a gateway on a port of its own, a master that counts and can be held or made to fail, and an HTTP client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use diorama::connect::MemoryTable;
use diorama::gateway::{Gateway, Limits, MountOptions};
use diorama::vista::Token;
use diorama::{
    Capabilities, Column, ColumnType, Dio, Error, Flag, Lens, LensBuilder, Query, Record, Result, Rows, Schema,
    TableShell, Vista, WriteOp, Written,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A master that counts calls, whose writes can be held at a gate, and that can be told to refuse them.
pub(crate) struct Master {
    inner: Vista,
    calls: AtomicUsize,
    panics: AtomicBool,
    reads_one: AtomicBool,
    gate: tokio::sync::watch::Sender<bool>,
    failure: parking_lot::Mutex<Option<Error>>,
}

impl Master {
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Holds writes until [`Master::open`].
    pub(crate) fn hold(&self) {
        self.gate.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.gate.send_replace(true);
    }

    pub(crate) fn fail_with(&self, error: Error) {
        *self.failure.lock() = Some(error);
    }

    pub(crate) fn panic(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    /// Can be asked for one row from now on, and not only listed.
    pub(crate) fn read_rows(&self) {
        self.reads_one.store(true, Ordering::SeqCst);
    }

    pub(crate) async fn get(&self, id: &str) -> Option<Record> {
        self.inner.get_value(id).await.unwrap()
    }

    /// Rows go away behind everybody's back.
    pub(crate) async fn lose(&self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            self.inner.shell().write(&WriteOp::Delete { id }).await.unwrap();
        }
    }

    async fn pass(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics.load(Ordering::SeqCst), "the master was told to panic");
        let mut gate = self.gate.subscribe();
        gate.wait_for(|open| *open).await.map_err(|_| Error::Closed)?;
        match self.failure.lock().clone() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

struct Shell(Arc<Master>);

#[async_trait]
impl TableShell for Shell {
    fn schema(&self) -> Arc<Schema> {
        self.0.inner.schema()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.inner.capabilities()
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.inner.shell().list(query).await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.inner.shell().get(id).await
    }

    fn reads_one(&self) -> bool {
        self.0.reads_one.load(Ordering::SeqCst)
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.0.inner.shell().count(query).await
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        self.0.inner.shell().next(query, token).await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.0.pass().await?;
        self.0.inner.shell().write(op).await
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.0.pass().await?;
        self.0.inner.shell().insert_return_id(record).await
    }
}

/// A running gateway.
pub(crate) struct App {
    pub(crate) address: SocketAddr,
    pub(crate) dio: Dio,
    pub(crate) master: Arc<Master>,
    _lens: Arc<Lens>,
    server: tokio::task::JoinHandle<()>,
    _files: tempfile::TempDir,
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub(crate) fn products() -> Schema {
    let columns = vec![
        Column::new("id", ColumnType::String),
        Column::new("name", ColumnType::String).with(Flag::Mandatory),
        Column::new("price", ColumnType::Integer),
        Column::new("meta", ColumnType::Json),
    ];
    Schema::new("id", columns)
}

pub(crate) fn rows(count: usize) -> Vec<(String, Record)> {
    let row = |n: usize| {
        let cells = [("name".to_string(), format!("Bun {n}").into()), ("price".to_string(), (n as i64 * 10).into())];
        (n.to_string(), Record::from_iter(cells))
    };
    (1..=count).map(row).collect()
}

impl App {
    /// Seven products.
    pub(crate) async fn start() -> App {
        App::with(products(), rows(7), |lens| lens, MountOptions::default(), |gateway| gateway).await
    }

    pub(crate) async fn with(
        schema: Schema,
        rows: Vec<(String, Record)>,
        lens: impl FnOnce(LensBuilder) -> LensBuilder,
        options: MountOptions,
        gateway: impl FnOnce(Gateway) -> Gateway,
    ) -> App {
        let master = Arc::new(Master {
            inner: MemoryTable::vista("products", schema, rows),
            calls: AtomicUsize::new(0),
            panics: AtomicBool::new(false),
            reads_one: AtomicBool::new(false),
            gate: tokio::sync::watch::Sender::new(true),
            failure: parking_lot::Mutex::new(None),
        });
        let files = tempfile::tempdir().unwrap();
        let seed = |dio: &Dio| {
            let dio = dio.clone();
            async move {
                let rows = dio.master().list_values().await?;
                dio.reconcile(rows).await.map(drop)
            }
        };
        let builder = Lens::new().cache_at(files.path().join("cache.redb")).on_start(seed).on_refresh(seed);
        let lens = Arc::new(lens(builder).build().unwrap());
        let dio = lens.make_dio(Vista::new("products", Shell(Arc::clone(&master)))).await.unwrap();
        // Tests fail more often than a person does.
        let limits = Limits { auth_failures: 1_000, ..Limits::default() };
        let router = gateway(Gateway::new().limits(limits).try_mount(dio.clone(), options).unwrap()).into_router();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "the app aborts it when it is dropped")]
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        App { address, dio, master, _lens: lens, server, _files: files }
    }

    /// The source, for somebody else.
    pub(crate) fn source(&self) -> Vista {
        Vista::new("products", Shell(Arc::clone(&self.master)))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn json(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &[("Content-Type", "application/json")], body).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let body = body.as_ref();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() && !headers.iter().any(|(name, _)| *name == "Transfer-Encoding") {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        // The server may refuse before it has read everything.
        let _ = socket.write_all(&[request.as_bytes(), body].concat()).await;
        let mut raw = Vec::new();
        let _ = socket.read_to_end(&mut raw).await;
        Answer::parse(&raw)
    }
}

/// JSON from a gateway that is no [`App`].
pub(crate) async fn get_at(address: SocketAddr, path: &str) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut raw = Vec::new();
    socket.read_to_end(&mut raw).await.unwrap();
    Answer::parse(&raw)
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn parse(raw: &[u8]) -> Answer {
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = std::str::from_utf8(&raw[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.into()))
            .collect();
        let mut answer = Answer { status, headers, body: raw[end + 4..].to_vec() };
        if answer.header("transfer-encoding") == "chunked" {
            answer.body = dechunk(&answer.body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Ids of a list.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.json().as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_string()).collect()
    }

    /// Status and code of a refusal, which must have the form of one.
    pub(crate) fn refusal(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert_eq!(body["type"], format!("/problems/{}", body["code"].as_str().unwrap()));
        assert_eq!(body["request_id"], self.header("x-request-id"));
        assert_eq!(body["message"], body["detail"]);
        (self.status, body["code"].as_str().unwrap().to_string())
    }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").expect("a chunk has a size");
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}
