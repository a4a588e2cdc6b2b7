//! The composition root: a [`Config`] becomes sources, a Lens, Dios, a gateway and a server, and all of it ends in order.
//!
//! The port is bound first and answers from then on; first copies are read in the background, each resource says by itself
//! when it is ready. A stop goes the other way: no new connections, sockets told, answers under way finished, queues drained,
//! files closed, and a word about what was left.

mod accept;
mod backup;
mod check;
pub mod demo;
mod hooks;
pub mod ops;
mod progress;
mod proxies;
mod signals;
mod source;
pub mod webhook;

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accept::{Current, Responder};
use self::backup::Files;
pub use self::check::{check, check_all};
use self::proxies::Proxies;
use crate::config::{Access, CacheAt, Config, DioSpec, File, LensSpec, Page};
use diorama_core::cache::{CacheError, MemoryCache, RedbCache};
use diorama_core::dio::Dio;
use diorama_core::journal::{JournalError, RedbJournal};
use diorama_core::lens::Lens;
use diorama_core::vista::{Result as VistaResult, Vista};
use diorama_gateway::{Auth, Explorer, Gateway, Loopback, MountOptions, Sockets};

/// Why a server did not start, or did not end well.
#[derive(Debug)]
pub struct Failure {
    /// The process' exit code.
    pub code: u8,
    /// What to tell the person who started it.
    pub message: String,
}

/// The configuration, the journal or a source cannot be used as it is.
const CONFIG: u8 = 78;
/// Somebody else holds a file: try again later.
const LOCKED: u8 = 75;
/// Something else.
const OTHER: u8 = 1;
/// Stopped at once, because somebody asked twice.
const IMPATIENT: u8 = 130;

impl Failure {
    /// A mistake in the configuration.
    pub fn config(message: impl fmt::Display) -> Failure {
        Failure { code: CONFIG, message: message.to_string() }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Failure {
        let code = if matches!(error, CacheError::Locked { .. }) { LOCKED } else { CONFIG };
        Failure { code, message: error.to_string() }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Failure {
        let code = if matches!(error, JournalError::Locked { .. }) { LOCKED } else { CONFIG };
        Failure { code, message: error.to_string() }
    }
}

/// What `document` says of what `config` serves. Sources are opened to see their columns; nothing is kept.
///
/// # Errors
/// Everything that is wrong with the configuration.
pub async fn describe<T>(config: &Config, document: impl FnOnce(&Gateway) -> T) -> Result<T, Failure> {
    check(config)?;
    opened(config, document).await
}

/// [`describe`] without [`check`].
async fn opened<T>(config: &Config, document: impl FnOnce(&Gateway) -> T) -> Result<T, Failure> {
    let lens = Lens::new().cache_source(MemoryCache::default()).build().map_err(Failure::config)?;
    // Nothing is read, so nothing is to be read again.
    let mut still = config.clone();
    still.lens.refresh_every = None;
    still.dios.iter_mut().for_each(|dio| (dio.refresh_every, dio.feed) = (None, None));
    let app = App::open(&still, lens).await?;
    let document = app.gateway(&still).map(|gateway| document(&gateway));
    drop(app.dios);
    app.lens.close().await;
    document
}

/// Serves `config` until SIGTERM or SIGINT.
///
/// # Errors
/// A [`Failure`] to start, or to stop before everything was done.
pub async fn serve(config: Config) -> Result<(), Failure> {
    serve_with(config, |_| {}).await
}

/// As [`serve`]; calls `ready` with the server's URL when every resource can be read.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(config: Config, ready: impl FnOnce(&str)) -> Result<(), Failure> {
    check::check_with(&config, matches!(&config.lens.cache, CacheAt::File(path) if path.exists()))?;
    let mut signals = signals::Signals::new().map_err(|error| other(format!("signals: {error}")))?;
    let mut server = Server::bind(&config).await?;
    let base = format!("http://{}{}", server.address, base_path(&config));
    let opening = async {
        // A file that somebody else holds is the end of it: nobody is to be invited before.
        let (lens, files) = lens(&config.lens, config.server.limits.heavy_queries)?;
        say(format_args!("listening on {base}"));
        let app = match App::open(&config, lens).await {
            Ok(app) => app,
            Err(failure) => {
                server.closing.cancel();
                return Err(failure);
            }
        };
        server.current.store(Arc::new(app.front(&config, &server, files)?));
        Ok::<App, Failure>(app)
    };
    let opened = tokio::select! {
        opened = opening => Some(opened?),
        () = signals.next() => None,
    };
    let Some(app) = opened else {
        // Nobody could write yet: there is nothing to drain.
        server.stop(Instant::now() + Duration::from_secs(2)).await;
        return Ok(());
    };
    tokio::select! {
        () = app.run(&config, &base, ready) => {}
        () = signals.next() => {}
    }
    say("stopping: a second signal stops at once");
    tokio::select! {
        () = app.stop(&mut server, config.server.drain_timeout) => Ok(()),
        () = signals.again(Instant::now()) => Err(Failure { code: IMPATIENT, message: "stopped at once; what was queued is in the journal".into() }),
    }
}

/// Tells the person at the terminal; nobody may be listening.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn other(message: String) -> Failure {
    Failure { code: OTHER, message }
}

