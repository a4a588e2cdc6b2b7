//! Translation of queries for PostgreSQL.

use super::table::{Field, Table, is_declared};
use super::value::{Codec, Param};
use crate::sql::Dialect;
use diorama_core::record::CborValue;
use diorama_core::vista::ColumnType;

/// Largest whole number up to which floats represent all.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Table {
    /// Returns the field of a column that SQL and the evaluator compare alike.
    fn comparable(&self, column: &str) -> Option<&Field> {
        let ty = self.schema.column(column)?.ty;
        let field = self.field(column).filter(|field| is_declared(field, ty))?;
        match &field.codec {
            Codec::Integer | Codec::Double | Codec::Boolean => Some(field),
            // Blank-padded text ignores blanks when it is compared, and other types are only shown as text.
            Codec::Text if field.is_deterministic && !field.cast.contains("bpchar") => Some(field),
            _ => None,
        }
    }
}

impl Dialect for Table {
    type Value = Param;

    fn column(&self, column: &str) -> Option<(ColumnType, &str)> {
        self.comparable(column).map(|field| (field.codec.column_type(), field.quoted.as_str()))
    }

    fn bind(&self, ty: ColumnType, value: &CborValue) -> Option<Param> {
        match (ty, value) {
            (ColumnType::Integer, CborValue::Integer(number)) => {
                i64::try_from(*number).ok().map(|number| Param::text(number.to_string()))
            }
            (ColumnType::Integer, CborValue::Float(number)) if number.fract() == 0.0 && number.abs() < EXACT => {
                Some(Param::text((*number as i64).to_string()))
            }
            (ColumnType::Number, CborValue::Integer(number)) => {
                let number = i64::try_from(*number).ok().filter(|number| (number.unsigned_abs() as f64) < EXACT)?;
                Some(Param::text(number.to_string()))
            }
            (ColumnType::Number, CborValue::Float(number)) if number.is_finite() => {
                Some(Param::text(format!("{number:e}")))
            }
            (ColumnType::Boolean, CborValue::Bool(value)) => Some(Param::text(value.to_string())),
            (ColumnType::String, CborValue::Text(text)) if !text.contains('\0') => Some(Param::text(text.as_str())),
            _ => None,
        }
    }

    fn placeholder(&self, ty: ColumnType, number: usize) -> String {
        let cast = match ty {
            ColumnType::Integer => "int8",
            ColumnType::Number => "float8",
            ColumnType::Boolean => "bool",
            _ => "text",
        };
        format!("${number}::{cast}")
    }

    fn binary(&self, ty: ColumnType, name: &str) -> String {
        if ty == ColumnType::String { format!("{name}::text COLLATE \"C\"") } else { name.to_string() }
    }

    /// Compares with the column's own collation, which an index has; it is deterministic, so that equal means the same bytes.
    fn exact(&self, _: ColumnType, name: &str) -> String {
        name.to_string()
    }

    fn range(&self, ty: ColumnType, name: &str, operator: &str, placeholder: &str) -> Option<String> {
        match ty {
            // NaN equals itself and is greater than every number, to the server and to the evaluator.
            ColumnType::Integer | ColumnType::Number => Some(format!("{name} {operator} {placeholder}")),
            ColumnType::String => Some(format!("{} {operator} {placeholder}", self.binary(ty, name))),
            _ => None,
        }
    }

    fn sorts(&self, ty: ColumnType, _: &str) -> bool {
        matches!(ty, ColumnType::Integer | ColumnType::Number | ColumnType::String)
    }

    fn id(&self) -> &str {
        self.schema.id_column()
    }

    fn natural_order(&self) -> String {
        Table::natural_order(self)
    }

    fn page(&self, limit: Option<u64>, offset: u64, first: usize) -> (String, Vec<Param>) {
        let bounded = |number: u64| Param::text(i64::try_from(number).unwrap_or(i64::MAX).to_string());
        match limit {
            Some(limit) => {
                (format!(" LIMIT ${first}::int8 OFFSET ${}::int8", first + 1), vec![bounded(limit), bounded(offset)])
            }
            None => (format!(" OFFSET ${first}::int8"), vec![bounded(offset)]),
        }
    }
}
