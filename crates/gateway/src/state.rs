//! What handlers share.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header};
use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::backup::Backup;
use crate::events::{EventViews, LiveQueries, Sockets};
use crate::http::auth::Auth;
use crate::http::budget::{Budgets, Caller};
use crate::http::failures::Failures;
use crate::http::limits::Limits;
use crate::http::origin::Origins;
use crate::http::problem::{ApiError, Code};
use crate::http::response::{self, CommonHeaders};
use crate::metrics::{Metrics, SocketCounts};
use crate::openapi::Document;
use crate::pages::explorer::Explorer;
use crate::router::Route;
use crate::rows::query_cache::QueryCache;
use crate::webhook::Hook;
use diorama_core::dio::Dio;
use diorama_core::vista::query::nearest;
use diorama_core::vista::{Error, LogLimit, Query, Result, Schema};

/// Everything that handlers know; fixed when the router is made.
#[derive(Debug)]
pub struct GatewayState {
    /// Resources by name.
    pub dios: IndexMap<Arc<str>, Arc<Resource>>,
    /// Webhooks by name.
    pub hooks: IndexMap<Arc<str>, Arc<Hook>>,
    /// Empty, or a path that begins with `/` and does not end so.
    pub base_path: String,
    /// Who may call.
    pub auth: Auth,
    /// Which hosts and pages may.
    pub origins: Origins,
    /// Whether bodies are coded for who accepts it.
    pub compression: bool,
    /// Where the page comes from.
    pub explorer: Explorer,
    /// Makes backups, where there is something to back up.
    pub backup: Option<Backup>,
    /// How large requests may be.
    pub limits: Limits,
    /// What callers may hold at a time; made with the router, as the limits say.
    pub budgets: Arc<Budgets>,
    /// Failures to prove who one is, by address; made with the router, as the limits say.
    pub(crate) failures: Failures,
    /// Bounds the lines about failed requests, by code and resource.
    pub(crate) lines: LogLimit<(&'static str, Option<usize>)>,
    /// The event sockets.
    pub sockets: Sockets,
    /// What is served, described; made with the router.
    pub openapi: Document,
    /// What is pushed, described.
    pub asyncapi: Document,
    /// Cancelled when the server is going to stop.
    pub closing: CancellationToken,
    /// The server's connections, where they are known.
    pub connections: Option<TaskTracker>,
    /// What is counted.
    pub metrics: Metrics,
}

impl GatewayState {
    /// Reads the whole body of the request with `parts`, within the budget of bodies.
    ///
    /// # Errors
    /// As [`Limits::read`].
    pub(crate) async fn body(&self, parts: &Parts, body: Body) -> Result<Bytes, ApiError> {
        let lease = self.budgets.bodies.take(Caller::of(&parts.extensions), 0)?;
        self.limits.read(&parts.headers, body, lease).await
    }

    /// Whether browsers get a page there.
    pub(crate) fn has_page(&self, route: Route) -> bool {
        route == Route::Docs || route == Route::Index && !matches!(self.explorer, Explorer::Off)
    }

    /// The resource `name`.
    ///
    /// # Errors
    /// 404 with the nearest name.
    pub fn dio(&self, name: &str) -> Result<&Arc<Resource>, ApiError> {
        self.dios.get(name).ok_or_else(|| {
            let error = ApiError::new(Code::DioNotFound, format!("there is no resource {name:?}"));
            let names = || self.dios.keys().map(|name| &**name);
            match nearest(name, names()) {
                Some(nearest) => error.hint(format!("did you mean {nearest:?}?")),
                None => error.hint(format!("resources are {}", names().collect::<Vec<_>>().join(", "))),
            }
        })
    }
}

/// Where a path points within a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathTarget {
    /// All rows.
    Rows,
    /// One of them.
    Row,
}

/// One Dio as a resource.
#[derive(Debug)]
pub struct Resource {
    /// The Dio.
    pub dio: Dio,
    /// The shape of its rows, every column sortable and searchable.
    pub schema: Arc<Schema>,
    /// Bounds and policies.
    pub options: MountOptions,
    /// Its event sockets.
    pub sockets: Arc<SocketCounts>,
    /// What their subscribers see.
    pub(crate) views: EventViews,
    /// The live queries that are followed.
    pub(crate) live_queries: LiveQueries,
    /// Headers of the answers to readers, as they were last.
    pub(crate) common_headers: ArcSwapOption<CommonHeaders>,
    /// What was asked of it.
    pub(crate) query_cache: QueryCache,
}

