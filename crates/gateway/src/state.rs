//! State that all handlers share.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, header};
use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Allow, Policy, Principal};
use crate::admin::archive::Backup;
use crate::audit::AuditLog;
use crate::auth::CurrentAuth;
use crate::auth::sessions::Sessions;
use crate::auth::tickets::Tickets;
use crate::events::dispatch::Dispatch;
use crate::events::live::LiveQueries;
use crate::events::sockets::Sockets;
use crate::events::view::EventViews;
use crate::http::bounds::Bounds;
use crate::http::budget::{Budgets, Caller};
use crate::http::failures::Failures;
use crate::http::limits::Limits;
use crate::http::origin::Origins;
use crate::http::problem::{ApiError, Code};
use crate::http::rates::RateLimit;
use crate::http::response;
use crate::http::route::Route;
use crate::metrics::{Metrics, SocketCounts};
use crate::notify::Notification;
use crate::openapi::catalog::Documents;
use crate::openapi::document::Document;
use crate::options::MountOptions;
use crate::pages::explorer::Explorer;
use crate::rows::common_headers::CommonHeaders;
use crate::rows::query_cache::QueryCache;
use crate::webhook::hook::Hook;
use diorama_core::dio::Dio;
use diorama_core::vista::{Error, LogLimit, Reference, Result, Schema};

/// Shared state of all handlers, fixed when the router is built.
#[derive(Debug)]
pub struct GatewayState {
    /// Resources by name.
    pub dios: IndexMap<Arc<str>, Arc<Resource>>,
    /// Webhooks by name.
    pub hooks: IndexMap<Arc<str>, Arc<Hook>>,
    /// Notifications by name.
    pub(crate) notifications: IndexMap<Arc<str>, Arc<Notification>>,
    /// Base path: empty, or a path that begins with `/` and does not end with it.
    pub base_path: String,
    /// Authentication of callers.
    pub(crate) auth: CurrentAuth,
    /// Tickets for URLs.
    pub(crate) tickets: Tickets,
    /// Sessions of browsers.
    pub(crate) sessions: Sessions,
    /// Access rules.
    pub policy: ArcSwap<Policy>,
    /// Hosts and origins that are accepted.
    pub origins: Origins,
    /// Compression of bodies for clients that accept it.
    pub compression: bool,
    /// Source of the page at `/`.
    pub explorer: Explorer,
    /// Maker of backups, if there is something to back up.
    pub backup: Option<Backup>,
    /// Log of actions of administrators and of refused requests.
    pub audit: Option<AuditLog>,
    /// Bounds on requests.
    pub limits: Limits,
    /// Limits of principals and addresses.
    pub rate_limits: Vec<RateLimit>,
    /// Memory budgets of callers, made with the router from the limits.
    pub budgets: Arc<Budgets>,
    /// Rate limiter of failed authentication by address, made with the router from the limits.
    pub(crate) failures: Failures,
    /// Rate limiter of log lines about failed requests, by code and resource.
    pub(crate) lines: LogLimit<(&'static str, Option<usize>)>,
    /// Registry of event sockets.
    pub sockets: Sockets,
    /// OpenAPI document, made with the router.
    pub openapi: Document,
    /// AsyncAPI document.
    pub asyncapi: Document,
    /// Both documents as callers with fewer rights see them.
    pub(crate) documents: Documents,
    /// Cancelled when the server begins to stop.
    pub closing: CancellationToken,
    /// Count of the server's connections, if the server shares it.
    pub connections: Option<TaskTracker>,
    /// Unix time in seconds at which the server's certificate expires, if it speaks TLS.
    pub certificate_expires: Option<Arc<AtomicU64>>,
    /// Metrics.
    pub metrics: Metrics,
}

impl GatewayState {
    /// Reads the whole body of a request within the budget of bodies.
    ///
    /// # Errors
    /// As [`Limits::read`].
    pub(crate) async fn body(&self, parts: &Parts, body: Body) -> Result<Bytes, ApiError> {
        let lease = self.budgets.bodies.take(Caller::of(&parts.extensions), 0)?;
        Ok(self.limits.read(&parts.headers, body, lease).await?)
    }

    /// Returns the bounds of the request that has these extensions.
    pub(crate) fn bounds(&self, extensions: &Extensions) -> Bounds {
        Bounds::new(&self.budgets, Caller::of(extensions), Principal::of(extensions))
    }

