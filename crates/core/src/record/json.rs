//! Conversion of CBOR values to JSON and back, by walking the tree. A serde bridge would alter bytes, tags and big integers.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{CborValue, bignum};

/// Error for refused JSON; the message has the position if the syntax is wrong.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl JsonError {
    pub(super) fn new(detail: impl Into<String>) -> JsonError {
        JsonError(detail.into())
    }
}

/// Limits of [`parse_json`].
#[derive(Debug, Clone, Copy)]
pub struct JsonLimits {
    /// Maximum number of values of any kind.
    pub nodes: usize,
    /// Maximum nesting depth.
    pub depth: usize,
}

impl Default for JsonLimits {
    /// 100,000 nodes, 64 levels.
    fn default() -> Self {
        JsonLimits { nodes: 100_000, depth: 64 }
    }
}

/// Parses untrusted JSON within limits. Refuses duplicate members and trailing input.
///
/// # Errors
/// [`JsonError`] with line and column, or with the limit that was exceeded.
pub fn parse_json(bytes: &[u8], limits: JsonLimits) -> Result<CborValue, JsonError> {
    let mut budget = limits.nodes;
    let marked = bignum::marked(bytes)?;
    let mut reader = serde_json::Deserializer::from_slice(marked.as_deref().unwrap_or(bytes));
    let value = Seed { budget: &mut budget, depth: limits.depth }
        .deserialize(&mut reader)
        .map_err(|error| JsonError(error.to_string()))?;
    reader.end().map_err(|error| JsonError(error.to_string()))?;
    Ok(value)
}

/// Parses JSON that this crate wrote itself.
pub(crate) fn from_json(bytes: &[u8]) -> Result<CborValue, JsonError> {
    parse_json(bytes, JsonLimits { nodes: usize::MAX, depth: 120 })
}

/// Converts a value to JSON text. Not exact for bytes (base64url), tags (their content), NaN and infinities (the texts `"NaN"`,
/// `"Infinity"`, `"-Infinity"`) and maps with keys that are not text.
pub fn value_to_json(value: &CborValue) -> Vec<u8> {
    let mut out = Vec::new();
    write_value(&mut out, value);
    out
}

/// Appends `value` as JSON. Returns true if the text represents it exactly.
///
/// Not exact: bytes (base64url), tags (their content), NaN and infinities (text), text that is not UTF-8 (with replacement
/// characters), maps with keys that are not text (keys rendered as JSON). Members of nested maps are sorted by key.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &CborValue) -> bool {
    match value {
        CborValue::Null => out.extend_from_slice(b"null"),
        CborValue::Bool(true) => out.extend_from_slice(b"true"),
        CborValue::Bool(false) => out.extend_from_slice(b"false"),
        CborValue::Integer(number) => out.extend_from_slice(i128::from(*number).to_string().as_bytes()),
        CborValue::Float(number) if number.is_finite() => {
            // Debug is Rust's shortest round-trip form and always has a `.` or an `e`, so floats are read back as floats.
            out.extend_from_slice(format!("{number:?}").as_bytes());
        }
        CborValue::Float(number) => {
            write_text(out, not_finite(*number));
            return false;
        }
        CborValue::Text(text) => write_text(out, text),
        CborValue::Bytes(bytes) => {
            write_text(out, &URL_SAFE_NO_PAD.encode(bytes));
            return false;
        }
        CborValue::Array(items) => return write_array(out, items),
        CborValue::Map(members) => return write_map(out, members),
        CborValue::Tag(tag, inner) => {
            if let Some((digits, exact)) = bignum::digits_of(value) {
                out.extend_from_slice(digits.as_bytes());
                return exact;
            }
            match &**inner {
                CborValue::Bytes(text) if *tag == NOT_UTF8 => write_text(out, &String::from_utf8_lossy(text)),
                inner => drop(write_value(out, inner)),
            }
            return false;
        }
        _ => {
            out.extend_from_slice(b"null");
            return false;
        }
    }
    true
}

/// Private CBOR tag of bytes that a source holds as text but that are not UTF-8.
pub const NOT_UTF8: u64 = 0x6e75_7466_3800;

