//! Health checks: `GET /healthz` and `GET /readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::ObjectBuilder;

use crate::access::{Principal, Verb};
use crate::http::response;
use crate::http::schemas::words;
use crate::state::{GatewayState, Resource};
use diorama_core::dio::{BreakerState, FeedStatus, Reachability};

/// Answer of a running process.
#[derive(Serialize, ToSchema)]
pub(crate) struct Alive {
    #[schema(schema_with = Alive::words)]
    status: &'static str,
}

impl Alive {
    fn words() -> ObjectBuilder {
        words(["ok"])
    }
}

/// State of the server and of its resources.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    #[schema(schema_with = Readiness::words)]
    status: &'static str,
    /// Problems of the authentication, for people. They do not make the server unready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    auth: Vec<String>,
    #[schema(inline)]
    dios: BTreeMap<String, DioReadiness>,
}

impl Readiness {
    fn words() -> ObjectBuilder {
        words(["ready", "starting", "stopping"])
    }
}

/// State of a resource.
#[derive(Serialize, ToSchema)]
struct DioReadiness {
    /// True if the resource can be read.
    ready: bool,
    /// Problems of the resource, for people. Some do not prevent reads.
    reasons: Vec<String>,
    /// Warnings about source, write route, feeds, cache and indexes for people, for example that a server may lose what it has accepted.
    /// Absent without any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// Number of rows.
    rows: u64,
    /// Seconds since the rows were last compared with their source; null if that is not known.
    #[schema(required)]
    age: Option<u64>,
    /// Number of writes that wait for the source.
    queued: usize,
    /// True if accepted writes survive the process.
    durable: bool,
    /// The feeds of the resource; absent without one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(inline)]
    feeds: Vec<FeedReadiness>,
}

/// State of a feed.
#[derive(Serialize, ToSchema)]
struct FeedReadiness {
    /// Address of the sender, without secrets.
    name: String,
    /// True if it is connected.
    connected: bool,
    /// Seconds between the last change at the sender and its arrival here; absent if the sender does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_seconds: Option<f64>,
    /// Bytes that the sender has and this server has not; absent if the sender does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_bytes: Option<u64>,
    /// Messages that the sender has and this server has not; absent if the sender does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag_messages: Option<u64>,
}

impl From<&FeedStatus> for FeedReadiness {
    fn from(status: &FeedStatus) -> FeedReadiness {
        FeedReadiness {
            name: status.name.clone(),
            connected: status.connected,
            lag_seconds: status.lag.map(|lag| lag.time.as_secs_f64()),
            lag_bytes: status.lag.and_then(|lag| lag.bytes),
            lag_messages: status.lag.and_then(|lag| lag.messages),
        }
    }
}

/// Answers that the process runs.
pub(crate) async fn live() -> Response {
    uncached(&Alive { status: "ok" })
}

/// Answers 200 if every resource can be read with the indexes that it had before the start, and the server is not stopping, else 503.
pub(crate) async fn ready(State(gateway): State<Arc<GatewayState>>, principal: Principal) -> Response {
    let stopping = gateway.closing.is_cancelled();
    let is_ready = |resource: &Resource| resource.dio.is_ready() && !resource.dio.status().restoring;
    let all = !stopping && gateway.dios.values().all(|resource| is_ready(resource));
    let policy = gateway.policy.load();
    // The numbers of rows and the errors of sources are for administrators of the resource; the status is for everyone.
    let shown = gateway.dios.iter().filter(|(name, resource)| {
        !policy.has_rules() || policy.grant(name, &resource.schema, &principal).verbs().has(Verb::Admin)
    });
    let dios = shown.map(|(name, resource)| (name.to_string(), describe(resource, stopping))).collect();
    let status = match (stopping, all) {
        (true, _) => "stopping",
        (false, true) => "ready",
        (false, false) => "starting",
    };
    let mut response = uncached(&Readiness { status, auth: gateway.auth.troubles(), dios });
    if !all {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn describe(resource: &Resource, stopping: bool) -> DioReadiness {
    let status = resource.dio.status();
    let ready = status.ready && !status.restoring;
    let mut reasons = Vec::new();
    if stopping {
        reasons.push("the server is stopping".to_string());
    }
    if !status.ready {
        reasons.push("the first copy is being read".to_string());
    }
    if status.restoring {
        reasons.push("indexes are built again".to_string());
    }
    if status.stale {
        reasons.push("the rows are stale: they are older than the resource allows".to_string());
    }
    if let Some(error) = &status.refresh_failed {
        reasons.push(format!("the last refresh failed: {error}"));
    }
    if let Some(why) = &status.withheld {
        reasons.push(format!("the source withholds its list: {why}"));
    }
    for (name, reach) in
        std::iter::once(("source", &status.source)).chain(status.route.iter().map(|at| ("write route", at)))
    {
        reasons.extend(describe_reach(name, reach));
    }
    if let Some(held) = &status.held_by {
        let (operation, seconds, error) = (held.operation, held.since.as_secs(), &held.error);
        reasons.push(format!("all writes wait for operation {operation}, which has failed for {seconds} s: {error}"));
    }
    for feed in status.feeds.iter().filter(|feed| !feed.connected) {
        let why = feed.error.as_deref().unwrap_or("the connection is being made");
        reasons.push(format!("the feed {} is not connected: {why}", feed.name));
    }
    if status.undecodable > 0 {
        let rows = status.undecodable;
        reasons.push(format!("{rows} rows of the source cannot be decoded; their last known values are kept"));
    }
    if let Some(error) = &status.journal_trouble {
        reasons.push(format!("writes are refused because the journal cannot be written: {error}"));
    }
    if !status.durable {
        reasons.push("pending writes are in memory only and are lost on exit".to_string());
    }
    let age = status.age.map(|age| age.as_secs());
    let feeds = status.feeds.iter().map(FeedReadiness::from).collect();
    let warnings = status.warnings;
    DioReadiness {
        ready,
        reasons,
        warnings,
        rows: status.rows,
        age,
        queued: status.queued,
        durable: status.durable,
        feeds,
    }
}

/// Describes a circuit breaker that is not closed; `name` is that of its system.
fn describe_reach(name: &str, reach: &Reachability) -> Option<String> {
    let error = reach.error.as_deref().unwrap_or_default();
    match (reach.state, reach.retry_in) {
        (BreakerState::Closed, _) => None,
        (_, Some(wait)) => {
            Some(format!("the {name} is unavailable, next attempt in {:.1} s: {error}", wait.as_secs_f32()))
        }
        (_, None) => Some(format!("the {name} is unavailable, an attempt is in progress: {error}")),
    }
}

fn uncached(body: &impl Serialize) -> Response {
    let mut response = response::json(body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
