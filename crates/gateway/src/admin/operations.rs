//! `/operations`: following writes, and what a person may do about parked ones.

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

use crate::http::extract::{Prefix, QueryParameters, Segment, parameters};
use crate::http::negotiate::{self, Format};
use crate::http::prefer::{LONGEST, Prefer};
use crate::http::problem::{ApiError, Code, Problem};
use crate::http::response::{self, APPLIED, TOTAL};
use crate::http::schemas::{list_of, moment, text, with_schemas, words};
use crate::state::{GatewayState, Resource};
use diorama_core::dio::{Operation, OperationQuery, OperationState};
use diorama_core::state::{OpError, OpId};
use diorama_core::vista::query::url::segment;
use diorama_core::vista::{Error, WriteKind};

/// Operations of one answer, at most.
const MOST: usize = 1_000;
/// Operations of an answer that does not say.
const USUAL: usize = 100;
/// Operations of one piece of an answer.
const PIECE: usize = 256;

/// An accepted write on its way to the source.
#[derive(Serialize, ToSchema)]
#[schema(as = Operation)]
pub(crate) struct OperationBody {
    #[schema(pattern = "^op_[0-9A-Z]{26}$")]
    id: String,
    /// The resource.
    dio: String,
    /// The row, null for all of them.
    #[schema(required)]
    record: Option<String>,
    #[schema(schema_with = OperationBody::kinds)]
    op: WriteKind,
    #[schema(schema_with = OperationBody::states)]
    state: OperationState,
    attempts: u32,
    #[schema(required)]
    next_attempt: Option<String>,
    #[schema(required, inline)]
    error: Option<Failure>,
    position: u64,
    #[schema(required, schema_with = moment)]
    created: Option<String>,
    #[schema(required, schema_with = moment)]
    updated: Option<String>,
    #[schema(required)]
    retry_of: Option<String>,
    #[schema(inline)]
    links: OperationLinks,
}

/// The error that the last delivery ended with.
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

    /// `operation` as it is sent; links begin with `prefix`.
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
    id: String,
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
    /// Seconds to wait for its end; goes before `Prefer: wait`.
    #[param(maximum = 30, nullable = false)]
    wait: Option<u64>,
}

/// Gives one operation; with `?wait=N` or `Prefer: wait=N`, when it has ended or the time is over.
pub(crate) async fn operation(
    State(gateway): State<Arc<GatewayState>>,
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
            return Err(ApiError::new(Code::InvalidParameter, format!("wait: 0 to {LONGEST} seconds"))
                .hint("ask again when the time is over"));
        }
    };
    let (resource, op) = find(&gateway, &id)?;
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

/// Bounds of a list of operations.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct OperationFilter {
    /// Only of this resource.
    #[param(nullable = false)]
    dio: Option<String>,
    /// Only in this state, or in one of these, separated by commas.
    #[param(nullable = false)]
    state: Option<String>,
    /// Only about the row of this id.
    #[param(nullable = false)]
    record: Option<String>,
    /// Operations, at most; without it NDJSON has them all.
    #[param(maximum = 1_000, default = 100, nullable = false)]
    limit: Option<usize>,
    /// Only older than this operation.
    #[param(nullable = false)]
    after: Option<String>,
}

impl OperationFilter {
    /// Parameters with these names of resources, which are known when the document is made.
    pub(crate) fn parameters(dios: &[&str]) -> Vec<Parameter> {
        let states = OperationState::ALL.iter().map(|state| state.as_str());
        let own = [("dio", words(dios.iter().copied())), ("state", list_of(states)), ("after", OperationFilter::id())];
        with_schemas(OperationFilter::into_params(|| None), own)
    }

    /// The form of an operation's id.
    pub(crate) fn id() -> ObjectBuilder {
        text().pattern(Some("^op_[0-7][0-9A-HJKMNP-TV-Z]{25}$"))
    }

