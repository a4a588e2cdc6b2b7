//! Conversion between SurrealDB's values and cells.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cbor::{
    DATETIME, DATETIME_TEXT, DECIMAL, DURATION, DURATION_TEXT, EXCLUDED, FILE, GEOMETRIES, INCLUDED, RANGE, RECORD_ID,
    SET, TABLE, UUID, UUID_TEXT, is_nothing, none, object, tagged,
};
use super::kind::Kind;
use super::record_id::parts;
use diorama_core::record::{CborValue, as_big, of_digits, value_to_json};

/// Converts a value to a cell.
pub(super) fn decode(kind: &Kind, value: CborValue) -> CborValue {
    match (kind, value) {
        // Exact decimals are text, also those of a whole number.
        (Kind::Decimal, CborValue::Integer(number)) => i128::from(number).to_string().into(),
        (Kind::Decimal, CborValue::Float(number)) => number.to_string().into(),
        (Kind::Decimal, CborValue::Tag(DECIMAL, digits)) => *digits,
        (Kind::Array(element), CborValue::Array(items)) => {
            CborValue::Array(items.into_iter().map(|item| decode(element, item)).collect())
        }
        (Kind::Array(element), CborValue::Tag(SET, items)) => {
            CborValue::Array(super::cbor::items(*items).into_iter().map(|item| decode(element, item)).collect())
        }
        (Kind::Object(members), CborValue::Map(values)) => decode_members(values, |name| kind_of(members, name)),
        (_, CborValue::Map(values)) => decode_members(values, |_| &Kind::Any),
        (_, CborValue::Array(items)) => {
            CborValue::Array(items.into_iter().map(|item| decode(&Kind::Any, item)).collect())
        }
        (_, CborValue::Tag(tag, value)) => decode_tagged(tag, *value),
        (_, value) => value,
    }
}

fn kind_of<'k>(members: &'k [(String, Kind)], name: &str) -> &'k Kind {
    members.iter().find(|(own, _)| own == name).map_or(&Kind::Any, |(_, kind)| kind)
}

fn decode_members<'k>(values: Vec<(CborValue, CborValue)>, kind: impl Fn(&str) -> &'k Kind) -> CborValue {
    let known = values.into_iter().filter(|(_, value)| !matches!(value, CborValue::Tag(super::cbor::NONE, _)));
    let member = |(name, value): (CborValue, CborValue)| {
        let value = decode(kind(name.as_text().unwrap_or_default()), value);
        (name, value)
    };
    CborValue::Map(known.map(member).collect())
}

fn decode_tagged(tag: u64, value: CborValue) -> CborValue {
    match (tag, value) {
        (super::cbor::NONE, _) => CborValue::Null,
        (DECIMAL, CborValue::Text(digits)) => number_of(digits),
        (DATETIME, value) => moment(&value).unwrap_or(CborValue::Null),
        (DURATION, CborValue::Array(units)) => duration(&units).into(),
        (UUID, CborValue::Bytes(bytes)) => match uuid::Uuid::from_slice(&bytes) {
            Ok(uuid) => uuid.to_string().into(),
            Err(_) => CborValue::Bytes(bytes),
        },
        (SET, value) => decode(&Kind::Any, value),
        (RECORD_ID, value) => surrealql(&tagged(RECORD_ID, value)).into(),
        (RANGE, value) => surrealql(&tagged(RANGE, value)).into(),
        (FILE, CborValue::Array(parts)) => {
            parts.iter().filter_map(CborValue::as_text).collect::<Vec<_>>().join(":").into()
        }
        (tag, value) if GEOMETRIES.contains(&tag) => geometry(tag, value),
        (DATETIME_TEXT | DURATION_TEXT | UUID_TEXT | TABLE, value) => value,
        // A type that this program does not know.
        (_, value) => decode(&Kind::Any, value),
    }
}

/// Returns a decimal as a number if that keeps every digit, else as text.
fn number_of(digits: String) -> CborValue {
    if let Some(integer) = of_digits(&digits) {
        return integer;
    }
    match digits.parse::<f64>() {
        Ok(float) if float.to_string() == digits => float.into(),
        _ => CborValue::Text(digits),
    }
}

