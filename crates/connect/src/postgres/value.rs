//! Conversion between PostgreSQL's values and cells.
//!
//! Replication sends every value as text, so text is the form that every type is read from. In query results, types whose
//! binary form is simple are read from that; all others are cast to text. Both give the same cells.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type};

use super::array;
use crate::rows::field_error;
use diorama_core::record::{CborValue, JsonLimits, parse_json, value_to_json};
use diorama_core::vista::{ColumnType, Result};

/// Conversion of a column's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Boolean,
    /// `int2`, `int4`, `int8`
    Integer,
    /// `oid`, which has no binary form of a signed integer.
    Oid,
    /// `float4`, whose shortest text is shown: 0.1, not 0.10000000149.
    Real,
    Double,
    Decimal,
    /// Text and blank-padded text, as the server stores it.
    Text,
    Uuid,
    Bytes,
    /// `json` and `jsonb`
    Json {
        binary: bool,
    },
    Date,
    /// Date and time without a zone.
    Timestamp,
    /// A moment, in UTC.
    TimestampTz,
    /// An array of one element type, as JSON.
    Array(Box<Codec>),
    /// Any other type, as the server's text: intervals, ranges, addresses, enums, composites.
    Other,
}

impl Codec {
    /// Returns the codec of a type; a domain has that of its base type.
    pub(super) fn of(ty: &Type) -> Codec {
        match ty.kind() {
            Kind::Domain(base) => return Codec::of(base),
            Kind::Array(element) => return Codec::Array(Box::new(Codec::of(element))),
            _ => {}
        }
        match *ty {
            Type::BOOL => Codec::Boolean,
            Type::INT2 | Type::INT4 | Type::INT8 => Codec::Integer,
            Type::OID => Codec::Oid,
            Type::FLOAT4 => Codec::Real,
            Type::FLOAT8 => Codec::Double,
            Type::NUMERIC => Codec::Decimal,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => Codec::Text,
            Type::UUID => Codec::Uuid,
            Type::BYTEA => Codec::Bytes,
            Type::JSON => Codec::Json { binary: false },
            Type::JSONB => Codec::Json { binary: true },
            Type::DATE => Codec::Date,
            Type::TIMESTAMP => Codec::Timestamp,
            Type::TIMESTAMPTZ => Codec::TimestampTz,
            _ => Codec::Other,
        }
    }

    /// Returns the type of the cells.
    pub(super) fn column_type(&self) -> ColumnType {
        match self {
            Codec::Boolean => ColumnType::Boolean,
            Codec::Integer | Codec::Oid => ColumnType::Integer,
            Codec::Real | Codec::Double => ColumnType::Number,
            Codec::Decimal => ColumnType::Decimal,
            Codec::Text | Codec::Other => ColumnType::String,
            Codec::Uuid => ColumnType::Uuid,
            Codec::Bytes => ColumnType::Bytes,
            Codec::Json { .. } | Codec::Array(_) => ColumnType::Json,
            Codec::Date => ColumnType::Date,
            Codec::Timestamp | Codec::TimestampTz => ColumnType::Datetime,
        }
    }

    /// Returns true if results of this type are read in binary form; the others are cast to text in the query.
    pub(super) fn reads_binary(&self) -> bool {
        matches!(
            self,
            Codec::Boolean
                | Codec::Integer
                | Codec::Double
                | Codec::Text
                | Codec::Uuid
                | Codec::Bytes
                | Codec::Json { .. }
        )
    }

    /// Reads a value in a query result: binary, or the text that it was cast to. `None` if the bytes are not such a value.
    pub(super) fn read_result(&self, raw: &[u8]) -> Option<CborValue> {
        Some(match self {
            Codec::Boolean => (*raw.first()? != 0).into(),
            Codec::Integer => integer(raw)?.into(),
            Codec::Double => f64::from_be_bytes(raw.try_into().ok()?).into(),
            Codec::Uuid => uuid::Uuid::from_slice(raw).ok()?.to_string().into(),
            Codec::Bytes => CborValue::Bytes(raw.to_vec()),
            // The first byte of the binary form is its version.
            Codec::Json { binary: true } => self.read_text(std::str::from_utf8(raw.get(1..)?).ok()?)?,
            _ => self.read_text(std::str::from_utf8(raw).ok()?)?,
        })
    }

