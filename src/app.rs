//! Composition root: builds sources, a Lens, Dios, a gateway and a server from a [`Config`], and shuts all of them down in order.
//!
//! The port is bound first and answers from then on. First copies are read in the background, and each resource reports when it
//! is ready. Shutdown goes in reverse: the listener closes, sockets are notified, running requests finish, queues are drained,
//! files are closed, and remaining writes are reported.

mod accept;
pub mod access;
mod auth;
mod backup;
mod check;
pub mod demo;
#[cfg(feature = "http")]
pub mod explore;
mod failure;
pub mod feeds;
mod hooks;
pub mod key;
pub mod notify;
pub mod ops;
mod progress;
mod proxies;
mod reload;
mod signals;
mod source;
mod tls;
pub mod webhook;

use std::collections::HashMap;
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
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accept::{Current, Frontend, Responder};
pub use self::auth::build_auth;
use self::backup::Files;
pub use self::check::{check, check_all, warnings};
pub use self::failure::Failure;
use self::failure::{CONFIG, INTERRUPTED, LOCKED, OTHER, other};
use self::proxies::Proxies;
use self::reload::{Reloadable, Reloader};
use self::tls::Tls;
use crate::config::{AuditSpec, CacheAt, Config, DioSpec, File, LensSpec, Page};
use diorama_core::cache::{RedbCache, RemoteCache};
use diorama_core::dio::{Dio, now};
use diorama_core::journal::{AuditAction, AuditEntry, RedbJournal};
use diorama_core::lens::Lens;
use diorama_core::vista::{Result as VistaResult, Vista};
use diorama_gateway::{AuditLog, Explorer, Gateway, GatewayService, Loopback, MountOptions, Sockets};

/// Returns the result of `document` for the gateway of `config`. Sources are opened to read their columns; nothing is stored.
///
/// # Errors
/// All mistakes in the configuration.
pub async fn describe<T>(config: &Config, document: impl FnOnce(&Gateway) -> T) -> Result<T, Failure> {
    check(config)?;
    opened(config, document).await
}

/// Runs [`describe`] without [`check`].
async fn opened<T>(config: &Config, document: impl FnOnce(&Gateway) -> T) -> Result<T, Failure> {
    let lens = Lens::new().no_cache().build().map_err(Failure::config)?;
    // No rows are read, so there are no refreshes and feeds either.
    let mut static_config = config.clone();
    static_config.lens.refresh_every = None;
    static_config.dios.iter_mut().for_each(|dio| (dio.refresh_every, dio.feed) = (None, None));
    let app = App::open(&static_config, lens).await?;
    let document = app.gateway(&static_config).map(|gateway| document(&gateway));
    drop(app.dios);
    app.lens.close().await;
    document
}

/// Serves `config` until SIGTERM or SIGINT. SIGHUP has its certificate read again.
///
/// # Errors
/// A [`Failure`] to start, or to finish the shutdown.
pub async fn serve(config: Config) -> Result<(), Failure> {
    let same = config.clone();
    serve_with(config, &|| Ok(same.clone()), |_| {}).await
}

/// Serves like [`serve`] and calls `ready` with the server's URL when every resource can be read. At SIGHUP the configuration that
/// `read` returns is applied, as far as that is possible without a restart.
///
/// # Errors
/// As [`serve`].
pub async fn serve_with(
    config: Config,
    read: &dyn Fn() -> Result<Config, Failure>,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    let may_have_copy = match &config.lens.cache {
        CacheAt::File(path) => path.exists(),
        CacheAt::Server(_) => true,
        CacheAt::Memory => false,
    };
    check::check_with(&config, may_have_copy)?;
    let mut signals = signals::Signals::new().map_err(|error| other(format!("signals: {error}")))?;
    let mut hangups = signals::Hangups::new().map_err(|error| other(format!("signals: {error}")))?;
    let mut server = Server::bind(&config).await?;
    let base = format!("{}://{}{}", scheme(&config), server.address, base_path(&config));
    let opening = async {
        // Fail on a locked file before announcing the address.
        let (lens, files) = lens(&config.lens, &config.dios, config.server.limits.heavy_queries)?;
        say(format_args!("listening on {base}"));
        let app = match App::open(&config, lens).await {
            Ok(app) => app,
            Err(failure) => {
                server.closing.cancel();
                return Err(failure);
            }
        };
        let audit = audit_log(&config.audit, &files);
        let app = App { audit, ..app };
        let gateway = app.service(&config, &server, files)?;
        server.current.store(Arc::new(Responder::Gateway(gateway.clone())));
        app.note_start();
        Ok::<_, Failure>((app, gateway))
    };
    let opened = tokio::select! {
        opened = opening => Some(opened?),
        () = signals.next() => None,
    };
    let Some((app, gateway)) = opened else {
        // No writes were accepted yet, so there is nothing to drain.
        server.stop(Instant::now() + Duration::from_secs(2)).await;
        return Ok(());
    };
    let reloader = Reloader::new(read, config.clone(), server.reloadable_parts(&gateway)).audited(app.audit.clone());
    tokio::select! {
        () = app.run(&config, &base, ready) => {}
        () = auth::refresh_keys(&gateway) => {}
        () = signals.next() => {}
        () = reloader.run(&mut hangups) => {}
    }
    say("stopping; a second signal stops immediately");
    tokio::select! {
        () = app.stop(&mut server, config.server.drain_timeout) => Ok(()),
        () = signals.second(Instant::now()) => Err(Failure { code: INTERRUPTED, message: "stopped immediately; queued writes are in the journal".into() }),
    }
}