/// Returns the RFC 3339 text of a moment.
fn moment(value: &CborValue) -> Option<CborValue> {
    let [seconds, nanos] = value.as_array()?.as_slice() else { return None };
    let seconds = i64::try_from(seconds.as_integer()?).ok()?;
    let nanos = i32::try_from(nanos.as_integer()?).ok()?;
    let moment = Timestamp::new(seconds, nanos).map(|moment| moment.to_string());
    // Dates that few people mean: as seconds since 1970.
    Some(moment.unwrap_or_else(|_| format!("{seconds}.{nanos:09}")).into())
}

/// Returns the text of a duration, like `1h30m`.
fn duration(units: &[CborValue]) -> String {
    let unit = |at: usize| units.get(at).and_then(|unit| u64::try_from(unit.as_integer()?).ok()).unwrap_or_default();
    let (mut seconds, mut nanos) = (unit(0), unit(1));
    let mut text = String::new();
    for (name, size) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= size {
            let _infallible = write!(text, "{}{name}", seconds / size);
            seconds %= size;
        }
    }
    for (name, size) in [("ms", 1_000_000), ("us", 1_000), ("ns", 1)] {
        if nanos >= size {
            let _infallible = write!(text, "{}{name}", nanos / size);
            nanos %= size;
        }
    }
    if text.is_empty() { "0ns".into() } else { text }
}

/// Returns a geometry as GeoJSON.
fn geometry(tag: u64, value: CborValue) -> CborValue {
    const TYPES: [&str; 6] = ["Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon"];
    let index = usize::try_from(tag - GEOMETRIES.start()).unwrap_or_default();
    match TYPES.get(index) {
        Some(name) => object([("type", (*name).into()), ("coordinates", coordinates(value))]),
        None => object([("type", "GeometryCollection".into()), ("geometries", decode(&Kind::Any, value))]),
    }
}

fn coordinates(value: CborValue) -> CborValue {
    match value {
        CborValue::Array(items) => CborValue::Array(items.into_iter().map(coordinates).collect()),
        CborValue::Tag(_, inner) => coordinates(*inner),
        number => number,
    }
}