    /// True if browsers get a page at `/`.
    pub(crate) fn has_page(&self, route: Route) -> bool {
        route == Route::Docs || route == Route::Index && !matches!(self.explorer, Explorer::Off)
    }

    /// Replaces the access rules. Requests that begin later follow the new ones. Event sockets and streams that were opened before
    /// end when they would next send something. Equal rules change nothing.
    ///
    /// # Errors
    /// Every mistake, with the number of its rule, from 1. The old rules stay.
    pub fn set_rules(&self, rules: &[Allow]) -> Result<(), Vec<(usize, String)>> {
        if !self.policy.load().is_of(rules) {
            self.replace_policy(self.compile(rules)?);
        }
        Ok(())
    }

    /// Replaces the access rules by compiled ones. Sockets that the old ones have admitted end.
    pub(crate) fn replace_policy(&self, policy: Policy) {
        self.policy.swap(Arc::new(policy)).retire();
        self.dios.values().for_each(|resource| resource.dispatch.check_rules());
    }

    /// Compiles access rules for the resources.
    ///
    /// # Errors
    /// As [`GatewayState::set_rules`].
    pub(crate) fn compile(&self, rules: &[Allow]) -> Result<Policy, Vec<(usize, String)>> {
        Policy::new(rules, self.dios.iter().map(|(name, resource)| (name, &resource.schema)))
    }

    /// Returns the resource of a webhook.
    ///
    /// # Errors
    /// 404 if it does not exist, which the mounting of hooks excludes.
    pub(crate) fn resource_of(&self, hook: &Hook) -> Result<&Arc<Resource>, ApiError> {
        let missing = || ApiError::new(Code::DioNotFound, format!("there is no resource {:?}", hook.dio));
        self.dios.get(hook.dio.as_str()).ok_or_else(missing)
    }
}

impl FromRequestParts<Arc<GatewayState>> for Principal {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<GatewayState>) -> Result<Principal, Infallible> {
        Ok(Principal::of(&parts.extensions))
    }
}

impl FromRequestParts<Arc<GatewayState>> for Bounds {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<GatewayState>) -> Result<Bounds, Infallible> {
        Ok(gateway.bounds(&parts.extensions))
    }
}

/// Target of a path within a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathTarget {
    /// All rows.
    Rows,
    /// One row.
    Row,
}

/// One Dio as a resource.
#[derive(Debug)]
pub struct Resource {
    /// The Dio.
    pub dio: Dio,
    /// Schema of its rows, with every column sortable and searchable.
    pub schema: Arc<Schema>,
    /// Bounds and policies.
    pub options: MountOptions,
    /// Its open event sockets.
    pub sockets: Arc<SocketCounts>,
    /// Views of their subscribers.
    pub(crate) views: EventViews,
    /// Dispatch of events to subscribers.
    pub(crate) dispatch: Arc<Dispatch>,
    /// Live queries that have subscribers.
    pub(crate) live_queries: LiveQueries,
    /// Headers of the last answers to reads, kept while the State stays the same.
    pub(crate) common_headers: ArcSwapOption<CommonHeaders>,
    /// Parsed queries.
    pub(crate) query_cache: QueryCache,
}

impl Resource {
    /// Converts a refusal of the Dio into an answer; a 405 lists the methods that are supported.
    pub(crate) fn refusal(&self, error: Error) -> ApiError {
        let unsupported = matches!(error, Error::Unsupported { .. });
        let answer = ApiError::from(error);
        if !unsupported {
            return answer;
        }
        answer.header(header::ALLOW, self.allowed(PathTarget::Row))
    }

    /// Returns the methods that the target supports.
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

    /// Refuses methods that the resource does not support, before the rest of the request is read.
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
        let schema = dio.schema();
        Resource::of_schema(dio, options, schema)
    }

    /// The same resource, before it has callers, with one relation more. It replaces one of the same name in the source's schema.
    pub(crate) fn related_by(&self, relation: Reference) -> Resource {
        let mut references = self.schema.references().to_vec();
        references.retain(|known| known.relation != relation.relation);
        references.push(relation);
        let schema = Arc::new(Schema::clone(&self.schema).with_references(references));
        Resource::of_schema(self.dio.clone(), self.options.clone(), schema)
    }

    fn of_schema(dio: Dio, options: MountOptions, schema: Arc<Schema>) -> Resource {
        Resource {
            dispatch: Dispatch::new(dio.ring(), &schema),
            schema,
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
