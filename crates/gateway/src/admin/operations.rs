//! `/operations`: accepted writes, and the retry and discard of parked ones.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::{IntoParams, ToSchema};

use crate::access::{Principal, Verb};
use crate::audit::trail::{AuditTrail, targets};
use crate::http::extract::{Prefix, QueryParameters, Segment, parameters};
use crate::http::negotiate::{self, Format};
use crate::http::prefer::{LONGEST, Prefer};
use crate::http::problem::{ApiError, Code, Problem};
use crate::http::response::{self, APPLIED, TOTAL};
use crate::http::schemas::{list_of, moment, text, with_schemas, words};
use crate::scope::Scope;
use crate::state::{GatewayState, Resource};
use diorama_core::dio::{Operation, OperationQuery, OperationState};
use diorama_core::journal::AuditAction;
use diorama_core::state::{OpError, OpId};
use diorama_core::vista::query::url::segment;
use diorama_core::vista::{Error, WriteKind};

/// Maximum number of operations in one answer.
const MOST: usize = 1_000;
/// Number of operations in an answer without a `limit`.
const USUAL: usize = 100;
/// Number of operations in one piece of a streamed answer.
const PIECE: usize = 256;

/// Accepted write and the state of its delivery to the source.
#[derive(Serialize, ToSchema)]
#[schema(as = Operation)]
pub(crate) struct OperationBody {
    #[schema(pattern = "^op_[0-9A-Z]{26}$")]
    id: String,
    /// Name of the resource.
    dio: String,
    /// Id of the row; null for a write to all rows.
    #[schema(required)]
    record: Option<String>,
    #[schema(schema_with = OperationBody::kinds)]
    op: WriteKind,
    #[schema(schema_with = OperationBody::states)]
    state: OperationState,
    /// Number of attempts to deliver the write.
    attempts: u32,
    /// Time of the next attempt; null if none is planned.
    #[schema(required)]
    next_attempt: Option<String>,
    #[schema(required, inline)]
    error: Option<Failure>,
    /// Position of the write in the log of its resource.
    position: u64,
    #[schema(required, schema_with = moment)]
    created: Option<String>,
    #[schema(required, schema_with = moment)]
    updated: Option<String>,
    /// Id of the operation that this one retries; null if it is not a retry.
    #[schema(required)]
    retry_of: Option<String>,
    #[schema(inline)]
    links: OperationLinks,
}

/// Error of the last attempt.
#[derive(Serialize, ToSchema)]
struct Failure {
    code: String,
    detail: String,
}

/// URLs of an operation and of its row.
#[derive(Serialize, ToSchema)]
struct OperationLinks {
    #[serde(rename = "self")]
    own: String,
    #[schema(required)]
    record: Option<String>,
}

impl OperationBody {
    fn kinds() -> ObjectBuilder {
        use WriteKind::{Delete, DeleteAll, Insert, Patch, Replace};
        words([Insert, Replace, Patch, Delete, DeleteAll].map(WriteKind::as_str))
    }

    fn states() -> ObjectBuilder {
        words(OperationState::ALL.iter().map(|state| state.as_str()))
    }

    /// Converts `operation` to the form that is sent. Links begin with `prefix`.
    fn of(operation: &Operation, prefix: &str) -> OperationBody {
        let record = operation.record.as_ref().map(|id| format!("{prefix}/{}/{}", operation.dio, segment(id)));
        let failure = |error: &OpError| Failure { code: error.code.clone(), detail: error.detail.clone() };
        OperationBody {
            id: operation.id.to_string(),
            dio: String::from(&*operation.dio),
            record: operation.record.clone(),
            op: operation.op,
            state: operation.state,
            attempts: operation.attempts,
            next_attempt: operation.next_attempt.and_then(response::moment),
            error: operation.error.as_ref().map(failure),
            position: operation.position,
            created: response::moment(operation.created),
            updated: response::moment(operation.updated),
            retry_of: operation.retry_of.map(|op| op.to_string()),
            links: OperationLinks { own: format!("{prefix}/operations/{}", operation.id), record },
        }
    }
}

/// Outcome of a retry of one parked operation: a new operation, or a problem.
#[derive(Serialize, ToSchema)]
pub(crate) struct Retried {
    /// Id of the parked operation.
    id: String,
    /// HTTP status that a retry of this operation alone would have: 202 if it was accepted.
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operation: Option<OperationBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
}

/// Time to wait for an operation.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaitParameters {
    /// Maximum time in seconds to wait until the operation has ended. Takes precedence over `Prefer: wait`.
    #[param(maximum = 30, nullable = false)]
    wait: Option<u64>,
}

