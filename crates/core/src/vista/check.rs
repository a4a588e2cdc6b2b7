//! Checks of rows against their schema: one set of rules for all senders.
//!
//! A cell that is not of its column's type is converted if nothing is lost. Otherwise the row is refused, with all its errors.
//! Rows listed by a source are not checked and are kept as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::cell::{self, Coercion, expected};
use super::query::nearest;
use super::{Column, ColumnType, Error, Flag, Result, Schema};
use crate::record::{CborValue, Record, id_from_value, value_to_json};

/// Extent of a record: a whole row or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A whole row, which must have the mandatory columns. Its id may be missing, because it is known from elsewhere.
    Whole,
    /// Some columns, to be merged into a row. They must not set a mandatory column to null.
    Part,
}

/// Policy for columns that the schema does not declare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownColumns {
    /// Keep them unchanged.
    #[default]
    Keep,
    /// Refuse the row.
    Refuse,
    /// Drop them from the row.
    Drop,
}

impl UnknownColumns {
    /// The policy for rows from upstream, whose sender cannot correct them: drops instead of refusing.
    #[must_use]
    pub fn for_upstream(self) -> UnknownColumns {
        match self {
            UnknownColumns::Keep => UnknownColumns::Keep,
            UnknownColumns::Refuse | UnknownColumns::Drop => UnknownColumns::Drop,
        }
    }
}

/// A check of rows against one schema.
#[derive(Clone, Copy, Debug)]
pub struct RowCheck<'a> {
    schema: &'a Schema,
    shape: Shape,
    coercion: Coercion,
    unknown: UnknownColumns,
    held: Option<&'a Record>,
}

/// A row that passed the check.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked<'r> {
    /// The row, with every cell of its column's type.
    pub row: Cow<'r, Record>,
    /// Names of the dropped columns.
    pub dropped: Vec<String>,
}

/// Verdict on one cell.
enum Verdict {
    Fits,
    Becomes(CborValue),
    Dropped,
    Wrong(String),
}

impl<'a> RowCheck<'a> {
    /// Creates a check of typed cells that keeps unknown columns.
    pub fn new(schema: &'a Schema, shape: Shape) -> RowCheck<'a> {
        RowCheck { schema, shape, coercion: Coercion::Typed, unknown: UnknownColumns::Keep, held: None }
    }

    /// Sets the treatment of text in columns of other types.
    #[must_use]
    pub fn coercion(self, coercion: Coercion) -> RowCheck<'a> {
        RowCheck { coercion, ..self }
    }

    /// Sets the current row. A cell that equals its current value passes even if it does not fit its column, so that a row that
    /// was read can be written back.
    #[must_use]
    pub fn held(self, held: Option<&'a Record>) -> RowCheck<'a> {
        RowCheck { held, ..self }
    }

    /// Sets the policy for unknown columns.
    #[must_use]
    pub fn unknown(self, unknown: UnknownColumns) -> RowCheck<'a> {
        RowCheck { unknown, ..self }
    }

