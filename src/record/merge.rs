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
