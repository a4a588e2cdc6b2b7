//! `GET /{dio}?...&explain=true`: the plan of a list, in place of its rows.

use std::time::Instant;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::http::bounds::Bounds;
use crate::http::problem::{ApiError, Code};
use crate::rows::snapshot::Snapshot;
use crate::scope::Scope;
use diorama_core::vista::Query;

/// Name of the parameter.
pub(crate) const EXPLAIN: &str = "explain";

/// Returns true if the request asks for the plan.
pub(crate) fn is_asked(extra: &[(String, String)]) -> Result<bool, ApiError> {
    match extra.iter().rev().find(|(name, _)| name == EXPLAIN).map(|(_, value)| value.as_str()) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(ApiError::new(Code::InvalidParameter, "explain must be true or false")),
    }
}

/// Runs the query once and returns its plan, counts and time.
pub(crate) async fn explain(
    scope: &Scope,
    view: &Snapshot,
    query: &Query,
    bounds: &Bounds,
) -> Result<Response, ApiError> {
    if !scope.dio.is_complete() {
        return Err(ApiError::new(
            Code::InvalidParameter,
            "explain is not supported: the rows are only partly cached, so the source answers lists",
        )
        .hint("ask the source for the plan of its query"));
    }
    let started = Instant::now();
    let (selection, plan) = scope.rows.select(view.state(), query, &bounds.meter).await?;
    let took = started.elapsed();
    let table = view.state().table();
    let body = json!({
        "plan": plan.explain(table, query),
        "rows": table.len(),
        "examined": selection.examined,
        "matched": selection.total,
        "returned": selection.slots.len(),
        "microseconds": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "indexes": table.indexes().iter().map(|index| json!({
            "index": index.spec().to_string(), "bytes": index.bytes(), "uses": index.uses(),
        })).collect::<Vec<_>>(),
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body.to_string()).into_response())
}
