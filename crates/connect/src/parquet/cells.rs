//! Types of Parquet columns, and their values.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::data_type::Int96;
use parquet::schema::types::Type;

use diorama_core::record::{CborValue, JsonLimits, NOT_UTF8, parse_json};
use diorama_core::vista::ColumnType;

/// Day of the Unix epoch in Julian days, by which INT96 counts.
const EPOCH_DAY: i64 = 2_440_588;
/// Nanoseconds of a day.
const DAY: i128 = 86_400_000_000_000;

/// Meaning of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Boolean,
    Signed,
    Unsigned,
    Decimal {
        scale: i32,
    },
    Date,
    Time(TimeUnit),
    Timestamp {
        unit: TimeUnit,
        utc: bool,
    },
    /// A timestamp of old writers, in nanoseconds.
    Int96,
    Half,
    Real,
    Double,
    Text,
    Json,
    Bytes,
    Uuid,
    Interval,
    Nothing,
}

impl Codec {
    /// Returns the codec of a column.
    pub(super) fn of(ty: &Type) -> Codec {
        let info = ty.get_basic_info();
        let physical = ty.get_physical_type();
        let is_bytes = matches!(physical, Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY);
        match info.logical_type_ref() {
            Some(LogicalType::Decimal(decimal)) => return Codec::Decimal { scale: decimal.scale },
            Some(LogicalType::Date) => return Codec::Date,
            Some(LogicalType::Time(time)) => return Codec::Time(time.unit),
            Some(LogicalType::Timestamp(time)) => {
                return Codec::Timestamp { unit: time.unit, utc: time.is_adjusted_to_u_t_c };
            }
            Some(LogicalType::Integer(integer)) if !integer.is_signed => return Codec::Unsigned,
            Some(LogicalType::Uuid) => return Codec::Uuid,
            Some(LogicalType::Float16) => return Codec::Half,
            Some(LogicalType::Unknown) => return Codec::Nothing,
            _ => {}
        }
        match info.converted_type() {
            ConvertedType::UTF8 | ConvertedType::ENUM if is_bytes => Codec::Text,
            ConvertedType::JSON if is_bytes => Codec::Json,
            ConvertedType::DECIMAL => Codec::Decimal { scale: ty.get_scale() },
            ConvertedType::DATE => Codec::Date,
            ConvertedType::TIME_MILLIS => Codec::Time(TimeUnit::MILLIS),
            ConvertedType::TIME_MICROS => Codec::Time(TimeUnit::MICROS),
            ConvertedType::TIMESTAMP_MILLIS => Codec::Timestamp { unit: TimeUnit::MILLIS, utc: true },
            ConvertedType::TIMESTAMP_MICROS => Codec::Timestamp { unit: TimeUnit::MICROS, utc: true },
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
                Codec::Unsigned
            }
            ConvertedType::INTERVAL => Codec::Interval,
            _ => match physical {
                Physical::BOOLEAN => Codec::Boolean,
                Physical::INT32 | Physical::INT64 => Codec::Signed,
                Physical::INT96 => Codec::Int96,
                Physical::FLOAT => Codec::Real,
                Physical::DOUBLE => Codec::Double,
                Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => Codec::Bytes,
            },
        }
    }

    /// Returns the codec for values that are declared as `ty`. Old writers store texts as plain bytes.
    pub(super) fn declared(self, ty: ColumnType) -> Codec {
        match (self, ty) {
            (Codec::Bytes, ColumnType::String) => Codec::Text,
            (Codec::Bytes | Codec::Text, ColumnType::Json) => Codec::Json,
            _ => self,
        }
    }

    /// Returns the type of the column.
    pub(super) fn column_type(self) -> ColumnType {
        match self {
            Codec::Boolean => ColumnType::Boolean,
            Codec::Signed | Codec::Unsigned => ColumnType::Integer,
            Codec::Decimal { .. } => ColumnType::Decimal,
            Codec::Date => ColumnType::Date,
            Codec::Timestamp { .. } | Codec::Int96 => ColumnType::Datetime,
            Codec::Half | Codec::Real | Codec::Double => ColumnType::Number,
            Codec::Time(_) | Codec::Text | Codec::Interval => ColumnType::String,
            Codec::Json | Codec::Nothing => ColumnType::Json,
            Codec::Bytes => ColumnType::Bytes,
            Codec::Uuid => ColumnType::Uuid,
        }
    }

    pub(super) fn boolean(self, value: bool) -> CborValue {
        value.into()
    }

    pub(super) fn int32(self, value: i32) -> CborValue {
        match self {
            Codec::Unsigned => value.cast_unsigned().into(),
            _ => self.int64(value.into()),
        }
    }

    pub(super) fn int64(self, value: i64) -> CborValue {
        match self {
            Codec::Unsigned => value.cast_unsigned().into(),
            Codec::Decimal { scale } => decimal(value < 0, &value.unsigned_abs().to_string(), scale).into(),
            Codec::Date => date(value),
            Codec::Time(unit) => time(nanoseconds(value, unit)),
            Codec::Timestamp { unit, utc } => timestamp(nanoseconds(value, unit), utc),
            Codec::Nothing => CborValue::Null,
            _ => value.into(),
        }
    }

    pub(super) fn int96(self, value: &Int96) -> CborValue {
        match value.data() {
            [low, high, day] => {
                let nanoseconds = (u64::from(*high) << 32 | u64::from(*low)).cast_signed();
                let days = i64::from(day.cast_signed()) - EPOCH_DAY;
                timestamp(i128::from(days) * DAY + i128::from(nanoseconds), true)
            }
            _ => CborValue::Null,
        }
    }

    pub(super) fn float(self, value: f32) -> CborValue {
        // The shortest text is shown: 0.1, not 0.10000000149.
        let shown = value.to_string().parse::<f64>().unwrap_or_else(|_| value.into());
        shown.into()
    }

    pub(super) fn double(self, value: f64) -> CborValue {
        value.into()
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> CborValue {
        match self {
            Codec::Text => text(bytes),
            Codec::Json => parse_json(bytes, JsonLimits::default()).unwrap_or_else(|_| text(bytes)),
            Codec::Decimal { scale } => {
                let (is_negative, digits) = integer(bytes);
                decimal(is_negative, &digits, scale).into()
            }
            Codec::Uuid => match uuid::Uuid::from_slice(bytes) {
                Ok(uuid) => uuid.to_string().into(),
                Err(_) => CborValue::Bytes(bytes.to_vec()),
            },
            Codec::Half => match bytes {
                [low, high] => half(u16::from_le_bytes([*low, *high])).into(),
                _ => CborValue::Bytes(bytes.to_vec()),
            },
            Codec::Interval => interval(bytes).unwrap_or_else(|| CborValue::Bytes(bytes.to_vec())),
            Codec::Nothing => CborValue::Null,
            _ => CborValue::Bytes(bytes.to_vec()),
        }
    }
}

