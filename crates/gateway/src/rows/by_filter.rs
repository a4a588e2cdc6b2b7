//! Writes by filter: one operation per row, up to a maximum number of rows.

use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::http::prefer::Kind;
use crate::http::problem::{ApiError, Code, Problem};
use crate::http::request_id::request_id;
use crate::http::response::{self, APPLIED};
use crate::rows::write::{self, Change};
use crate::scope::Scope;
use diorama_core::dio::WriteOptions;
use diorama_core::plan::Selection;
use diorama_core::state::{Condition, OpId};
use diorama_core::vista::query::url::{self, ParamOptions};
use diorama_core::vista::{Error, Query, WriteKind, WriteOp};

/// Maximum number of writes in flight; they share journal commits.
const AT_ONCE: usize = 128;

/// Outcome of a write by filter.
#[derive(Serialize, ToSchema)]
pub(crate) struct Affected {
    affected: usize,
    operations: Vec<String>,
    /// Status of each operation, if the request waited for the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    results: Option<Vec<FilterResult>>,
}

/// Status of one operation of a write by filter.
#[derive(Serialize, ToSchema)]
pub(crate) struct FilterResult {
    #[schema(required)]
    id: Option<String>,
    status: u16,
    operation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// Returns the ids of the rows that pass the filter and that the caller may write to. Without a filter, `all=true` is required.
pub(crate) async fn targets(
    scope: &Scope,
    change: &Change,
    raw: &str,
    kind: WriteKind,
) -> Result<Vec<String>, ApiError> {
    if change.condition != Condition::None || change.key.is_some() {
        return Err(ApiError::new(Code::InvalidHeader, "a write by filter takes neither If-Match nor Idempotency-Key")
            .hint("a repeated request applies to the rows that match then; to write to certain rows, use their ids"));
    }
    let (owner, text) = (scope.clone(), raw.to_string());
    let read = move || {
        let options = ParamOptions { max_limit: owner.options.max_limit, extra: &["all"], holes: false };
        url::parse(&text, &owner.schema, &options)
    };
    let parsed = change.bounds.read(scope.dio.workers(), raw.as_bytes(), read).await??;
    if parsed.extra.iter().any(|(_, value)| value != "true" && value != "false") {
        return Err(ApiError::new(Code::InvalidParameter, "all must be true or false"));
    }
    let all = parsed.extra.iter().any(|(_, value)| value == "true");
    let query = parsed.query;
    if query != (Query { filter: query.filter.clone(), search: query.search.clone(), ..Query::default() }) {
        return Err(ApiError::new(Code::InvalidParameter, "a write by filter takes filters only"));
    }
    if query.is_unfiltered() && !all {
        return Err(
            ApiError::new(Code::InvalidParameter, "this would change every row").hint("add a filter, or all=true")
        );
    }
    let most = scope.options.max_affected.min(change.prefer.max_affected.unwrap_or(u64::MAX));
    let (state, query) = (scope.rows.state(), scope.rows.targets(query, kind));
    let (Selection { slots, total, .. }, _) = scope.rows.select(&state, &query, &change.bounds.meter).await?;
    if total > most && !(all && change.prefer.max_affected.is_none()) {
        return Err(ApiError::new(
            Code::MaxAffected,
            format!("{total} rows match, at most {most} may be changed; nothing was written"),
        )
        .hint("narrow the filter"));
    }
    Ok(slots.into_iter().filter_map(|slot| state.table().at(slot)).map(|row| row.id().to_string()).collect())
}

/// Accepts `ops` and waits for the master for as long as the request prefers. Rows that were deleted meanwhile are not counted.
pub(crate) async fn write(scope: &Scope, change: &Change, ops: Vec<WriteOp>) -> Result<Response, ApiError> {
    let (mut operations, all) = (Vec::new(), ops.len());
    let mut rest = &ops[..];
    while !rest.is_empty() {
        // A batch fits into the queue, so that other writers do not wait behind all of it.
        let (ops, later) = rest.split_at(scope.dio.free_places().clamp(1, AT_ONCE).min(rest.len()));
        rest = later;
        let written = ops.iter().map(|op| scope.rows.write(op.clone(), WriteOptions::default()));
        for (op, ticket) in ops.iter().zip(join_all(written).await) {
            match ticket {
                Ok(ticket) => operations.extend(ticket.operation.map(|done| (op.id().map(str::to_string), done))),
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(partly(error, operations.len(), all)),
            }
        }
    }
    Ok(accepted(scope, change, operations.len(), &operations).await)
}

/// Accepts a single operation that deletes all rows, for sources that support it.
pub(crate) async fn delete_all(scope: &Scope, change: &Change, affected: usize) -> Result<Response, ApiError> {
    let ticket = scope.rows.write(WriteOp::DeleteAll, WriteOptions::default()).await?;
    let operation = ticket.operation.map(|op| (None, op));
    Ok(accepted(scope, change, affected, operation.as_slice()).await)
}

/// Builds the response: 202 while the master has not confirmed all operations, else 200.
async fn accepted(scope: &Scope, change: &Change, affected: usize, operations: &[(Option<String>, OpId)]) -> Response {
    let (request, dio) = (request_id(&change.headers), scope.dio.name());
    tracing::debug!(request.id = request, dio, writes = affected, "writes by filter were accepted");
    let operation_ids = operations.iter().map(|(_, op)| op.to_string()).collect();
    let mut body = Affected { affected, operations: operation_ids, results: None };
    let patience = change.prefer.patience(scope.options.ack.patience());
    // Nothing matched, so there is nothing to wait for.
    let mut status = if operations.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    if !patience.is_zero() {
        let results = settled(scope, change, operations, Instant::now() + patience).await;
        if results.iter().all(|result| result.status != StatusCode::ACCEPTED.as_u16()) {
            status = StatusCode::OK;
        }
        body.results = Some(results);
    }
    let mut response = response::json(&body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    write::set_write_headers(scope, &scope.dio.position(), headers);
    if let Some(applied) = change.prefer.applied(Kind::Filter) {
        headers.insert(APPLIED, applied);
    }
    response
}

/// Returns the status of each operation when all have ended, or at `deadline`.
async fn settled(
    scope: &Scope,
    change: &Change,
    operations: &[(Option<String>, OpId)],
    deadline: Instant,
) -> Vec<FilterResult> {
    let mut results = Vec::with_capacity(operations.len());
    for (id, op) in operations {
        let left = deadline.saturating_duration_since(Instant::now());
        let (status, problem) = write::operation_status(scope, *op, left, &change.prefix).await;
        let problem = problem.map(|problem| problem.problem(None));
        results.push(FilterResult { id: id.clone(), status, operation: op.to_string(), problem });
    }
    results
}

fn partly(error: Error, done: usize, of: usize) -> ApiError {
    match done {
        0 => error.into(),
        _ => ApiError::from(error)
            .hint(format!("{done} of at least {of} rows were accepted before; repeating the request is safe")),
    }
}