/// Returns one operation. With `?wait=N` or `Prefer: wait=N`, waits until it has ended or the time is over.
pub(crate) async fn operation(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(id): Segment<1>,
    query: QueryParameters<WaitParameters>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let prefer = Prefer::of(&headers);
    let patience = match parameters(query)?.wait {
        None => prefer.patience(Duration::ZERO),
        Some(wait) if wait <= LONGEST => Duration::from_secs(wait),
        Some(_) => {
            return Err(ApiError::new(Code::InvalidParameter, format!("wait: must be 0 to {LONGEST} seconds"))
                .hint("repeat the request to wait longer"));
        }
    };
    let (resource, op) = find(&gateway, &principal, &id)?;
    let operation = tokio::select! {
        operation = resource.dio.settled(op, patience) => operation,
        () = gateway.closing.cancelled() => resource.dio.operation(op),
    };
    let operation = operation.ok_or_else(|| unknown(&id))?;
    let mut response = response::json(&OperationBody::of(&operation, &prefix));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !operation.state.is_final() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(wait) = prefer.wait {
        headers.insert(APPLIED, response::text(format!("wait={wait}")));
    }
    Ok(response)
}

/// Filter and page of a list of operations.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationFilter {
    /// Name of the resource of the operations.
    #[param(nullable = false)]
    dio: Option<String>,
    /// State of the operations, or several states separated by commas.
    #[param(nullable = false)]
    state: Option<String>,
    /// Id of the row that the operations write.
    #[param(nullable = false)]
    record: Option<String>,
    /// Maximum number of operations. NDJSON without a limit has all.
    #[param(maximum = 1_000, default = 100, nullable = false)]
    limit: Option<usize>,
    /// Id of an operation; only older ones are returned.
    #[param(nullable = false)]
    after: Option<String>,
}

impl OperationFilter {
    /// Returns the parameters for the OpenAPI document; `dios` are the names of the resources.
    pub(crate) fn parameters(dios: &[&str]) -> Vec<Parameter> {
        let states = OperationState::ALL.iter().map(|state| state.as_str());
        let own = [("dio", words(dios.iter().copied())), ("state", list_of(states)), ("after", OperationFilter::id())];
        with_schemas(OperationFilter::into_params(|| None), own)
    }

    /// Returns the schema of an operation's id.
    pub(crate) fn id() -> ObjectBuilder {
        text().pattern(Some("^op_[0-7][0-9A-HJKMNP-TV-Z]{25}$"))
    }

    fn query(&self, usual: usize) -> Result<OperationQuery, ApiError> {
        let invalid = |detail: String| ApiError::new(Code::InvalidParameter, detail);
        let after = self.after.as_deref().map(str::parse::<OpId>).transpose();
        Ok(OperationQuery {
            states: self.states()?,
            record: self.record.clone(),
            principal: None,
            after: after.map_err(|error| invalid(format!("after: {error}")))?,
            limit: match self.limit {
                Some(limit) if limit > MOST => {
                    let error = ApiError::new(Code::LimitTooLarge, format!("limit: at most {MOST}"));
                    return Err(error.hint("read further pages with after; NDJSON without a limit has all operations"));
                }
                limit => limit.unwrap_or(usual),
            },
        })
    }

    fn states(&self) -> Result<Vec<OperationState>, ApiError> {
        let words = self.state.iter().flat_map(|states| states.split(',')).map(str::trim);
        let read = |word: &str| {
            let known = OperationState::ALL.iter().find(|state| state.as_str() == word).copied();
            known.ok_or_else(|| {
                let all: Vec<_> = OperationState::ALL.iter().map(|state| state.as_str()).collect();
                let error = ApiError::new(Code::InvalidParameter, format!("state: {word:?} is not a valid state"));
                error.hint(format!("the states are {}; separate several by commas", all.join(", ")))
            })
        };
        words.map(read).collect()
    }
}