    /// Checks `row` and converts its cells where needed. A row that fits is not copied.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the error of every invalid column.
    pub fn check<'r>(&self, row: Cow<'r, Record>) -> Result<Checked<'r>> {
        let (mut converted, mut dropped, mut errors) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (name, value) in row.iter() {
            match self.cell(name, value) {
                Verdict::Fits => {}
                Verdict::Becomes(value) => converted.push((name.clone(), value)),
                Verdict::Dropped => dropped.push(name.clone()),
                Verdict::Wrong(detail) => drop(errors.insert(name.clone(), detail)),
            }
        }
        self.check_mandatory(&row, &mut errors);
        if let Some((name, detail)) = errors.first_key_value() {
            return Err(Error::Invalid { detail: format!("column {name:?} {detail}"), fields: errors });
        }
        let mut row = row;
        for (name, value) in converted {
            row.to_mut().insert(name, value);
        }
        for name in &dropped {
            row.to_mut().remove(name);
        }
        Ok(Checked { row, dropped })
    }

    /// [`RowCheck::check`] for the row `id`, whose id column must not hold another id. For a [`Shape::Part`] the id itself is not
    /// checked: an existing row keeps its id even if the id column could not hold it.
    ///
    /// # Errors
    /// As [`RowCheck::check`]; [`Error::Invalid`] for an id that the id column cannot hold, [`Error::Conflict`] for another id.
    pub fn check_under<'r>(&self, id: &str, row: Cow<'r, Record>) -> Result<Checked<'r>> {
        if self.shape == Shape::Whole {
            check_id(self.schema, id)?;
        }
        let mut checked = self.check(row)?;
        let column = self.schema.id_column();
        match checked.row.get(column) {
            Some(CborValue::Null) => drop(checked.row.to_mut().remove(column)),
            Some(value) => match id_from_value(value) {
                Some(own) if own == id => {}
                // The row keeps its own spelling of the id.
                Some(own) if self.schema.is_same_id(&own, id) => {
                    drop(checked.row.to_mut().insert(column, id.into()));
                }
                _ => {
                    let detail = format!("has another id in its column {column:?}");
                    return Err(Error::Conflict { id: id.to_string(), detail });
                }
            },
            None => {}
        }
        Ok(checked)
    }

    /// Converts the cells of `row` where possible and keeps the others; `None` if there is nothing to convert.
    pub fn convert(&self, row: &Record) -> Option<Record> {
        let converted = row.iter().filter_map(|(name, value)| match self.cell(name, value) {
            Verdict::Becomes(value) => Some((name.clone(), value)),
            Verdict::Fits | Verdict::Dropped | Verdict::Wrong(_) => None,
        });
        let converted: Vec<_> = converted.collect();
        (!converted.is_empty()).then(|| {
            let mut row = row.clone();
            row.extend(converted);
            row
        })
    }

    fn cell(&self, name: &str, value: &CborValue) -> Verdict {
        let rank = self.schema.layout().rank(name);
        let Some(column) = rank.and_then(|rank| self.schema.columns().get(rank)) else {
            return self.unknown_cell(name);
        };
        if value.is_null() {
            return Verdict::Fits;
        }
        if column.has(Flag::Id) {
            return id_cell(column, value);
        }
        if let Some(verdict) = self.held.and_then(|held| held.get(name)).and_then(|held| unchanged(held, value)) {
            return verdict;
        }
        match cell::convert(column.ty, value, self.coercion) {
            Ok(None) => Verdict::Fits,
            Ok(Some(value)) => Verdict::Becomes(value),
            Err(expected) => Verdict::Wrong(format!("must be {expected}")),
        }
    }

    fn unknown_cell(&self, name: &str) -> Verdict {
        match self.unknown {
            UnknownColumns::Keep => Verdict::Fits,
            UnknownColumns::Drop => Verdict::Dropped,
            UnknownColumns::Refuse => {
                let names = self.schema.columns().iter().map(|column| &*column.name);
                Verdict::Wrong(match nearest(name, names) {
                    Some(nearest) => format!("does not exist; did you mean {nearest:?}?"),
                    None => "does not exist".to_string(),
                })
            }
        }
    }

    fn check_mandatory(&self, row: &Record, errors: &mut BTreeMap<String, String>) {
        for column in self.schema.columns().iter().filter(|column| column.has(Flag::Mandatory)) {
            let cell = row.get(&column.name);
            let lacks = match self.shape {
                // The id may be in the path, or chosen later.
                Shape::Whole => !column.has(Flag::Id) && cell.is_none_or(CborValue::is_null),
                Shape::Part => cell.is_some_and(CborValue::is_null),
            };
            if lacks {
                errors.entry(column.name.to_string()).or_insert_with(|| "is mandatory".to_string());
            }
        }
    }
}

/// Verdict on a cell that equals the current one, `None` if it differs. Cells that JSON cannot represent also equal their JSON
/// form, for example base64url text for bytes.
fn unchanged(held: &CborValue, value: &CborValue) -> Option<Verdict> {
    if held == value {
        return Some(Verdict::Fits);
    }
    let same = matches!(value, CborValue::Text(_)) && value_to_json(held) == value_to_json(value);
    same.then(|| Verdict::Becomes(held.clone()))
}

/// Verdict on a cell of an id column. Ids are compared as text, so text and whole numbers are interchangeable if the spelling is
/// canonical.
fn id_cell(column: &Column, value: &CborValue) -> Verdict {
    let Some(id) = id_from_value(value) else {
        return Verdict::Wrong("cannot be an id: ids are text or whole numbers".to_string());
    };
    match (column.ty, value) {
        (ColumnType::Integer, _) => match (cell::whole(&id), value) {
            (Some(_), CborValue::Integer(_)) => Verdict::Fits,
            (Some(number), _) => Verdict::Becomes(number.into()),
            (None, _) => Verdict::Wrong(format!("must be {}", expected(ColumnType::Integer))),
        },
        (ColumnType::Number | ColumnType::Json | ColumnType::Bytes | ColumnType::Boolean, _) => Verdict::Fits,
        (_, CborValue::Integer(_)) => Verdict::Becomes(id.into()),
        _ => Verdict::Fits,
    }
}

