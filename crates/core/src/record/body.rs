//! Canonical bytes of a row: JSON ready to send, and canonical CBOR only if JSON cannot represent the row exactly.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json::{from_json, write_text, write_value};
use super::{CborValue, Layout, Record};

/// An encoded row: encoded once when it is committed, then only copied.
///
/// `json` is always present and is used for HTTP answers. `cbor` is present if the JSON is not exact: for bytes, tags, non-finite
/// floats, and maps with duplicate keys or keys that are not text. Bodies made under the same [`Layout`] are equal if and only if
/// their rows are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    #[serde(rename = "j")]
    json: Bytes,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    cbor: Option<Bytes>,
}

/// Error for stored bytes that are not a row.
#[derive(Debug, Clone, thiserror::Error)]
#[error("stored row cannot be decoded: {0}")]
pub struct BodyError(pub(crate) String);

impl Body {
    /// Encodes `record` canonically: with the id in the layout's id column, members in the layout's order.
    pub fn encode(id: &str, record: &Record, layout: &Layout) -> Body {
        let id_value;
        let mut members: Vec<(&str, &CborValue)> =
            record.iter().map(|(column, value)| (column.as_str(), value)).collect();
        if !record.contains(layout.id_column()) {
            id_value = id_to_value(id, layout);
            members.insert(0, (layout.id_column(), &id_value));
        }
        encode_sorted(members, layout)
    }

    /// Encodes some columns of a row, such as a patch: as [`Body::encode`] without adding the id.
    pub fn encode_plain(record: &Record, layout: &Layout) -> Body {
        encode_sorted(record.iter().map(|(column, value)| (column.as_str(), value)).collect(), layout)
    }

    /// Encodes a row in the order of its own columns.
    pub(crate) fn encode_as_is(record: &Record) -> Body {
        let members: Vec<_> = record.iter().map(|(column, value)| (column.as_str(), value)).collect();
        encode_ordered(&members)
    }

    /// Restores a body from the bytes of [`Body::json`] and [`Body::cbor`].
    pub fn from_parts(json: Bytes, cbor: Option<Bytes>) -> Body {
        Body { json, cbor }
    }

    /// The row as a JSON object, ready to send.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The row as canonical CBOR, if JSON does not represent it exactly.
    pub fn cbor(&self) -> Option<&Bytes> {
        self.cbor.as_ref()
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.json.len() + self.cbor.as_ref().map_or(0, Bytes::len)
    }

    /// Decodes the row.
    ///
    /// # Errors
    /// [`BodyError`] if the bytes were not made by [`Body::encode`].
    pub fn decode(&self) -> Result<Record, BodyError> {
        decode_parts(&self.json, self.cbor.as_deref())
    }

    /// xxh3-128 of the canonical bytes, the strong ETag of the row.
    pub fn hash(&self) -> u128 {
        hash_parts(&self.json, self.cbor.as_deref())
    }
}

/// Maximum number of members that [`Body::members`] returns, for callers that compare each with each.
const MOST_MEMBERS: usize = 128;

/// A member of a row: its name, and its value as canonical JSON.
pub(crate) type Member<'b> = (&'b str, &'b [u8]);

impl Body {
    /// Returns the members of the row without decoding their values, which are equal exactly if their bytes are. `None` if JSON does
    /// not represent the row exactly, a name has escapes, or there are more than [`MOST_MEMBERS`].
    pub(crate) fn members(&self) -> Option<Vec<Member<'_>>> {
        if self.cbor.is_some() {
            return None;
        }
        let mut rest = self.json.strip_prefix(b"{")?.strip_suffix(b"}")?;
        let mut members = Vec::new();
        while !rest.is_empty() {
            let (name, after) = rest.split_at_checked(text_end(rest)?)?;
            let after = after.strip_prefix(b":")?;
            let (value, after) = after.split_at_checked(value_end(after)?)?;
            let name = name.get(1..name.len() - 1).filter(|name| !name.contains(&b'\\'))?;
            if members.len() == MOST_MEMBERS {
                return None;
            }
            members.push((std::str::from_utf8(name).ok()?, value));
            rest = if after.is_empty() { after } else { after.strip_prefix(b",").filter(|more| !more.is_empty())? };
        }
        Some(members)
    }

    /// Creates a row of members of another one, in their order.
    pub(crate) fn from_members<'b>(members: impl Iterator<Item = Member<'b>>) -> Body {
        let mut json = vec![b'{'];
        for (name, value) in members {
            if json.len() > 1 {
                json.push(b',');
            }
            write_text(&mut json, name);
            json.push(b':');
            json.extend_from_slice(value);
        }
        json.push(b'}');
        Body { json: json.into(), cbor: None }
    }
}

