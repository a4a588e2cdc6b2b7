//! Common parts of all writes: preconditions and preferences of a request, and the response to an accepted write.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts as _, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::Xxh3Default;

use crate::http::bounds::Bounds;
use crate::http::extract::Prefix;
use crate::http::limits::Limits;
use crate::http::negotiate::Format;
use crate::http::prefer::{Kind, Prefer};
use crate::http::problem::{ApiError, Code};
use crate::http::request_id::request_id;
use crate::http::response::{self, APPLIED, DURABLE, OPERATION, POSITION, REPLAYED};
use crate::options::is_reserved_id;
use crate::rows::record;
use crate::rows::snapshot::Snapshot;
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::dio::{IdempotencyKey, Operation, OperationState, Position, WriteOptions};
use diorama_core::record::{CborValue, Record};
use diorama_core::state::{Condition, OpId};
use diorama_core::vista::query::url::segment;
use diorama_core::vista::{Error, Shape, WriteKind, WriteOp, check};

/// Request that writes.
pub(crate) struct Change {
    pub(crate) headers: HeaderMap,
    pub(crate) prefer: Prefer,
    pub(crate) condition: Condition,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) body: Bytes,
    pub(crate) limits: Limits,
    pub(crate) bounds: Bounds,
    pub(crate) prefix: String,
}

impl FromRequest<Arc<GatewayState>> for Change {
    type Rejection = ApiError;

    async fn from_request(request: Request, gateway: &Arc<GatewayState>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Prefix(prefix) = Prefix::from_request_parts(&mut parts, gateway).await?;
        let body = gateway.body(&parts, body).await?;
        Ok(Change {
            prefer: Prefer::of(&parts.headers).check()?,
            condition: condition(&parts.headers)?,
            key: key(&parts.headers)?.map(|key| IdempotencyKey { key, fingerprint: fingerprint(&parts, &body) }),
            bounds: gateway.bounds(&parts.extensions),
            headers: parts.headers,
            body,
            limits: gateway.limits,
            prefix,
        })
    }
}

/// Hash of method, target and body, by which a repetition of a request is recognized.
fn fingerprint(parts: &Parts, body: &[u8]) -> u128 {
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let mut hash = Xxh3Default::new();
    for part in [parts.method.as_str().as_bytes(), b"\n", target.as_bytes(), b"\n", body] {
        hash.update(part);
    }
    hash.digest128()
}

impl Change {
    /// Parses the body as a value.
    pub(crate) fn value(&self) -> Result<CborValue, ApiError> {
        record::value(record::media(&self.headers)?, &self.body, &self.limits)
    }

    /// Parses the body as a whole row under `id`.
    pub(crate) fn row(&self, scope: &Scope, id: &str) -> Result<Record, ApiError> {
        let row = record::row(self.value()?, scope, Shape::Whole, Some(id))?;
        same_id(scope, id, &row)?;
        check_id(scope, id)?;
        Ok(row)
    }

    /// Parses the body as a part of the row `id`, or of any row if `id` is `None`.
    pub(crate) fn part(&self, scope: &Scope, id: Option<&str>) -> Result<Record, ApiError> {
        record::row(self.value()?, scope, Shape::Part, id)
    }

    fn options(&self) -> WriteOptions {
        let (condition, key) = (self.condition.clone(), self.key.clone());
        WriteOptions { condition, key, refuse_when_full: true, ..WriteOptions::default() }
    }
}

/// Checks that an id in the body equals the id in the path.
pub(crate) fn same_id(scope: &Scope, id: &str, row: &Record) -> Result<(), ApiError> {
    let column = scope.schema.id_column();
    match row.get(column).filter(|value| !value.is_null()) {
        Some(value)
            if !diorama_core::record::id_from_value(value).is_some_and(|own| scope.schema.is_same_id(&own, id)) =>
        {
            Err(ApiError::new(
                Code::IdMismatch,
                format!("the id in the path is {id:?}, but column {column:?} of the body has another value"),
            )
            .hint("leave the id out of the body, or send the same id in both"))
        }
        _ => Ok(()),
    }
}

/// Refuses ids that collide with a route, and ids that the id column cannot hold.
pub(crate) fn check_id(scope: &Scope, id: &str) -> Result<(), ApiError> {
    check::check_id(&scope.schema, id)?;
    if is_reserved_id(id) {
        return Err(reserved(id));
    }
    Ok(())
}

