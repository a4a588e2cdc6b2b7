//! RFC 7396 merge patches over rows.

use super::{CborValue, Layout, Record};

/// `row` with `patch` merged in: given columns replace, nested maps merge. A null sets a declared column to null and removes
/// an undeclared one; inside nested maps it removes the member.
pub fn merge_patch(mut row: Record, patch: &Record, layout: &Layout) -> Record {
    for (column, value) in patch {
        if value.is_null() && layout.rank(column).is_none() {
            row.remove(column);
        } else {
            let merged = merge_value(row.get(column), value);
            row.insert(column.as_str(), merged);
        }
    }
    row
}

fn merge_value(old: Option<&CborValue>, patch: &CborValue) -> CborValue {
    let CborValue::Map(changes) = patch else { return patch.clone() };
    let mut members = match old {
        Some(CborValue::Map(members)) => members.clone(),
        _ => Vec::new(),
    };
    for (key, change) in changes {
        let place = members.iter().position(|(known, _)| known == key);
        match (place, change.is_null()) {
            (Some(place), true) => {
                members.remove(place);
            }
            (Some(place), false) => members[place].1 = merge_value(Some(&members[place].1), change),
            (None, true) => {}
            (None, false) => members.push((key.clone(), merge_value(None, change))),
        }
    }
    CborValue::Map(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{JsonLimits, parse_json};

    fn record(json: &str) -> Record {
        let CborValue::Map(members) = parse_json(json.as_bytes(), JsonLimits::default()).unwrap() else { panic!() };
        members.into_iter().map(|(key, value)| (key.into_text().unwrap(), value)).collect()
    }

    #[test]
    fn patches_merge_as_rfc_7396_says() {
        let layout = Layout::new("id", false, ["id", "price"]);
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
            let row = merge_patch(record(target), &record(patch), &layout);
            assert_eq!(row, record(merged), "{target} + {patch}");
        }
    }
}
