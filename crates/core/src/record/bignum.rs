//! Integers beyond 64 bits: bignums in CBOR (RFC 8949, 3.4.3), plain digits in JSON.

use std::sync::LazyLock;

use num_bigint::{BigInt, Sign};

use super::CborValue;
use crate::record::json::JsonError;

const POSITIVE: u64 = 2;
const NEGATIVE: u64 = 3;
/// Private tag for the digits of an integer beyond 128 bits, for which ciborium cannot read a bignum.
const WIDE: u64 = 0x6469_6769_7473;

/// Maximum number of digits of an integer in JSON: every such integer is in the range of floats.
pub(crate) const MAX_DIGITS: usize = 308;
/// Minimum number of digits of an integer that may have more than 64 bits.
const MIN_LONG: usize = 19;

/// Parses an integer from its digits with an optional `-`. `None` if it is not one, or has more than `MAX_DIGITS` digits.
pub fn of_digits(digits: &str) -> Option<CborValue> {
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.is_empty() || unsigned.len() > MAX_DIGITS || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(|number| of_big(&number))
}

/// Converts an integer of any size to a value.
fn of_big(number: &BigInt) -> CborValue {
    let small = i128::try_from(number).ok().and_then(|number| number.try_into().ok());
    if let Some(small) = small {
        return CborValue::Integer(small);
    }
    let (tag, content) = match number.sign() {
        Sign::Minus if i128::try_from(number).is_ok() => {
            (NEGATIVE, CborValue::Bytes((-(number + 1u8)).to_bytes_be().1))
        }
        Sign::Plus if u128::try_from(number).is_ok() => (POSITIVE, CborValue::Bytes(number.to_bytes_be().1)),
        _ => (WIDE, CborValue::Text(number.to_string())),
    };
    CborValue::Tag(tag, Box::new(content))
}

/// The integer of a bignum; `None` for any other value, including plain integers.
pub fn as_big(value: &CborValue) -> Option<BigInt> {
    match value {
        CborValue::Tag(POSITIVE, inner) => Some(BigInt::from_bytes_be(Sign::Plus, inner.as_bytes()?)),
        CborValue::Tag(NEGATIVE, inner) => Some(-(BigInt::from_bytes_be(Sign::Plus, inner.as_bytes()?) + 1u8)),
        CborValue::Tag(WIDE, inner) => inner.as_text().filter(|text| text.len() <= MAX_DIGITS + 1)?.parse().ok(),
        _ => None,
    }
}

/// Digits of a bignum, and true if JSON represents it exactly; `None` for any other value.
pub(super) fn digits_of(value: &CborValue) -> Option<(String, bool)> {
    let number = as_big(value)?;
    let digits = number.to_string();
    let exact = digits.len() <= MAX_DIGITS && of_big(&number) == *value;
    Some((digits, exact))
}

// --- in JSON ---------------------------------------------------------------------------------------------------------------

/// Random prefix of long integers that were converted to texts. Clients cannot guess it.
static MARK: LazyLock<String> = LazyLock::new(|| format!("\u{1}integer {}:", uuid::Uuid::new_v4()));

