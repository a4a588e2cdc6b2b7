//! `GET /{dio}/{id}`, and parsing of rows in request bodies.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_128;

use crate::http::bounds::Bounds;
use crate::http::limits::Limits;
use crate::http::negotiate::{self, Format};
use crate::http::problem::{ApiError, Code};
use crate::http::response::{self, POSITION};
use crate::rows::extract::PathRow;
use crate::rows::format::Writer;
use crate::rows::related::{self, Embedded, Reading, Related};
use crate::rows::snapshot::Snapshot;
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::record::{Body, CborValue, Record, parse_json};
use diorama_core::table::Slot;
use diorama_core::vista::query::url::{self, ParamOptions};
use diorama_core::vista::{Error, Query, RowCheck, Shape};

/// Returns one row.
pub(crate) async fn record(
    bounds: Bounds,
    PathRow { scope, id }: PathRow,
    State(gateway): State<Arc<GatewayState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    record_of(&gateway, &scope, &id, &bounds, &parts).await
}

/// Returns the row of `scope` under `id`.
pub(crate) async fn record_of(
    gateway: &Arc<GatewayState>,
    scope: &Scope,
    id: &str,
    bounds: &Bounds,
    parts: &Parts,
) -> Result<Response, ApiError> {
    let (raw, headers) = (parts.uri.query().unwrap_or_default(), &parts.headers);
    let format = negotiate::of_record(headers)?;
    let view = Snapshot::of(scope);
    let related = Related::read(gateway, scope, raw, bounds).await?;
    let Some(row) = view.row(id) else { return from_master(scope, id, &view, format).await };
    if let Some((related, own)) = related {
        let slot = row.slot();
        return with_related(scope, &view, slot, (&related, &own), (format, bounds), headers).await;
    }
    let etag = view.record_etag(&row, raw, format);
    if response::is_named(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let whole = raw.is_empty() && format == Format::Json && scope.rows.has_all_columns();
    let shown = if whole { None } else { Some(select(raw, scope)?) };
    if response::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let Some(shown) = shown else { return Ok(view.ok(etag, format, row.json().to_vec())) };
    let writer = Writer::new(format, &shown, &scope.schema)?;
    Ok(view.ok(etag, format, writer.one(&row)))
}

/// Returns a row with those that are embedded in it.
async fn with_related(
    scope: &Scope,
    view: &Snapshot,
    slot: Slot,
    (related, own): (&Related, &str),
    (format, bounds): (Format, &Bounds),
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    if related.has_conditions() {
        return Err(only_select());
    }
    let own = select(own, scope)?;
    let query = Query { select: related.select.clone().unwrap_or(own.select), ..Query::default() };
    let writer = Writer::new(format, &query, &scope.schema)?;
    let mut reading = Reading::of(scope, view, related);
    let embedded = related::select(related, view.state(), &[slot], &mut reading, bounds).await?;
    let mut body = Vec::new();
    if let Some(row) = view.state().table().at(slot) {
        writer.row_with((&row).into(), &Embedded::of(related, &embedded, 0), true, &mut body);
    }
    let etag =
        response::text(format!("\"{}{}\"", URL_SAFE_NO_PAD.encode(xxh3_128(&body).to_be_bytes()), format.suffix()));
    let mut response = match response::is_known(headers, &etag) {
        true => view.not_modified(etag),
        false => view.ok(etag, format, bounds.answer(body)?),
    };
    response.headers_mut().insert(POSITION, reading.position());
    Ok(response)
}

/// Reads a row that is not in the copy from the master, if the copy is partial. Else the row does not exist.
async fn from_master(scope: &Scope, id: &str, view: &Snapshot, format: Format) -> Result<Response, ApiError> {
    let missing = || ApiError::from(Error::NotFound { id: id.to_string() });
    if scope.dio.is_complete() {
        return Err(missing());
    }
    let row = scope.rows.vista()?.get_value(id).await?.ok_or_else(missing)?;
    let body = Body::encode(id, &row, scope.schema.layout());
    let writer = Writer::new(format, &scope.rows.narrow(Query::default()), &scope.schema)?;
    let version = scope.rows.version_of(&body);
    let etag = response::text(format!("\"{}{}\"", URL_SAFE_NO_PAD.encode(version.to_be_bytes()), format.suffix()));
    Ok(view.ok(etag, format, writer.one(&body)))
}

/// Parses the projection of one row; `select` is the only parameter.
fn select(raw: &str, scope: &Scope) -> Result<Query, ApiError> {
    let query = url::parse(raw, &scope.schema, &ParamOptions::default())?.query;
    if query != (Query { select: query.select.clone(), ..Query::default() }) {
        return Err(only_select());
    }
    Ok(Query { select: scope.rows.narrow(query).select, ..Query::default() })
}

fn only_select() -> ApiError {
    ApiError::new(Code::InvalidParameter, "the only parameter of a row is select")
        .hint("to list rows by filter, leave the id out of the path")
}

// --- bodies --------------------------------------------------------------------------------------------------------------

/// Format of a body, from `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Ndjson,
    Cbor,
}

