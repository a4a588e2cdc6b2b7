//! What handlers share.

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header};
use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::archive::Backup;
use crate::events::live::LiveQueries;
use crate::events::sockets::Sockets;
use crate::events::view::EventViews;
use crate::http::auth::{Auth, Principal};
use crate::http::bounds::Bounds;
use crate::http::budget::{Budgets, Caller};
use crate::http::failures::Failures;
use crate::http::limits::Limits;
use crate::http::origin::Origins;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::http::route::Route;
use crate::metrics::{Metrics, SocketCounts};
use crate::openapi::document::Document;
use crate::options::MountOptions;
use crate::pages::explorer::Explorer;
use crate::rows::common_headers::CommonHeaders;
use crate::rows::query_cache::QueryCache;
use crate::webhook::hook::Hook;
use diorama_core::dio::Dio;
use diorama_core::vista::query::nearest;
use diorama_core::vista::{Error, LogLimit, Result, Schema};

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
        Ok(self.limits.read(&parts.headers, body, lease).await?)
    }

    /// The bounds of the request that has these extensions.
    pub(crate) fn bounds(&self, extensions: &Extensions) -> Bounds {
        Bounds::new(&self.budgets, Caller::of(extensions), Principal::of(extensions))
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

impl FromRequestParts<Arc<GatewayState>> for Bounds {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Bounds, Infallible> {
        Ok(gateway.bounds(&parts.extensions))
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
        let can = self.dio.capabilities();
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
        let can = self.dio.capabilities();
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
