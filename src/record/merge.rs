//! Merging a patch into a row, as RFC 7396 says.

use super::{CborValue, Record};
use crate::vista::Schema;

/// Applies `patch` to `record`: given columns replace, nested objects merge, what is not given stays.
///
/// A null sets a column that the schema declares to null and removes one that it does not declare; inside nested objects a
/// null removes the member.
pub fn merge_patch(record: &mut Record, patch: &Record, schema: &Schema) {
    for (column, change) in patch {
        match change {
            CborValue::Null if schema.column(column).is_none() => {
                record.remove(column);
            }
            CborValue::Null => {
                record.insert(column, CborValue::Null);
            }
            change => {
                let merged = merge_value(record.get(column), change);
                record.insert(column, merged);
            }
        }
    }
}

fn merge_value(target: Option<&CborValue>, change: &CborValue) -> CborValue {
    let CborValue::Map(changes) = change else { return change.clone() };
    let mut members = match target {
        Some(CborValue::Map(members)) => members.clone(),
        _ => Vec::new(),
    };
    for (key, change) in changes {
        let at = members.iter().position(|(own, _)| own == key);
        match (at, change) {
            (Some(at), CborValue::Null) => drop(members.remove(at)),
            (None, CborValue::Null) => {}
            (Some(at), change) => members[at].1 = merge_value(Some(&members[at].1), change),
            (None, change) => members.push((key.clone(), merge_value(None, change))),
        }
    }
    CborValue::Map(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{JsonLimits, parse_json};
    use crate::vista::{Column, ColumnType};

    fn record(json: &str) -> Record {
        let CborValue::Map(members) = parse_json(json.as_bytes(), JsonLimits::default()).unwrap() else { panic!() };
        members.into_iter().map(|(key, value)| (key.into_text().unwrap(), value)).collect()
    }

    #[test]
    fn patches_merge_as_rfc_7396_says() {
        let schema = Schema::new("id", vec![Column::new("price", ColumnType::Integer)]);
        for (target, patch, merged) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"price":1}"#, r#"{"price":null}"#, r#"{"price":null}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[1]}"#, r#"{"a":{"b":{"c":null}}}"#, r#"{"a":{"b":{}}}"#),
            (r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"x":null}}"#, r#"{"a":{"y":2}}"#),
        ] {
            let mut row = record(target);
            merge_patch(&mut row, &record(patch), &schema);
            assert_eq!(row, record(merged), "{target} + {patch}");
        }
    }
}
