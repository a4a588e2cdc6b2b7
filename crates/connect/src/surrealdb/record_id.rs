//! Keys of records as ids of rows.
//!
//! Keys of one table may be of several types. Those of its usual type are the id as they are; the others begin with `~`, so that `10`
//! and `"10"` are two rows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::cbor::{EXCLUDED, INCLUDED, RANGE, RECORD_ID, UUID, UUID_TEXT, tagged};
use diorama_core::record::{CborValue, JsonLimits, parse_json, value_to_json};
use diorama_core::vista::{Column, ColumnType};

/// Limits of a key in an id.
const LIMITS: JsonLimits = JsonLimits { nodes: 1_000, depth: 16 };

/// Usual type of the keys of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    Integer,
    Uuid,
    Text,
}

impl KeyType {
    /// Returns the type of keys like these; `Text` if they are of several types.
    pub(super) fn of<'v>(mut keys: impl Iterator<Item = &'v CborValue>) -> KeyType {
        let of = |key: &CborValue| match key {
            CborValue::Integer(_) => KeyType::Integer,
            CborValue::Tag(UUID | UUID_TEXT, _) => KeyType::Uuid,
            _ => KeyType::Text,
        };
        let Some(first) = keys.next().map(of) else { return KeyType::Text };
        if keys.all(|key| of(key) == first) { first } else { KeyType::Text }
    }

    /// Returns the type of keys of an id column in a table without records.
    pub(super) fn of_column(column: Option<&Column>) -> KeyType {
        match column.map(|column| column.ty) {
            Some(ColumnType::Integer) => KeyType::Integer,
            Some(ColumnType::Uuid) => KeyType::Uuid,
            _ => KeyType::Text,
        }
    }

    /// Returns the type of the id column.
    pub(super) fn column_type(self) -> ColumnType {
        match self {
            KeyType::Integer => ColumnType::Integer,
            KeyType::Uuid => ColumnType::Uuid,
            KeyType::Text => ColumnType::String,
        }
    }

    /// Returns the id of the row with this key.
    pub(super) fn id_of(self, key: &CborValue) -> Option<String> {
        match (self, key) {
            (KeyType::Integer, CborValue::Integer(number)) => Some(i128::from(*number).to_string()),
            (KeyType::Text, CborValue::Text(text)) if !text.starts_with('~') && !text.is_empty() => Some(text.clone()),
            (KeyType::Uuid, CborValue::Tag(UUID | UUID_TEXT, _)) => uuid_of(key).map(|uuid| uuid.to_string()),
            (_, key) => other_id(key),
        }
    }

    /// Returns the key of the row `id`; `None` if there is no such key.
    pub(super) fn key_of(self, id: &str) -> Option<CborValue> {
        if let Some(other) = id.strip_prefix('~') {
            let key = other_key(other)?;
            // One row has one id.
            return Some(key).filter(|key| self.id_of(key).as_deref() == Some(id));
        }
        match self {
            KeyType::Integer => id.parse::<i64>().ok().filter(|number| number.to_string() == id).map(CborValue::from),
            KeyType::Uuid => uuid::Uuid::parse_str(id).ok().map(|uuid| tagged(UUID, uuid.as_bytes().to_vec().into())),
            KeyType::Text => (!id.is_empty()).then(|| id.into()),
        }
    }
}

fn uuid_of(key: &CborValue) -> Option<uuid::Uuid> {
    match key {
        CborValue::Tag(UUID, bytes) => uuid::Uuid::from_slice(bytes.as_bytes()?).ok(),
        CborValue::Tag(UUID_TEXT, text) => uuid::Uuid::parse_str(text.as_text()?).ok(),
        _ => None,
    }
}

/// Returns the id of a key that is not of the usual type: JSON, or bytes if JSON does not keep it.
fn other_id(key: &CborValue) -> Option<String> {
    if let Some(uuid) = uuid_of(key) {
        return Some(format!("~u{uuid}"));
    }
    let json = value_to_json(key);
    if let Ok(parsed) = parse_json(&json, LIMITS)
        && parsed == *key
        && let Ok(json) = String::from_utf8(json)
    {
        return Some(format!("~{json}"));
    }
    let mut bytes = Vec::new();
    ciborium::into_writer(key, &mut bytes).ok()?;
    Some(format!("~.{}", URL_SAFE_NO_PAD.encode(bytes)))
}

fn other_key(text: &str) -> Option<CborValue> {
    if let Some(uuid) = text.strip_prefix('u') {
        return KeyType::Uuid.key_of(uuid);
    }
    if let Some(bytes) = text.strip_prefix('.') {
        return ciborium::from_reader(&*URL_SAFE_NO_PAD.decode(bytes).ok()?).ok();
    }
    parse_json(text.as_bytes(), LIMITS).ok()
}

/// Returns the id of the record of `table` with this key.
pub(super) fn record(table: &str, key: CborValue) -> CborValue {
    tagged(RECORD_ID, CborValue::Array(vec![table.into(), key]))
}

/// Returns the ids of all records after `key`, or of all.
pub(super) fn records_after(table: &str, key: Option<CborValue>) -> CborValue {
    let start = key.map_or(CborValue::Null, |key| tagged(EXCLUDED, key));
    record(table, tagged(RANGE, CborValue::Array(vec![start, CborValue::Null])))
}

/// Returns the ids of all records up to `key`.
pub(super) fn records_to(table: &str, key: CborValue) -> CborValue {
    record(table, tagged(RANGE, CborValue::Array(vec![CborValue::Null, tagged(INCLUDED, key)])))
}

/// Returns table and key of a record id.
pub(super) fn parts(id: &CborValue) -> Option<(&str, &CborValue)> {
    let CborValue::Tag(RECORD_ID, parts) = id else { return None };
    match parts.as_array()?.as_slice() {
        [table, key] => Some((table.as_text()?, key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_one_id_in_any_table() {
        let uuid = uuid::Uuid::from_u128(7);
        let moment = tagged(super::super::cbor::DATETIME, CborValue::Array(vec![1.into(), 2.into()]));
        let keys: Vec<CborValue> = vec![
            10.into(),
            i64::MIN.into(),
            "10".into(),
            "~10".into(),
            "a/b é".into(),
            uuid.to_string().into(),
            tagged(UUID, uuid.as_bytes().to_vec().into()),
            CborValue::Array(vec!["London".into(), moment]),
            CborValue::Array(vec!["London".into(), 7.into()]),
            CborValue::Map(vec![("a".into(), 1.into())]),
        ];
        for ty in [KeyType::Integer, KeyType::Uuid, KeyType::Text] {
            let ids: Vec<String> = keys.iter().map(|key| ty.id_of(key).unwrap()).collect();
            let distinct: std::collections::HashSet<&String> = ids.iter().collect();
            assert_eq!(distinct.len(), keys.len(), "{ids:?}");
            for (id, key) in ids.iter().zip(&keys) {
                assert_eq!(ty.key_of(id).as_ref(), Some(key), "{id}");
            }
        }
        assert_eq!(KeyType::Text.id_of(&"muffin".into()).unwrap(), "muffin");
        assert_eq!(KeyType::Integer.id_of(&"muffin".into()).unwrap(), "~\"muffin\"");
        for wrong in ["010", "", "x", "~7", "~ 7", "~[1, 2]"] {
            assert_eq!(KeyType::Integer.key_of(wrong), None, "{wrong}");
        }
    }
}
