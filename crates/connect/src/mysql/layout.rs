//! Columns of a table as the binary log has them, and the rows in its events.

use mysql_async::binlog::events::{OptionalMetadataField, TableMapEvent};

use super::image::Form;
use super::table::Table;
use diorama_core::record::CborValue;

/// Columns of a table as the log has them.
#[derive(Debug)]
pub(super) struct Layout {
    forms: Vec<Form>,
    /// The field of each column; `None` for one that the source does not have.
    fields: Vec<Option<usize>>,
    /// True if the columns are not those of the table's description, which may be older or newer.
    pub(super) differs: bool,
}

/// A cell of a row in the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// The log does not have it: it did not change, or is computed.
    Absent,
    /// It cannot be decoded here.
    Unreadable,
    Value(CborValue),
}

impl Layout {
    /// Reads the columns of `map`. `None` if a type is not understood, so that rows cannot be divided into cells.
    pub(super) fn new(map: &TableMapEvent<'_>, table: &Table) -> Option<Layout> {
        let count = usize::try_from(map.columns_count()).ok()?;
        let form = |at| Form::of(map.get_raw_column_type(at).ok()??, map.get_column_metadata(at)?);
        let forms: Vec<Form> = (0..count).map(form).collect::<Option<_>>()?;
        let names = names(map).filter(|names| names.len() == count);
        let differs = names.as_ref().map_or(table.columns.len() != count, |names| *names != table.columns);
        let field = |name: &String| table.fields.iter().position(|field| field.name == *name);
        let fields = match names {
            Some(names) => names.iter().map(field).collect(),
            None if differs => vec![None; count],
            None => table.columns.iter().map(field).collect(),
        };
        Some(Layout { forms, fields, differs })
    }

    /// Takes a row from the beginning of `data`, with the columns that are `present`. Returns a cell for each field of the table;
    /// `None` if the data is not a row.
    pub(super) fn take(&self, data: &mut &[u8], present: &[bool], table: &Table) -> Option<Vec<Cell>> {
        let nulls = data.split_off(..present.iter().filter(|present| **present).count().div_ceil(8))?;
        let mut cells = vec![Cell::Absent; table.fields.len()];
        let mut at = 0;
        for ((form, field), present) in self.forms.iter().zip(&self.fields).zip(present) {
            if !present {
                continue;
            }
            let is_null = nulls[at / 8] >> (at % 8) & 1 == 1;
            at += 1;
            let raw = if is_null { None } else { Some(form.take(data)?) };
            let Some(field) = *field else { continue };
            cells[field] = match raw {
                None => Cell::Value(CborValue::Null),
                Some(raw) => form.read(raw, table.fields.get(field)?).map_or(Cell::Unreadable, Cell::Value),
            };
        }
        Some(cells)
    }
}

/// Returns the names of the columns; `None` if the log does not have them.
fn names(map: &TableMapEvent<'_>) -> Option<Vec<String>> {
    map.iter_optional_meta().find_map(|meta| match meta {
        Ok(OptionalMetadataField::ColumnName(names)) => {
            names.iter_names().map(|name| Some(name.ok()?.name().into_owned())).collect()
        }
        _ => None,
    })
}

/// Returns the id of a row; `None` if the log does not have it.
pub(super) fn id_of(table: &Table, cells: &[Cell]) -> Option<String> {
    let value = |cell: &Cell| match cell {
        Cell::Value(value) => value.clone(),
        Cell::Absent | Cell::Unreadable => CborValue::Null,
    };
    table.id_of(&cells.iter().map(value).collect::<Vec<_>>())
}
