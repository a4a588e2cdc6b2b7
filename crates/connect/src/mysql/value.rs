//! Conversion between MariaDB's and MySQL's values, cells, and literals.
//!
//! Prepared statements give values in binary form, all others as text; both give the same cells. Values in statements are
//! literals of digits only: numbers as they are, all others in hexadecimal, so that no value is ever read as SQL.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mysql_async::consts::{ColumnFlags, ColumnType as WireType};
use mysql_async::{Column, Value};

use crate::rows::field_error;
use diorama_core::record::{CborValue, JsonLimits, parse_json, value_to_json};
use diorama_core::vista::{ColumnType, Result};

/// Number of the character set of bytes.
const BINARY: u16 = 63;

/// Maximum number of digits of a decimal number.
const MAX_DIGITS: usize = 65;

/// Conversion of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// `TINYINT(1)`: 0 and 1 are false and true; other numbers stay numbers.
    Boolean,
    /// `BIT(1)`
    Bit,
    /// `BIT` of several bits, as a number.
    Bits,
    /// Signed and unsigned integers.
    Integer,
    /// `YEAR`, which compares two-digit numbers as years.
    Year,
    /// `FLOAT`, whose shortest text is shown: 0.1, not 0.10000000149.
    Real,
    Double,
    Decimal,
    /// Text, as the server stores it.
    Text,
    Uuid,
    Bytes,
    Json,
    Date,
    /// Date and time without a zone.
    DateTime,
    /// A moment, in UTC.
    Timestamp,
    /// `TIME`, which is also a duration of up to 838 hours.
    Time,
    /// Any other type, as the server's text: enums, sets, addresses.
    Other,
}

impl Codec {
    /// Returns the codec of a result column.
    pub(super) fn of(column: &Column) -> Codec {
        let (flags, length) = (column.flags(), column.column_length());
        match column.column_type() {
            WireType::MYSQL_TYPE_TINY if length == 1 && !flags.contains(ColumnFlags::UNSIGNED_FLAG) => Codec::Boolean,
            WireType::MYSQL_TYPE_TINY
            | WireType::MYSQL_TYPE_SHORT
            | WireType::MYSQL_TYPE_INT24
            | WireType::MYSQL_TYPE_LONG
            | WireType::MYSQL_TYPE_LONGLONG => Codec::Integer,
            WireType::MYSQL_TYPE_BIT if length == 1 => Codec::Bit,
            WireType::MYSQL_TYPE_BIT => Codec::Bits,
            WireType::MYSQL_TYPE_YEAR => Codec::Year,
            WireType::MYSQL_TYPE_FLOAT => Codec::Real,
            WireType::MYSQL_TYPE_DOUBLE => Codec::Double,
            WireType::MYSQL_TYPE_DECIMAL | WireType::MYSQL_TYPE_NEWDECIMAL => Codec::Decimal,
            WireType::MYSQL_TYPE_DATE | WireType::MYSQL_TYPE_NEWDATE => Codec::Date,
            WireType::MYSQL_TYPE_DATETIME | WireType::MYSQL_TYPE_DATETIME2 => Codec::DateTime,
            WireType::MYSQL_TYPE_TIMESTAMP | WireType::MYSQL_TYPE_TIMESTAMP2 => Codec::Timestamp,
            WireType::MYSQL_TYPE_TIME | WireType::MYSQL_TYPE_TIME2 => Codec::Time,
            WireType::MYSQL_TYPE_JSON => Codec::Json,
            WireType::MYSQL_TYPE_GEOMETRY | WireType::MYSQL_TYPE_VECTOR => Codec::Bytes,
            _ if flags.intersects(ColumnFlags::ENUM_FLAG | ColumnFlags::SET_FLAG) => Codec::Other,
            _ if column.character_set() == BINARY => Codec::Bytes,
            _ => Codec::Text,
        }
    }

    /// Returns the codec of a column whose type the catalog knows better than the result: `json`, `uuid`, `inet6`.
    pub(super) fn refined(self, data_type: &str, is_json: bool) -> Codec {
        match data_type {
            "json" => Codec::Json,
            "uuid" => Codec::Uuid,
            "inet4" | "inet6" | "enum" | "set" => Codec::Other,
            _ if is_json && self == Codec::Text => Codec::Json,
            _ => self,
        }
    }

    /// Returns the codec of a column that is declared as `ty`; the same one if that makes no difference.
    pub(super) fn declared(self, ty: ColumnType) -> Codec {
        match (self, ty) {
            (Codec::Boolean, ColumnType::Integer) => Codec::Integer,
            (Codec::Bit, ColumnType::Integer) => Codec::Bits,
            (Codec::Integer, ColumnType::Boolean) => Codec::Boolean,
            (Codec::Integer, ColumnType::Decimal) => Codec::Decimal,
            (Codec::Text, ColumnType::Json) => Codec::Json,
            (Codec::Json, ColumnType::String) => Codec::Text,
            (Codec::Text, ColumnType::Uuid) => Codec::Uuid,
            _ => self,
        }
    }