/// Returns the format of a body.
pub(crate) fn media(headers: &HeaderMap) -> Result<Media, ApiError> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = named.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|part| part.to_ascii_lowercase().strip_prefix("charset=").map(str::to_string));
    let utf8 = charset.is_none_or(|charset| charset.trim_matches('"') == "utf-8");
    match name.as_str() {
        "application/x-ndjson" | "application/jsonl" | "application/ndjson" if utf8 => Ok(Media::Ndjson),
        "application/cbor" => Ok(Media::Cbor),
        "application/json-patch+json" => Err(unsupported(&name)),
        _ if utf8 && (name == "application/json" || name.ends_with("+json")) => Ok(Media::Json),
        _ => Err(unsupported(named)),
    }
}

fn unsupported(named: &str) -> ApiError {
    let accept = axum::http::HeaderValue::from_static("application/json, application/cbor, application/x-ndjson");
    let detail = match named {
        "" => "the body has no Content-Type".to_string(),
        named => format!("a body of type {named:?} is not supported"),
    };
    ApiError::new(Code::UnsupportedMediaType, detail)
        .hint("send Content-Type: application/json (curl: use --json instead of -d)")
        .header(header::ACCEPT, accept)
}

/// Parses the value in a body.
pub(crate) fn value(media: Media, body: &[u8], limits: &Limits) -> Result<CborValue, ApiError> {
    let malformed = |detail: String| ApiError::new(Code::MalformedBody, detail);
    match media {
        Media::Json | Media::Ndjson => {
            parse_json(body, limits.json()).map_err(|error| malformed(format!("the body is not JSON: {error}")))
        }
        Media::Cbor => {
            let mut rest = body;
            let value: CborValue = ciborium::de::from_reader_with_recursion_limit(&mut rest, limits.depth)
                .map_err(|error| malformed(format!("the body is not CBOR: {error}")))?;
            match rest {
                [] => unambiguous(&value).map(|()| value),
                _ => Err(malformed("the body has data after the CBOR value".to_string())),
            }
        }
    }
}

/// Checks for duplicate members, which the CBOR parser accepts.
fn unambiguous(value: &CborValue) -> Result<(), ApiError> {
    match value {
        CborValue::Array(items) => items.iter().try_for_each(unambiguous),
        CborValue::Tag(_, inner) => unambiguous(inner),
        CborValue::Map(members) => {
            let mut names = std::collections::HashSet::new();
            for (key, value) in members {
                if let CborValue::Text(name) = key
                    && !names.insert(name)
                {
                    return Err(ApiError::new(Code::MalformedBody, format!("duplicate member {name:?}")));
                }
                unambiguous(value)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Checks that a value is a row: a map whose cells have the types of their columns, or equal the cells of the stored row `id`.
/// Reports all invalid cells at once.
pub(crate) fn row(value: CborValue, scope: &Scope, shape: Shape, id: Option<&str>) -> Result<Record, ApiError> {
    let CborValue::Map(members) = value else {
        return Err(
            ApiError::new(Code::ValidationFailed, "a row must be an object").hint("send {\"column\": value, ...}")
        );
    };
    let cells = members.into_iter().map(|(key, value)| match key {
        CborValue::Text(name) => Ok((name, value)),
        _ => Err(ApiError::new(Code::ValidationFailed, "column names must be text")),
    });
    let record: Record = cells.collect::<Result<_, _>>()?;
    let held = id.and_then(|id| scope.rows.held_row(id));
    let check = RowCheck::new(scope.grant.input(), shape).unknown(scope.dio.unknown_columns()).held(held.as_ref());
    Ok(check.check(Cow::Owned(record))?.row.into_owned())
}
