//! [`Gateway`]: Dios as HTTP resources, in a plain [`axum::Router`].
//!
//! The URL table is `router.rs`; each verb has a file. Every request passes one pipeline (`pipeline.rs`: request id, host,
//! origin, authentication, panics). Every refusal is an [`ApiError`] and is sent as problem+json (`http/problem.rs`).
//!
//! Folders import in one direction: `access` imports no other folder, `http` and `metrics` only `access`, `auth` these and `http`, `rows` is built on them, `events` on `rows`;
//! `webhook`, `notify`, `admin`, `pages` and `openapi` come next. `state.rs` holds the state that all handlers share. It names types of every
//! folder, from files that do not import it. `audit` is built on `http`, and imported by the folders that change the server.

pub mod access;
mod admin;
mod audit;
pub mod auth;
mod events;
mod http;
mod metrics;
pub mod notify;
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
pub use audit::{AuditLog, describe as audit_json};
pub use auth::Auth;
pub use events::Sockets;
pub use http::budget::{Budget, BudgetError, Caller, Holder, Lease};
pub use http::client_certificate::ClientCertificate;
pub use http::limits::Limits;
pub use http::origin::Loopback;
pub use http::problem::{ApiError, Code, unreadable};
pub use http::rates::{Rate, RateLimit, RateSubject};
pub use options::{Ack, MountOptions, RESERVED};
pub use pages::explorer::Explorer;
pub use service::GatewayService;
pub use state::{GatewayState, Resource};
pub use webhook::describe_whole as delivery_json;

pub use diorama_core::vista::query::url::segment;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use indexmap::IndexMap;

use diorama_core::dio::Dio;
use diorama_core::vista::{Error, Reference, Result};