    /// Returns the type of the cells.
    pub(super) fn column_type(self) -> ColumnType {
        match self {
            Codec::Boolean | Codec::Bit => ColumnType::Boolean,
            Codec::Integer | Codec::Bits | Codec::Year => ColumnType::Integer,
            Codec::Real | Codec::Double => ColumnType::Number,
            Codec::Decimal => ColumnType::Decimal,
            Codec::Text | Codec::Time | Codec::Other => ColumnType::String,
            Codec::Uuid => ColumnType::Uuid,
            Codec::Bytes => ColumnType::Bytes,
            Codec::Json => ColumnType::Json,
            Codec::Date => ColumnType::Date,
            Codec::DateTime | Codec::Timestamp => ColumnType::Datetime,
        }
    }

    /// Returns the result column for a column with this quoted name.
    pub(super) fn select(self, quoted: &str) -> String {
        // As text, a FLOAT has six digits only.
        if self == Codec::Real { format!("({quoted} * 1e0)") } else { quoted.to_string() }
    }

    /// Reads a value of a result. `None` if it is not a value of the type.
    pub(super) fn read(self, value: &Value) -> Option<CborValue> {
        Some(match (self, value) {
            (_, Value::NULL) => CborValue::Null,
            (Codec::Bytes, Value::Bytes(bytes)) => CborValue::Bytes(bytes.clone()),
            (Codec::Bit | Codec::Bits, Value::Bytes(bytes)) => self.number(bits(bytes)?.into()),
            (_, Value::Bytes(bytes)) => self.read_text(std::str::from_utf8(bytes).ok()?)?,
            (Codec::Decimal, Value::Int(number)) => number.to_string().into(),
            (Codec::Decimal, Value::UInt(number)) => number.to_string().into(),
            (_, Value::Int(number)) => self.number((*number).into()),
            (_, Value::UInt(number)) => self.number((*number).into()),
            (_, Value::Float(number)) => shortest(*number)?.into(),
            (Codec::Real, Value::Double(number)) => shortest(*number as f32)?.into(),
            (_, Value::Double(number)) => (*number).into(),
            (Codec::Date, Value::Date(year, month, day, ..)) => format!("{year:04}-{month:02}-{day:02}").into(),
            (_, Value::Date(year, month, day, hour, minute, second, micros)) => {
                let text = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}");
                self.read_text(&text)?
            }
            (_, Value::Time(negative, days, hours, minutes, seconds, micros)) => {
                let (sign, hours) = (if *negative { "-" } else { "" }, days * 24 + u32::from(*hours));
                self.read_text(&format!("{sign}{hours:02}:{minutes:02}:{seconds:02}.{micros:06}"))?
            }
        })
    }

    /// Reads a value from the server's text.
    fn read_text(self, text: &str) -> Option<CborValue> {
        Some(match self {
            Codec::Boolean | Codec::Bit | Codec::Bits | Codec::Integer | Codec::Year => {
                self.number(text.parse::<i128>().ok()?)
            }
            Codec::Real => shortest(text.parse::<f64>().ok()? as f32)?.into(),
            Codec::Double => text.parse::<f64>().ok()?.into(),
            Codec::Json => parse_json(text.as_bytes(), JsonLimits::default()).unwrap_or_else(|_| CborValue::from(text)),
            Codec::DateTime => moment(text, "").into(),
            Codec::Timestamp => moment(text, "Z").into(),
            Codec::Time => without_zeros(text).into(),
            Codec::Bytes => CborValue::Bytes(text.as_bytes().to_vec()),
            Codec::Decimal | Codec::Text | Codec::Uuid | Codec::Date | Codec::Other => text.into(),
        })
    }

    fn number(self, number: i128) -> CborValue {
        match (self, i64::try_from(number), u64::try_from(number)) {
            (Codec::Boolean | Codec::Bit, Ok(number @ (0 | 1)), _) => (number == 1).into(),
            (_, Ok(number), _) => number.into(),
            (_, _, Ok(number)) => number.into(),
            _ => number.to_string().into(),
        }
    }

    /// Converts a cell to the literal of a value of this type.
    ///
    /// # Errors
    /// [`Error::Invalid`](diorama_core::Error::Invalid) for a cell that is not of the type.
    pub(super) fn to_literal(self, column: &str, value: &CborValue) -> Result<String> {
        if value.is_null() {
            return Ok("NULL".into());
        }
        self.literal(value).ok_or_else(|| field_error(column, &format!("must be {}", self.expected())))
    }

    /// Converts a cell other than null to a literal; `None` if it is not of the type.
    pub(super) fn literal(self, value: &CborValue) -> Option<String> {
        match (self, value) {
            (Codec::Json, value) => Some(text_literal(&String::from_utf8(value_to_json(value)).ok()?)),
            (Codec::Boolean | Codec::Bit, CborValue::Bool(value)) => Some(u8::from(*value).to_string()),
            (
                Codec::Boolean | Codec::Bit | Codec::Bits | Codec::Integer | Codec::Year | Codec::Decimal,
                CborValue::Integer(number),
            ) => Some(i128::from(*number).to_string()),
            (Codec::Integer | Codec::Bits | Codec::Year, CborValue::Float(number)) if number.fract() == 0.0 => {
                Some((*number as i128).to_string())
            }
            (Codec::Integer | Codec::Bits | Codec::Year, CborValue::Text(text)) => {
                text.parse::<i128>().ok().map(|number| number.to_string())
            }
            (Codec::Real | Codec::Double, CborValue::Integer(number)) => Some(i128::from(*number).to_string()),
            (Codec::Real | Codec::Double | Codec::Decimal, CborValue::Float(number)) => float_literal(*number),
            (Codec::Real | Codec::Double, CborValue::Text(text)) => float_literal(text.parse().ok()?),
            (Codec::Decimal, CborValue::Text(text)) => Some(decimal_literal(text)),
            (Codec::Bytes, CborValue::Bytes(bytes)) => Some(bytes_literal(bytes)),
            (Codec::Bytes, CborValue::Text(text)) => {
                Some(bytes_literal(&URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?))
            }
            (Codec::DateTime | Codec::Timestamp, CborValue::Text(text)) => Some(text_literal(&civil_text(text))),
            (Codec::DateTime | Codec::Timestamp, CborValue::Integer(number)) => {
                Some(text_literal(&civil(Timestamp::from_second(i64::try_from(*number).ok()?).ok()?)))
            }
            (Codec::DateTime | Codec::Timestamp, CborValue::Float(number)) => {
                Some(text_literal(&civil(Timestamp::from_microsecond((number * 1e6).round() as i64).ok()?)))
            }
            (Codec::Text | Codec::Uuid | Codec::Date | Codec::Time | Codec::Other, CborValue::Text(text)) => {
                Some(text_literal(text))
            }
            _ => None,
        }
    }

    /// Returns the literal of a part of a row's id; `None` if no row can have it.
    pub(super) fn key_literal(self, part: &str) -> Option<String> {
        match self {
            Codec::Boolean | Codec::Bit | Codec::Bits | Codec::Integer | Codec::Year => {
                part.parse::<i128>().ok().map(|number| number.to_string()).filter(|number| number == part)
            }
            Codec::Decimal => Some(decimal_literal(part)).filter(|literal| literal == part),
            _ => self.literal(&part.into()),
        }
    }

    /// Returns true if two literals of this type mean the same value.
    pub(super) fn is_same(self, a: &str, b: &str) -> bool {
        fn plain(literal: &str) -> &str {
            if literal.contains('.') { literal.trim_end_matches('0').trim_end_matches('.') } else { literal }
        }
        a == b || self == Codec::Decimal && plain(a) == plain(b)
    }

    /// Returns the description of a valid cell, for a refusal.
    fn expected(self) -> &'static str {
        match self {
            Codec::Boolean | Codec::Bit => "true or false",
            Codec::Integer | Codec::Bits | Codec::Year => "a whole number",
            Codec::Real | Codec::Double => "a finite number",
            Codec::Decimal => "a decimal number, as text or number",
            Codec::Bytes => "bytes as base64url text",
            Codec::Json => "a value",
            Codec::Date => "a date as text, YYYY-MM-DD",
            Codec::DateTime | Codec::Timestamp => "a moment, like 2026-01-31T12:00:00Z",
            Codec::Time => "a time as text, HH:MM:SS",
            Codec::Text | Codec::Uuid | Codec::Other => "text",
        }
    }
}

