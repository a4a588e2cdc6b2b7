//! Writes by filter: one operation per row, within a bound.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;

use super::answer::APPLIED;
use super::params::{self, ParamOptions};
use super::pipeline::request_id;
use super::problem::{ApiError, Code};
use super::state::Mounted;
use super::write::{self, Change};
use crate::dio::{Picked, WriteOptions, cost, pick};
use crate::hot::Condition;
use crate::vista::{Error, Query, WriteOp};

/// Writes in flight at a time; they share journal commits.
const AT_ONCE: usize = 128;

/// Ids of the rows that a filter lets through. Without a filter, everything must be asked for by name.
pub(super) async fn targets(at: &Mounted, change: &Change, raw: &str) -> Result<Vec<String>, ApiError> {
    if change.condition != Condition::None || change.key.is_some() {
        return Err(ApiError::new(Code::InvalidHeader, "a write by filter takes neither If-Match nor Idempotency-Key"));
    }
    let options = ParamOptions { max_limit: at.options.max_limit, extra: &["all"] };
    let asked = params::parse(raw, &at.schema, &options)?;
    if asked.extra.iter().any(|(_, value)| value != "true" && value != "false") {
        return Err(ApiError::new(Code::InvalidParameter, "all is true or false"));
    }
    let all = asked.extra.iter().any(|(_, value)| value == "true");
    let query = asked.query;
    if query != (Query { filter: query.filter.clone(), search: query.search.clone(), ..Query::default() }) {
        return Err(ApiError::new(Code::InvalidParameter, "a write by filter takes filters only"));
    }
    if query.is_unfiltered() && !all {
        return Err(
            ApiError::new(Code::InvalidParameter, "this would touch every row").hint("add a filter, or say all=true")
        );
    }
    let most = at.options.max_affected.min(change.prefer.max_affected.unwrap_or(u64::MAX));
    let state = at.dio.state();
    let (rows, schema, work) =
        (std::sync::Arc::clone(&state), std::sync::Arc::clone(&at.schema), cost(state.table(), &query));
    let Picked { slots, total, .. } = at.dio.0.core.heavy(work, move || pick(rows.table(), &query, &schema)).await??;
    if total > most && !(all && change.prefer.max_affected.is_none()) {
        return Err(ApiError::new(
            Code::MaxAffected,
            format!("{total} rows match, {most} may be touched; nothing was done"),
        )
        .hint("narrow the filter"));
    }
    Ok(slots.into_iter().filter_map(|slot| state.table().at(slot)).map(|row| row.id().to_string()).collect())
}

/// Accepts `ops`. A row that went away meanwhile is not counted.
pub(super) async fn write(at: &Mounted, change: &Change, ops: Vec<WriteOp>) -> Result<Response, ApiError> {
    let mut operations = Vec::new();
    for ops in ops.chunks(AT_ONCE) {
        let written = ops.iter().map(|op| at.dio.write(op.clone(), WriteOptions::default()));
        for ticket in join_all(written).await {
            match ticket {
                Ok(ticket) => operations.extend(ticket.operation.map(|op| op.to_string())),
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(partly(error, operations.len(), ops.len())),
            }
        }
    }
    let affected = operations.len();
    Ok(accepted(at, change, affected, &operations))
}

/// Accepts the one operation that takes all rows away, where the source has it.
pub(super) async fn delete_all(at: &Mounted, change: &Change, affected: usize) -> Result<Response, ApiError> {
    let ticket = at.dio.write(WriteOp::DeleteAll, WriteOptions::default()).await?;
    let operation = ticket.operation.map(|op| op.to_string());
    Ok(accepted(at, change, affected, operation.as_slice()))
}

fn accepted(at: &Mounted, change: &Change, affected: usize, operations: &[String]) -> Response {
    let (id, dio) = (request_id(&change.headers), at.dio.name());
    tracing::debug!(request.id = id, dio, writes = affected, "writes by filter were accepted");
    let body = serde_json::json!({ "affected": affected, "operations": operations });
    // Nothing matched: there is nothing to wait for.
    let status = if operations.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    let mut response = (status, body.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    write::safe(at, &at.dio.position(), headers);
    if let Some(applied) = change.prefer.applied() {
        headers.insert(APPLIED, applied);
    }
    response
}

fn partly(error: Error, done: usize, of: usize) -> ApiError {
    match done {
        0 => error.into(),
        _ => ApiError::from(error)
            .hint(format!("{done} of at least {of} rows were written before; repeating the request is safe")),
    }
}
