//! The servers that are compared, each a process of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use diorama::connect::MemoryTable;
use diorama::gateway::Gateway;
use diorama::gateway::webhook::{Hook, HookOptions};
use diorama::inbound::signature::Standard;
use diorama::inbound::{self, Scheme};
use diorama::record::Body as Row;
use diorama::{Lens, Rows};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::deliveries::SECRET;
use crate::products::{id, record, schema};

/// What a bare handler gives: what ours gave, byte for byte as long.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Prebuilt {
    /// The path, as axum's router takes it.
    pub(crate) route: String,
    pub(crate) method: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) length: usize,
}

/// A running server; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Closed, it would make the server's words fail.
    _words: BufReader<ChildStdout>,
    /// Nanoseconds of each thread that was ever seen: those that end have worked as well.
    spent: RefCell<HashMap<OsString, u64>>,
}

impl Server {
    /// Starts a process on the first core (if `taskset` is there) and waits until it says where it listens.
    pub(crate) fn start(program: &Path, arguments: &[&str], pinned: bool) -> Server {
        let mut command = match pinned {
            true => Command::new("taskset"),
            false => Command::new(program),
        };
        if pinned {
            command.args(["-c", "0"]).arg(program);
        }
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().expect("a server process");
        let mut words = BufReader::new(child.stdout.take().expect("its words"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(words.read_line(&mut line).expect("a line") > 0, "{} ended early", program.display());
            if let Some(address) = line.trim().strip_prefix("listening on http://") {
                break address.parse().expect("an address");
            }
        };
        Server { child, address, _words: words, spent: RefCell::default() }
    }

    /// Resident memory in megabytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kilobytes| kilobytes / 1024)
    }

    /// CPU time that the process has used, all threads together.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a living server");
        let mut spent = self.spent.borrow_mut();
        for task in tasks.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            if let Some(nanoseconds) = text.split_whitespace().next().and_then(|word| word.parse().ok()) {
                spent.insert(task.file_name(), nanoseconds);
            }
        }
        Duration::from_nanos(spent.values().sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What everybody would write with axum: one handler per case, behind `axum::serve`.
pub(crate) async fn bare(prebuilt: &Path) {
    let text = fs::read(prebuilt).expect("the prebuilt answers");
    let prebuilt: Vec<Prebuilt> = serde_json::from_slice(&text).expect("their list");
    let mut router = Router::new();
    for answer in prebuilt {
        let status = StatusCode::from_u16(answer.status).expect("a status");
        let headers = answer.headers.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        });
        let headers: HeaderMap = headers.collect();
        let body = Bytes::from(vec![b'x'; answer.length]);
        let respond = move || {
            let mut response = Response::new(Body::from(body.clone()));
            *response.status_mut() = status;
            *response.headers_mut() = headers.clone();
            response
        };
        let handler = match answer.method.as_str() {
            "POST" => on(MethodFilter::POST, move |sent: Bytes| async move {
                drop(sent);
                respond()
            }),
            _ => on(MethodFilter::GET, move || async move { respond() }),
        };
        router = router.route(&answer.route, handler);
    }
    listen(router).await;
}

/// Ours as a library: a Dio over a table in memory, with cache and journal on disk, behind `axum::serve`.
pub(crate) async fn library(rows: usize, folder: &Path) {
    let schema = schema();
    let mut list = Rows::with_layout(std::sync::Arc::clone(schema.layout()));
    for at in 0..rows {
        list.push_body(&id(at), &Row::encode(&id(at), &record(at), schema.layout()));
    }
    let lens = Lens::new()
        .cache_at(folder.join("library.redb"))
        .on_start(|dio| {
            let dio = dio.clone();
            async move {
                let rows = dio.master().list_values().await?;
                dio.reconcile(rows).await.map(drop)
            }
        })
        // As the command has it; else writers would wait for the table.
        .write_queue_capacity(100_000)
        .build()
        .expect("a Lens");
    let dio = lens.make_dio(MemoryTable::vista("products", schema, list)).await.expect("a Dio");
    let hook = Hook::new(
        "products",
        "products",
        inbound::Hook::new(Scheme::Standard(Standard::new([SECRET]).expect("a secret"))),
    );
    let hook = hook.with(HookOptions { rate: 1_000_000, ..HookOptions::default() });
    listen(Gateway::new().mount(dio).try_hook(hook).expect("a hook").into_router()).await;
}

pub(crate) async fn listen(router: Router) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("listening on http://{}", listener.local_addr().expect("an address"));
    axum::serve(listener, router).await.expect("a server");
}
