//! Visible row before an entry, as the entry stores it. A subscriber receives the same change from memory and, after a restart,
//! from the journal.

use serde::{Deserialize, Serialize};

use crate::record::{Body, Layout, Member, Record};

/// Visible row before a change.
///
/// Stored as the difference from the row after it if that is smaller: former values of changed columns, and the names of new
/// columns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FormerRow {
    /// Not recorded, because the entry has no row event or has format 1.
    #[default]
    #[serde(rename = "-")]
    Unknown,
    /// There was no row.
    #[serde(rename = "a")]
    Absent,
    /// The row did not change; `None` if there is none.
    #[serde(rename = "s")]
    Same(Option<Body>),
    /// The complete former row.
    #[serde(rename = "r")]
    Row(Body),
    /// The columns that differed.
    #[serde(rename = "c")]
    Columns {
        /// Former values, encoded like [`Body::encode_plain`].
        #[serde(rename = "v")]
        values: Body,
        /// Columns that the former row did not have.
        #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
        new: Vec<String>,
    },
}

impl FormerRow {
    /// Creates the former row of a change from `old` to `new`.
    pub(super) fn between(old: Option<&Body>, new: Option<&Body>, layout: &Layout) -> FormerRow {
        match (old, new) {
            (old, new) if old == new => FormerRow::Same(new.cloned()),
            (None, _) => FormerRow::Absent,
            (Some(old), None) => FormerRow::Row(old.clone()),
            (Some(old), Some(new)) => difference(old, new, layout).unwrap_or_else(|| FormerRow::Row(old.clone())),
        }
    }

    /// Returns the row before the change that led to `new`: `None` if it is unknown, `Some(None)` if there was none.
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
                // The id is already a member, or the row never had it as one.
                Some(Some(Body::encode_plain(&row, layout)))
            }
        }
    }

    pub(super) fn is_unknown(&self) -> bool {
        matches!(self, FormerRow::Unknown)
    }
}

/// Returns the columns in which two rows differ; `None` if the complete former row is smaller or cannot be restored from them.
fn difference(old: &Body, new: &Body, layout: &Layout) -> Option<FormerRow> {
    if let Some(former_row) = difference_of_members(old, new, layout) {
        return (former_row.size() < old.size()).then_some(former_row);
    }
    let (before, after) = (old.decode().ok()?, new.decode().ok()?);
    let changed = before.iter().filter(|(column, value)| after.get(column) != Some(*value));
    let values: Record = changed.map(|(column, value)| (column.clone(), value.clone())).collect();
    let values = Body::encode_plain(&values, layout);
    let added: Vec<String> = after.columns().filter(|column| !before.contains(column)).map(str::to_string).collect();
    let former_row = FormerRow::Columns { values, new: added };
    let smaller = former_row.size() < old.size();
    (smaller && former_row.row(Some(new), layout).as_ref() == Some(&Some(old.clone()))).then_some(former_row)
}

/// [`difference`] of rows whose members can be compared without decoding them; `None` for others.
fn difference_of_members(old: &Body, new: &Body, layout: &Layout) -> Option<FormerRow> {
    let (before, after) = (old.members()?, new.members()?);
    // The former row is restored in the layout's order.
    let rank = |member: &Member<'_>| layout.rank(member.0).unwrap_or(usize::MAX);
    let is_ordered =
        |pair: &[Member<'_>]| rank(&pair[0]).cmp(&rank(&pair[1])).then_with(|| pair[0].0.cmp(pair[1].0)).is_lt();
    if !before.windows(2).all(is_ordered) {
        return None;
    }
    let values = Body::from_members(before.iter().copied().filter(|member| !has(&after, member)));
    let added = after.iter().filter(|member| !before.iter().any(|(name, _)| *name == member.0));
    Some(FormerRow::Columns { values, new: added.map(|(name, _)| name.to_string()).collect() })
}

fn has(members: &[Member<'_>], member: &Member<'_>) -> bool {
    members.iter().find(|(name, _)| *name == member.0).is_some_and(|(_, value)| *value == member.1)
}

impl FormerRow {
    /// Approximate size in bytes.
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
        fn the_former_row_is_restored_from_its_difference(old in row(), new in row()) {
            let layout = Layout::new("id", false, ["id", "name", "a"]);
            let encode = |row: &Option<Record>| row.as_ref().map(|row| Body::encode("1", row, &layout));
            let (old, new) = (encode(&old), encode(&new));
            let former_row = FormerRow::between(old.as_ref(), new.as_ref(), &layout);
            prop_assert_eq!(former_row.row(new.as_ref(), &layout), Some(old.clone()));
            prop_assert!(former_row.size() <= old.as_ref().map_or(0, Body::size));
            if let Some((old, new)) = old.as_ref().zip(new.as_ref()) {
                let quick = difference_of_members(old, new, &layout);
                prop_assert_eq!(quick.is_some(), old.cbor().is_none() && new.cbor().is_none());
                prop_assert!(quick.is_none_or(|quick| quick.row(Some(new), &layout) == Some(Some(old.clone()))));
            }
        }
    }
}