fn text(bytes: &[u8]) -> CborValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => CborValue::Tag(NOT_UTF8, Box::new(CborValue::Bytes(bytes.to_vec()))),
    }
}

fn nanoseconds(value: i64, unit: TimeUnit) -> i128 {
    let factor = match unit {
        TimeUnit::MILLIS => 1_000_000,
        TimeUnit::MICROS => 1_000,
        TimeUnit::NANOS => 1,
    };
    i128::from(value) * factor
}

/// Returns a timestamp as RFC 3339, without an offset if it has none. Times outside of the years to 9999 are kept as nanoseconds.
fn timestamp(nanoseconds: i128, utc: bool) -> CborValue {
    match Timestamp::from_nanosecond(nanoseconds) {
        Ok(timestamp) if utc => timestamp.to_string().into(),
        Ok(timestamp) => timestamp.to_zoned(TimeZone::UTC).datetime().to_string().into(),
        Err(_) => nanoseconds.to_string().into(),
    }
}

/// Returns a date. One outside of the years to 9999 is kept as the number of days.
fn date(days: i64) -> CborValue {
    let date = jiff::Span::new().try_days(days).and_then(|days| civil::date(1970, 1, 1).checked_add(days));
    date.map_or_else(|_| days.to_string(), |date| date.to_string()).into()
}

