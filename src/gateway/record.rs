//! `GET /{dio}/{id}`, and reading rows from request bodies.

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::answer::{self, View};
use super::extract::OnRow;
use super::format::Writer;
use super::limits::Limits;
use super::negotiate::{self, Format};
use super::params::{self, ParamOptions};
use super::problem::{ApiError, Code};
use super::state::Mounted;
use crate::record::{Body, CborValue, Record, id_from_value, parse_json};
use crate::vista::query::nearest;
use crate::vista::{ColumnType, Error, Flag, Query};

/// Gives one row.
pub(super) async fn record(row: OnRow, request: Request) -> Result<Response, ApiError> {
    let OnRow { at, id } = row;
    let (raw, headers) = (request.uri().query().unwrap_or_default(), request.headers());
    let format = negotiate::of_record(headers)?;
    let view = View::of(&at);
    let Some(row) = view.state.get(&id) else { return elsewhere(&at, &id, &view, format).await };
    let etag = View::record_etag(&row, raw, format);
    if answer::is_named(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let whole = raw.is_empty() && format == Format::Json;
    let shown = if whole { None } else { Some(select(raw, &at)?) };
    if answer::is_known(headers, &etag) {
        return Ok(view.not_modified(etag));
    }
    let Some(shown) = shown else { return Ok(view.ok(etag, format, row.json().to_vec())) };
    let writer = Writer::new(format, &shown, &at.schema)?;
    Ok(view.ok(etag, format, writer.one(&row)))
}

/// A row that is not in the copy: if the copy is a part only, the master is asked.
async fn elsewhere(at: &Mounted, id: &str, view: &View, format: Format) -> Result<Response, ApiError> {
    let missing = || ApiError::from(Error::NotFound { id: id.to_string() });
    if at.dio.0.core.is_complete() {
        return Err(missing());
    }
    let row = at.dio.vista().get_value(id).await?.ok_or_else(missing)?;
    let body = Body::encode(id, &row, at.schema.layout());
    let writer = Writer::new(format, &Query::default(), &at.schema)?;
    let etag = answer::text(format!("\"{}{}\"", URL_SAFE_NO_PAD.encode(body.hash().to_be_bytes()), format.suffix()));
    Ok(view.ok(etag, format, writer.one(&body)))
}

/// What is shown of one row: nothing but `select` can be asked.
fn select(raw: &str, at: &Mounted) -> Result<Query, ApiError> {
    let query = params::parse(raw, &at.schema, &ParamOptions::default())?.query;
    if query != (Query { select: query.select.clone(), ..Query::default() }) {
        return Err(ApiError::new(Code::InvalidParameter, "one row takes no parameter but select")
            .hint("to ask for rows by filter, leave the id out of the path"));
    }
    Ok(query)
}

// --- bodies --------------------------------------------------------------------------------------------------------------

/// What a body is, by `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Ndjson,
    Cbor,
}

/// The type of a body.
pub(super) fn media(headers: &HeaderMap) -> Result<Media, ApiError> {
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
        named => format!("a body of type {named:?} is not understood"),
    };
    ApiError::new(Code::UnsupportedMediaType, detail)
        .hint("send Content-Type: application/json (curl: use --json instead of -d)")
        .header(header::ACCEPT, accept)
}

/// The value that a body holds.
pub(super) fn value(media: Media, body: &[u8], limits: &Limits) -> Result<CborValue, ApiError> {
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
                _ => Err(malformed("something follows the value".to_string())),
            }
        }
    }
}

/// CBOR lets a map say the same thing twice.
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
                    return Err(ApiError::new(Code::MalformedBody, format!("member {name:?} stands twice")));
                }
                unambiguous(value)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a body is of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// All of it: what every row must have is there.
    Whole,
    /// A patch: it takes nothing away that every row must have.
    Part,
}

/// A value as a row: a map whose cells are what their columns hold. Says everything that is wrong with it at once.
pub(super) fn row(value: CborValue, at: &Mounted, shape: Shape) -> Result<Record, ApiError> {
    let CborValue::Map(members) = value else {
        return Err(ApiError::new(Code::ValidationFailed, "a row is an object").hint("send {\"column\": value, ...}"));
    };
    let mut record = Record::new();
    let mut errors = std::collections::BTreeMap::new();
    for (key, value) in members {
        let CborValue::Text(name) = key else {
            return Err(ApiError::new(Code::ValidationFailed, "names of columns are text"));
        };
        match cell(&name, value, at) {
            Ok(value) => drop(record.insert(name, value)),
            Err(detail) => drop(errors.insert(name, detail)),
        }
    }
    for column in at.schema.columns().iter().filter(|column| column.has(Flag::Mandatory)) {
        let cell = record.get(&column.name);
        let lacks = match shape {
            // An id can be in the path, or is to be chosen.
            Shape::Whole => !column.has(Flag::Id) && cell.is_none_or(CborValue::is_null),
            Shape::Part => cell.is_some_and(CborValue::is_null),
        };
        if lacks {
            errors.entry(column.name.to_string()).or_insert_with(|| "is mandatory".to_string());
        }
    }
    invalid(errors)?;
    Ok(record)
}

fn invalid(errors: std::collections::BTreeMap<String, String>) -> Result<(), ApiError> {
    let Some((name, detail)) = errors.iter().next() else { return Ok(()) };
    Err(ApiError::new(Code::ValidationFailed, format!("column {name:?} {detail}")).errors(errors))
}

