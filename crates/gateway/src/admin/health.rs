//! `/healthz` and `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::ObjectBuilder;

use crate::http::response;
use crate::http::schemas::words;
use crate::state::{GatewayState, Resource};
use diorama_core::dio::{BreakerState, Reachability};

/// The answer of a process that runs.
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
    ready: bool,
    /// Everything that a person may want to know of, also what does not keep the resource from being read.
    reasons: Vec<String>,
    rows: u64,
    /// Seconds since the rows were compared with their source.
    #[schema(required)]
    age: Option<u64>,
    /// Writes that wait for the source.
    queued: usize,
    durable: bool,
}

/// The process runs.
pub(crate) async fn live() -> Response {
    uncached(&Alive { status: "ok" })
}

/// Whether every resource can be read, and writes are taken.
pub(crate) async fn ready(State(gateway): State<Arc<GatewayState>>) -> Response {
    let stopping = gateway.closing.is_cancelled();
    let all = !stopping && gateway.dios.values().all(|resource| resource.dio.is_ready());
    let dios = gateway.dios.iter().map(|(name, resource)| (name.to_string(), describe(resource, stopping))).collect();
    let status = match (stopping, all) {
        (true, _) => "stopping",
        (false, true) => "ready",
        (false, false) => "starting",
    };
    let mut response = uncached(&Readiness { status, dios });
    if !all {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn describe(resource: &Resource, stopping: bool) -> DioReadiness {
    let status = resource.dio.status();
    let ready = status.ready;
    let mut reasons = Vec::new();
    if stopping {
        reasons.push("the server is stopping".to_string());
    }
    if !ready {
        reasons.push("the first copy is being read".to_string());
    }
    if status.stale {
        reasons.push("the rows are older than they should be".to_string());
    }
    if let Some(error) = &status.refresh_failed {
        reasons.push(format!("the last refresh failed: {error}"));
    }
    if let Some(why) = &status.withheld {
        reasons.push(format!("the source holds its list back: {why}"));
    }
    for (what, reach) in
        std::iter::once(("source", &status.source)).chain(status.route.iter().map(|at| ("write route", at)))
    {
        reasons.extend(describe_reach(what, reach));
    }
    if let Some(held) = &status.held_by {
        let (operation, seconds, error) = (held.operation, held.since.as_secs(), &held.error);
        reasons.push(format!("all writes wait for operation {operation}, which has failed for {seconds} s: {error}"));
    }
    for feed in status.feeds.iter().filter(|feed| !feed.connected) {
        let why = feed.error.as_deref().unwrap_or("it is being connected");
        reasons.push(format!("the feed {} is not connected: {why}", feed.name));
    }
    if status.undecodable > 0 {
        let rows = status.undecodable;
        reasons.push(format!("{rows} rows of the source cannot be decoded; what was known of them is kept"));
    }
    if let Some(error) = &status.journal_trouble {
        reasons.push(format!("writes are refused, the journal cannot be written: {error}"));
    }
    if !status.durable {
        reasons.push("writes that wait are in memory only: they end with the process".to_string());
    }
    let age = status.age.map(|age| age.as_secs());
    DioReadiness { ready, reasons, rows: status.rows, age, queued: status.queued, durable: status.durable }
}

/// What is to be said of a source that is left alone.
fn describe_reach(what: &str, reach: &Reachability) -> Option<String> {
    let error = reach.error.as_deref().unwrap_or_default();
    match (reach.state, reach.retry_in) {
        (BreakerState::Closed, _) => None,
        (_, Some(rest)) => Some(format!("the {what} is left alone for {:.1} s: {error}", rest.as_secs_f32())),
        (_, None) => Some(format!("the {what} is being tried again: {error}")),
    }
}

fn uncached(body: &impl Serialize) -> Response {
    let mut response = response::json(body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