/// Lists operations, newest first.
pub(crate) async fn operations(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    OriginalUri(uri): OriginalUri,
    query: QueryParameters<OperationFilter>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter = parameters(query)?;
    let format = negotiate::of_log(&headers)?;
    let query = filter.query(if format == Format::Ndjson { usize::MAX } else { USUAL })?;
    let (page, total, more) = list(&gateway, &principal, filter.dio.as_deref(), &query)?;
    let next = page.last().filter(|_| more).map(|last| next_page(uri.path(), &filter, query.limit, last.id));
    let mut response = match format {
        Format::Ndjson => Response::new(lines(page, prefix)),
        _ => {
            let bodies = page.iter().map(|operation| OperationBody::of(operation, &prefix));
            response::json(&bodies.collect::<Vec<_>>())
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, format.content_type());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(TOTAL, HeaderValue::from(total));
    headers.extend(next.map(|next| (header::LINK, next)));
    Ok(response)
}

/// Returns one page of the operations that the caller may see, the number of operations on all pages, and true if another page follows.
fn list(
    gateway: &GatewayState,
    principal: &Principal,
    dio: Option<&str>,
    query: &OperationQuery,
) -> Result<(Vec<Operation>, usize, bool), ApiError> {
    let (mut page, mut total) = (Vec::new(), 0);
    // One operation more than the page has shows whether another page follows.
    let query = OperationQuery { limit: query.limit.saturating_add(1), ..query.clone() };
    for (resource, writer) in select(gateway, principal, dio)? {
        let (operations, count) = resource.dio.operations_by(&OperationQuery { principal: writer, ..query.clone() });
        page.extend(operations);
        total += count;
    }
    page.sort_by_key(|operation| std::cmp::Reverse(operation.id));
    let more = page.len() >= query.limit;
    page.truncate(query.limit - 1);
    Ok((page, total, more))
}

fn next_page(path: &str, filter: &OperationFilter, limit: usize, last: OpId) -> HeaderValue {
    let filters = [("dio", &filter.dio), ("state", &filter.state), ("record", &filter.record)];
    let filters = filters.iter().filter_map(|(name, value)| Some(format!("{name}={}&", segment(value.as_deref()?))));
    response::text(format!("<{path}?{}limit={limit}&after={last}>; rel=\"next\"", filters.collect::<String>()))
}

/// Returns operations as NDJSON, encoded while they are sent.
fn lines(page: Vec<Operation>, prefix: String) -> Body {
    let pieces = stream::unfold((page.into_iter(), prefix), |(mut rest, prefix)| async move {
        let mut piece = String::new();
        for operation in rest.by_ref().take(PIECE) {
            piece.push_str(&describe(&operation, &prefix).to_string());
            piece.push('\n');
        }
        (!piece.is_empty()).then_some((Ok::<_, std::convert::Infallible>(piece), (rest, prefix)))
    });
    Body::from_stream(pieces)
}

/// Retries a parked operation as a new operation at the end of the queue.
pub(crate) async fn retry(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(id): Segment<1>,
    Prefix(prefix): Prefix,
    trail: AuditTrail,
) -> Result<Response, ApiError> {
    let (resource, op) = find_governed(&gateway, &principal, &id)?;
    let job = async {
        let operation = retry_one(resource, op).await?;
        let mut response = response::json(&OperationBody::of(&operation, &prefix));
        *response.status_mut() = StatusCode::ACCEPTED;
        let location = response::text(format!("{prefix}/operations/{}", operation.id));
        response.headers_mut().insert(header::LOCATION, location);
        Ok(response)
    };
    trail.record(AuditAction::Retry, Some(resource.dio.name()), Some(op.to_string()), job).await
}

/// Retries parked operations in the order in which they were accepted, and returns the outcome of each.
pub(crate) async fn retry_many(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    query: QueryParameters<OperationFilter>,
    Prefix(prefix): Prefix,
    trail: AuditTrail,
) -> Result<Response, ApiError> {
    let filter = parameters(query)?;
    let query = filter.query(MOST)?;
    if query.states.iter().any(|state| *state != OperationState::Parked) || query.after.is_some() {
        return Err(ApiError::new(Code::InvalidParameter, "only parked operations can be retried")
            .hint("the parameters are state=parked, dio, record and limit"));
    }
    let all = OperationQuery { states: vec![OperationState::Parked], limit: usize::MAX, ..query.clone() };
    let (mut parked, total, _) = list(&gateway, &principal, filter.dio.as_deref(), &all)?;
    parked.sort_by_key(|operation| operation.id);
    parked.truncate(query.limit);
    let target = targets(parked.iter().map(|operation| operation.id));
    let job = retry_all(&gateway, &principal, &parked, total, &prefix);
    trail.record(AuditAction::Retry, filter.dio.as_deref(), Some(target), job).await
}

/// Retries `parked`, of `total` operations that match.
async fn retry_all(
    gateway: &GatewayState,
    principal: &Principal,
    parked: &[Operation],
    total: usize,
    prefix: &str,
) -> Result<Response, ApiError> {
    let mut outcomes = Vec::new();
    for operation in parked {
        let governed = find_governed(gateway, principal, &operation.id.to_string());
        let retried = match governed {
            Ok((resource, op)) => retry_one(resource, op).await,
            Err(refusal) => Err(refusal),
        };
        let refusal = match retried {
            Ok(new) => {
                let new = OperationBody::of(&new, prefix);
                let (id, status) = (operation.id.to_string(), StatusCode::ACCEPTED.as_u16());
                outcomes.push(Retried { id, status, operation: Some(new), problem: None });
                continue;
            }
            Err(refusal) => refusal,
        };
        let status = refusal.code().status();
        if status.is_server_error() && outcomes.is_empty() {
            return Err(refusal);
        }
        let (id, problem) = (operation.id.to_string(), Some(refusal.problem(None)));
        outcomes.push(Retried { id, status: status.as_u16(), operation: None, problem });
        if status.is_server_error() {
            // The others would be refused too.
            break;
        }
    }
    let mut response = response::json(&outcomes);
    response.headers_mut().insert(TOTAL, HeaderValue::from(total));
    Ok(response)
}

async fn retry_one(resource: &Resource, op: OpId) -> Result<Operation, ApiError> {
    let new = resource.dio.retry(op).await.map_err(|error| refusal(op, error))?;
    resource.dio.operation(new).ok_or_else(|| unknown(&new.to_string()))
}

/// Discards a parked operation.
pub(crate) async fn discard(
    State(gateway): State<Arc<GatewayState>>,
    principal: Principal,
    Segment(id): Segment<1>,
    trail: AuditTrail,
) -> Result<Response, ApiError> {
    let (resource, op) = find_governed(&gateway, &principal, &id)?;
    let job = async {
        resource.dio.discard(op).await.map_err(|error| refusal(op, error))?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    trail.record(AuditAction::Discard, Some(resource.dio.name()), Some(op.to_string()), job).await
}

/// Converts the error of a retry or discard of `op`, which concerns the operation itself or its row.
fn refusal(op: OpId, error: Error) -> ApiError {
    let own = op.to_string();
    match error {
        Error::Conflict { id, detail } if id == own => {
            ApiError::new(Code::Conflict, format!("operation {id} {detail}"))
        }
        error @ Error::Conflict { .. } => {
            ApiError::from(error).hint("the write no longer fits the row: change the row first, or discard the write")
        }
        Error::NotFound { id } if id == own => unknown(&id),
        error => error.into(),
    }
}

/// A resource, with the name of the writer whose operations are visible, or `None` for all writers.
type Visible<'a> = (&'a Arc<Resource>, Option<Arc<str>>);

/// Returns the resources of which the caller may see operations, each with the name of the writer whose operations these are (`None`
/// for all writers).
fn select<'a>(
    gateway: &'a GatewayState,
    principal: &Principal,
    dio: Option<&str>,
) -> Result<Vec<Visible<'a>>, ApiError> {
    if let Some(name) = dio {
        Scope::find(gateway, name, principal)?;
    }
    let policy = gateway.policy.load();
    let is_wanted = |name: &str| match dio {
        Some(wanted) => wanted == name,
        None => true,
    };
    let wanted = gateway.dios.iter().filter(|(name, _)| is_wanted(name));
    let visible = wanted.filter_map(|(name, resource)| {
        let verbs = policy.grant(name, &resource.schema, principal).verbs();
        match verbs.has(Verb::Operations) {
            true => Some((resource, None)),
            false if verbs.is_empty() => None,
            // A caller sees its own writes.
            false => principal.name().map(|name| (resource, Some(Arc::clone(name)))),
        }
    });
    Ok(visible.collect())
}

