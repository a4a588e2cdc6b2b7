//! Checks and lossless conversions of cells to the types of their columns.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::tz::TimeZone;

use super::{ColumnType, Instant};
use crate::record::{CborValue, as_big, of_digits};

/// Treatment of text in a column of another type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Coercion {
    /// Refused: in a column of whole numbers, `"8"` is an error.
    #[default]
    Typed,
    /// Converted to the value that it spells, if nothing is lost: `"8"` becomes 8, `"007"` is refused. For senders whose cells
    /// are all text, such as forms, mappings and CSV.
    Loose,
}

/// Description of a valid cell of this type, for a refusal: "must be ...".
pub(crate) fn expected(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::String => "text",
        ColumnType::Uuid => "a UUID as text, like 01890a5d-ac96-774b-bcce-b302099a8057",
        ColumnType::Integer => "a whole number",
        ColumnType::Number => "a number",
        ColumnType::Boolean => "true or false",
        ColumnType::Decimal => "a decimal number, as text or number",
        ColumnType::Date => "a date as text, YYYY-MM-DD",
        ColumnType::Datetime => "a moment, like 2026-01-31T12:00:00Z, 2026-01-31 12:00:00 or seconds since 1970",
        ColumnType::Bytes => "bytes as base64url text",
        ColumnType::Json => "a value",
    }
}

/// Converts `value` to a cell of type `ty`. `Ok(None)` if it already is one.
///
/// # Errors
/// Returns the type's [`expected`] description if the value is not of the type and does not convert without loss.
pub(super) fn convert(
    ty: ColumnType,
    value: &CborValue,
    coercion: Coercion,
) -> Result<Option<CborValue>, &'static str> {
    let converted = match (ty, value) {
        (ColumnType::Integer, CborValue::Float(number)) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some((*number as i64).into())
        }
        (ColumnType::Decimal, CborValue::Integer(number)) => Some(i128::from(*number).to_string().into()),
        (ColumnType::Decimal, CborValue::Float(number)) if number.is_finite() => Some(number.to_string().into()),
        (ColumnType::Decimal, CborValue::Tag(..)) => as_big(value).map(|number| number.to_string().into()),
        (ColumnType::Number, CborValue::Text(text)) if not_finite(text).is_some() => {
            not_finite(text).map(CborValue::from)
        }
        (ColumnType::Bytes, CborValue::Text(text)) => {
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok().map(CborValue::Bytes)
        }
        (ColumnType::Integer | ColumnType::Number | ColumnType::Boolean, CborValue::Text(text))
            if coercion == Coercion::Loose =>
        {
            spelled(ty, text)
        }
        _ if fits(ty, value) => return Ok(None),
        _ => None,
    };
    converted.map(Some).ok_or(expected(ty))
}

/// True if `value` is a cell of type `ty` without conversion.
fn fits(ty: ColumnType, value: &CborValue) -> bool {
    match (ty, value) {
        (ColumnType::Date, CborValue::Text(text)) => is_date(text),
        (ColumnType::Datetime, CborValue::Text(text)) => Instant::of_text(text, &TimeZone::UTC).is_some(),
        (ColumnType::Datetime, CborValue::Integer(number)) => Instant::of_integer(i128::from(*number)).is_some(),
        (ColumnType::Datetime, CborValue::Float(number)) => Instant::of_float(*number).is_some(),
        (ColumnType::Decimal, CborValue::Text(text)) => is_decimal(text),
        (ColumnType::Uuid, CborValue::Text(text)) => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
        _ => is_of_kind(ty, value),
    }
}

/// True if `value` is of the CBOR kind that cells of type `ty` have; texts are not parsed.
pub(super) fn is_of_kind(ty: ColumnType, value: &CborValue) -> bool {
    match ty {
        ColumnType::Json => true,
        ColumnType::Integer => matches!(value, CborValue::Integer(number) if i64::try_from(*number).is_ok()),
        ColumnType::Number => matches!(value, CborValue::Integer(_) | CborValue::Float(_)) || as_big(value).is_some(),
        ColumnType::Boolean => value.is_bool(),
        ColumnType::Bytes => value.is_bytes(),
        ColumnType::Datetime => matches!(value, CborValue::Text(_) | CborValue::Integer(_) | CborValue::Float(_)),
        ColumnType::String | ColumnType::Decimal | ColumnType::Date | ColumnType::Uuid => value.is_text(),
    }
}