/// A cell as its column holds it.
fn cell(name: &str, value: CborValue, at: &Mounted) -> Result<CborValue, String> {
    let Some(column) = at.schema.column(name) else {
        if at.options.unknown_columns {
            return Ok(value);
        }
        let names = at.schema.columns().iter().map(|column| &*column.name);
        return Err(match nearest(name, names) {
            Some(nearest) => format!("does not exist; did you mean {nearest:?}?"),
            None => "does not exist".to_string(),
        });
    };
    if value.is_null() {
        return Ok(value);
    }
    if column.has(Flag::Id) {
        return match id_from_value(&value) {
            Some(_) => Ok(value),
            None => Err("cannot be an id: ids are text or whole numbers".to_string()),
        };
    }
    typed(column.ty, value)
}

fn typed(ty: ColumnType, value: CborValue) -> Result<CborValue, String> {
    let fits = match (ty, &value) {
        (ColumnType::Json, _) => true,
        (ColumnType::Integer, CborValue::Integer(number)) => i64::try_from(*number).is_ok(),
        (ColumnType::Integer, CborValue::Float(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            return Ok((*number as i64).into());
        }
        (ColumnType::Number, CborValue::Integer(_) | CborValue::Float(_)) => true,
        (ColumnType::Boolean, CborValue::Bool(_)) => true,
        (ColumnType::Decimal, CborValue::Integer(number)) => return Ok(i128::from(*number).to_string().into()),
        (ColumnType::Decimal, CborValue::Float(number)) if number.is_finite() => return Ok(number.to_string().into()),
        (ColumnType::Bytes, CborValue::Bytes(_)) => true,
        (ColumnType::Bytes, CborValue::Text(text)) => {
            let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
            return bytes.map(CborValue::Bytes).map_err(|_| "must be bytes as base64url text".to_string());
        }
        (ColumnType::String, CborValue::Text(_)) => true,
        (ColumnType::Date, CborValue::Text(text)) => is_date(text),
        (ColumnType::Datetime, CborValue::Text(text)) => is_moment(text),
        (ColumnType::Decimal, CborValue::Text(text)) => is_decimal(text),
        (ColumnType::Uuid, CborValue::Text(text)) => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
        _ => false,
    };
    let expected = match ty {
        ColumnType::String => "text",
        ColumnType::Uuid => "a UUID as text, like 01890a5d-ac96-774b-bcce-b302099a8057",
        ColumnType::Integer => "a whole number",
        ColumnType::Number => "a number",
        ColumnType::Boolean => "true or false",
        ColumnType::Decimal => "a decimal number, as text or number",
        ColumnType::Date => "a date as text, YYYY-MM-DD",
        ColumnType::Datetime => "a moment as RFC 3339 text, like 2026-01-31T12:00:00Z",
        ColumnType::Bytes => "bytes as base64url text",
        ColumnType::Json => "a value",
    };
    if fits { Ok(value) } else { Err(format!("must be {expected}")) }
}

/// `YYYY-MM-DD`, and there is such a day.
fn is_date(text: &str) -> bool {
    text.len() == 10 && text.as_bytes()[4] == b'-' && text.parse::<jiff::civil::Date>().is_ok()
}

/// RFC 3339: a day, a time to the second at least, and an offset.
fn is_moment(text: &str) -> bool {
    let bytes = text.as_bytes();
    let offset = matches!(bytes, [.., b'Z' | b'z'] | [.., b'+' | b'-', _, _, b':', _, _]);
    let shaped = bytes.len() >= 20 && text.is_char_boundary(10) && is_date(&text[..10]);
    let time = shaped && matches!(bytes[10], b'T' | b't') && bytes[13] == b':' && bytes[16] == b':';
    time && offset && text.parse::<jiff::Timestamp>().is_ok()
}

/// Digits with a sign, a point and an exponent where they are needed, as JSON writes numbers.
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let signed = |text: &str| digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    let (number, exponent) =
        text.split_once(['e', 'E']).map_or((text, None), |(number, exponent)| (number, Some(exponent)));
    let number = number.strip_prefix('-').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
    digits(whole) && fraction.is_none_or(digits) && exponent.is_none_or(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_text_is_what_its_column_says() {
        let fits = |ty, text: &str| typed(ty, text.into()).is_ok();
        for (ty, good, bad) in [
            (
                ColumnType::Date,
                ["2024-02-29", "0001-01-01"],
                ["2023-02-29", "20240229", "2024-2-9", "2024-02-29T00:00:00", "x"],
            ),
            (
                ColumnType::Datetime,
                ["2026-01-31T12:00:00Z", "2026-01-31t12:00:00.5-05:30"],
                [
                    "2026-01-31",
                    "2026-01-31T12:00:00",
                    "2026-01-31 12:00:00Z",
                    "2026-01-31T25:00:00Z",
                    "2026-01-31T12:00Z",
                ],
            ),
            (
                ColumnType::Uuid,
                ["01890a5d-ac96-774b-bcce-b302099a8057", "01890A5D-AC96-774B-BCCE-B302099A8057"],
                [
                    "",
                    "01890a5dac96774bbcceb302099a8057",
                    "{01890a5d-ac96-774b-bcce-b302099a8057}",
                    "1",
                    "zz890a5d-ac96-774b-bcce-b302099a8057",
                ],
            ),
            (ColumnType::Decimal, ["-1.50", "2e-7"], ["", "1,5", ".5", "1.", "NaN"]),
        ] {
            good.iter().for_each(|text| assert!(fits(ty, text), "{ty:?} {text}"));
            bad.iter().for_each(|text| assert!(!fits(ty, text), "{ty:?} {text}"));
        }
    }
}
