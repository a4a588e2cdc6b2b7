//! An application: a gateway on a port of its own, with a scripted master and real files, and an HTTP client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diorama::dio::{Operation, OperationState};
use diorama::gateway::{Gateway, Limits, MountOptions};
use diorama::{Column, ColumnType, Dio, Flag, Lens, LensBuilder, Record, Schema, Vista};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Answer, Scripted};

/// Longest wait at the end of a test for writes to be delivered, and for tasks to end.
const END: Duration = Duration::from_secs(10);

/// A running gateway, on a runtime of its own that has the flavor of the test's.
///
/// Dropping it fails the test if a write or a delivery is still pending in the journal ([`App::leaves_pending`] allows that), or
/// if a task of the application outlives its end.
pub struct App {
    pub address: SocketAddr,
    pub dio: Dio,
    pub master: Scripted,
    lens: Arc<Lens>,
    server: JoinHandle<()>,
    runtime: Handle,
    /// Ends the runtime when it is dropped.
    _stop: oneshot::Sender<()>,
    leaves_pending: Option<&'static str>,
    _files: tempfile::TempDir,
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.abort();
        // A test that fails anyway has nothing to add.
        if std::thread::panicking() {
            return;
        }
        let ended = std::thread::scope(|scope| scope.spawn(|| self.runtime.block_on(self.end())).join());
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        let alive = || self.runtime.metrics().num_alive_tasks();
        let end = Instant::now() + END;
        while alive() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(alive(), 0, "tasks of the app are alive after its end");
    }
}

impl App {
    /// Says that writes or deliveries are pending when the test ends, and why.
    pub fn leaves_pending(mut self, why: &'static str) -> App {
        self.leaves_pending = Some(why);
        self
    }

    /// Operations and deliveries of the journal that are not settled.
    async fn pending(&self) -> Vec<String> {
        let open = |operation: &Operation| !operation.state.is_final() || operation.state == OperationState::Parked;
        let operations = self.dio.operations().into_iter().filter(open);
        let mut pending: Vec<String> = operations.map(|operation| format!("{operation:?}")).collect();
        let journal = self.lens.journal().await.unwrap();
        if journal.inbox().received > 0 {
            pending.push(format!("{:?}", journal.inbox()));
        }
        pending
    }

    async fn end(&self) {
        if self.leaves_pending.is_none() {
            let end = Instant::now() + END;
            let mut pending = self.pending().await;
            while !pending.is_empty() && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(1)).await;
                pending = self.pending().await;
            }
            assert!(pending.is_empty(), "pending in the journal at the end of the test: {pending:#?}");
        }
        tokio::time::timeout(END, self.lens.close()).await.expect("the lens closes");
    }
}

/// Columns of the products.
pub fn products() -> Schema {
    let columns = vec![
        Column::new("id", ColumnType::String),
        Column::new("name", ColumnType::String).with(Flag::Mandatory),
        Column::new("price", ColumnType::Integer),
        Column::new("meta", ColumnType::Json),
    ];
    Schema::new("id", columns)
}

/// Products "1" to `count`: "Bun 1" for 10, "Bun 2" for 20 and so on.
pub fn rows(count: usize) -> Vec<(String, Record)> {
    let row = |n: usize| {
        let cells = [("name".to_string(), format!("Bun {n}").into()), ("price".to_string(), (n as i64 * 10).into())];
        (n.to_string(), Record::from_iter(cells))
    };
    (1..=count).map(row).collect()
}

impl App {
    /// A gateway of seven products.
    pub async fn start() -> App {
        App::with(products(), rows(7), |lens| lens, MountOptions::default(), |gateway| gateway).await
    }

    /// `rows` of `schema`, with changes of the lens, the mount and the gateway.
    pub async fn with(
        schema: Schema,
        rows: Vec<(String, Record)>,
        lens: impl FnOnce(LensBuilder) -> LensBuilder,
        options: MountOptions,
        gateway: impl FnOnce(Gateway) -> Gateway,
    ) -> App {
        let (runtime, stop) = runtime();
        let master = Scripted::new(schema, rows).reading_one(false);
        let files = tempfile::tempdir().unwrap();
        let seed = |dio: &Dio| {
            let dio = dio.clone();
            async move {
                let rows = dio.master().list_values().await?;
                dio.reconcile(rows).await.map(drop)
            }
        };
        let builder = Lens::new().cache_at(files.path().join("cache.redb")).on_start(seed).on_refresh(seed);
        // Whoever leaves writes behind does not wait for them.
        let builder = builder.settings(|settings| settings.drain_timeout = Duration::from_millis(100));
        let lens = Arc::new(lens(builder).build().unwrap());
        let (making, vista) = (Arc::clone(&lens), master.vista("products"));
        let dio = runtime.spawn(async move { making.make_dio(vista).await.unwrap() }).await.unwrap();
        // Tests fail more often than a person does.
        let limits = Limits { auth_failures: 1_000, ..Limits::default() };
        let router = {
            let _inside = runtime.enter();
            gateway(Gateway::new().limits(limits).try_mount(dio.clone(), options).unwrap()).into_router()
        };
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let server = runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        App { address, dio, master, lens, server, runtime, _stop: stop, leaves_pending: None, _files: files }
    }

    /// Moves the application's clock on. The test has to be on a runtime of one thread.
    pub async fn pass(&self, time: Duration) {
        let passed = self.runtime.spawn(async move {
            tokio::time::pause();
            tokio::time::advance(time).await;
            tokio::time::resume();
        });
        passed.await.unwrap();
    }

    /// The source, for somebody else.
    pub fn source(&self) -> Vista {
        self.master.vista("products")
    }

    /// Answer to a GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Answer to a request with a JSON body.
    pub async fn json(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(method, path, &[("Content-Type", "application/json")], body).await
    }

    /// Answer to a request on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
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

/// Runtime of an application, and what ends it when dropped. Its threads log where the test's own thread does.
fn runtime() -> (Handle, oneshot::Sender<()>) {
    let log = tracing::dispatcher::get_default(Clone::clone);
    let logging = move || std::mem::forget(tracing::dispatcher::set_default(&log));
    let mut builder = match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(2).on_thread_start(logging.clone()).enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel();
    // Ends when the app is dropped: without waiting for what blocks.
    std::thread::spawn(move || {
        logging();
        let _ = runtime.block_on(stopped);
        runtime.shutdown_background();
    });
    (handle, stop)
}