/// Returns the end of the JSON text at the beginning of `bytes`.
fn text_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    bytes.first().filter(|first| **first == b'"')?;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Returns the end of the JSON value at the beginning of `bytes`, at the comma behind it or the end of all.
fn value_end(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += text_end(&bytes[at..])? - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => break,
            _ => {}
        }
        at += 1;
    }
    (depth == 0).then_some(at)
}

fn encode_sorted(mut members: Vec<(&str, &CborValue)>, layout: &Layout) -> Body {
    members.sort_by(|a, b| {
        let rank = |column: &str| layout.rank(column).unwrap_or(usize::MAX);
        rank(a.0).cmp(&rank(b.0)).then_with(|| a.0.cmp(b.0))
    });
    encode_ordered(&members)
}

fn encode_ordered(members: &[(&str, &CborValue)]) -> Body {
    let mut json = Vec::with_capacity(members.len() * 24);
    let mut exact = true;
    json.push(b'{');
    for (at, (column, value)) in members.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        write_text(&mut json, column);
        json.push(b':');
        exact &= write_value(&mut json, value);
    }
    json.push(b'}');
    let cbor = (!exact).then(|| encode_members(members));
    Body { json: json.into(), cbor }
}

/// Writer of rows with known columns, directly to canonical JSON without a record in between.
///
/// Produces the bytes of [`Body::encode`] if every row gets a value for each column, in the layout's order.
#[derive(Debug)]
pub struct RowWriter {
    /// `{"first":`, `,"second":` and so on.
    keys: Vec<Vec<u8>>,
    at: usize,
    out: Vec<u8>,
    exact: bool,
}

impl RowWriter {
    /// Creates a writer for rows of `columns`, which must be in the layout's order and include its id column.
    pub fn new<'a>(columns: impl Iterator<Item = &'a str>) -> RowWriter {
        let key = |(at, column): (usize, &str)| {
            let mut key = vec![if at == 0 { b'{' } else { b',' }];
            write_text(&mut key, column);
            key.push(b':');
            key
        };
        RowWriter { keys: columns.enumerate().map(key).collect(), at: 0, out: Vec::new(), exact: true }
    }

    /// Writes any value to the next column.
    pub fn value(&mut self, value: &CborValue) {
        self.key();
        self.exact &= write_value(&mut self.out, value);
    }

    /// Writes a text to the next column.
    pub fn text(&mut self, text: &str) {
        self.key();
        write_text(&mut self.out, text);
    }

    /// Writes an integer to the next column, given as `digits` without leading zeros or a plus sign.
    pub fn integer(&mut self, digits: &str) {
        self.key();
        self.out.extend_from_slice(digits.as_bytes());
    }

    /// Finishes the row and starts the next. `None` if JSON does not represent the row exactly: then encode it as a record.
    pub fn finish(&mut self) -> Option<Body> {
        self.out.push(b'}');
        let json = Bytes::copy_from_slice(&self.out);
        let exact = self.exact && self.at == self.keys.len();
        self.out.clear();
        (self.at, self.exact) = (0, true);
        exact.then_some(Body { json, cbor: None })
    }

    fn key(&mut self) {
        if let Some(key) = self.keys.get(self.at) {
            self.out.extend_from_slice(key);
        }
        self.at += 1;
    }
}

