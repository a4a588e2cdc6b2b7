//! RFC 7396 merge patches over rows.

use super::{CborValue, Layout, Record};

/// Merges `patch` into `row`: columns replace, nested maps merge. A null sets a declared column to null and removes an
/// undeclared one; inside nested maps it removes the member.
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
        let position = members.iter().position(|(known, _)| known == key);
        match (position, change.is_null()) {
            (Some(position), true) => {
                members.remove(position);
            }
            (Some(position), false) => members[position].1 = merge_value(Some(&members[position].1), change),
            (None, true) => {}
            (None, false) => members.push((key.clone(), merge_value(None, change))),
        }
    }
    CborValue::Map(members)
}

/// Joins two patches into one with the same effect. `None` if there is no such patch: if `second` merges a nested map into a
/// value that `first` set to something else, the joined patch could not express that the old members are removed.
pub fn join_patches(mut first: Record, second: &Record) -> Option<Record> {
    for (column, value) in second {
        let joined = join_values(first.get(column), value)?;
        first.insert(column.as_str(), joined);
    }
    Some(first)
}

fn join_values(first: Option<&CborValue>, second: &CborValue) -> Option<CborValue> {
    let (Some(first), CborValue::Map(changes)) = (first, second) else { return Some(second.clone()) };
    let CborValue::Map(members) = first else { return None };
    let mut members = members.clone();
    for (key, change) in changes {
        match members.iter().position(|(known, _)| known == key) {
            Some(position) => members[position].1 = join_values(Some(&members[position].1), change)?,
            None => members.push((key.clone(), change.clone())),
        }
    }
    Some(CborValue::Map(members))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{JsonLimits, parse_json};

    fn value() -> impl Strategy<Value = CborValue> {
        let leaf = prop_oneof![Just(CborValue::Null), (0u8..3).prop_map(CborValue::from)];
        leaf.prop_recursive(3, 12, 3, |inner| {
            proptest::collection::btree_map("[ab]", inner, 0..3).prop_map(|members| {
                CborValue::Map(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
            })
        })
    }

    fn row() -> impl Strategy<Value = Record> {
        proptest::collection::btree_map("[abp]", value(), 0..3).prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
                fn joined_patches_have_the_effect_of_both_in_order(old in row(), first in row(), second in row()) {
            let layout = Layout::new("id", false, ["id", "p"]);
                        // Stored form of rows: without nested nulls, members in order.
            let encoded = |row: &Record| crate::record::Body::encode("x", row, &layout);
            let old = merge_patch(Record::new(), &old, &layout);
            if let Some(joined) = join_patches(first.clone(), &second) {
                let one_by_one = merge_patch(merge_patch(old.clone(), &first, &layout), &second, &layout);
                prop_assert_eq!(encoded(&merge_patch(old, &joined, &layout)), encoded(&one_by_one));
            }
        }
    }

    fn record(json: &str) -> Record {
        let CborValue::Map(members) = parse_json(json.as_bytes(), JsonLimits::default()).unwrap() else { panic!() };
        members.into_iter().map(|(key, value)| (key.into_text().unwrap(), value)).collect()
    }

    #[test]
    fn patches_merge_as_in_rfc_7396() {
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