/// Checks that the id column of `schema` can hold `id`: in a column of whole numbers, only canonical spellings are valid.
///
/// # Errors
/// [`Error::Invalid`] naming the id column.
pub fn check_id(schema: &Schema, id: &str) -> Result<()> {
    if !schema.layout().integer_id() || cell::whole(id).is_some() {
        return Ok(());
    }
    let detail = format!("must be {}", expected(ColumnType::Integer));
    let fields = [(schema.id_column().to_string(), detail.clone())].into();
    Err(Error::Invalid { detail: format!("id {id:?} {detail}"), fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let columns = vec![
            Column::new("id", ColumnType::Integer),
            Column::new("name", ColumnType::String).with(Flag::Mandatory),
            Column::new("price", ColumnType::Integer),
        ];
        Schema::new("id", columns)
    }

    fn row<const N: usize>(cells: [(&str, CborValue); N]) -> Record {
        cells.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn fields(error: Error) -> BTreeMap<String, String> {
        match error {
            Error::Invalid { fields, .. } => fields,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn all_errors_of_a_row_are_reported_together() {
        let schema = schema();
        let check = RowCheck::new(&schema, Shape::Whole).unknown(UnknownColumns::Refuse);
        let wrong = row([("id", "007".into()), ("price", "8".into()), ("prise", 1.into())]);
        let fields = fields(check.check(Cow::Owned(wrong)).unwrap_err());
        let reported: Vec<_> = fields.iter().map(|(name, detail)| (name.as_str(), detail.as_str())).collect();
        let expected = [
            ("id", "must be a whole number"),
            ("name", "is mandatory"),
            ("price", "must be a whole number"),
            ("prise", r#"does not exist; did you mean "price"?"#),
        ];
        assert_eq!(reported, expected);
    }

    #[test]
    fn cells_are_converted_and_a_fitting_row_is_not_copied() {
        let schema = schema();
        let check = RowCheck::new(&schema, Shape::Whole);
        let given = row([("id", "7".into()), ("name", "a".into()), ("price", 8.0.into())]);
        let checked = check.check(Cow::Borrowed(&given)).unwrap();
        assert_eq!(*checked.row, row([("id", 7.into()), ("name", "a".into()), ("price", 8.into())]));
        let again = check.check(Cow::Borrowed(&checked.row)).unwrap();
        assert!(matches!(again.row, Cow::Borrowed(_)));
        let text = row([("name", "a".into()), ("price", "8".into())]);
        assert!(check.check(Cow::Borrowed(&text)).is_err());
        let loose = check.coercion(Coercion::Loose).check(Cow::Borrowed(&text)).unwrap();
        assert_eq!(loose.row["price"], 8.into());
    }

    #[test]
    fn unknown_columns_are_kept_refused_or_dropped_by_policy() {
        let schema = schema();
        let given = row([("name", "a".into()), ("colour", "red".into())]);
        let with = |unknown| RowCheck::new(&schema, Shape::Whole).unknown(unknown).check(Cow::Borrowed(&given));
        assert_eq!(*with(UnknownColumns::Keep).unwrap().row, given);
        assert_eq!(fields(with(UnknownColumns::Refuse).unwrap_err())["colour"], "does not exist");
        let dropped = with(UnknownColumns::Drop).unwrap();
        assert_eq!((dropped.row.len(), dropped.dropped), (1, vec!["colour".to_string()]));
    }

    #[test]
    fn a_partial_row_may_lack_a_mandatory_column_but_not_null_it() {
        let schema = schema();
        let check = RowCheck::new(&schema, Shape::Part);
        assert!(check.check(Cow::Owned(row([("price", 8.into())]))).is_ok());
        let wrong = check.check(Cow::Owned(row([("name", CborValue::Null)]))).unwrap_err();
        assert_eq!(fields(wrong)["name"], "is mandatory");
    }

    #[test]
    fn a_number_is_accepted_as_a_text_id() {
        let schema = Schema::new("id", vec![]);
        let checked = RowCheck::new(&schema, Shape::Whole).check(Cow::Owned(row([("id", 7.into())]))).unwrap();
        assert_eq!(checked.row["id"], "7".into());
        assert!(check_id(&schema, "007").is_ok());
        let error = check_id(&super::tests::schema(), "007").unwrap_err();
        assert_eq!(error.to_string(), r#"id "007" must be a whole number"#);
    }
}
