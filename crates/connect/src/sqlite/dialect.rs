//! Translation of queries for SQLite.

use rusqlite::types::Value;

use super::table::Table;
use crate::sql::Dialect;
use diorama_core::record::CborValue;
use diorama_core::vista::ColumnType;

impl Dialect for Table {
    type Value = Value;

    fn column(&self, column: &str) -> Option<(ColumnType, &str)> {
        let ty = self.schema.column(column)?.ty;
        let same = |kind: ColumnType| {
            use ColumnType::{Boolean, Integer, Number, String};
            kind == ty && matches!(kind, Integer | Number | String | Boolean)
        };
        self.field(column).filter(|field| same(field.kind)).map(|field| (ty, field.quoted.as_str()))
    }

    fn bind(&self, ty: ColumnType, value: &CborValue) -> Option<Value> {
        match (ty, value) {
            (ColumnType::Integer | ColumnType::Number, CborValue::Integer(number)) => {
                i64::try_from(*number).ok().map(Value::Integer)
            }
            (ColumnType::Integer | ColumnType::Number, CborValue::Float(number)) if number.is_finite() => {
                Some(Value::Real(*number))
            }
            (ColumnType::Boolean, CborValue::Bool(value)) => Some(Value::Integer((*value).into())),
            (ColumnType::String, CborValue::Text(text)) => Some(Value::Text(text.clone())),
            _ => None,
        }
    }

    fn placeholder(&self, _: ColumnType, number: usize) -> String {
        format!("?{number}")
    }

    fn binary(&self, _: ColumnType, name: &str) -> String {
        format!("{name} COLLATE BINARY")
    }

    /// Compares within one kind: SQLite orders texts after numbers, while to the evaluator neither is greater.
    fn range(&self, ty: ColumnType, name: &str, operator: &str, placeholder: &str) -> Option<String> {
        let kinds = match ty {
            ColumnType::Integer | ColumnType::Number => "IN ('integer', 'real')",
            ColumnType::String => "= 'text'",
            _ => return None,
        };
        Some(format!("(typeof({name}) {kinds} AND {name} COLLATE BINARY {operator} {placeholder})"))
    }

    /// Sorts numbers before texts before bytes, like the evaluator.
    fn sorts(&self, ty: ColumnType, _: &str) -> bool {
        matches!(ty, ColumnType::Integer | ColumnType::Number | ColumnType::String)
    }

    fn id(&self) -> &str {
        self.schema.id_column()
    }

    fn natural_order(&self) -> String {
        Table::natural_order(self)
    }

    fn page(&self, limit: Option<u64>, offset: u64, first: usize) -> (String, Vec<Value>) {
        let bounded = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        // Minus one means no limit.
        let values = vec![limit.map_or(Value::Integer(-1), bounded), bounded(offset)];
        (format!(" LIMIT ?{first} OFFSET ?{}", first + 1), values)
    }
}