/// Parses `text` as the value that it spells, if no digit of it is lost.
fn spelled(ty: ColumnType, text: &str) -> Option<CborValue> {
    match (ty, text) {
        (ColumnType::Boolean, "true") => Some(true.into()),
        (ColumnType::Boolean, "false") => Some(false.into()),
        (ColumnType::Integer, _) => whole(text).map(CborValue::from),
        (ColumnType::Number, _) => number_of(text),
        _ => None,
    }
}

/// Parses a 64-bit integer in its canonical spelling; `None` for `007` and `+7`.
pub(super) fn whole(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

/// Parses the words for floats that JSON numbers cannot express.
fn not_finite(text: &str) -> Option<f64> {
    match text {
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        "NaN" => Some(f64::NAN),
        _ => None,
    }
}

/// Parses a number without loss of digits: an integer in its canonical spelling, or a fraction.
fn number_of(text: &str) -> Option<CborValue> {
    let canonical = text.len() < 2 || !text.trim_start_matches('-').starts_with('0') && text != "-0";
    of_digits(text).filter(|_| canonical).or_else(|| fraction(text))
}

/// Parses a number if a float can represent every digit; 15 digits always fit.
fn fraction(text: &str) -> Option<CborValue> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite() && is_decimal(text))?;
    let digits = text.split(['e', 'E']).next().unwrap_or_default().bytes().filter(u8::is_ascii_digit).count();
    let plain = !text.trim_start_matches('-').starts_with("00") && (digits <= 15 || number.to_string() == text);
    // An underflow to zero loses digits too.
    let lost =
        number == 0.0 && text.split(['e', 'E']).next().is_some_and(|text| text.contains(|c| ('1'..='9').contains(&c)));
    (plain && !lost).then_some(CborValue::Float(number))
}

/// True if a text is `YYYY-MM-DD` and that day exists.
fn is_date(text: &str) -> bool {
    text.len() == 10 && text.as_bytes()[4] == b'-' && text.parse::<jiff::civil::Date>().is_ok()
}

/// True if a text is a number in JSON's notation: digits with optional sign, fraction and exponent.
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
    fn text_must_have_the_format_of_its_column_type() {
        let fits = |ty, text: &str| convert(ty, &text.into(), Coercion::Typed).is_ok();
        for (ty, good, bad) in [
            (
                ColumnType::Date,
                ["2024-02-29", "0001-01-01"],
                ["2023-02-29", "20240229", "2024-2-9", "2024-02-29T00:00:00", "x"],
            ),
            (
                ColumnType::Datetime,
                ["2026-01-31T12:00:00Z", "2026-01-31 12:00:00"],
                ["2026-01", "31.01.2026", "12:00:00", "2026-01-31T25:00:00Z", "today"],
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

    #[test]
    fn loose_text_converts_only_without_loss() {
        let loose = |ty, text: &str| convert(ty, &text.into(), Coercion::Loose).ok().flatten();
        assert_eq!(loose(ColumnType::Integer, "8"), Some(8.into()));
        assert_eq!(loose(ColumnType::Integer, "-9223372036854775808"), Some(i64::MIN.into()));
        assert_eq!(loose(ColumnType::Number, "8"), Some(8.into()));
        assert_eq!(loose(ColumnType::Number, "-1.50"), Some((-1.5).into()));
        assert_eq!(loose(ColumnType::Number, "2e3"), Some(2000.0.into()));
        assert_eq!(loose(ColumnType::Boolean, "true"), Some(true.into()));
        for (ty, text) in [
            (ColumnType::Integer, "007"),
            (ColumnType::Integer, "+7"),
            (ColumnType::Integer, "8.5"),
            (ColumnType::Integer, ""),
            (ColumnType::Integer, "9223372036854775808"),
            (ColumnType::Number, "007"),
            (ColumnType::Number, "0.12345678901234567890"),
            (ColumnType::Number, "1e999"),
            (ColumnType::Number, "1e-999"),
            (ColumnType::Number, "inf"),
            (ColumnType::Boolean, "1"),
            (ColumnType::Boolean, "yes"),
        ] {
            assert_eq!(loose(ty, text), None, "{ty:?} {text}");
            assert!(convert(ty, &text.into(), Coercion::Loose).is_err());
        }
        assert!(convert(ColumnType::Integer, &"8".into(), Coercion::Typed).is_err());
    }
}