/// Returns an operation that the caller may see.
fn find<'a>(gateway: &'a GatewayState, principal: &Principal, id: &str) -> Result<(&'a Arc<Resource>, OpId), ApiError> {
    let op: OpId = id.parse().map_err(|_| unknown(id))?;
    let is_of = |resource: &Resource, writer: &Option<Arc<str>>| {
        resource.dio.operation(op).is_some_and(|operation| writer.is_none() || *writer == operation.principal)
    };
    let mut visible = select(gateway, principal, None)?.into_iter();
    let found = visible.find(|(resource, writer)| is_of(resource, writer));
    found.map(|(resource, _)| (resource, op)).ok_or_else(|| unknown(id))
}

/// [`find`] for a change of the operation, which its writer alone may not make.
fn find_governed<'a>(
    gateway: &'a GatewayState,
    principal: &Principal,
    id: &str,
) -> Result<(&'a Arc<Resource>, OpId), ApiError> {
    let (resource, op) = find(gateway, principal, id)?;
    Scope::of(gateway, resource.dio.name(), principal, Verb::Operations)?;
    Ok((resource, op))
}

fn unknown(id: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no operation {id:?}, or it ended long ago"))
        .hint("ended operations are kept for one day, at most the newest 10,000 of each resource")
}

/// Returns an operation as the JSON that is sent. Links begin with `prefix`.
pub fn describe(operation: &Operation, prefix: &str) -> Value {
    response::document(&OperationBody::of(operation, prefix))
}
