//! Cells to values and back.

use rusqlite::types::{Value, ValueRef};

use crate::drivers::field_error;
use crate::record::{CborValue, JsonLimits, parse_json, value_to_json};
use crate::vista::{ColumnType, Result};

/// How a column's cells are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// As SQLite stores them.
    Plain,
    /// 0 and 1 are false and true.
    Boolean,
    /// Texts are JSON.
    Json,
}

impl Codec {
    /// For cells of type `ty`; those of an untyped column are no JSON, whatever they look like.
    pub(super) fn of(ty: ColumnType, declared: &str) -> Codec {
        match ty {
            ColumnType::Boolean => Codec::Boolean,
            ColumnType::Json if !declared.is_empty() => Codec::Json,
            _ => Codec::Plain,
        }
    }
}

/// A cell as a value. What does not fit the column's type stays what it is stored as.
pub(super) fn from_sql(codec: Codec, cell: ValueRef<'_>) -> CborValue {
    match cell {
        ValueRef::Null => CborValue::Null,
        ValueRef::Integer(number @ (0 | 1)) if codec == Codec::Boolean => (number == 1).into(),
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Blob(bytes) => CborValue::Bytes(bytes.to_vec()),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if codec == Codec::Json => {
                parse_json(bytes, JsonLimits::default()).unwrap_or_else(|_| text.into())
            }
            Ok(text) => text.into(),
            Err(_) => CborValue::Bytes(bytes.to_vec()),
        },
    }
}

/// A value as a cell of `column`.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for what SQLite would store as something else.
pub(super) fn to_sql(column: &str, codec: Codec, value: &CborValue) -> Result<Value> {
    let refuse = |detail: &str| Err(field_error(column, detail));
    match value {
        CborValue::Null => Ok(Value::Null),
        CborValue::Bool(value) if codec != Codec::Json => Ok(Value::Integer((*value).into())),
        CborValue::Integer(number) => match i64::try_from(*number) {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => refuse("must be an integer of 64 bits"),
        },
        CborValue::Float(number) if number.is_finite() => Ok(Value::Real(*number)),
        CborValue::Float(_) => refuse("must be a finite number"),
        CborValue::Bytes(bytes) => Ok(Value::Blob(bytes.clone())),
        CborValue::Text(text) if codec != Codec::Json => Ok(Value::Text(text.clone())),
        other if codec == Codec::Json => match String::from_utf8(value_to_json(other)) {
            Ok(json) => Ok(Value::Text(json)),
            Err(_) => refuse("cannot be written as JSON"),
        },
        _ => refuse("must be one plain value: only JSON columns hold nested ones"),
    }
}
