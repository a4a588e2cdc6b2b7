//! `/operations`: following writes, and what a person may do about parked ones.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer;
use super::extract::{Prefix, Segment, segment};
use super::prefer::Prefer;
use super::problem::{ApiError, Code};
use super::state::{Mounted, Shared};
use crate::dio::{Operation, OperationState};
use crate::hot::OpId;

/// Operations of one answer, at most.
const MOST: usize = 1_000;

/// What a list of operations is narrowed by.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    dio: Option<String>,
    state: Option<OperationState>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Gives one operation; with `Prefer: wait=N`, when it has ended or the time is over.
pub(super) async fn operation(
    State(shared): State<Arc<Shared>>,
    Segment(id): Segment<1>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (at, op) = find(&shared, &id)?;
    let patience = Prefer::of(&headers).patience(Duration::ZERO);
    let operation = at.dio.settled(op, patience).await.ok_or_else(|| unknown(&id))?;
    let mut response = answer::json(&describe(&operation, &prefix));
    if !operation.state.is_final() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// Lists operations, newest first.
pub(super) async fn operations(
    State(shared): State<Arc<Shared>>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let Query(asked) = asked.map_err(|error| ApiError::new(Code::InvalidParameter, error.body_text()))?;
    let limit = asked.limit.unwrap_or(100);
    if limit > MOST {
        return Err(ApiError::new(Code::LimitTooLarge, format!("limit: at most {MOST}")).hint("page with after"));
    }
    let mut found = Vec::new();
    for at in chosen(&shared, asked.dio.as_deref())? {
        found.extend(at.dio.operations());
    }
    found.sort_by_key(|operation| std::cmp::Reverse(operation.id));
    let after = asked.after.map(|after| after.parse::<OpId>()).transpose();
    let after = after.map_err(|error| ApiError::new(Code::InvalidParameter, format!("after: {error}")))?;
    let fits = |operation: &&Operation| {
        asked.state.is_none_or(|state| operation.state == state) && after.is_none_or(|after| operation.id < after)
    };
    let shown: Vec<Value> =
        found.iter().filter(fits).take(limit).map(|operation| describe(operation, &prefix)).collect();
    Ok(answer::json(&Value::from(shown)))
}

/// Gives a parked operation another try: a new operation at the end of the queue.
pub(super) async fn retry(
    State(shared): State<Arc<Shared>>,
    Segment(id): Segment<1>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let (at, op) = find(&shared, &id)?;
    let new = at.dio.retry(op).await?;
    let operation = at.dio.operation(new).ok_or_else(|| unknown(&id))?;
    let mut response = answer::json(&describe(&operation, &prefix));
    *response.status_mut() = StatusCode::ACCEPTED;
    response.headers_mut().insert(header::LOCATION, answer::text(format!("{prefix}/operations/{new}")));
    Ok(response)
}

/// Gives a parked operation up.
pub(super) async fn discard(State(shared): State<Arc<Shared>>, Segment(id): Segment<1>) -> Result<Response, ApiError> {
    let (at, op) = find(&shared, &id)?;
    at.dio.discard(op).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn chosen<'a>(shared: &'a Shared, dio: Option<&str>) -> Result<Vec<&'a Arc<Mounted>>, ApiError> {
    match dio {
        Some(name) => shared.dio(name).map(|at| vec![at]),
        None => Ok(shared.dios.values().collect()),
    }
}

fn find<'a>(shared: &'a Shared, id: &str) -> Result<(&'a Arc<Mounted>, OpId), ApiError> {
    let op: OpId = id.parse().map_err(|_| unknown(id))?;
    let at = shared.dios.values().find(|at| at.dio.operation(op).is_some());
    at.map(|at| (at, op)).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no operation {id:?}, or it ended long ago"))
}

fn describe(operation: &Operation, prefix: &str) -> Value {
    let error = operation.error.as_ref().map(|error| json!({ "code": error.code, "detail": error.detail }));
    let own = format!("{prefix}/operations/{}", operation.id);
    let record = operation.record.as_ref().map(|id| format!("{prefix}/{}/{}", operation.dio, segment(id)));
    json!({
        "id": operation.id.to_string(),
        "dio": &*operation.dio,
        "record": operation.record,
        "op": operation.op,
        "state": operation.state,
        "attempts": operation.attempts,
        "next_attempt": operation.next_attempt.map(moment),
        "error": error,
        "position": operation.position,
        "created": moment(operation.created),
        "updated": moment(operation.updated),
        "retry_of": operation.retry_of.map(|op| op.to_string()),
        "links": { "self": own, "record": record },
    })
}

/// Unix milliseconds as RFC 3339.
fn moment(milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(milliseconds).ok()?;
    Some(jiff::Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}