    fn query(&self, usual: usize) -> Result<OperationQuery, ApiError> {
        let wrong = |what: String| ApiError::new(Code::InvalidParameter, what);
        let after = self.after.as_deref().map(str::parse::<OpId>).transpose();
        Ok(OperationQuery {
            states: self.states()?,
            record: self.record.clone(),
            after: after.map_err(|error| wrong(format!("after: {error}")))?,
            limit: match self.limit {
                Some(limit) if limit > MOST => {
                    let error = ApiError::new(Code::LimitTooLarge, format!("limit: at most {MOST}"));
                    return Err(error.hint("go on with after; NDJSON without a limit has them all"));
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
                let error = ApiError::new(Code::InvalidParameter, format!("state: there is no state {word:?}"));
                error.hint(format!("states are {}; several are separated by commas", all.join(", ")))
            })
        };
        words.map(read).collect()
    }
}

/// Lists operations, newest first.
pub(crate) async fn operations(
    State(gateway): State<Arc<GatewayState>>,
    OriginalUri(uri): OriginalUri,
    query: QueryParameters<OperationFilter>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let narrowed = parameters(query)?;
    let format = negotiate::of_log(&headers)?;
    let query = narrowed.query(if format == Format::Ndjson { usize::MAX } else { USUAL })?;
    let (shown, total, more) = list(&gateway, narrowed.dio.as_deref(), &query)?;
    let next = shown.last().filter(|_| more).map(|last| next_page(uri.path(), &narrowed, query.limit, last.id));
    let mut response = match format {
        Format::Ndjson => Response::new(lines(shown, prefix)),
        _ => {
            let shown = shown.iter().map(|operation| OperationBody::of(operation, &prefix));
            response::json(&shown.collect::<Vec<_>>())
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

/// One page of all Dios together, how many operations there are on all pages, and whether another page follows.
fn list(
    gateway: &GatewayState,
    dio: Option<&str>,
    query: &OperationQuery,
) -> Result<(Vec<Operation>, usize, bool), ApiError> {
    let (mut found, mut total) = (Vec::new(), 0);
    // One more than is shown tells whether there are more.
    let query = OperationQuery { limit: query.limit.saturating_add(1), ..query.clone() };
    for resource in chosen(gateway, dio)? {
        let (operations, of_dio) = resource.dio.operations_by(&query);
        found.extend(operations);
        total += of_dio;
    }
    found.sort_by_key(|operation| std::cmp::Reverse(operation.id));
    let more = found.len() >= query.limit;
    found.truncate(query.limit - 1);
    Ok((found, total, more))
}

fn next_page(path: &str, narrowed: &OperationFilter, limit: usize, last: OpId) -> HeaderValue {
    let given = [("dio", &narrowed.dio), ("state", &narrowed.state), ("record", &narrowed.record)];
    let given = given.iter().filter_map(|(name, value)| Some(format!("{name}={}&", segment(value.as_deref()?))));
    response::text(format!("<{path}?{}limit={limit}&after={last}>; rel=\"next\"", given.collect::<String>()))
}

/// Operations as NDJSON, made while they are sent.
fn lines(shown: Vec<Operation>, prefix: String) -> Body {
    let pieces = stream::unfold((shown.into_iter(), prefix), |(mut rest, prefix)| async move {
        let mut piece = String::new();
        for operation in rest.by_ref().take(PIECE) {
            piece.push_str(&describe(&operation, &prefix).to_string());
            piece.push('\n');
        }
        (!piece.is_empty()).then_some((Ok::<_, std::convert::Infallible>(piece), (rest, prefix)))
    });
    Body::from_stream(pieces)
}

/// Gives a parked operation another try: a new operation at the end of the queue.
pub(crate) async fn retry(
    State(gateway): State<Arc<GatewayState>>,
    Segment(id): Segment<1>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let (resource, op) = find(&gateway, &id)?;
    let operation = again(resource, op).await?;
    let mut response = response::json(&OperationBody::of(&operation, &prefix));
    *response.status_mut() = StatusCode::ACCEPTED;
    let place = response::text(format!("{prefix}/operations/{}", operation.id));
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

/// Gives parked operations another try, in the order in which they were accepted; what became of each is told.
pub(crate) async fn retry_many(
    State(gateway): State<Arc<GatewayState>>,
    query: QueryParameters<OperationFilter>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let narrowed = parameters(query)?;
    let query = narrowed.query(MOST)?;
    if query.states.iter().any(|state| *state != OperationState::Parked) || query.after.is_some() {
        return Err(ApiError::new(Code::InvalidParameter, "only parked operations can be tried again")
            .hint("write state=parked, and perhaps dio, record and limit"));
    }
    let all = OperationQuery { states: vec![OperationState::Parked], limit: usize::MAX, ..query.clone() };
    let (mut parked, total, _) = list(&gateway, narrowed.dio.as_deref(), &all)?;
    parked.sort_by_key(|operation| operation.id);
    let mut told = Vec::new();
    for operation in parked.iter().take(query.limit) {
        let resource = gateway.dio(&operation.dio)?;
        let refused = match again(resource, operation.id).await {
            Ok(new) => {
                let new = OperationBody::of(&new, &prefix);
                let (id, status) = (operation.id.to_string(), StatusCode::ACCEPTED.as_u16());
                told.push(Retried { id, status, operation: Some(new), problem: None });
                continue;
            }
            Err(refused) => refused,
        };
        let status = refused.code().status();
        if status.is_server_error() && told.is_empty() {
            return Err(refused);
        }
        let (id, problem) = (operation.id.to_string(), Some(refused.problem(None)));
        told.push(Retried { id, status: status.as_u16(), operation: None, problem });
        if status.is_server_error() {
            // Nothing can be accepted now, whichever comes next.
            break;
        }
    }
    let mut response = response::json(&told);
    response.headers_mut().insert(TOTAL, HeaderValue::from(total));
    Ok(response)
}

async fn again(resource: &Resource, op: OpId) -> Result<Operation, ApiError> {
    let new = resource.dio.retry(op).await.map_err(|error| refused(op, error))?;
    resource.dio.operation(new).ok_or_else(|| unknown(&new.to_string()))
}

/// Gives a parked operation up.
pub(crate) async fn discard(
    State(gateway): State<Arc<GatewayState>>,
    Segment(id): Segment<1>,
) -> Result<Response, ApiError> {
    let (resource, op) = find(&gateway, &id)?;
    resource.dio.discard(op).await.map_err(|error| refused(op, error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What stands against mending `op`: its own state, or the row.
fn refused(op: OpId, error: Error) -> ApiError {
    let own = op.to_string();
    match error {
        Error::Conflict { id, detail } if id == own => {
            ApiError::new(Code::Conflict, format!("operation {id} {detail}"))
        }
        error @ Error::Conflict { .. } => ApiError::from(error)
            .hint("the write does not fit the row any more: change the row first, or discard the write"),
        Error::NotFound { id } if id == own => unknown(&id),
        error => error.into(),
    }
}

fn chosen<'a>(gateway: &'a GatewayState, dio: Option<&str>) -> Result<Vec<&'a Arc<Resource>>, ApiError> {
    match dio {
        Some(name) => gateway.dio(name).map(|at| vec![at]),
        None => Ok(gateway.dios.values().collect()),
    }
}

fn find<'a>(gateway: &'a GatewayState, id: &str) -> Result<(&'a Arc<Resource>, OpId), ApiError> {
    let op: OpId = id.parse().map_err(|_| unknown(id))?;
    let resource = gateway.dios.values().find(|resource| resource.dio.operation(op).is_some());
    resource.map(|resource| (resource, op)).ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is no operation {id:?}, or it ended long ago"))
        .hint("what has ended is remembered for a day, and the newest 10,000 of a resource")
}

/// An operation as it is sent; links begin with `prefix`.
pub fn describe(operation: &Operation, prefix: &str) -> Value {
    response::document(&OperationBody::of(operation, prefix))
}
