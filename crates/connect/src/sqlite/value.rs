//! Conversion between cells and values.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::types::{Value, ValueRef};

use crate::rows::field_error;
use diorama_core::record::{CborValue, JsonLimits, NOT_UTF8, parse_json, value_to_json};
use diorama_core::vista::{ColumnType, Result};

/// Conversion of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// Cells as SQLite stores them.
    Plain,
    /// 0 and 1 are false and true.
    Boolean,
    /// Texts are JSON.
    Json,
    /// Bytes that identify the row, as base64url text outside of the database.
    BlobKey,
}

impl Codec {
    /// Returns the codec for cells of type `ty`. Cells of a column without a type or with `ANY` are never parsed as JSON.
    pub(super) fn of(ty: ColumnType, declared: &str) -> Codec {
        match ty {
            ColumnType::Boolean => Codec::Boolean,
            ColumnType::Json if !declared.is_empty() && !declared.eq_ignore_ascii_case("any") => Codec::Json,
            _ => Codec::Plain,
        }
    }
}

/// Converts a cell to a value. A cell that does not fit the column's type keeps its storage type.
pub(super) fn from_sql(codec: Codec, cell: ValueRef<'_>) -> CborValue {
    match cell {
        ValueRef::Null => CborValue::Null,
        ValueRef::Integer(number @ (0 | 1)) if codec == Codec::Boolean => (number == 1).into(),
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Blob(bytes) if codec == Codec::BlobKey => URL_SAFE_NO_PAD.encode(bytes).into(),
        ValueRef::Blob(bytes) => CborValue::Bytes(bytes.to_vec()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if codec == Codec::Json => {
                parse_json(bytes, JsonLimits::default()).unwrap_or_else(|_| text.into())
            }
            Ok(text) => text.into(),
            Err(_) => CborValue::Tag(NOT_UTF8, Box::new(CborValue::Bytes(bytes.to_vec()))),
        },
    }
}

/// Decodes the id of a table with binary keys.
pub(super) fn blob_key(id: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(id.trim_end_matches('=')).ok()
}

/// Returns true if a value is text of the database that is not valid UTF-8. Such a value can only come from the same cell, so
/// writing it back leaves the cell unchanged.
pub(super) fn is_as_read(value: &CborValue) -> bool {
    matches!(value, CborValue::Tag(NOT_UTF8, _))
}

/// Converts a value to a cell of `column`.
///
/// # Errors
/// [`Error::Invalid`](diorama_core::Error::Invalid) for values that SQLite would store as something else.
pub(super) fn to_sql(column: &str, codec: Codec, value: &CborValue) -> Result<Value> {
    let refuse = |detail: &str| Err(field_error(column, detail));
    match value {
        CborValue::Null => Ok(Value::Null),
        CborValue::Bool(value) if codec != Codec::Json => Ok(Value::Integer((*value).into())),
        CborValue::Integer(number) => match i64::try_from(*number) {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => refuse("must be an integer of 64 bits"),
        },
        CborValue::Float(number) if !number.is_nan() => Ok(Value::Real(*number)),
        CborValue::Float(_) => refuse("must be a number: SQLite has no NaN"),
        CborValue::Bytes(bytes) => Ok(Value::Blob(bytes.clone())),
        CborValue::Text(text) if codec == Codec::BlobKey => match blob_key(text) {
            Some(bytes) => Ok(Value::Blob(bytes)),
            None => refuse("must be bytes as base64url text"),
        },
        CborValue::Text(text) if codec != Codec::Json => Ok(Value::Text(text.clone())),
        other if codec == Codec::Json => match String::from_utf8(value_to_json(other)) {
            Ok(json) => Ok(Value::Text(json)),
            Err(_) => refuse("cannot be written as JSON"),
        },
        _ => refuse("must be a plain value: only JSON columns hold nested values"),
    }
}