/// Prints a line for the operator; errors are ignored.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn scheme(config: &Config) -> &'static str {
    if config.server.tls.is_some() { "https" } else { "http" }
}

fn base_path(config: &Config) -> String {
    let path = config.server.base_path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

/// The listener and its connections.
struct Server {
    address: SocketAddr,
    current: Current,
    closing: CancellationToken,
    sockets: Sockets,
    connections: TaskTracker,
    /// `None` for plain HTTP.
    tls: Option<Arc<Tls>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn bind(config: &Config) -> Result<Server, Failure> {
        let spec = &config.server;
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::AddrInUse => {
                let (ip, next) = (spec.listen.ip(), spec.listen.port().wrapping_add(1));
                other(format!(
                    "{} is in use by another program: stop it, or choose another port, like --listen {}",
                    spec.listen,
                    SocketAddr::new(ip, next.max(1024))
                ))
            }
            _ => other(format!("cannot listen on {}: {error}", spec.listen)),
        };
        let tls = spec.tls.as_ref().map(Tls::open).transpose().map_err(Failure::config)?.map(Arc::new);
        let listener = TcpListener::bind(spec.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let current = Arc::new(ArcSwap::from_pointee(Responder::Starting(starting(&base_path(config)))));
        let (closing, connections) = (CancellationToken::new(), TaskTracker::new());
        let front = Arc::new(Frontend::new(
            Arc::clone(&current),
            spec.limits.clone(),
            Proxies::new(&spec.trusted_proxies),
            tls.clone(),
            closing.clone(),
        ));
        #[expect(clippy::disallowed_methods, reason = "the server owns its accept loop and joins it")]
        let accepting = tokio::spawn(accept::accept(listener, front, connections.clone()));
        let sockets = Sockets::new(spec.limits.max_sockets);
        Ok(Server { address, current, closing, sockets, connections, tls, accepting })
    }

    /// Returns the parts that a reload can change. A further part is added here.
    fn reloadable_parts(&self, gateway: &GatewayService) -> Vec<Box<dyn Reloadable>> {
        let access: Box<dyn Reloadable> = Box::new(auth::AccessPart(gateway.clone()));
        let tls = self.tls.clone().map(|tls| Box::new(tls) as Box<dyn Reloadable>);
        tls.into_iter().chain([access]).collect()
    }

    /// Ends every connection; connections still busy at `deadline` are dropped.
    async fn stop(&mut self, deadline: Instant) {
        self.closing.cancel();
        let ending = async {
            let _ = (&mut self.accepting).await;
            self.sockets.close().await;
            self.connections.close();
            self.connections.wait().await;
        };
        if timeout_at(deadline, ending).await.is_err() {
            say(format_args!("{} connections were still busy and have been dropped", self.connections.len()));
        }
    }
}

/// Returns the router that answers until the resources are open: alive, not ready.
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
    audit: Option<AuditLog>,
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
            return Ok(App { lens, dios, audit: None });
        }
        drop(dios);
        lens.close().await;
        Err(Failure::config(wrong.join("\n")))
    }

    /// Builds the gateway with all resources.
    fn service(&self, config: &Config, server: &Server, files: Files) -> Result<GatewayService, Failure> {
        let gateway = self.gateway(config)?.closing(server.closing.clone()).sockets(server.sockets.clone());
        let gateway = gateway.backup(files.backup()).audit(self.audit.clone());
        let gateway = gateway.certificate_expires(server.tls.as_ref().map(|tls| tls.expires()));
        Ok(gateway.connections(server.connections.clone()).into_service())
    }

    fn note_start(&self) {
        if let Some(audit) = &self.audit {
            audit.note(AuditEntry::new(AuditAction::ServerStarted, now()));
        }
    }

    fn gateway(&self, config: &Config) -> Result<Gateway, Failure> {
        let spec = &config.server;
        let mut gateway = Gateway::new()
            .base_path(&spec.base_path)
            .cors(spec.cors.clone())
            .compression(spec.compression)
            .explorer(explorer(&spec.explorer))
            .limits(spec.limits.gateway)
            .rate_limits(config.limits.clone())
            .require_host()
            .guard_host(spec.listen.ip().is_loopback().then(Loopback::default));
        gateway = gateway.auth(build_auth(config)?);
        for (dio, spec) in self.dios.iter().zip(&config.dios) {
            gateway = gateway
                .try_mount(dio.clone(), mount_options(spec, config.server.limits.rows))
                .map_err(Failure::config)?;
        }
        for spec in &config.dios {
            for relation in &spec.relations {
                gateway = gateway.try_relate(&spec.name, relation.clone()).map_err(Failure::config)?;
            }
        }
        gateway = gateway.try_allow(&config.allow).map_err(|mistakes| Failure::config(rule_mistakes(&mistakes)))?;
        for spec in &config.webhooks {
            let hook = hooks::hook(spec).map_err(Failure::config)?;
            gateway = gateway.try_hook(hook).map_err(Failure::config)?;
        }
        for spec in &config.notifications {
            let notification = notify::notification(spec).map_err(Failure::config)?;
            gateway = gateway.try_notify(notification).map_err(Failure::config)?;
        }
        Ok(gateway)
    }

    /// Waits for the first copies and reports them; never returns.
    async fn run(&self, config: &Config, base: &str, ready: impl FnOnce(&str)) {
        let started = Instant::now();
        let seconds = tokio::select! {
            seconds = join_all(self.dios.iter().map(|dio| progress::first_copy(dio, started))) => seconds,
            () = progress::report(&self.dios, started) => Vec::new(),
        };
        progress::table(&self.dios, &config.dios, &seconds, base);
        ready(base);
        std::future::pending().await
    }

    async fn stop(self, server: &mut Server, patience: Duration) {
        let deadline = Instant::now() + patience;
        server.stop(deadline).await;
        // Each Dio drains its queue up to its own deadline, which is the same.
        join_all(self.dios.iter().map(Dio::close)).await;
        for dio in &self.dios {
            let status = dio.status();
            match (status.queued, status.durable) {
                (0, _) => {}
                (left, true) => {
                    say(format_args!("{}: {left} writes remain in the journal for the next start", dio.name()))
                }
                (left, false) => {
                    say(format_args!("{}: {left} writes are lost because the journal was in memory", dio.name()))
                }
            }
        }
        drop(self.dios);
        if let Some(audit) = self.audit {
            audit.close().await;
        }
        self.lens.close().await;
        say("stopped");
    }
}

