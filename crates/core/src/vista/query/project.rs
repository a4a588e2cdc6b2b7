//! Projection: the part of a row that a select shows.

use std::borrow::Cow;

use super::fields::{Fields, JsonRow, Path};
use super::{Error, Query, Result, Schema};
use crate::record::{CborValue, Record, hash_parts, value_to_json};

/// One item of a select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectItem {
    /// `*`: every member of the row.
    Everything,
    /// A column or a path into it.
    Column {
        /// The column or path.
        column: String,
        /// Name in the result; `None` for the column or a path's last key.
        alias: Option<String>,
    },
}

impl SelectItem {
    /// The column or path, `None` for `*`.
    pub fn column(&self) -> Option<&str> {
        match self {
            SelectItem::Everything => None,
            SelectItem::Column { column, .. } => Some(column),
        }
    }
}

/// A select compiled for one schema.
#[derive(Clone, Debug)]
pub struct Projection(Vec<ProjectedField>);

/// Compiled item of a select.
#[derive(Clone, Debug)]
struct ProjectedField {
    /// `None` for `*`.
    path: Option<Path>,
    name: String,
    json_name: Vec<u8>,
}

impl Query {
    /// Compiles the select; `None` if rows are shown whole.
    ///
    /// # Errors
    /// [`Error::Invalid`] if two items have the same name.
    pub fn projection(&self, schema: &Schema) -> Result<Option<Projection>> {
        if self.select.iter().all(|item| *item == SelectItem::Everything) {
            return Ok(None);
        }
        let mut items: Vec<ProjectedField> = Vec::with_capacity(self.select.len());
        for item in &self.select {
            let (path, name) = match item {
                SelectItem::Everything => (None, String::new()),
                SelectItem::Column { column, alias } => {
                    let path = Path::resolve(column, schema);
                    let name = alias.clone().unwrap_or_else(|| path.name().to_string());
                    (Some(path), name)
                }
            };
            if path.is_some() && items.iter().any(|other| other.path.is_some() && other.name == name) {
                return Err(Error::invalid(format!(
                    "select has two items named {name:?}; give one an alias: other:{name}"
                )));
            }
            let json_name = value_to_json(&CborValue::Text(name.clone()));
            items.push(ProjectedField { path, name, json_name });
        }
        Ok(Some(Projection(items)))
    }
}

impl Projection {
    /// Appends the selected part of `row` as a JSON object. Missing values are shown as null.
    pub fn write_json(&self, row: &JsonRow<'_>, out: &mut Vec<u8>) {
        let mut first = true;
        let mut member = |name: &[u8], value: &[u8]| {
            out.push(if std::mem::take(&mut first) { b'{' } else { b',' });
            out.extend_from_slice(name);
            out.push(b':');
            out.extend_from_slice(value);
        };
        for item in &self.0 {
            match &item.path {
                None => row
                    .members()
                    .filter(|(name, _)| !self.names(|item| item.json_name == *name))
                    .for_each(|(name, value)| member(name, value)),
                Some(path) if path.is_plain() => member(&item.json_name, row.member(path).unwrap_or(b"null")),
                Some(path) => match row.field(path) {
                    Some(value) => member(&item.json_name, &value_to_json(&value)),
                    None => member(&item.json_name, b"null"),
                },
            }
        }
        if first {
            out.push(b'{');
        }
        out.push(b'}');
    }

    /// Hash of the selected part of `row`: the version of the row for those who see this part only.
    pub fn hash(&self, row: &JsonRow<'_>) -> u128 {
        let mut shown = Vec::new();
        self.write_json(row, &mut shown);
        hash_parts(&shown, None)
    }

    /// The selected part of `row`. Missing values are shown as null.
    pub fn apply(&self, row: &Record) -> Record {
        let mut shown = Record::new();
        for item in &self.0 {
            match &item.path {
                None => shown.extend(
                    row.iter()
                        .filter(|(name, _)| !self.names(|item| item.name == **name))
                        .map(|(name, value)| (name.clone(), value.clone())),
                ),
                Some(path) => {
                    let value = row.field(path).map_or(CborValue::Null, Cow::into_owned);
                    shown.insert(&item.name, value);
                }
            }
        }
        shown
    }

    /// True if `is` holds for an item other than `*`.
    fn names(&self, is: impl Fn(&ProjectedField) -> bool) -> bool {
        self.0.iter().any(|item| item.path.is_some() && is(item))
    }
}