/// Error for a reserved id: a route with the same path would hide the row.
pub(crate) fn reserved(id: &str) -> ApiError {
    ApiError::new(Code::ReservedId, format!("{id:?} is reserved for a route and cannot be an id"))
        .hint("events, live and ids that begin with _ are reserved; read existing rows with such an id by filter")
}

/// Versions in a precondition header.
enum Versions {
    /// `*`.
    Any,
    /// List of ETags.
    Listed(Vec<u128>),
}

/// Reads the precondition of `If-Match` and `If-None-Match`. As in RFC 9110, the former compares strongly, the latter weakly, and
/// both must hold. The committer evaluates it, in the order of all writes.
fn condition(headers: &HeaderMap) -> Result<Condition, ApiError> {
    let wanted = versions(headers, &header::IF_MATCH, version)?;
    let unwanted = versions(headers, &header::IF_NONE_MATCH, |tag| version(tag.strip_prefix("W/").unwrap_or(tag)))?;
    Ok(match (wanted, unwanted) {
        (None, None) => Condition::None,
        (None, Some(Versions::Any)) => Condition::Absent,
        (None, Some(Versions::Listed(from))) => Condition::Differs { from, or_absent: true },
        (Some(Versions::Any), None) => Condition::Exists,
        (Some(Versions::Listed(tags)), None) => Condition::Matches(tags),
        // A row cannot both exist and be absent, so the condition never holds.
        (Some(_), Some(Versions::Any)) => Condition::Matches(Vec::new()),
        (Some(Versions::Any), Some(Versions::Listed(from))) => Condition::Differs { from, or_absent: false },
        (Some(Versions::Listed(mut tags)), Some(Versions::Listed(from))) => {
            tags.retain(|tag| !from.contains(tag));
            Condition::Matches(tags)
        }
    })
}

fn versions(
    headers: &HeaderMap,
    name: &header::HeaderName,
    read: impl Fn(&str) -> Option<u128>,
) -> Result<Option<Versions>, ApiError> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let tags: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    match tags.as_slice() {
        [] => Ok(None),
        ["*"] => Ok(Some(Versions::Any)),
        tags if tags.contains(&"*") => {
            Err(ApiError::new(Code::InvalidHeader, format!("{name} is either * or a list of ETags")))
        }
        // An ETag of another format matches no row and is left out.
        tags => Ok(Some(Versions::Listed(tags.iter().filter_map(|tag| read(tag)).collect()))),
    }
}

/// Returns the row's hash in an ETag of any representation. Weak tags never match, as RFC 9110 requires.
fn version(tag: &str) -> Option<u128> {
    let opaque = tag.strip_prefix('"')?.strip_suffix('"')?;
    let (hash, suffix) = opaque.split_at_checked(22)?;
    if !suffix.is_empty() && !suffix.starts_with('-') {
        return None;
    }
    Some(u128::from_be_bytes(URL_SAFE_NO_PAD.decode(hash).ok()?.try_into().ok()?))
}

/// Reads the key of `Idempotency-Key`, in quotes as in the IETF draft, or bare.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('/') {
        return Err(ApiError::new(
            Code::InvalidHeader,
            "Idempotency-Key is 1 to 255 visible ASCII characters without /",
        ));
    }
    Ok(Some(text.to_string()))
}

// --- answering -----------------------------------------------------------------------------------------------------------

/// State of an accepted write at the time of the response.
pub(crate) struct AcceptedWrite {
    pub(crate) id: Option<String>,
    kind: WriteKind,
    pub(crate) operation: Option<OpId>,
    position: Position,
    created: bool,
    /// Last state of a deleted row, as JSON.
    deleted_row: Option<Bytes>,
    settled: bool,
    replayed: bool,
}