/// Name of a float that JSON numbers cannot express, spelled as in PostgreSQL.
pub(super) fn not_finite(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

fn write_array(out: &mut Vec<u8>, items: &[CborValue]) -> bool {
    let mut exact = true;
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        exact &= write_value(out, item);
    }
    out.push(b']');
    exact
}

fn write_map(out: &mut Vec<u8>, members: &[(CborValue, CborValue)]) -> bool {
    let mut exact = true;
    let mut named: Vec<(String, &CborValue)> = Vec::with_capacity(members.len());
    for (key, value) in members {
        match key {
            CborValue::Text(text) => named.push((text.clone(), value)),
            other => {
                exact = false;
                named.push((String::from_utf8_lossy(&value_to_json(other)).into_owned(), value));
            }
        }
    }
    named.sort_by(|a, b| a.0.cmp(&b.0));
    // A duplicate key cannot be read back from JSON.
    exact &= named.windows(2).all(|pair| pair[0].0 != pair[1].0);
    out.push(b'{');
    for (at, (key, value)) in named.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_text(out, key);
        out.push(b':');
        exact &= write_value(out, value);
    }
    out.push(b'}');
    exact
}

/// Appends `text` as a JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text always serializes into a Vec");
}

/// Deserializer of one value within limits.
pub(super) struct Seed<'a> {
    /// Number of values still allowed.
    pub(super) budget: &'a mut usize,
    /// Number of nesting levels still allowed.
    pub(super) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = CborValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<CborValue, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn spend<E: serde::de::Error>(&mut self) -> Result<(), E> {
        *self.budget = self.budget.checked_sub(1).ok_or_else(|| E::custom("too many values in one document"))?;
        Ok(())
    }

    fn deeper<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = CborValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: serde::de::Error>(mut self) -> Result<CborValue, E> {
        self.spend()?;
        Ok(CborValue::Null)
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<CborValue, E> {
        self.spend()?;
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(mut self, value: i64) -> Result<CborValue, E> {
        self.spend()?;
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(mut self, value: u64) -> Result<CborValue, E> {
        self.spend()?;
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(mut self, value: f64) -> Result<CborValue, E> {
        self.spend()?;
        Ok(value.into())
    }

    fn visit_str<E: serde::de::Error>(mut self, value: &str) -> Result<CborValue, E> {
        self.spend()?;
        Ok(bignum::unmarked(value).unwrap_or_else(|| value.into()))
    }

    fn visit_string<E: serde::de::Error>(mut self, value: String) -> Result<CborValue, E> {
        self.spend()?;
        Ok(bignum::unmarked(&value).unwrap_or_else(|| value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<CborValue, A::Error> {
        self.spend()?;
        let depth = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Seed { budget: self.budget, depth })? {
            items.push(item);
        }
        Ok(CborValue::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<CborValue, A::Error> {
        use serde::de::Error as _;
        self.spend()?;
        let depth = self.deeper()?;
        let mut members: Vec<(CborValue, CborValue)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("duplicate member {key:?}")));
            }
            let value = map.next_value_seed(Seed { budget: self.budget, depth })?;
            members.push((key.into(), value));
        }
        Ok(CborValue::Map(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_duplicates_are_refused_with_a_reason() {
        let limits = JsonLimits { nodes: 3, depth: 2 };
        let error = |text: &str| parse_json(text.as_bytes(), limits).unwrap_err().to_string();
        assert!(error("[1,2,3]").contains("too many values"));
        assert!(error("[[[]]]").contains("too deeply"));
        assert!(error(r#"{"a":1,"a":2}"#).contains("duplicate member \"a\""));
        assert!(error("[1] 2").contains("trailing"));
    }

    #[test]
    fn floats_stay_floats_and_integers_integers() {
        let text = |value: CborValue| String::from_utf8(value_to_json(&value)).unwrap();
        assert_eq!(text(1.0.into()), "1.0");
        assert_eq!(text(1e300.into()), "1e300");
        assert_eq!(text(u64::MAX.into()), "18446744073709551615");
        assert_eq!(text(f64::NAN.into()), r#""NaN""#);
        assert_eq!(text(f64::NEG_INFINITY.into()), r#""-Infinity""#);
    }
}
