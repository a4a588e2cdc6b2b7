//! [`Gateway`]: Dios as HTTP resources, in a plain [`axum::Router`].
//!
//! The URL table is `router.rs`; each verb has a file. Every request passes one pipeline (`pipeline.rs`: request id, host,
//! origin, authentication, panics), every refusal is an [`ApiError`] and leaves as problem+json (`http/problem.rs`).
//!
//! Folders import in one direction: `http` and `metrics` know no other, `rows` is built on them, `events` on `rows`; `webhook`,
//! `admin`, `pages` and `openapi` come next. `state.rs` holds what all handlers share, so it names types of every folder, in files
//! that do not import it.

mod admin;
mod events;
mod http;
mod metrics;
mod openapi;
mod options;
mod pages;
mod pipeline;
mod router;
mod rows;
mod scope;
mod service;
mod state;
pub mod webhook;

pub use admin::archive::{Archive, Backup};
pub use admin::operations::describe as operation_json;
pub use events::Sockets;
pub use http::auth::Auth;
pub use http::budget::{Budget, BudgetError, Caller, Lease};
pub use http::limits::Limits;
pub use http::origin::Loopback;
pub use http::problem::{ApiError, Code, unreadable};
pub use options::{Ack, MountOptions, RESERVED};
pub use pages::explorer::Explorer;
pub use service::GatewayService;
pub use state::{GatewayState, Resource};
pub use webhook::describe_whole as delivery_json;

pub use diorama_core::vista::query::url::segment;

use std::sync::Arc;

use indexmap::IndexMap;

use diorama_core::dio::Dio;
use diorama_core::vista::{Error, Result};

/// Builds the HTTP side of any number of Dios.
///
/// The defaults are those of a part nested in somebody's own app: no authentication, no check of `Host`, no CORS, because the
/// app around it decides these. `diorama serve` sets them all.
///
/// # Example
/// ```no_run
/// # fn example(dio: diorama_core::Dio) {
/// use diorama_gateway::Gateway;
///
/// let app: axum::Router = axum::Router::new().nest("/api", Gateway::new().mount(dio).into_router());
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "a gateway does nothing until it is a router"]
pub struct Gateway {
    gateway: GatewayState,
}

impl Gateway {
    /// A gateway without resources.
    pub fn new() -> Gateway {
        Gateway::default()
    }

    /// Serves `dio` under its name. One whose name is taken, reserved or does not fit into a URL is not served, and the log
    /// says so; [`Gateway::try_mount`] refuses it.
    pub fn mount(mut self, dio: Dio) -> Gateway {
        if let Err(error) = self.add(dio, MountOptions::default()) {
            tracing::error!(%error, "a Dio is not served");
        }
        self
    }

    /// Serves `dio` under its name, with bounds and policies of its own.
    ///
    /// # Errors
    /// [`Error::Config`] if the name is taken, reserved or does not fit into a URL.
    pub fn try_mount(mut self, dio: Dio, options: MountOptions) -> Result<Gateway> {
        self.add(dio, options).map(|()| self)
    }

    fn add(&mut self, dio: Dio, options: MountOptions) -> Result<()> {
        let name: Arc<str> = dio.name().into();
        options::check_name(&name)?;
        if self.gateway.dios.contains_key(&name) {
            return Err(Error::Config(format!("two resources are called {name:?}: give one another name")));
        }
        self.gateway.dios.insert(name, Arc::new(Resource::new(dio, options)));
        Ok(())
    }

    /// Takes webhooks under `/webhooks/{name}`.
    ///
    /// # Errors
    /// [`Error::Config`] if a hook of that name is there already, or its Dio is not mounted yet.
    pub fn try_hook(mut self, hook: webhook::Hook) -> Result<Gateway> {
        if !self.gateway.dios.contains_key(hook.dio.as_str()) {
            let names: Vec<_> = self.gateway.dios.keys().map(|name| &**name).collect();
            let detail =
                format!("webhook {:?} feeds {:?}, but there are only {}", hook.name, hook.dio, names.join(", "));
            return Err(Error::Config(detail));
        }
        match self.gateway.hooks.insert(hook.name.as_str().into(), Arc::new(hook)) {
            None => Ok(self),
            Some(hook) => Err(Error::Config(format!("two webhooks are called {:?}: give one another name", hook.name))),
        }
    }