/// Accepts `op` and builds the response: 202 at once, or the master's result if it arrives while the request waits.
pub(crate) async fn accept(scope: &Scope, change: &Change, op: WriteOp) -> Result<Response, ApiError> {
    let (id, kind) = (op.id().map(str::to_string), op.kind());
    require_version(scope, change, kind)?;
    let deleted_row = match (&op, &id) {
        (WriteOp::Delete { .. }, Some(id)) => scope.rows.json(id),
        _ => None,
    };
    let mut accepted = match scope.rows.write(op, change.options()).await {
        Ok(ticket) => AcceptedWrite {
            id,
            kind,
            operation: ticket.operation,
            position: ticket.position,
            created: ticket.created,
            deleted_row,
            settled: ticket.operation.is_none(),
            replayed: false,
        },
        Err(Error::Replayed { operation }) => replayed_write(scope, &operation)?,
        Err(Error::Conflict { id, .. }) if kind == WriteKind::Insert => return Err(exists(&id)),
        Err(error) => return Err(scope.refusal(error)),
    };
    tracing::debug!(
        request.id = request_id(&change.headers),
        dio = scope.dio.name(),
        operation = accepted.operation.map(tracing::field::display),
        position = accepted.position.seq,
        write = kind.as_str(),
        "a write was accepted"
    );
    settle(scope, change, &mut accepted).await?;
    Ok(answer(scope, change, &accepted))
}

/// Waits for the master for as long as the request prefers.
async fn settle(scope: &Scope, change: &Change, accepted: &mut AcceptedWrite) -> Result<(), ApiError> {
    let Some(op) = accepted.operation.filter(|_| !accepted.settled) else { return Ok(()) };
    let patience = change.prefer.patience(scope.options.ack.patience());
    let operation = if patience.is_zero() && !accepted.replayed { None } else { scope.dio.settled(op, patience).await };
    match operation {
        Some(operation) if operation.state == OperationState::Applied => accepted.settled = true,
        Some(operation) if operation.state.is_final() => return Err(operation_error(&operation, &change.prefix)),
        Some(_) | None => {}
    }
    Ok(())
}

/// Looks up the write of a request that was accepted before.
pub(crate) fn replayed_write(scope: &Scope, operation: &str) -> Result<AcceptedWrite, ApiError> {
    let known = operation.parse().ok().and_then(|op: OpId| scope.dio.operation(op));
    let Some(known) = known else {
        return Err(ApiError::new(
            Code::Conflict,
            format!("the request was accepted before, as operation {operation}"),
        )
        .hint("the operation is not stored any more; read the row"));
    };
    Ok(AcceptedWrite {
        id: known.record,
        kind: known.op,
        operation: Some(known.id),
        position: Position { epoch: scope.dio.position().epoch, seq: known.position },
        created: known.op == WriteKind::Insert,
        deleted_row: None,
        settled: false,
        replayed: true,
    })
}

fn exists(id: &str) -> ApiError {
    ApiError::new(Code::AlreadyExists, format!("there is a row {id:?} already"))
        .hint("PUT replaces a row, PATCH changes it")
}

fn require_version(scope: &Scope, change: &Change, kind: WriteKind) -> Result<(), ApiError> {
    if scope.options.require_if_match && kind != WriteKind::Insert && change.condition == Condition::None {
        return Err(ApiError::new(
            Code::PreconditionRequired,
            "writes to this resource require If-Match or If-None-Match",
        )
        .hint("send If-Match with the row's ETag, or If-None-Match: * for a new row"));
    }
    Ok(())
}

/// Converts a failed operation to an error.
pub(crate) fn operation_error(operation: &Operation, prefix: &str) -> ApiError {
    let error = operation.error.as_ref();
    let code = match (operation.state, error.map(|error| error.code.as_str())) {
        (OperationState::Failed, Some("conflict")) => Code::Conflict,
        (OperationState::Failed, Some("not-found")) => Code::NotFound,
        (OperationState::Failed, Some("validation-failed")) => Code::ValidationFailed,
        (OperationState::Failed, Some("unsupported")) => Code::Unsupported,
        (OperationState::Failed, Some("precondition-failed")) => Code::PreconditionFailed,
        _ => Code::WriteFailed,
    };
    let detail = match code {
        Code::WriteFailed => "the source did not accept the write; it was rolled back".to_string(),
        _ => error.map_or_else(String::new, |error| error.detail.clone()),
    };
    let path = format!("{prefix}/operations/{}", operation.id);
    ApiError::new(code, detail).hint(format!("see GET {path}")).header(OPERATION, response::text(path))
}