fn base_path(config: &Config) -> String {
    let path = config.server.base_path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

/// The listening side.
struct Server {
    address: SocketAddr,
    current: Current,
    closing: CancellationToken,
    sockets: Sockets,
    connections: TaskTracker,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn bind(config: &Config) -> Result<Server, Failure> {
        let spec = &config.server;
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::AddrInUse => {
                let (ip, next) = (spec.listen.ip(), spec.listen.port().wrapping_add(1));
                other(format!(
                    "{} is taken by another program: stop it, or choose another port, like --listen {}",
                    spec.listen,
                    SocketAddr::new(ip, next.max(1024))
                ))
            }
            _ => other(format!("{} cannot be listened on: {error}", spec.listen)),
        };
        let listener = TcpListener::bind(spec.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let current = Arc::new(ArcSwap::from_pointee(Responder::Starting(starting(&base_path(config)))));
        let (closing, connections) = (CancellationToken::new(), TaskTracker::new());
        #[expect(clippy::disallowed_methods, reason = "the server owns its accept loop and joins it")]
        let accepting = tokio::spawn(accept::accept(
            listener,
            Arc::clone(&current),
            spec.limits.clone(),
            Proxies::new(&spec.trusted_proxies),
            closing.clone(),
            connections.clone(),
        ));
        Ok(Server { address, current, closing, sockets: Sockets::new(spec.limits.max_sockets), connections, accepting })
    }

    /// Ends every connection, those that are still busy at `deadline` the hard way.
    async fn stop(&mut self, deadline: Instant) {
        self.closing.cancel();
        let ending = async {
            let _ = (&mut self.accepting).await;
            self.sockets.close().await;
            self.connections.close();
            self.connections.wait().await;
        };
        if timeout_at(deadline, ending).await.is_err() {
            say(format_args!("{} connections were still busy", self.connections.len()));
        }
    }
}

/// What answers until the resources are there: alive, not ready.
fn starting(base: &str) -> Router {
    async fn not_ready() -> Response {
        let body = r#"{"type":"/problems/not-ready","title":"The first copy is still being read","status":503,"detail":"the server is starting","code":"not-ready","message":"the server is starting"}"#;
        let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::RETRY_AFTER, "1")];
        (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
    }
    async fn alive() -> Response {
        ([(header::CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
    }
    Router::new().route(&format!("{base}/healthz"), get(alive)).fallback(not_ready)
}

/// The resources.
struct App {
    lens: Lens,
    dios: Vec<Dio>,
}

impl App {
    async fn open(config: &Config, lens: Lens) -> Result<App, Failure> {
        let opened = join_all(config.dios.iter().map(|spec| open_dio(&lens, spec, config))).await;
        let (mut dios, mut wrong) = (Vec::new(), Vec::new());
        for (spec, dio) in config.dios.iter().zip(opened) {
            match dio {
                Ok(dio) => dios.push(dio),
                Err(error) => wrong.push(format!("[dio.{}] {error}", spec.name)),
            }
        }
        if wrong.is_empty() {
            return Ok(App { lens, dios });
        }
        drop(dios);
        lens.close().await;
        Err(Failure::config(wrong.join("\n")))
    }

    fn front(&self, config: &Config, server: &Server, files: Files) -> Result<Responder, Failure> {
        let gateway = self.gateway(config)?.closing(server.closing.clone()).sockets(server.sockets.clone());
        let gateway = gateway.backup(files.backup());
        Ok(Responder::Gateway(gateway.connections(server.connections.clone()).into_service()))
    }

    fn gateway(&self, config: &Config) -> Result<Gateway, Failure> {
        let spec = &config.server;
        let mut gateway = Gateway::new()
            .base_path(&spec.base_path)
            .cors(spec.cors.clone())
            .compression(spec.compression)
            .explorer(explorer(&spec.explorer))
            .limits(spec.limits.gateway)
            .require_host()
            .guard_host(spec.listen.ip().is_loopback().then(Loopback::default));
        if let Some(Access::Tokens(tokens)) = &spec.auth {
            gateway = gateway.auth(Auth::Tokens(tokens.iter().map(|token| token.reveal().to_string()).collect()));
        }
        for (dio, spec) in self.dios.iter().zip(&config.dios) {
            gateway = gateway
                .try_mount(dio.clone(), mount_options(spec, config.server.limits.rows))
                .map_err(Failure::config)?;
        }
        for spec in &config.webhooks {
            let hook = hooks::hook(spec).map_err(Failure::config)?;
            gateway = gateway.try_hook(hook).map_err(Failure::config)?;
        }
        Ok(gateway)
    }

    /// Waits for the first copies, says how it went; never returns.
    async fn run(&self, config: &Config, base: &str, ready: impl FnOnce(&str)) {
        let started = Instant::now();
        let seconds = tokio::select! {
            seconds = join_all(self.dios.iter().map(|dio| progress::first_copy(dio, started))) => seconds,
            () = progress::tell(&self.dios, started) => Vec::new(),
        };
        progress::table(&self.dios, &config.dios, &seconds, base);
        ready(base);
        std::future::pending().await
    }

    async fn stop(self, server: &mut Server, patience: Duration) {
        let deadline = Instant::now() + patience;
        server.stop(deadline).await;
        // Each drains its queue up to its own deadline, which is the same.
        join_all(self.dios.iter().map(Dio::close)).await;
        for dio in &self.dios {
            let status = dio.status();
            match (status.queued, status.durable) {
                (0, _) => {}
                (left, true) => {
                    say(format_args!("{}: {left} writes are left in the journal for the next start", dio.name()))
                }
                (left, false) => say(format_args!("{}: {left} writes are lost: the journal was in memory", dio.name())),
            }
        }
        drop(self.dios);
        self.lens.close().await;
        say("stopped");
    }
}

/// Cache and journal, with the one way a source is listed, and the files that they are in.
fn lens(spec: &LensSpec, heavy_queries: Option<usize>) -> Result<(Lens, Files), Failure> {
    let mut files = Files { cache: None, journal: None };
    let builder = Lens::new().on_start(list).on_refresh(list).on_start_blocking(false);
    let builder = match heavy_queries {
        Some(most) => builder.heavy_queries(most),
        None => builder,
    };
    let builder = builder.settings(|settings| {
        settings.write_queue_capacity = spec.write_queue_capacity;
        settings.count_parked = true;
        // A file that is mended, a table that is made: the server goes on by itself.
        settings.retry_every_start = true;
        settings.inbox = hooks::inbox(&spec.inbox);
        hooks::events(&spec.events, settings);
    });
    let builder = match &spec.cache {
        CacheAt::Memory => builder.cache_source(MemoryCache::default()),
        CacheAt::File(path) => {
            let cache = RedbCache::open_keeping(path, spec.kept_corrupt_caches)?;
            files.cache = Some((path.clone(), cache.clone()));
            builder.cache_file(cache)
        }
    };
    let builder = match journal_path(spec) {
        Some(path) => {
            let journal = RedbJournal::open(&path)?;
            files.journal = Some((path, journal.clone()));
            builder.journal_source(Arc::new(journal))
        }
        None => builder,
    };
    Ok((builder.build().map_err(Failure::config)?, files))
}

/// Where the journal is, if it is a file.
fn journal_path(spec: &LensSpec) -> Option<std::path::PathBuf> {
    match (&spec.journal, &spec.cache) {
        (Some(journal), _) => Some(journal.clone()),
        (None, CacheAt::File(cache)) => Some(cache.with_extension("journal.redb")),
        (None, CacheAt::Memory) => None,
    }
}

/// Makes the copy equal to what the source has.
fn list(dio: &Dio) -> impl Future<Output = VistaResult<()>> + Send + use<> {
    let dio = dio.clone();
    async move {
        let rows = dio.master().list_values().await?;
        dio.reconcile(rows).await.map(drop)
    }
}

async fn open_dio(lens: &Lens, spec: &DioSpec, config: &Config) -> VistaResult<Dio> {
    let vista = source::open_or_remember(spec, lens).await?;
    source::check_version(spec, &vista.schema())?;
    let mut builder = lens.dio(vista).settings(|settings| source::settings(spec, config, settings));
    if let Some(route) = &spec.write {
        let target: Arc<Vista> = Arc::new(route.open(&spec.name).await?);
        let route = Vista::clone(&target);
        builder = builder.settings(|settings| settings.route = Some(route));
        builder = builder.on_write(move |dio, op| {
            let (target, dio) = (Arc::clone(&target), dio.clone());
            async move { source::deliver(target, dio.current_operation(), op, || dio.written_row()).await }
        });
    }
    let dio = builder.make().await?;
    if let Some(feed) = &spec.feed {
        feed.feed.start(&dio, hooks::feed_format(feed)?)?;
    }
    Ok(dio)
}

fn explorer(page: &Page) -> Explorer {
    match page {
        Page::Own => Explorer::Own,
        Page::Folder(folder) => Explorer::Folder(folder.clone()),
        Page::Off => Explorer::Off,
    }
}

fn mount_options(spec: &DioSpec, rows: usize) -> MountOptions {
    let default = MountOptions::default();
    let max_limit = spec.max_limit.unwrap_or(rows as u64);
    MountOptions {
        default_limit: spec.default_limit.unwrap_or(default.default_limit).min(max_limit),
        max_limit,
        max_affected: spec.max_affected.unwrap_or(default.max_affected),
        require_if_match: spec.require_if_match,
        max_live: spec.max_live.unwrap_or(default.max_live),
        ack: spec.ack,
    }
}

/// A configuration that serves `files`; one with several arrays of objects becomes a resource for each.
///
/// # Errors
/// Everything that is wrong with them, one per line.
pub fn of_files(files: &[File]) -> Result<Config, Failure> {
    let config = File::config(files).map_err(Failure::config)?;
    Ok(Config { dios: source::spread(config.dios), ..config })
}

/// Reads the configuration at `path`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(path: &Path) -> Result<Config, Failure> {
    Config::read(path).map_err(Failure::config)
}
