//! Parser of bodies: JSON, lines of JSON, CBOR, forms (`form.rs`), and the envelope of Amazon SNS. Bounded and exact.

use std::collections::HashSet;

use super::form::{self, Forms};
use super::{DecodeError, MOST_CHANGES};
use diorama_core::record::{CborValue, JsonLimits, parse_json};

/// Limits of one delivery.
pub(super) const LIMITS: JsonLimits = JsonLimits { nodes: 1_000_000, depth: 64 };

/// Values in a body.
#[derive(Debug)]
pub(super) enum Documents {
    /// No value.
    Nothing,
    /// One value.
    One(CborValue),
    /// A value per line.
    Lines(Vec<CborValue>),
}

impl Documents {
    /// Parses `body` with the media type `kind`; `forms` gives the meaning of a form.
    pub(super) fn read(body: &[u8], kind: &str, forms: Forms) -> Result<Documents, DecodeError> {
        match kind {
            "application/x-ndjson" | "application/ndjson" => lines(body).map(Documents::Lines),
            _ if body.trim_ascii().is_empty() => Ok(Documents::Nothing),
            "application/json" => json(body).map(Documents::One),
            "application/cbor" => cbor(body).map(Documents::One),
            "application/x-www-form-urlencoded" => form::document(body, forms).map(Documents::One),
            kind if kind.ends_with("+json") => json(body).map(Documents::One),
            _ => Err(DecodeError::MediaType("the body's media type is not supported")),
        }
    }

    /// Parses a delivery of Amazon SNS: the message in its envelope if it is JSON, else the envelope. `raw` is true for a message
    /// without an envelope.
    pub(super) fn of_sns(body: &[u8], raw: bool) -> Result<Documents, DecodeError> {
        let whole = json(body)?;
        let message = member(&whole, "Message").and_then(CborValue::as_text).filter(|_| !raw);
        Ok(Documents::One(message.and_then(|text| json(text.as_bytes()).ok()).unwrap_or(whole)))
    }

    /// Returns the member `name` of the only value, as text.
    pub(super) fn member(&self, name: &str) -> Option<String> {
        let Documents::One(value) = self else { return None };
        diorama_core::record::id_from_value(member(value, name)?)
    }
}

/// Returns the member `name` of a map.
pub(super) fn member<'v>(value: &'v CborValue, name: &str) -> Option<&'v CborValue> {
    value.as_map()?.iter().find(|(own, _)| own.as_text() == Some(name)).map(|(_, value)| value)
}

pub(super) fn json(body: &[u8]) -> Result<CborValue, DecodeError> {
    parse_json(body, LIMITS).map_err(|error| DecodeError::Syntax(format!("the body is not valid JSON: {error}")))
}

fn lines(body: &[u8]) -> Result<Vec<CborValue>, DecodeError> {
    let mut values = Vec::new();
    let lines = body.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
    for (at, line) in lines {
        if values.len() == MOST_CHANGES {
            return Err(DecodeError::TooMany);
        }
        let value = parse_json(line, LIMITS);
        values.push(value.map_err(|error| DecodeError::Syntax(format!("line {} is not valid JSON: {error}", at + 1)))?);
    }
    Ok(values)
}

fn cbor(body: &[u8]) -> Result<CborValue, DecodeError> {
    let mut rest = body;
    let value: CborValue = ciborium::de::from_reader_with_recursion_limit(&mut rest, LIMITS.depth)
        .map_err(|error| DecodeError::Syntax(format!("the body is not CBOR: {error}")))?;
    match rest {
        [] if unambiguous(&value) => Ok(value),
        [] => Err(DecodeError::Syntax("a map has a duplicate member".into())),
        _ => Err(DecodeError::Syntax("there are more bytes after the value".into())),
    }
}

/// Returns true if no map has a duplicate member, which CBOR permits.
fn unambiguous(value: &CborValue) -> bool {
    match value {
        CborValue::Array(items) => items.iter().all(unambiguous),
        CborValue::Tag(_, inner) => unambiguous(inner),
        CborValue::Map(members) => {
            let mut names = HashSet::new();
            let mut texts = members.iter().filter_map(|(name, _)| name.as_text());
            texts.all(|name| names.insert(name)) && members.iter().all(|(_, value)| unambiguous(value))
        }
        _ => true,
    }
}

/// Decodes percent-encoding once; `None` if it is not valid. In forms, `+` is a space.
pub(super) fn unescape(text: &[u8], form: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let (digits, after) = rest.split_at_checked(2)?;
                let digit = |at: usize| (digits[at] as char).to_digit(16);
                out.push(u8::try_from(digit(0)? << 4 | digit(1)?).ok()?);
                rest = after;
            }
            b'+' if form => out.push(b' '),
            byte => out.push(*byte),
        }
    }
    Some(out)
}

/// Returns the value of the query parameter `name`.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let text = |text: &str| String::from_utf8(unescape(text.as_bytes(), true)?).ok();
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(own, _)| text(own).as_deref() == Some(name)).and_then(|(_, value)| text(value))
}
