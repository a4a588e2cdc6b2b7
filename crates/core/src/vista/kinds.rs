//! Detection of cells whose kind differs from their column's type, in a row's canonical bytes without decoding it.

use super::cell::is_of_kind;
use super::query::JsonRow;
use super::{ColumnType, Schema};
use crate::record::{CborValue, decode_parts, value_to_json};

/// The declared kinds of a schema's columns, prepared for comparison with rows.
///
/// Only kinds are compared: any text fits a column of dates. Nulls fit every kind.
#[derive(Clone, Debug)]
pub struct Kinds {
    /// Names in canonical JSON (in quotes) and types, in the column order of canonical rows.
    columns: Vec<(Vec<u8>, ColumnType)>,
}

impl Kinds {
    /// The kinds that `schema` declares.
    pub fn new(schema: &Schema) -> Kinds {
        let name = |name: &str| value_to_json(&CborValue::Text(name.to_string()));
        Kinds { columns: schema.columns().iter().map(|column| (name(&column.name), column.ty)).collect() }
    }

    /// Calls `note` with the index of each column whose cell in `row` is of another kind.
    pub fn differences(&self, row: JsonRow<'_>, mut note: impl FnMut(usize)) {
        if row.1.is_some() {
            return self.differences_decoded(row, note);
        }
        // Members are in column order; undeclared ones follow.
        let mut next = 0;
        for (name, value) in row.members() {
            let rest = self.columns[next..].iter().position(|(own, _)| own == name);
            let Some(at) = rest.map(|at| next + at) else { break };
            if !is_json_of_kind(self.columns[at].1, value) {
                note(at);
            }
            next = at + 1;
        }
    }

    /// [`Kinds::differences`] for a row that JSON cannot represent exactly.
    fn differences_decoded(&self, row: JsonRow<'_>, mut note: impl FnMut(usize)) {
        let Ok(record) = decode_parts(row.0, row.1) else { return };
        for (name, value) in record.iter().filter(|(_, value)| !value.is_null()) {
            let name = value_to_json(&CborValue::Text(name.clone()));
            let at = self.columns.iter().position(|(own, _)| *own == name);
            if let Some(at) = at.filter(|at| !is_of_kind(self.columns[*at].1, value)) {
                note(at);
            }
        }
    }
}

/// True if the JSON `value` is of the kind of `ty`. The first byte decides, except for whole numbers.
fn is_json_of_kind(ty: ColumnType, value: &[u8]) -> bool {
    let Some(first) = value.first() else { return true };
    match (ty, first) {
        (ColumnType::Json, _) | (_, b'n') => true,
        (ColumnType::Number | ColumnType::Datetime, b'-' | b'0'..=b'9') => true,
        (ColumnType::Integer, b'-' | b'0'..=b'9') => is_whole(value),
        (ColumnType::Boolean, b't' | b'f') => true,
        (
            ColumnType::String | ColumnType::Decimal | ColumnType::Date | ColumnType::Datetime | ColumnType::Uuid,
            b'"',
        ) => true,
        // Rows with bytes have CBOR beside their JSON and take the decoded path.
        _ => false,
    }
}

/// True if a JSON number is a whole number that fits in 64 bits.
fn is_whole(value: &[u8]) -> bool {
    let digits = value.iter().skip(usize::from(value.first() == Some(&b'-')));
    if !digits.clone().all(u8::is_ascii_digit) {
        return false;
    }
    value.len() < 19 || std::str::from_utf8(value).is_ok_and(|text| text.parse::<i64>().is_ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Body, Record};
    use crate::vista::Column;

    const TYPES: [ColumnType; 10] = [
        ColumnType::String,
        ColumnType::Integer,
        ColumnType::Number,
        ColumnType::Boolean,
        ColumnType::Decimal,
        ColumnType::Date,
        ColumnType::Datetime,
        ColumnType::Bytes,
        ColumnType::Uuid,
        ColumnType::Json,
    ];

    fn cell() -> impl Strategy<Value = CborValue> {
        prop_oneof![
            Just(CborValue::Null),
            any::<bool>().prop_map(CborValue::from),
            any::<i64>().prop_map(CborValue::from),
            any::<u64>().prop_map(CborValue::from),
            any::<f64>().prop_map(CborValue::from),
            "[a\"\\\\{,é]{0,4}".prop_map(CborValue::from),
            proptest::collection::vec(any::<u8>(), 0..4).prop_map(CborValue::Bytes),
            Just(CborValue::Array(vec![1.into(), "a".into()])),
            Just(CborValue::Map(vec![("a".into(), CborValue::Null)])),
        ]
    }

    proptest! {
        #[test]
        fn bytes_and_values_give_the_same_verdict(cells in proptest::collection::vec(proptest::option::of(cell()), 10), more in cell()) {
            let names: Vec<String> = (0..10).map(|n| format!("c\"{n}")).collect();
            let mut columns: Vec<Column> = names.iter().zip(TYPES).map(|(name, ty)| Column::new(name.as_str(), ty)).collect();
            columns.insert(0, Column::new("id", ColumnType::String));
            let schema = Schema::new("id", columns);
            let mut row: Record = names.iter().cloned().zip(cells).filter_map(|(name, cell)| Some((name, cell?))).collect();
            row.insert("zz", more);
            let expected: Vec<usize> = schema
                .columns()
                .iter()
                .enumerate()
                .filter(|(_, column)| row.get(&column.name).is_some_and(|cell| !cell.is_null() && !is_of_kind(column.ty, cell)))
                .map(|(at, _)| at)
                .collect();
            let body = Body::encode("7", &row, schema.layout());
            let mut found = Vec::new();
            Kinds::new(&schema).differences(JsonRow::from(&body), |at| found.push(at));
            found.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