impl Resource {
    /// What the Dio refused, as an answer; a 405 says which methods would do.
    pub(crate) fn refusal(&self, error: Error) -> ApiError {
        let unsupported = matches!(error, Error::Unsupported { .. });
        let answer = ApiError::from(error);
        if !unsupported {
            return answer;
        }
        answer.header(header::ALLOW, self.allowed(PathTarget::Row))
    }

    /// The methods that do something there.
    pub(crate) fn allowed(&self, place: PathTarget) -> HeaderValue {
        let can = self.dio.vista().capabilities();
        let list = place == PathTarget::Rows;
        let methods = [
            (can.can_insert, ", POST"),
            (can.can_update && !list, ", PUT"),
            (can.can_update, ", PATCH"),
            (can.can_delete, ", DELETE"),
            (list, ", QUERY"),
        ];
        let allowed = methods.iter().filter(|(can, _)| *can);
        response::text(allowed.fold("GET, HEAD".to_string(), |allowed, (_, more)| allowed + more))
    }

    /// Refuses what the resource cannot do, before anything else is read of the request.
    pub(crate) fn check_method(&self, method: &Method, place: PathTarget) -> Result<(), ApiError> {
        if !matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
            return Ok(());
        }
        let can = self.dio.vista().capabilities();
        let what = match *method {
            Method::POST if !can.can_insert => "insert",
            Method::PUT | Method::PATCH if !can.can_update => "update",
            Method::DELETE if !can.can_delete => "delete",
            _ => return Ok(()),
        };
        let error = ApiError::from(Error::Unsupported { vista: self.dio.name().into(), what });
        Err(error.header(header::ALLOW, self.allowed(place)))
    }

    pub(crate) fn new(dio: Dio, options: MountOptions) -> Resource {
        Resource {
            schema: dio.schema(),
            dio,
            options,
            sockets: Arc::default(),
            views: EventViews::default(),
            live_queries: LiveQueries::default(),
            common_headers: ArcSwapOption::empty(),
            query_cache: QueryCache::default(),
        }
    }
}

/// Bounds and policies of one resource.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Rows of a list that does not say (default: 100).
    pub default_limit: u64,
    /// Rows of a list, at most (default: 10,000).
    pub max_limit: u64,
    /// Rows that one write by filter may touch, at most (default: 1,000).
    pub max_affected: u64,
    /// Whether changes to a row must say which version they were made for (default: no).
    pub require_if_match: bool,
    /// When a write is answered.
    pub ack: Ack,
    /// Different live queries that are followed at a time, at most (default: 500).
    pub max_live: usize,
}

impl MountOptions {
    /// The limit of a list that says none: the default, and more where ids are enumerated, so that all of them are answered.
    pub(crate) fn limit_of(&self, query: &Query, schema: &Schema) -> u64 {
        let ids = query.filter.most_by(schema.id_column()).unwrap_or(0);
        self.default_limit.max(ids.min(self.max_limit))
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            default_limit: 100,
            max_limit: 10_000,
            max_affected: 1_000,
            require_if_match: false,
            ack: Ack::Journal,
            max_live: 500,
        }
    }
}

/// When a write is answered, unless the request says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// As soon as it is in the journal: 202.
    #[default]
    Journal,
    /// When the master has it, or after ten seconds.
    Applied,
}

impl Ack {
    pub(crate) fn patience(self) -> Duration {
        match self {
            Ack::Journal => Duration::ZERO,
            Ack::Applied => Duration::from_secs(10),
        }
    }
}

/// First path segments that are routes of the gateway: no resource can have one of these names.
pub const RESERVED: [&str; 11] = [
    "events",
    "webhooks",
    "operations",
    "docs",
    "healthz",
    "readyz",
    "metrics",
    "openapi.json",
    "asyncapi.json",
    "problems",
    "static",
];

/// Whether `name` can be a resource.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if RESERVED.contains(&name) {
        return Err(Error::Config(format!("{name:?} is a route of the gateway and cannot be a resource")));
    }
    if !first || !rest || name.len() > 64 {
        let detail =
            format!("{name:?} cannot be a resource: 1 to 64 letters, digits, - and _, a letter or digit first");
        return Err(Error::Config(detail));
    }
    Ok(())
}

/// Whether a row under this id would be hidden by a route.
pub(crate) fn is_reserved_id(id: &str) -> bool {
    id == "events" || id == "live" || id.starts_with('_')
}