/// Converts integers beyond 64 bits in JSON to marked texts, for parsers that would read them as floats; `unmarked` converts
/// them back. `None` if there are none, which is nearly always found by a quick scan.
///
/// # Errors
/// [`JsonError`] for an integer of more than `MAX_DIGITS` digits.
pub fn marked(json: &[u8]) -> Result<Option<Vec<u8>>, JsonError> {
    // A run of at least `MIN_LONG` digits has a digit at a multiple of that distance.
    let is_digit = |at: &usize| json[*at].is_ascii_digit();
    let candidate = (MIN_LONG - 1..json.len()).step_by(MIN_LONG).filter(is_digit).any(|at| is_long_around(json, at));
    if !candidate {
        return Ok(None);
    }
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied) = (0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = string_end(json, at),
            b'-' | b'0'..=b'9' => {
                let end = number_end(json, at);
                if let Some(digits) = beyond_64_bits(&json[at..end])? {
                    let out = out.get_or_insert_with(|| Vec::with_capacity(json.len() + 256));
                    out.extend_from_slice(&json[copied..at]);
                    // The mark's control character is escaped for JSON.
                    out.extend_from_slice(b"\"\\u0001");
                    out.extend_from_slice(&MARK.as_bytes()[1..]);
                    out.extend_from_slice(digits.as_bytes());
                    out.push(b'"');
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if let Some(out) = &mut out {
        out.extend_from_slice(&json[copied..]);
    }
    Ok(out)
}

/// The integer of a text that [`marked`] produced, `None` for other texts.
pub(super) fn unmarked(text: &str) -> Option<CborValue> {
    text.strip_prefix('\u{1}')?;
    of_digits(text.strip_prefix(MARK.as_str())?)
}

/// Converts the texts of [`marked`] back to integers, in values from parsers that do not handle them.
pub fn unmark(value: &mut CborValue) {
    match value {
        CborValue::Text(text) => {
            if let Some(number) = unmarked(text) {
                *value = number;
            }
        }
        CborValue::Array(items) => items.iter_mut().for_each(unmark),
        CborValue::Map(members) => members.iter_mut().for_each(|(_, member)| unmark(member)),
        _ => {}
    }
}

fn is_long_around(json: &[u8], at: usize) -> bool {
    let before = json[..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).take(MIN_LONG).count();
    let behind = json[at..].iter().take_while(|byte| byte.is_ascii_digit()).take(MIN_LONG).count();
    before + behind >= MIN_LONG
}

/// Position after the string that begins at `at`, or the end of the input.
fn string_end(json: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = json.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

fn number_end(json: &[u8], at: usize) -> usize {
    let of_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    at + json[at..].iter().take_while(of_number).count()
}

/// Digits of an integer of more than 64 bits, `None` for other tokens.
fn beyond_64_bits(token: &[u8]) -> Result<Option<&str>, JsonError> {
    let unsigned = token.strip_prefix(b"-").unwrap_or(token);
    let Ok(text) = std::str::from_utf8(token) else { return Ok(None) };
    if unsigned.len() < MIN_LONG || unsigned[0] == b'0' || !unsigned.iter().all(u8::is_ascii_digit) {
        return Ok(None);
    }
    if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() {
        return Ok(None);
    }
    if unsigned.len() > MAX_DIGITS {
        let detail = format!("an integer has {} digits; at most {MAX_DIGITS} are allowed", unsigned.len());
        return Err(JsonError::new(detail));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{JsonLimits, parse_json, value_to_json};
    use super::*;

    fn round_trip(json: &str) -> String {
        let value = parse_json(json.as_bytes(), JsonLimits::default()).unwrap();
        let mut cbor = Vec::new();
        ciborium::into_writer(&value, &mut cbor).unwrap();
        let back: CborValue = ciborium::from_reader(&cbor[..]).unwrap();
        assert_eq!(back, value);
        String::from_utf8(value_to_json(&back)).unwrap()
    }

    #[test]
    fn no_digit_of_an_integer_is_lost() {
        for json in [
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "-18446744073709551616",
            "-18446744073709551617",
            "123456789012345678901234567890",
            r#"[9007199254740993,{"a":[-123456789012345678901234567890]}]"#,
            r#"{"123456789012345678901234567890":"123456789012345678901234567890"}"#,
            r#""a \" 123456789012345678901234567890""#,
        ] {
            assert_eq!(round_trip(json), json);
        }
        let widest = "9".repeat(MAX_DIGITS);
        assert_eq!(round_trip(&widest), widest);
        let error = parse_json(format!("{widest}0").as_bytes(), JsonLimits::default()).unwrap_err();
        assert_eq!(error.to_string(), "an integer has 309 digits; at most 308 are allowed");
    }

    #[test]
    fn numbers_that_are_not_integers_are_read_as_floats_or_refused() {
        for (json, expected) in [
            ("1234567890123456789012.5", "1.2345678901234568e21"),
            ("123456789012345678901e2", "1.2345678901234568e22"),
        ] {
            assert_eq!(round_trip(json), expected);
        }
        for json in [
            "00000000000000000000001",
            "1234567890123456789012x",
            "[12345678901234567890123",
            "--12345678901234567890123",
        ] {
            assert!(parse_json(json.as_bytes(), JsonLimits::default()).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
            fn documents_with_long_integers_round_trip(
            numbers in proptest::collection::vec("-?[1-9][0-9]{0,60}", 0..6), text in "[0-9\"\\\\\u{1}]{0,40}",
        ) {
            let text = String::from_utf8(value_to_json(&text.into())).unwrap();
            let json = format!("[{text},{},{{{text}:{text}}}]", numbers.iter().map(|n| format!("{n},")).collect::<String>() + "0");
            prop_assert_eq!(round_trip(&json), json);
        }
    }
}