    /// Serves everything under `path` (`/api`); for servers behind a proxy that does not cut it off. A path with characters
    /// that it can only hold encoded is left away, and the log says so.
    pub fn base_path(mut self, path: &str) -> Gateway {
        let path = path.trim_matches('/');
        let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte));
        self.gateway.base_path = if path.is_empty() { String::new() } else { format!("/{path}") };
        if !plain || path.contains("//") {
            tracing::error!(
                path,
                "base_path takes letters, digits, - . _ ~ and single slashes: everything is served at / instead"
            );
            self.gateway.base_path.clear();
        }
        self
    }

    /// Asks who calls, on every route but `/healthz` and the webhooks.
    pub fn auth(mut self, auth: Auth) -> Gateway {
        self.gateway.auth = auth;
        self
    }

    /// Lets pages of these origins (`https://shop.example`) read and write.
    pub fn cors(mut self, origins: Vec<String>) -> Gateway {
        self.gateway.origins.listed = origins;
        self
    }

    /// Sends bodies as zstd, br or gzip to who accepts it (default: no, because the app around may do so itself).
    pub fn compression(mut self, on: bool) -> Gateway {
        self.gateway.compression = on;
        self
    }

    /// Where the page at `/` comes from (default: the program's own).
    pub fn explorer(mut self, explorer: Explorer) -> Gateway {
        self.gateway.explorer = explorer;
        self
    }

    /// Bounds on what a request may be.
    pub fn limits(mut self, limits: Limits) -> Gateway {
        self.gateway.limits = limits;
        self
    }

    /// Guards a server that binds loopback: only loopback names in `Host`, only loopback origins beside those listed.
    pub fn guard_host(mut self, loopback: Option<Loopback>) -> Gateway {
        self.gateway.origins.loopback = loopback;
        self
    }

    /// Sends backups at `POST /_backup` (default: there is nothing to back up).
    pub fn backup(mut self, backup: Option<Backup>) -> Gateway {
        self.gateway.backup = backup;
        self
    }

    /// Refuses requests of HTTP/1.1 without the header `Host`, as RFC 9112 asks of servers (default: no, because requests that
    /// a program makes within itself have none). Several of them are always refused.
    pub fn require_host(mut self) -> Gateway {
        self.gateway.origins.host_required = true;
        self
    }

    /// Counts and closes the event sockets (default: 10,000 of them, closed by nobody).
    pub fn sockets(mut self, sockets: Sockets) -> Gateway {
        self.gateway.sockets = sockets;
        self
    }

    /// Cancel this and `/readyz` says no; events and webhooks watch it as well.
    pub fn closing(mut self, closing: tokio_util::sync::CancellationToken) -> Gateway {
        self.gateway.closing = closing;
        self
    }

    /// Where the server keeps its connections, so that `/metrics` can say how many there are.
    pub fn connections(mut self, connections: tokio_util::task::TaskTracker) -> Gateway {
        self.gateway.connections = Some(connections);
        self
    }

    /// What is served, as an OpenAPI 3.1 document: the bytes that `GET /openapi.json` answers with.
    pub fn openapi(&self) -> axum::body::Bytes {
        openapi::describe(&self.gateway).json()
    }

    /// Its events and live queries, as an AsyncAPI 3.0 document: the bytes that `GET /asyncapi.json` answers with.
    pub fn asyncapi(&self) -> axum::body::Bytes {
        openapi::describe_events(&self.gateway).json()
    }

    /// A router to serve or to nest.
    pub fn into_router(self) -> axum::Router {
        self.into_service().into_router()
    }

    /// What answers requests, for a server that serves nothing else: a router around it would cost each request a tenth more.
    pub fn into_service(mut self) -> GatewayService {
        self.gateway.openapi = openapi::describe(&self.gateway);
        self.gateway.asyncapi = openapi::describe_events(&self.gateway);
        GatewayService::new(self.gateway)
    }
}

impl Default for GatewayState {
    fn default() -> GatewayState {
        GatewayState {
            dios: IndexMap::new(),
            hooks: IndexMap::new(),
            base_path: String::new(),
            auth: Auth::default(),
            origins: http::origin::Origins::default(),
            compression: false,
            explorer: Explorer::default(),
            backup: None,
            limits: Limits::default(),
            budgets: Arc::default(),
            failures: http::failures::Failures::default(),
            lines: diorama_core::vista::LogLimit::default(),
            sockets: Sockets::default(),
            openapi: openapi::document::Document::default(),
            asyncapi: openapi::document::Document::default(),
            closing: tokio_util::sync::CancellationToken::new(),
            connections: None,
            metrics: metrics::Metrics::default(),
        }
    }
}
