//! The visible row before an entry, as the entry keeps it: what a subscriber is told of a change is the same whether the change
//! is read from memory or, after a restart, from the journal.

use serde::{Deserialize, Serialize};

use crate::record::{Body, Layout, Record};

/// The row that readers saw before a change.
///
/// Kept as the difference from the row after it, where that is smaller: former values of changed columns, and the names of
/// columns that are new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormerRow {
    /// Not recorded: the entry tells nobody of a row, or has format 1.
    #[default]
    #[serde(rename = "-")]
    Unknown,
    /// There was no row.
    #[serde(rename = "a")]
    Absent,
    /// The row is as it was; `None` if there is none.
    #[serde(rename = "s")]
    Same(Option<Body>),
    /// It was this.
    #[serde(rename = "r")]
    Row(Body),
    /// It differed in these columns.
    #[serde(rename = "c")]
    Columns {
        /// Former values, encoded as [`Body::encode_plain`] does.
        #[serde(rename = "v")]
        values: Body,
        /// Columns that it did not have.
        #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
        new: Vec<String>,
    },
}

impl FormerRow {
    /// The record of a change from `old` to `new`.
    pub(super) fn between(old: Option<&Body>, new: Option<&Body>, layout: &Layout) -> FormerRow {
        match (old, new) {
            (old, new) if old == new => FormerRow::Same(new.cloned()),
            (None, _) => FormerRow::Absent,
            (Some(old), None) => FormerRow::Row(old.clone()),
            (Some(old), Some(new)) => difference(old, new, layout).unwrap_or_else(|| FormerRow::Row(old.clone())),
        }
    }

    /// The row before the change that led to `new`: `None` if it is not known, `Some(None)` if there was none.
    pub fn row(&self, new: Option<&Body>, layout: &Layout) -> Option<Option<Body>> {
        match self {
            FormerRow::Unknown => None,
            FormerRow::Absent => Some(None),
            FormerRow::Same(row) => Some(row.clone()),
            FormerRow::Row(row) => Some(Some(row.clone())),
            FormerRow::Columns { values, new: added } => {
                let mut row = new?.decode().ok()?;
                added.iter().for_each(|column| drop(row.remove(column)));
                for (column, value) in &values.decode().ok()? {
                    row.insert(column.clone(), value.clone());
                }
                // The id is a member already, or the row never had it as one.
                Some(Some(Body::encode_plain(&row, layout)))
            }
        }
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, FormerRow::Unknown)
    }
}

/// The columns in which two rows differ; `None` if the whole former row is smaller, or cannot be made from them again.
fn difference(old: &Body, new: &Body, layout: &Layout) -> Option<FormerRow> {
    let (before, after) = (old.decode().ok()?, new.decode().ok()?);
    let changed = before.iter().filter(|(column, value)| after.get(column) != Some(*value));
    let values: Record = changed.map(|(column, value)| (column.clone(), value.clone())).collect();
    let values = Body::encode_plain(&values, layout);
    let added: Vec<String> = after.columns().filter(|column| !before.contains(column)).map(str::to_string).collect();
    let former_row = FormerRow::Columns { values, new: added };
    let smaller = former_row.size() < old.size();
    (smaller && former_row.row(Some(new), layout).as_ref() == Some(&Some(old.clone()))).then_some(former_row)
}

impl FormerRow {
    /// Bytes held, about.
    fn size(&self) -> usize {
        match self {
            FormerRow::Unknown | FormerRow::Absent | FormerRow::Same(None) => 0,
            FormerRow::Same(Some(row)) | FormerRow::Row(row) => row.size(),
            FormerRow::Columns { values, new } => values.size() + new.iter().map(|name| name.len() + 2).sum::<usize>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::CborValue;

    fn cell() -> impl Strategy<Value = CborValue> {
        prop_oneof![
            Just(CborValue::Null),
            any::<i64>().prop_map(CborValue::from),
            any::<f64>().prop_map(CborValue::from),
            "[a-c]{0,20}".prop_map(CborValue::from),
            Just(CborValue::Bytes(vec![1, 2])),
        ]
    }

    fn row() -> impl Strategy<Value = Option<Record>> {
        let cells =
            proptest::collection::btree_map(prop_oneof!["[ab]", "[xyz]", Just("name".to_string())], cell(), 0..6);
        proptest::option::of(cells.prop_map(|cells| cells.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn the_former_row_is_made_again_from_what_is_kept_of_it(old in row(), new in row()) {
            let layout = Layout::new("id", false, ["id", "name", "a"]);
            let encode = |row: &Option<Record>| row.as_ref().map(|row| Body::encode("1", row, &layout));
            let (old, new) = (encode(&old), encode(&new));
            let former_row = FormerRow::between(old.as_ref(), new.as_ref(), &layout);
            prop_assert_eq!(former_row.row(new.as_ref(), &layout), Some(old.clone()));
            prop_assert!(former_row.size() <= old.map_or(0, |old| old.size()));
        }
    }
}