/// Builds the HTTP side of any number of Dios.
///
/// The defaults suit a gateway that is nested in another axum app: no authentication, no check of `Host`, no CORS, because the
/// surrounding app decides these. `diorama serve` sets them all.
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

    /// Serves `dio` under its name. A Dio whose name is taken, reserved or not valid in a URL is left out with an error in the log;
    /// [`Gateway::try_mount`] returns the error instead.
    pub fn mount(mut self, dio: Dio) -> Gateway {
        if let Err(error) = self.add(dio, MountOptions::default()) {
            tracing::error!(%error, "a Dio is not served");
        }
        self
    }

    /// Serves `dio` under its name, with its own bounds and policies.
    ///
    /// # Errors
    /// [`Error::Config`] if the name is taken, reserved or not valid in a URL.
    pub fn try_mount(mut self, dio: Dio, options: MountOptions) -> Result<Gateway> {
        self.add(dio, options).map(|()| self)
    }

    fn add(&mut self, dio: Dio, options: MountOptions) -> Result<()> {
        let name: Arc<str> = dio.name().into();
        options::check_name(&name)?;
        if self.gateway.dios.contains_key(&name) {
            return Err(Error::Config(format!("two resources are named {name:?}: rename one of them")));
        }
        self.gateway.dios.insert(name, Arc::new(Resource::new(dio, options)));
        Ok(())
    }

    /// Relates the rows of the mounted Dio `dio` to those of another one. References in the schemas of sources relate them without this,
    /// if their target is the name of a Dio.
    ///
    /// # Errors
    /// [`Error::Config`] if one of both Dios is not mounted yet, if the column does not exist, or if the name is taken or is not valid.
    pub fn try_relate(mut self, dio: &str, relation: Reference) -> Result<Gateway> {
        let fail = |detail: String| Error::Config(format!("relation {:?} of {dio:?}: {detail}", relation.relation));
        let target = self.gateway.dios.get(&*relation.target);
        let resource = self.gateway.dios.get(dio).ok_or_else(|| fail("there is no such resource".into()))?;
        rows::related::check(resource, &relation, target).map_err(fail)?;
        let resource = resource.related_by(relation);
        self.gateway.dios.insert(dio.into(), Arc::new(resource));
        Ok(self)
    }

    /// Takes webhooks under `/webhooks/{name}`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is already a hook of that name, or its Dio is not mounted yet.
    pub fn try_hook(mut self, hook: webhook::Hook) -> Result<Gateway> {
        if !self.gateway.dios.contains_key(hook.dio.as_str()) {
            let names: Vec<_> = self.gateway.dios.keys().map(|name| &**name).collect();
            let detail =
                format!("webhook {:?} feeds {:?}, but there are only {}", hook.name, hook.dio, names.join(", "));
            return Err(Error::Config(detail));
        }
        match self.gateway.hooks.insert(hook.name.as_str().into(), Arc::new(hook)) {
            None => Ok(self),
            Some(hook) => Err(Error::Config(format!("two webhooks are named {:?}: rename one of them", hook.name))),
        }
    }

    /// Sends events of a mounted Dio to a receiver.
    ///
    /// # Errors
    /// [`Error::Config`] if there is already a notification of that name, its Dio is not mounted yet, or its filter does not fit the Dio.
    pub fn try_notify(mut self, notification: notify::Notification) -> Result<Gateway> {
        let names: Vec<_> = self.gateway.dios.keys().map(|name| &**name).collect();
        notify::check(&notification, self.gateway.dios.get(notification.dio.as_str()), &names.join(", "))?;
        match self.gateway.notifications.insert(notification.name.as_str().into(), Arc::new(notification)) {
            None => Ok(self),
            Some(own) => Err(Error::Config(format!("two notifications are named {:?}: rename one of them", own.name))),
        }
    }

    /// Serves everything under `path` (`/api`), for servers behind a proxy that does not strip it. A path with characters that
    /// need percent-encoding is ignored with an error in the log.
    pub fn base_path(mut self, path: &str) -> Gateway {
        let path = path.trim_matches('/');
        let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte));
        self.gateway.base_path = if path.is_empty() { String::new() } else { format!("/{path}") };
        if !plain || path.contains("//") {
            tracing::error!(
                path,
                "base_path may hold letters, digits, - . _ ~ and single slashes: everything is served at / instead"
            );
            self.gateway.base_path.clear();
        }
        self
    }

    /// Requires authentication on every route except `/healthz` and the webhooks.
    pub fn auth(mut self, auth: Auth) -> Gateway {
        self.gateway.auth = auth.into();
        self
    }

    /// Restricts what callers may see and do. Mount all resources before, because the rules name their columns. Without rules, every
    /// admitted caller may do everything.
    ///
    /// # Errors
    /// Every mistake, with the number of its rule, from 1.
    pub fn try_allow(self, rules: &[access::Allow]) -> Result<Gateway, Vec<(usize, String)>> {
        self.gateway.set_rules(rules)?;
        Ok(self)
    }

    /// Returns what `principal` may do: the name of each resource with the permissions of each rule, `None` if no rule restricts it.
    pub fn permissions(&self, principal: &access::Principal) -> Vec<(Arc<str>, Option<Vec<access::Permission>>)> {
        let policy = self.gateway.policy.load();
        let one = |(name, resource): (&Arc<str>, &Arc<Resource>)| {
            (Arc::clone(name), policy.permissions(name, &resource.schema, principal))
        };
        self.gateway.dios.iter().map(one).collect()
    }

    /// Allows pages of these origins (`https://shop.example`) to read and write (CORS).
    pub fn cors(mut self, origins: Vec<String>) -> Gateway {
        self.gateway.origins.listed = origins;
        self
    }

    /// Compresses bodies with zstd, br or gzip for clients that accept it (default: no, because the surrounding app may do so
    /// itself).
    pub fn compression(mut self, on: bool) -> Gateway {
        self.gateway.compression = on;
        self
    }

    /// Sets the source of the page at `/` (default: the built-in explorer).
    pub fn explorer(mut self, explorer: Explorer) -> Gateway {
        self.gateway.explorer = explorer;
        self
    }

    /// Sets the bounds on requests.
    pub fn limits(mut self, limits: Limits) -> Gateway {
        self.gateway.limits = limits;
        self
    }

    /// Sets the limits of principals and addresses (default: none).
    pub fn rate_limits(mut self, limits: Vec<RateLimit>) -> Gateway {
        self.gateway.rate_limits = limits;
        self
    }

    /// Protects a server that listens on loopback from DNS rebinding: accepts only loopback names in `Host`, and only loopback
    /// origins beside those listed.
    pub fn guard_host(mut self, loopback: Option<Loopback>) -> Gateway {
        self.gateway.origins.loopback = loopback;
        self
    }

    /// Serves backups at `POST /_backup` (default: none).
    pub fn backup(mut self, backup: Option<Backup>) -> Gateway {
        self.gateway.backup = backup;
        self
    }

    /// Records actions of administrators and refused requests, and serves them at `GET /_audit` (default: no).
    pub fn audit(mut self, log: Option<AuditLog>) -> Gateway {
        self.gateway.audit = log;
        self
    }

    /// Refuses HTTP/1.1 requests without a `Host` header, as RFC 9112 requires of servers (default: no, because requests made
    /// inside a program have none). Requests with several `Host` headers are always refused.
    pub fn require_host(mut self) -> Gateway {
        self.gateway.origins.host_required = true;
        self
    }

    /// Sets the registry that counts and closes event sockets (default: 10,000 of them, never closed).
    pub fn sockets(mut self, sockets: Sockets) -> Gateway {
        self.gateway.sockets = sockets;
        self
    }

    /// Sets the shutdown token: once it is cancelled, `/readyz` reports 503, and events and webhooks end.
    pub fn closing(mut self, closing: tokio_util::sync::CancellationToken) -> Gateway {
        self.gateway.closing = closing;
        self
    }

    /// Sets the server's count of connections for `/metrics`.
    pub fn connections(mut self, connections: tokio_util::task::TaskTracker) -> Gateway {
        self.gateway.connections = Some(connections);
        self
    }

    /// Sets the Unix time in seconds at which the server's certificate expires, for `/metrics`.
    pub fn certificate_expires(mut self, time: Option<Arc<AtomicU64>>) -> Gateway {
        self.gateway.certificate_expires = time;
        self
    }

    /// Returns the OpenAPI 3.1 document of the resources: the bytes that `GET /openapi.json` answers with.
    pub fn openapi(&self) -> axum::body::Bytes {
        openapi::describe(&self.gateway).json()
    }

    /// Returns the AsyncAPI 3.0 document of events and live queries: the bytes that `GET /asyncapi.json` answers with.
    pub fn asyncapi(&self) -> axum::body::Bytes {
        openapi::describe_events(&self.gateway).json()
    }

    /// Returns a router to serve or to nest.
    pub fn into_router(self) -> axum::Router {
        self.into_service().into_router()
    }

    /// Returns the service without an axum router around it, for a server that serves nothing else. The router would cost about
    /// a tenth more instructions per request.
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
            notifications: IndexMap::new(),
            base_path: String::new(),
            auth: auth::CurrentAuth::default(),
            tickets: auth::tickets::Tickets::default(),
            sessions: auth::sessions::Sessions::default(),
            policy: arc_swap::ArcSwap::default(),
            origins: http::origin::Origins::default(),
            compression: false,
            explorer: Explorer::default(),
            backup: None,
            audit: None,
            limits: Limits::default(),
            rate_limits: Vec::new(),
            budgets: Arc::default(),
            failures: http::failures::Failures::default(),
            lines: diorama_core::vista::LogLimit::default(),
            sockets: Sockets::default(),
            openapi: openapi::document::Document::default(),
            asyncapi: openapi::document::Document::default(),
            documents: openapi::catalog::Documents::default(),
            closing: tokio_util::sync::CancellationToken::new(),
            connections: None,
            certificate_expires: None,
            metrics: metrics::Metrics::default(),
        }
    }
}