fn answer(scope: &Scope, change: &Change, accepted: &AcceptedWrite) -> Response {
    let created = accepted.created && accepted.kind != WriteKind::Delete;
    let view = Snapshot::of(scope);
    let row = accepted.id.as_deref().and_then(|id| view.row(id));
    let body = accepted.deleted_row.clone().or_else(|| row.map(|row| Bytes::from(scope.rows.shown(&row))));
    let body = body.filter(|_| !change.prefer.is_minimal() && scope.rows.are_readable());
    let status = match (accepted.settled, &body) {
        (false, _) => StatusCode::ACCEPTED,
        (true, _) if created && accepted.operation.is_some() => StatusCode::CREATED,
        (true, None) => StatusCode::NO_CONTENT,
        (true, Some(_)) => StatusCode::OK,
    };
    let mut response = status.into_response();
    describe(scope, change, accepted, response.headers_mut());
    // A new row without an operation was inserted by the master directly.
    let kind = if accepted.operation.is_none() && accepted.created { Kind::Made } else { Kind::One };
    if let Some(applied) = change.prefer.applied(kind) {
        response.headers_mut().insert(APPLIED, applied);
    }
    let Some(body) = body else { return response };
    if let (true, Some(row), None) = (accepted.settled, row, &accepted.deleted_row) {
        let etag = view.record_etag(&row, "", Format::Json);
        response.headers_mut().insert(header::ETAG, etag);
        let url = response::text(row_url(scope, change, accepted.id.as_deref().unwrap_or_default()));
        response.headers_mut().insert(header::CONTENT_LOCATION, url);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, Format::Json.content_type());
    *response.body_mut() = body.into();
    response
}

fn describe(scope: &Scope, change: &Change, accepted: &AcceptedWrite, headers: &mut HeaderMap) {
    let confirmed = accepted.settled && accepted.operation.is_some() && !scope.dio.writes_around();
    set_write_headers(scope, &accepted.position, headers);
    if confirmed {
        headers.insert(DURABLE, HeaderValue::from_static("master"));
    }
    if let Some(op) = accepted.operation {
        headers.insert(OPERATION, response::text(format!("{}/operations/{op}", change.prefix)));
    }
    if let Some(id) = accepted.id.as_deref().filter(|_| accepted.created || accepted.kind == WriteKind::Insert) {
        headers.insert(header::LOCATION, response::text(row_url(scope, change, id)));
    }
    if accepted.replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

/// Sets the headers of every response to an accepted write: its position, and the medium on which it is durable.
pub(crate) fn set_write_headers(scope: &Scope, position: &Position, headers: &mut HeaderMap) {
    let durable = if scope.dio.is_durable() { "disk" } else { "memory" };
    headers.insert(POSITION, response::position(position));
    headers.insert(DURABLE, HeaderValue::from_static(durable));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Waits at most `patience` for an operation; returns its HTTP status and its error, if it failed.
pub(crate) async fn operation_status(
    scope: &Scope,
    op: OpId,
    patience: Duration,
    prefix: &str,
) -> (u16, Option<ApiError>) {
    match scope.dio.settled(op, patience).await {
        Some(operation) if operation.state == OperationState::Applied => match operation.op {
            WriteKind::Insert => (201, None),
            _ => (200, None),
        },
        Some(operation) if operation.state.is_final() => {
            let error = operation_error(&operation, prefix);
            (error.code().status().as_u16(), Some(error))
        }
        Some(_) | None => (202, None),
    }
}

/// Returns the URL of a row.
pub(crate) fn row_url(scope: &Scope, change: &Change, id: &str) -> String {
    format!("{}/{}/{}", change.prefix, scope.dio.name(), segment(id))
}

/// Builds the 201 response for a row that the master inserted directly.
pub(crate) fn created_at_master(scope: &Scope, change: &Change, id: String) -> Response {
    let accepted = AcceptedWrite {
        id: Some(id),
        kind: WriteKind::Insert,
        operation: None,
        position: scope.dio.position(),
        created: true,
        deleted_row: None,
        settled: true,
        replayed: false,
    };
    let mut response = answer(scope, change, &accepted);
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// Timeout of an insert for which the master chooses the id.
pub(crate) const LONGEST_INSERT: Duration = Duration::from_secs(30);
