//! `/operations`: following writes, and what a person may do about parked ones.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{self, APPLIED, TOTAL};
use super::extract::{Prefix, Segment, segment};
use super::negotiate::{self, Format};
use super::prefer::{LONGEST, Prefer};
use super::problem::{ApiError, Code};
use super::state::{Mounted, Shared};
use diorama_core::dio::{Operation, OperationQuery, OperationState};
use diorama_core::state::OpId;
use diorama_core::vista::Error;

/// Operations of one answer, at most.
const MOST: usize = 1_000;
/// Operations of an answer that does not say.
const USUAL: usize = 100;
/// Operations of one piece of an answer.
const PIECE: usize = 256;

pub(super) type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

pub(super) fn asked<T>(query: Asked<T>) -> Result<T, ApiError> {
    match query {
        Ok(Query(asked)) => Ok(asked),
        Err(error) => Err(ApiError::new(Code::InvalidParameter, error.body_text())),
    }
}

/// How long to wait for an operation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patience {
    wait: Option<u64>,
}

/// Gives one operation; with `?wait=N` or `Prefer: wait=N`, when it has ended or the time is over.
pub(super) async fn operation(
    State(shared): State<Arc<Shared>>,
    Segment(id): Segment<1>,
    query: Asked<Patience>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let prefer = Prefer::of(&headers);
    let patience = match asked(query)?.wait {
        None => prefer.patience(Duration::ZERO),
        Some(wait) if wait <= LONGEST => Duration::from_secs(wait),
        Some(_) => {
            return Err(ApiError::new(Code::InvalidParameter, format!("wait: 0 to {LONGEST} seconds"))
                .hint("ask again when the time is over"));
        }
    };
    let (at, op) = find(&shared, &id)?;
    let operation = tokio::select! {
        operation = at.dio.settled(op, patience) => operation,
        () = shared.closing.cancelled() => at.dio.operation(op),
    };
    let operation = operation.ok_or_else(|| unknown(&id))?;
    let mut response = answer::json(&describe(&operation, &prefix));
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !operation.state.is_final() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(wait) = prefer.wait {
        headers.insert(APPLIED, answer::text(format!("wait={wait}")));
    }
    Ok(response)
}

/// What a list of operations is narrowed by.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Narrowed {
    dio: Option<String>,
    state: Option<String>,
    record: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl Narrowed {
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
pub(super) async fn operations(
    State(shared): State<Arc<Shared>>,
    OriginalUri(uri): OriginalUri,
    query: Asked<Narrowed>,
    Prefix(prefix): Prefix,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let narrowed = asked(query)?;
    let format = negotiate::of_log(&headers)?;
    let query = narrowed.query(if format == Format::Ndjson { usize::MAX } else { USUAL })?;
    let (shown, total, more) = list(&shared, narrowed.dio.as_deref(), &query)?;
    let next = shown.last().filter(|_| more).map(|last| next_page(uri.path(), &narrowed, query.limit, last.id));
    let mut response = match format {
        Format::Ndjson => Response::new(lines(shown, prefix)),
        _ => {
            let shown: Vec<Value> = shown.iter().map(|operation| describe(operation, &prefix)).collect();
            answer::json(&Value::from(shown))
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
fn list(shared: &Shared, dio: Option<&str>, query: &OperationQuery) -> Result<(Vec<Operation>, usize, bool), ApiError> {
    let (mut found, mut total) = (Vec::new(), 0);
    // One more than is shown tells whether there are more.
    let query = OperationQuery { limit: query.limit.saturating_add(1), ..query.clone() };
    for at in chosen(shared, dio)? {
        let (operations, of_dio) = at.dio.operations_by(&query);
        found.extend(operations);
        total += of_dio;
    }
    found.sort_by_key(|operation| std::cmp::Reverse(operation.id));
    let more = found.len() >= query.limit;
    found.truncate(query.limit - 1);
    Ok((found, total, more))
}

fn next_page(path: &str, narrowed: &Narrowed, limit: usize, last: OpId) -> HeaderValue {
    let given = [("dio", &narrowed.dio), ("state", &narrowed.state), ("record", &narrowed.record)];
    let given = given.iter().filter_map(|(name, value)| Some(format!("{name}={}&", segment(value.as_deref()?))));
    answer::text(format!("<{path}?{}limit={limit}&after={last}>; rel=\"next\"", given.collect::<String>()))
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
pub(super) async fn retry(
    State(shared): State<Arc<Shared>>,
    Segment(id): Segment<1>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let (at, op) = find(&shared, &id)?;
    let operation = again(at, op).await?;
    let mut response = answer::json(&describe(&operation, &prefix));
    *response.status_mut() = StatusCode::ACCEPTED;
    let place = answer::text(format!("{prefix}/operations/{}", operation.id));
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

/// Gives parked operations another try, in the order in which they were accepted; what became of each is told.
pub(super) async fn retry_many(
    State(shared): State<Arc<Shared>>,
    query: Asked<Narrowed>,
    Prefix(prefix): Prefix,
) -> Result<Response, ApiError> {
    let narrowed = asked(query)?;
    let query = narrowed.query(MOST)?;
    if query.states.iter().any(|state| *state != OperationState::Parked) || query.after.is_some() {
        return Err(ApiError::new(Code::InvalidParameter, "only parked operations can be tried again")
            .hint("write state=parked, and perhaps dio, record and limit"));
    }
    let all = OperationQuery { states: vec![OperationState::Parked], limit: usize::MAX, ..query.clone() };
    let (mut parked, total, _) = list(&shared, narrowed.dio.as_deref(), &all)?;
    parked.sort_by_key(|operation| operation.id);
    let mut told = Vec::new();
    for operation in parked.iter().take(query.limit) {
        let at = shared.dio(&operation.dio)?;
        let refused = match again(at, operation.id).await {
            Ok(new) => {
                let new = describe(&new, &prefix);
                told.push(json!({ "id": operation.id.to_string(), "status": 202, "operation": new }));
                continue;
            }
            Err(refused) => refused,
        };
        let status = refused.code().status();
        if status.is_server_error() && told.is_empty() {
            return Err(refused);
        }
        let problem = refused.to_json(None);
        told.push(json!({ "id": operation.id.to_string(), "status": status.as_u16(), "problem": problem }));
        if status.is_server_error() {
            // Nothing can be accepted now, whichever comes next.
            break;
        }
    }
    let mut response = answer::json(&Value::from(told));
    response.headers_mut().insert(TOTAL, HeaderValue::from(total));
    Ok(response)
}

async fn again(at: &Mounted, op: OpId) -> Result<Operation, ApiError> {
    let new = at.dio.retry(op).await.map_err(|error| refused(op, error))?;
    at.dio.operation(new).ok_or_else(|| unknown(&new.to_string()))
}

/// Gives a parked operation up.
pub(super) async fn discard(State(shared): State<Arc<Shared>>, Segment(id): Segment<1>) -> Result<Response, ApiError> {
    let (at, op) = find(&shared, &id)?;
    at.dio.discard(op).await.map_err(|error| refused(op, error))?;
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
        .hint("what has ended is remembered for a day, and the newest 10,000 of a resource")
}

/// An operation as it is sent; links begin with `prefix`.
pub fn describe(operation: &Operation, prefix: &str) -> Value {
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
pub(super) fn moment(milliseconds: u64) -> Option<String> {
    let milliseconds = i64::try_from(milliseconds).ok()?;
    Some(jiff::Timestamp::from_millisecond(milliseconds).ok()?.to_string())
}