/// Returns a record id, a part of one, or a range in the notation of SurrealQL.
pub(super) fn surrealql(value: &CborValue) -> String {
    if let Some((table, key)) = parts(value) {
        let key = match key {
            CborValue::Text(text) => identifier(text),
            key => surrealql(key),
        };
        return format!("{}:{key}", identifier(table));
    }
    match value {
        CborValue::Tag(RANGE, bounds) => match bounds.as_array().map(Vec::as_slice) {
            Some([start, end]) => {
                let start = match start {
                    CborValue::Tag(EXCLUDED, start) => format!("{}>", surrealql(start)),
                    CborValue::Tag(_, start) => surrealql(start),
                    _ => String::new(),
                };
                let end = match end {
                    CborValue::Tag(INCLUDED, end) => format!("={}", surrealql(end)),
                    CborValue::Tag(_, end) => surrealql(end),
                    _ => String::new(),
                };
                format!("{start}..{end}")
            }
            _ => "..".into(),
        },
        // Not a record id, though it says so.
        CborValue::Tag(RECORD_ID, other) => surrealql(other),
        CborValue::Tag(UUID | UUID_TEXT, _) => format!("u{}", json(&decode(&Kind::Any, value.clone()))),
        CborValue::Tag(DATETIME | DATETIME_TEXT, _) => format!("d{}", json(&decode(&Kind::Any, value.clone()))),
        CborValue::Tag(DECIMAL, digits) => format!("{}dec", digits.as_text().unwrap_or_default()),
        CborValue::Tag(DURATION, _) => decode(&Kind::Any, value.clone()).as_text().unwrap_or_default().to_string(),
        CborValue::Array(items) => format!("[{}]", items.iter().map(surrealql).collect::<Vec<_>>().join(", ")),
        CborValue::Map(members) => {
            let member = |(name, value): &(CborValue, CborValue)| format!("{}: {}", json(name), surrealql(value));
            format!("{{ {} }}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        value => json(&decode(&Kind::Any, value.clone())),
    }
}

fn json(value: &CborValue) -> String {
    String::from_utf8_lossy(&value_to_json(value)).into_owned()
}

/// Returns a name as SurrealQL reads it.
pub(super) fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if is_plain { name.to_string() } else { format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`")) }
}

/// Converts a cell to a value of the type; `None` if it is not of the type.
pub(super) fn encode(kind: &Kind, cell: &CborValue) -> Option<CborValue> {
    if is_nothing(cell) {
        return Some(CborValue::Null);
    }
    Some(match (kind, cell) {
        (Kind::Datetime, CborValue::Text(text)) => moment_of(text)?,
        (Kind::Datetime, CborValue::Integer(seconds)) => {
            tagged(DATETIME, CborValue::Array(vec![i64::try_from(*seconds).ok()?.into(), 0.into()]))
        }
        (Kind::Decimal, CborValue::Text(digits)) => tagged(DECIMAL, number_text(digits)?.into()),
        (Kind::Decimal, CborValue::Integer(number)) => tagged(DECIMAL, i128::from(*number).to_string().into()),
        (Kind::Decimal, CborValue::Float(number)) => tagged(DECIMAL, number.to_string().into()),
        (Kind::Duration, CborValue::Text(text)) => tagged(DURATION_TEXT, text.as_str().into()),
        (Kind::Record, CborValue::Text(text)) => tagged(RECORD_ID, text.as_str().into()),
        (Kind::Uuid, CborValue::Text(text)) => {
            tagged(UUID, uuid::Uuid::parse_str(text).ok()?.as_bytes().to_vec().into())
        }
        (Kind::Bytes, CborValue::Text(text)) => {
            CborValue::Bytes(URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?)
        }
        (Kind::Bytes, CborValue::Bytes(_)) | (Kind::Bool, CborValue::Bool(_)) | (Kind::Text, CborValue::Text(_)) => {
            cell.clone()
        }
        (Kind::Int | Kind::Float | Kind::Number | Kind::Any, CborValue::Integer(number)) => i64::try_from(*number)
            .map_or_else(|_| tagged(DECIMAL, i128::from(*number).to_string().into()), CborValue::from),
        (Kind::Int, CborValue::Float(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            (*number as i64).into()
        }
        (Kind::Float | Kind::Number | Kind::Any, CborValue::Float(_)) => cell.clone(),
        (Kind::Decimal | Kind::Number | Kind::Any, CborValue::Tag(..)) if as_big(cell).is_some() => {
            tagged(DECIMAL, json(cell).into())
        }
        (Kind::Array(element), CborValue::Array(items)) => {
            CborValue::Array(items.iter().map(|item| encode(element, item)).collect::<Option<_>>()?)
        }
        (Kind::Any, CborValue::Array(items)) => {
            CborValue::Array(items.iter().map(|item| encode(&Kind::Any, item)).collect::<Option<_>>()?)
        }
        (Kind::Object(members), CborValue::Map(values)) => encode_members(values, |name| kind_of(members, name))?,
        (Kind::Any, CborValue::Map(values)) => encode_members(values, |_| &Kind::Any)?,
        (Kind::Any, cell) => cell.clone(),
        _ => return None,
    })
}

fn encode_members<'k>(values: &[(CborValue, CborValue)], kind: impl Fn(&str) -> &'k Kind) -> Option<CborValue> {
    let member = |(name, value): &(CborValue, CborValue)| Some((name.clone(), encode(kind(name.as_text()?), value)?));
    values.iter().map(member).collect::<Option<_>>().map(CborValue::Map)
}

/// Returns the moment that a text says; without an offset it is in UTC.
fn moment_of(text: &str) -> Option<CborValue> {
    let moment = match text.parse::<Timestamp>() {
        Ok(moment) => moment,
        Err(_) => text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp(),
    };
    // The fraction of moments before 1970 counts backwards.
    let (mut seconds, mut nanos) = (moment.as_second(), moment.subsec_nanosecond());
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    Some(tagged(DATETIME, CborValue::Array(vec![seconds.into(), nanos.into()])))
}

fn number_text(digits: &str) -> Option<&str> {
    let is_number = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E'));
    (is_number && digits.bytes().any(|byte| byte.is_ascii_digit())).then_some(digits)
}

/// Replaces nulls in the objects of a patch by `NONE`, which removes the member.
pub(super) fn remove_nulls(value: CborValue) -> CborValue {
    let CborValue::Map(members) = value else { return value };
    let member = |(name, value): (CborValue, CborValue)| match value {
        CborValue::Null => (name, none()),
        value => (name, remove_nulls(value)),
    };
    CborValue::Map(members.into_iter().map(member).collect())
}