/// Returns the number whose bits are `bytes`.
fn bits(bytes: &[u8]) -> Option<u64> {
    let mut number = [0; 8];
    number.get_mut(8usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(u64::from_be_bytes(number))
}

/// Returns the number with the fewest digits that is read as `number`.
fn shortest(number: f32) -> Option<f64> {
    number.to_string().parse().ok()
}

/// Returns the literal of a number; the server has neither NaN nor infinity, and no literal of a negative zero.
fn float_literal(number: f64) -> Option<String> {
    let positive_zero = 0.0;
    number.is_finite().then(|| format!("{:e}", number + positive_zero))
}

/// Returns the literal of a decimal number. Text that is not one is left to the server, which refuses it.
fn decimal_literal(text: &str) -> String {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match is_digits(whole) && is_digits(fraction) && digits.len() <= MAX_DIGITS {
        true => text.to_string(),
        false => text_literal(text),
    }
}

/// Returns the literal of a text.
pub(super) fn text_literal(text: &str) -> String {
    hex_literal("_utf8mb4 ", text.as_bytes())
}

fn bytes_literal(bytes: &[u8]) -> String {
    hex_literal("_binary ", bytes)
}

fn hex_literal(introducer: &str, bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut literal = String::with_capacity(introducer.len() + 3 + 2 * bytes.len());
    literal.push_str(introducer);
    literal.push_str("x'");
    for byte in bytes {
        literal.push(char::from(DIGITS[usize::from(byte >> 4)]));
        literal.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    literal.push('\'');
    literal
}

/// Removes zeros at the end of the fraction of a second.
fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Converts the server's `2026-01-31 12:00:00` to RFC 3339 with `zone` at the end. Dates with zeros, like `0000-00-00`, do not fit
/// that format and are kept as they are.
fn moment(text: &str, zone: &str) -> String {
    let text = without_zeros(text);
    match text.split_once(' ') {
        Some((date, time)) if date.parse::<jiff::civil::Date>().is_ok() && !date.starts_with("0000") => {
            format!("{date}T{time}{zone}")
        }
        _ => text.to_string(),
    }
}

/// Converts a moment to the server's form in UTC; text that is not one is left to the server.
fn civil_text(text: &str) -> String {
    match (text.parse::<Timestamp>(), text.parse::<DateTime>()) {
        (Ok(moment), _) => civil(moment),
        (Err(_), Ok(moment)) => moment.to_string().replace('T', " "),
        (Err(_), Err(_)) => text.to_string(),
    }
}

fn civil(moment: Timestamp) -> String {
    moment.to_zoned(TimeZone::UTC).datetime().to_string().replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_rfc_3339_unless_they_do_not_fit_it() {
        let utc = |text: &str| Codec::Timestamp.read_text(text).unwrap();
        assert_eq!(utc("2026-01-31 12:00:00.500000"), "2026-01-31T12:00:00.5Z".into());
        assert_eq!(utc("0000-00-00 00:00:00"), "0000-00-00 00:00:00".into());
        let local = |text: &str| Codec::DateTime.read_text(text).unwrap();
        assert_eq!(local("2026-01-31 12:00:00.000000"), "2026-01-31T12:00:00".into());
        assert_eq!(local("2026-00-31 12:00:00"), "2026-00-31 12:00:00".into());
    }

    #[test]
    fn literals_consist_of_digits() {
        let literal = |codec: Codec, value: CborValue| codec.literal(&value);
        assert_eq!(literal(Codec::Text, "é'".into()).unwrap(), "_utf8mb4 x'c3a927'");
        assert_eq!(literal(Codec::Decimal, "-1.50".into()).unwrap(), "-1.50");
        assert_eq!(literal(Codec::Decimal, "1; DROP".into()).unwrap(), text_literal("1; DROP"));
        assert_eq!(literal(Codec::Integer, "1 OR 1".into()), None);
        assert_eq!(literal(Codec::Double, f64::NAN.into()), None);
        assert_eq!(
            literal(Codec::DateTime, "2026-01-31T12:00:00+02:00".into()).unwrap(),
            text_literal("2026-01-31 10:00:00")
        );
        assert_eq!(
            literal(Codec::DateTime, "2026-01-31T12:00:00.5".into()).unwrap(),
            text_literal("2026-01-31 12:00:00.5")
        );
        assert!(Codec::Decimal.is_same("1.50", "1.5") && !Codec::Decimal.is_same("10", "1"));
    }

    #[test]
    fn bits_and_times_are_read_from_both_forms() {
        assert_eq!(Codec::Bits.read(&Value::Bytes(vec![1, 0])), Some(256.into()));
        assert_eq!(Codec::Bit.read(&Value::Bytes(vec![1])), Some(true.into()));
        let text = CborValue::from("-838:59:59.5");
        assert_eq!(Codec::Time.read(&Value::Time(true, 34, 22, 59, 59, 500_000)).as_ref(), Some(&text));
        assert_eq!(Codec::Time.read(&Value::Bytes(b"-838:59:59.500000".to_vec())), Some(text));
        assert_eq!(Codec::Real.read(&Value::Double(0.1f32.into())), Some(0.1.into()));
    }
}
