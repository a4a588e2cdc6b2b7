//! Translation of queries for MariaDB and MySQL.

use mysql_async::Value;

use super::table::{Field, Table, binary, is_declared};
use super::value::Codec;
use crate::sql::Dialect;
use diorama_core::record::CborValue;
use diorama_core::vista::ColumnType;

/// Largest whole number up to which floats represent all.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Maximum length in bytes of a text that is sorted as a whole: `max_sort_length` of the session, less the length's own bytes.
const MAX_SORTED: u32 = 1_022;

impl Table {
    /// Returns the field of a column that SQL and the evaluator compare alike.
    fn comparable(&self, column: &str) -> Option<&Field> {
        let ty = self.schema.column(column)?.ty;
        let field = self.field(column).filter(|field| is_declared(field, ty))?;
        let comparable =
            matches!(field.codec, Codec::Integer | Codec::Double | Codec::Boolean | Codec::Bit | Codec::Text);
        comparable.then_some(field)
    }
}

impl Dialect for Table {
    type Value = Value;

    fn column(&self, column: &str) -> Option<(ColumnType, &str)> {
        self.comparable(column).map(|field| (field.codec.column_type(), field.quoted.as_str()))
    }

    fn bind(&self, ty: ColumnType, value: &CborValue) -> Option<Value> {
        match (ty, value) {
            (ColumnType::Integer, CborValue::Integer(number)) => {
                i64::try_from(*number).map(Value::Int).or_else(|_| u64::try_from(*number).map(Value::UInt)).ok()
            }
            (ColumnType::Integer, CborValue::Float(number)) if number.fract() == 0.0 && number.abs() < EXACT => {
                Some(Value::Int(*number as i64))
            }
            (ColumnType::Number, CborValue::Integer(number)) => {
                let number = i64::try_from(*number).ok().filter(|number| (number.unsigned_abs() as f64) < EXACT)?;
                Some(Value::Double(number as f64))
            }
            (ColumnType::Number, CborValue::Float(number)) if number.is_finite() => Some(Value::Double(*number)),
            (ColumnType::Boolean, CborValue::Bool(value)) => Some(Value::Int((*value).into())),
            (ColumnType::String, CborValue::Text(text)) => Some(Value::Bytes(text.clone().into_bytes())),
            _ => None,
        }
    }

    fn placeholder(&self, _: ColumnType, _: usize) -> String {
        "?".into()
    }

    /// Compares texts as bytes: most collations ignore case, accents and blanks at the end.
    fn binary(&self, ty: ColumnType, name: &str) -> String {
        if ty == ColumnType::String { binary(name) } else { name.to_string() }
    }

    /// Compares with the column's own collation, which its indexes have. Equal bytes are equal there.
    fn indexed(&self, ty: ColumnType, name: &str) -> Option<String> {
        (ty == ColumnType::String).then(|| name.to_string())
    }

    fn range(&self, ty: ColumnType, name: &str, operator: &str, placeholder: &str) -> Option<String> {
        match ty {
            ColumnType::Integer | ColumnType::Number | ColumnType::String => {
                Some(format!("{} {operator} {placeholder}", self.binary(ty, name)))
            }
            _ => None,
        }
    }

    fn sorts(&self, ty: ColumnType, name: &str) -> bool {
        let is_short = || self.fields.iter().any(|field| field.quoted == name && field.length <= MAX_SORTED);
        match ty {
            ColumnType::Integer | ColumnType::Number => true,
            ColumnType::String => is_short(),
            _ => false,
        }
    }

    fn id(&self) -> &str {
        self.schema.id_column()
    }

    fn natural_order(&self) -> String {
        Table::natural_order(self)
    }

    fn page(&self, limit: Option<u64>, offset: u64, _: usize) -> (String, Vec<Value>) {
        (" LIMIT ? OFFSET ?".into(), vec![Value::UInt(limit.unwrap_or(u64::MAX)), Value::UInt(offset)])
    }
}