    /// Reads a value from its text. `None` if the text is not such a value.
    pub(super) fn read_text(&self, text: &str) -> Option<CborValue> {
        Some(match self {
            Codec::Boolean => (text == "t" || text == "true").into(),
            Codec::Integer | Codec::Oid => text.parse::<i64>().ok()?.into(),
            Codec::Real | Codec::Double => text.parse::<f64>().ok()?.into(),
            Codec::Bytes => CborValue::Bytes(hex_bytes(text)?),
            Codec::Json { .. } => {
                parse_json(text.as_bytes(), JsonLimits::default()).unwrap_or_else(|_| CborValue::from(text))
            }
            Codec::Timestamp | Codec::TimestampTz => {
                let mut moment = String::new();
                write_moment(&mut moment, self, text);
                moment.into()
            }
            Codec::Array(element) => array::parse(text, element).unwrap_or_else(|| text.into()),
            Codec::Decimal | Codec::Text | Codec::Uuid | Codec::Date | Codec::Other => text.into(),
        })
    }

    /// Converts a cell to the text that the server reads as a value of this type; `None` for null.
    ///
    /// # Errors
    /// [`Error::Invalid`](diorama_core::Error::Invalid) for a cell that is not of the type.
    pub(super) fn to_text(&self, column: &str, value: &CborValue) -> Result<Option<String>> {
        if value.is_null() {
            return Ok(None);
        }
        match self.text_of(value) {
            Some(text) => Ok(Some(text)),
            None => Err(field_error(column, &format!("must be {}", self.expected()))),
        }
    }

    /// Converts a cell other than null to text; `None` if it is not of the type.
    pub(super) fn text_of(&self, value: &CborValue) -> Option<String> {
        match (self, value) {
            (Codec::Json { .. }, value) => String::from_utf8(value_to_json(value)).ok(),
            (Codec::Array(element), CborValue::Array(items)) => array::write(items, element),
            (Codec::Boolean, CborValue::Bool(value)) => Some(value.to_string()),
            (Codec::Bytes, CborValue::Bytes(bytes)) => Some(hex_text(bytes)),
            (Codec::Bytes, CborValue::Text(text)) => {
                Some(hex_text(&URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?))
            }
            (Codec::Timestamp, CborValue::Text(text)) => Some(civil_text(text)),
            (Codec::Timestamp | Codec::TimestampTz, CborValue::Integer(number)) => {
                Some(Timestamp::from_second(i64::try_from(*number).ok()?).ok()?.to_string())
            }
            (Codec::Timestamp | Codec::TimestampTz, CborValue::Float(number)) => {
                Some(Timestamp::from_microsecond((number * 1e6).round() as i64).ok()?.to_string())
            }
            (Codec::Boolean | Codec::Bytes, _) => None,
            (_, CborValue::Text(text)) => Some(text.clone()),
            (
                Codec::Integer | Codec::Oid | Codec::Real | Codec::Double | Codec::Decimal,
                CborValue::Integer(number),
            ) => Some(i128::from(*number).to_string()),
            (Codec::Real | Codec::Double | Codec::Decimal, CborValue::Float(number)) => Some(float_text(*number)),
            (Codec::Integer | Codec::Oid, CborValue::Float(number)) if number.fract() == 0.0 => {
                Some((*number as i128).to_string())
            }
            _ => None,
        }
    }

    /// Returns the description of a valid cell, for a refusal.
    fn expected(&self) -> &'static str {
        match self {
            Codec::Boolean => "true or false",
            Codec::Integer | Codec::Oid => "a whole number",
            Codec::Real | Codec::Double => "a number",
            Codec::Decimal => "a decimal number, as text or number",
            Codec::Bytes => "bytes as base64url text",
            Codec::Array(_) => "an array",
            Codec::Json { .. } => "a value",
            Codec::Date => "a date as text, YYYY-MM-DD",
            Codec::Timestamp | Codec::TimestampTz => "a moment, like 2026-01-31T12:00:00Z",
            Codec::Text | Codec::Uuid | Codec::Other => "text",
        }
    }
}