fn time(nanoseconds: i128) -> CborValue {
    let span = i64::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds >= 0).map(SignedDuration::from_nanos);
    let time = span.and_then(|span| civil::Time::midnight().checked_add(span).ok());
    time.map_or_else(|| nanoseconds.to_string(), |time| time.to_string()).into()
}

/// Returns an interval of months, days and milliseconds as an ISO 8601 duration.
fn interval(bytes: &[u8]) -> Option<CborValue> {
    let part = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (months, days, milliseconds) = (part(0)?, part(4)?, part(8)?);
    let (seconds, rest) = (milliseconds / 1_000, milliseconds % 1_000);
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:03}") };
    Some(format!("P{months}M{days}DT{seconds}{fraction}S").into())
}

/// Returns the sign and the digits of an integer in two's complement, most significant byte first.
fn integer(bytes: &[u8]) -> (bool, String) {
    let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let mut magnitude = bytes.to_vec();
    if is_negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u32;
        for byte in &mut magnitude {
            let current = rest << 8 | u32::from(*byte);
            *byte = u8::try_from(current / 10).unwrap_or_default();
            rest = current % 10;
        }
        digits.push(char::from_digit(rest, 10).unwrap_or('0'));
    }
    if digits.is_empty() {
        digits.push('0');
    }
    (is_negative, digits.into_iter().rev().collect())
}

/// Places the decimal point.
fn decimal(is_negative: bool, digits: &str, scale: i32) -> String {
    let sign = if is_negative { "-" } else { "" };
    let scale = usize::try_from(scale).unwrap_or_default();
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Converts a number of IEEE 754 binary16.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f64.powi(exponent - 15),
    };
    if bits & 0x8000 != 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_any_width_keep_all_digits() {
        let text = |bytes: &[u8], scale| Codec::Decimal { scale }.bytes(bytes);
        assert_eq!(text(&[0xff], 2), "-0.01".into());
        assert_eq!(text(&[], 0), "0".into());
        assert_eq!(text(&[0x80], 0), "-128".into());
        assert_eq!(text(&[0x00, 0xff], 1), "25.5".into());
        let widest = i128::MAX.to_string();
        assert_eq!(text(&i128::MAX.to_be_bytes(), 0), widest.as_str().into());
        assert_eq!(text(&i128::MIN.to_be_bytes(), 0), i128::MIN.to_string().into());
        let wide = [&[0x01][..], &[0; 31]].concat();
        let expected = "452312848583266388373324160190187140051835877600158453279131187530910662656";
        assert_eq!(text(&wide, 0), expected.into());
        assert_eq!(Codec::Decimal { scale: 3 }.int64(i64::MIN), "-9223372036854775.808".into());
    }

    #[test]
    fn times_and_halves_are_converted() {
        let stamp = |unit, utc, value| Codec::Timestamp { unit, utc }.int64(value);
        assert_eq!(stamp(TimeUnit::NANOS, true, 1), "1970-01-01T00:00:00.000000001Z".into());
        assert_eq!(stamp(TimeUnit::MILLIS, false, -1), "1969-12-31T23:59:59.999".into());
        assert_eq!(stamp(TimeUnit::MILLIS, true, i64::MAX), "9223372036854775807000000".into());
        assert_eq!(Codec::Date.int32(-1), "1969-12-31".into());
        assert_eq!(Codec::Time(TimeUnit::MICROS).int64(1), "00:00:00.000001".into());
        let mut old = Int96::new();
        old.set_data(1, 0, 2_440_589);
        assert_eq!(Codec::Int96.int96(&old), "1970-01-02T00:00:00.000000001Z".into());
        let halves = [(0x3c00_u16, 1.0), (0xc000, -2.0), (0x0001, 2_f64.powi(-24)), (0x7c00, f64::INFINITY)];
        for (bits, expected) in halves {
            assert_eq!(Codec::Half.bytes(&bits.to_le_bytes()), expected.into());
        }
        let interval = [[1, 0, 0, 0], [2, 0, 0, 0], [220, 5, 0, 0]].concat();
        assert_eq!(Codec::Interval.bytes(&interval), "P1M2DT1.500S".into());
        assert_eq!(Codec::Real.float(0.1), 0.1.into());
    }
}