/// Returns mistakes in access rules, one per line, with the number of the rule in the file.
fn rule_mistakes(mistakes: &[(usize, String)]) -> String {
    let line = |(rule, mistake): &(usize, String)| format!("[[allow]] number {rule}: {mistake}");
    mistakes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Builds the Lens with cache and journal, and returns their files.
fn lens(spec: &LensSpec, dios: &[DioSpec], heavy_queries: Option<usize>) -> Result<(Lens, Files), Failure> {
    let mut files = Files { cache: None, journal: None, server: None };
    let feed = |dio: &DioSpec| Some((dio.name.clone(), dio.feed.as_ref()?.feed.reports_all()));
    let feeds = dios.iter().filter_map(feed).collect::<HashMap<_, _>>();
    let builder = Lens::new().on_start(move |dio| list_at_start(dio, feeds.get(dio.name()).copied()));
    let builder = builder.on_refresh(list).on_start_blocking(false);
    let builder = match heavy_queries {
        Some(most) => builder.heavy_queries(most),
        None => builder,
    };
    let builder = builder.settings(|settings| {
        settings.write_queue_capacity = spec.write_queue_capacity;
        settings.count_parked = true;
        // The server continues by itself once a file is repaired or a table created.
        settings.retry_every_start = true;
        settings.inbox = hooks::inbox(&spec.inbox);
        settings.outbox = hooks::outbox(&spec.outbox);
        hooks::events(&spec.events, settings);
    });
    let builder = match &spec.cache {
        CacheAt::Memory => builder.no_cache(),
        CacheAt::Server(server) => {
            files.server = Some(server.store.name.clone());
            builder.cache_source(RemoteCache::new(Arc::clone(&server.store.backend)))
        }
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

/// Opens the audit log in the journal; `None` if it is switched off or there is no journal on disk.
fn audit_log(spec: &AuditSpec, files: &Files) -> Option<AuditLog> {
    let (_, journal) = files.journal.as_ref().filter(|_| spec.enabled)?;
    Some(AuditLog::new(Arc::new(journal.clone()), spec.limits))
}

/// Returns the path of the journal, if it is a file.
fn journal_path(spec: &LensSpec) -> Option<std::path::PathBuf> {
    match (&spec.journal, &spec.cache) {
        (Some(journal), _) => Some(journal.clone()),
        (None, CacheAt::File(cache)) => Some(cache.with_extension("journal.redb")),
        (None, CacheAt::Server(server)) => Some(server.journal.clone()),
        (None, CacheAt::Memory) => None,
    }
}

/// Time for which the list of a start waits for the feed of its resource.
const FEED_CONNECTS: Duration = Duration::from_secs(10);

/// Makes the copy equal to the source at the start. If there is a copy already, a feed that continues where it has stopped comes
/// first: it would report older changes over the rows of the list. If it reports all changes, no list is needed. `feed` is
/// `None` without a feed, else true if it does.
fn list_at_start(dio: &Dio, feed: Option<bool>) -> impl Future<Output = VistaResult<()>> + Send + use<> {
    let dio = dio.clone();
    async move {
        if let Some(reports_all) = feed
            && dio.is_ready()
            && timeout(FEED_CONNECTS, dio.feed_resumed()).await == Ok(true)
            && reports_all
        {
            dio.confirm_copy().await;
            return Ok(());
        }
        list(&dio).await
    }
}

/// Makes the copy equal to the source.
fn list(dio: &Dio) -> impl Future<Output = VistaResult<()>> + Send + use<> {
    let dio = dio.clone();
    async move { dio.reconcile_master().await.map(drop) }
}

async fn open_dio(lens: &Lens, spec: &DioSpec, config: &Config) -> VistaResult<Dio> {
    if let Some(feed) = &spec.feed {
        feed.feed.prepare();
    }
    #[cfg(feature = "watch")]
    let watch = spec.source.watched().map(diorama_connect::FileWatch::new);
    let vista = source::open_or_remember(spec, lens).await?;
    let schema = vista.schema();
    source::check_version(spec, &schema)?;
    let mut builder = lens.dio(vista).settings(|settings| source::settings(spec, config, settings));
    if let Some(route) = &spec.write {
        let target: Arc<Vista> = Arc::new(route.open(&spec.name, &schema).await?);
        let route = Vista::clone(&target);
        builder = builder.settings(|settings| {
            settings.route_writes_once = route.shell().writes_once();
            settings.route = Some(route);
        });
        builder = builder.on_write(move |dio, op| {
            let (target, dio) = (Arc::clone(&target), dio.clone());
            async move { source::deliver(target, dio.current_operation(), op, || dio.written_row()).await }
        });
    }
    let dio = builder.make().await?;
    #[cfg(feature = "watch")]
    if let Some(watch) = watch {
        watch.start(&dio);
    }
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

/// Returns a configuration that serves `files`. A file with several arrays of objects becomes one resource for each.
///
/// # Errors
/// All mistakes, one per line.
pub fn of_files(files: &[File]) -> Result<Config, Failure> {
    let config = File::config(files).map_err(Failure::config)?;
    Ok(Config { dios: source::spread(config.dios), ..config })
}

/// Reads the configuration at `path`.
///
/// # Errors
/// All mistakes in it.
pub fn read(path: &Path) -> Result<Config, Failure> {
    Config::read(path).map_err(Failure::config)
}