/// Writes a number so that the server reads the same one.
fn float_text(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".into(),
        _ if number.is_infinite() && number > 0.0 => "Infinity".into(),
        _ if number.is_infinite() => "-Infinity".into(),
        _ => format!("{number:e}"),
    }
}

/// Reads a binary integer.
pub(super) fn integer(raw: &[u8]) -> Option<i64> {
    match raw.len() {
        2 => raw.try_into().ok().map(i16::from_be_bytes).map(i64::from),
        4 => raw.try_into().ok().map(i32::from_be_bytes).map(i64::from),
        _ => raw.try_into().ok().map(i64::from_be_bytes),
    }
}

/// Writes the server's `2026-01-31 12:00:00` as RFC 3339, with a Z at the end if it is in UTC. Infinity, years before 1 and after
/// 9999 do not fit that format and are kept as they are.
pub(super) fn write_moment(out: &mut String, codec: &Codec, text: &str) {
    let (text, zone) = match codec {
        Codec::TimestampTz => (text.strip_suffix("+00").unwrap_or(text), "Z"),
        _ => (text, ""),
    };
    match text.split_once(' ') {
        Some((date, time)) if date.len() == 10 && !time.contains(' ') => {
            for part in [date, "T", time, zone] {
                out.push_str(part);
            }
        }
        _ => out.push_str(text),
    }
}

/// Converts a moment with an offset to the same one in UTC without it; the server would ignore the offset.
fn civil_text(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(moment) => moment.to_zoned(TimeZone::UTC).datetime().to_string(),
        Err(_) => text.to_string(),
    }
}

fn hex_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?);
    digits.chunks(2).map(pair).collect()
}

fn hex_text(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A parameter in text form, which the server reads as the type that the statement requires.
#[derive(Clone, Debug)]
pub(super) struct Param(pub(super) Option<String>);

impl Param {
    pub(super) fn text(text: impl Into<String>) -> Param {
        Param(Some(text.into()))
    }
}

type BoxError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Param {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> std::result::Result<IsNull, BoxError> {
        match &self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

/// The bytes of a result cell; `None` for null.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a>(pub(super) Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Raw<'a>, BoxError> {
        Ok(Raw(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> std::result::Result<Raw<'a>, BoxError> {
        Ok(Raw(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rfc_3339_unless_they_do_not_fit_it() {
        let utc = |text: &str| Codec::TimestampTz.read_text(text).unwrap();
        assert_eq!(utc("2026-01-31 12:00:00.5+00"), "2026-01-31T12:00:00.5Z".into());
        assert_eq!(utc("infinity"), "infinity".into());
        assert_eq!(utc("0044-03-15 12:00:00+00 BC"), "0044-03-15 12:00:00+00 BC".into());
        assert_eq!(utc("12026-01-31 12:00:00+00"), "12026-01-31 12:00:00".into());
        let local = |text: &str| Codec::Timestamp.read_text(text).unwrap();
        assert_eq!(local("2026-01-31 12:00:00"), "2026-01-31T12:00:00".into());
    }

    #[test]
    fn a_moment_without_a_zone_is_written_in_utc() {
        let text = |value: CborValue| Codec::Timestamp.text_of(&value).unwrap();
        assert_eq!(text("2026-01-31T12:00:00+02:00".into()), "2026-01-31T10:00:00");
        assert_eq!(text("2026-01-31T12:00:00".into()), "2026-01-31T12:00:00");
        assert_eq!(text(0.into()), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn bytes_and_floats_survive() {
        let bytes = CborValue::Bytes(vec![0, 1, 0xfe, 0xff]);
        let text = Codec::Bytes.text_of(&bytes).unwrap();
        assert_eq!(text, "\\x0001feff");
        assert_eq!(Codec::Bytes.read_text(&text).unwrap(), bytes);
        for number in [0.1, -0.0, 1e300, f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, f64::NEG_INFINITY] {
            let text = Codec::Double.text_of(&number.into()).unwrap();
            assert_eq!(Codec::Double.read_text(&text).unwrap(), number.into(), "{text}");
        }
    }
}