/// [`Body::decode`] over borrowed bytes.
///
/// # Errors
/// [`BodyError`] if the bytes are not those of a row.
pub fn decode_parts(json: &[u8], cbor: Option<&[u8]>) -> Result<Record, BodyError> {
    let value = match cbor {
        Some(cbor) => ciborium::from_reader(cbor).map_err(|error| BodyError(error.to_string()))?,
        None => from_json(json).map_err(|error| BodyError(error.to_string()))?,
    };
    let CborValue::Map(members) = value else { return Err(BodyError("it is not a map".into())) };
    members
        .into_iter()
        .map(|(key, value)| match key {
            CborValue::Text(column) => Ok((column, value)),
            _ => Err(BodyError("a column name is not text".into())),
        })
        .collect()
}

/// [`Body::hash`] over borrowed bytes.
pub fn hash_parts(json: &[u8], cbor: Option<&[u8]>) -> u128 {
    xxhash_rust::xxh3::xxh3_128(cbor.unwrap_or(json))
}

/// The value of `id` in the id column.
pub fn id_to_value(id: &str, layout: &Layout) -> CborValue {
    match id.parse::<i64>() {
        Ok(number) if layout.integer_id() && number.to_string() == id => number.into(),
        _ => id.into(),
    }
}

fn encode_members(members: &[(&str, &CborValue)]) -> Bytes {
    let map = members.iter().map(|(column, value)| ((*column).into(), sort_keys(value))).collect();
    let mut bytes = Vec::new();
    ciborium::into_writer(&CborValue::Map(map), &mut bytes).expect("writing to a Vec does not fail");
    bytes.into()
}

/// Sorts nested maps by key, so that equal values have equal bytes.
fn sort_keys(value: &CborValue) -> CborValue {
    match value {
        CborValue::Array(items) => CborValue::Array(items.iter().map(sort_keys).collect()),
        CborValue::Tag(tag, inner) => CborValue::Tag(*tag, Box::new(sort_keys(inner))),
        CborValue::Map(members) => {
            let mut members: Vec<_> = members.iter().map(|(k, v)| (sort_keys(k), sort_keys(v))).collect();
            members.sort_by_cached_key(|(key, _)| {
                let mut bytes = Vec::new();
                ciborium::into_writer(key, &mut bytes).expect("writing to a Vec does not fail");
                bytes
            });
            CborValue::Map(members)
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::testing::value;

    fn layout() -> Layout {
        Layout::new("id", false, ["id", "name", "price"])
    }

    #[test]
    fn members_come_in_schema_order_then_bytewise_and_the_id_is_added() {
        let record =
            Record::from_iter([("z".into(), 1.into()), ("price".into(), 2.5.into()), ("name".into(), "x".into())]);
        let body = Body::encode("7", &record, &layout());
        assert_eq!(&body.json()[..], br#"{"id":"7","name":"x","price":2.5,"z":1}"#);
        assert!(body.cbor().is_none());
    }

    #[test]
    fn an_integer_id_column_holds_numbers_only_where_the_text_is_canonical() {
        let layout = Layout::new("id", true, ["id"]);
        let encode = |id| String::from_utf8(Body::encode(id, &Record::new(), &layout).json().to_vec()).unwrap();
        assert_eq!(encode("7"), r#"{"id":7}"#);
        assert_eq!(encode("007"), r#"{"id":"007"}"#);
    }

    #[test]
    fn rows_that_json_cannot_hold_keep_their_cbor() {
        let record = Record::from_iter([("raw".into(), CborValue::Bytes(vec![1, 2, 255]))]);
        let body = Body::encode("7", &record, &layout());
        assert!(body.cbor().is_some());
        assert_eq!(body.decode().unwrap()["raw"], CborValue::Bytes(vec![1, 2, 255]));
    }

    proptest! {
        #[test]
        fn records_round_trip_through_their_bytes(cells in proptest::collection::btree_map("[a-z]{1,5}", value(), 0..6)) {
            let mut record: Record = cells.into_iter().collect();
            record.insert("id", "7".into());
            let body = Body::encode("7", &record, &layout());
            let back = body.decode().unwrap();
                        // Rows are equal if their bodies are: nested maps are decoded in key order.
            prop_assert_eq!(&Body::encode("7", &back, &layout()), &body);
            for (column, value) in record.iter() {
                prop_assert_eq!(sort_keys(&back[column]), sort_keys(value));
            }
        }
    }
}
