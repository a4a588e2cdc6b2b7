//! Statements of writes: one for each, which also stores the id of its operation and returns the row as stored afterwards.

use tokio_postgres::types::ToSql;

use super::ops;
use super::table::{Field, Table};
use super::value::{Codec, Param};
use super::write::Write;
use crate::rows::{field_error, with_id};
use crate::sql::operations::now_millis;
use diorama_core::record::{Record, id_from_value};
use diorama_core::vista::{Result, WriteOp};

/// Cells of a write: fields and the texts of their values, `None` for null.
pub(super) type Cells<'t> = Vec<(&'t Field, Option<String>)>;

/// Returns the cells of the whole row `id`, its key first.
pub(super) fn cells<'t>(table: &'t Table, id: &str, record: &Record) -> Result<Cells<'t>> {
    let record = with_id(id, record, &table.schema)?;
    let parts = key_parts(table, id)?;
    let mut cells: Cells<'t> =
        table.key.iter().zip(&parts).map(|(at, part)| (&table.fields[*at], Some(part.clone()))).collect();
    for (field, text) in cells_of(table, &record)? {
        match cells.iter().find(|(own, _)| own.name == field.name) {
            None => cells.push((field, text)),
            Some((_, part)) if table.key.len() == 1 || *part == text => {}
            Some((_, part)) => {
                let part = part.as_deref().unwrap_or_default();
                return Err(field_error(&field.name, &format!("must be {part:?}, as in the id of the row")));
            }
        }
    }
    Ok(cells)
}

fn key_parts(table: &Table, id: &str) -> Result<Vec<String>> {
    table.key_parts(id).ok_or_else(|| {
        let detail = match table.key_field().map(|field| &field.codec) {
            Some(Codec::Integer | Codec::Oid) => "must be an integer of 64 bits".to_string(),
            Some(Codec::Uuid) => "must be a UUID".to_string(),
            Some(_) => "is not a key of this table".to_string(),
            None => format!("must be the values of {} with commas between them", table.key_columns().join(", ")),
        };
        field_error(table.schema.id_column(), &detail)
    })
}

/// Returns the cells of `record`, without generated columns and the joined id.
pub(super) fn cells_of<'t>(table: &'t Table, record: &Record) -> Result<Cells<'t>> {
    let mut cells = Cells::new();
    for (column, value) in record {
        let Some(field) = table.field(column) else {
            if column == table.schema.id_column() {
                continue;
            }
            return Err(field_error(column, &format!("does not exist: {} has {}", table.name, table.names())));
        };
        if !field.is_generated {
            let is_id = table.key.len() == 1 && table.is_key(field);
            let text = if is_id { id_from_value(value) } else { field.codec.to_text(column, value)? };
            cells.push((field, text));
        }
    }
    Ok(cells)
}

/// A statement with its parameters.
#[derive(Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) params: Vec<Param>,
}

impl Sql {
    /// Returns the statement of a write, which returns the written row, or nothing if it changed nothing. `None` if it can change
    /// nothing.
    pub(super) fn of(table: &Table, write: &Write) -> Result<Option<Sql>> {
        Sql::with_conflicts(table, write, " ON CONFLICT DO NOTHING")
    }

    /// Returns the statement of an insert that fails if another row is in its way.
    pub(super) fn insert_or_fail(table: &Table, write: &Write) -> Result<Sql> {
        Ok(Sql::with_conflicts(table, write, "")?.unwrap_or_default())
    }

    /// As [`Sql::of`]; an insert ends with `on_conflict`.
    fn with_conflicts(table: &Table, write: &Write, on_conflict: &str) -> Result<Option<Sql>> {
        let mut sql = Sql::default();
        let guard = match (&write.operation, &table.place) {
            (Some(operation), Some(place)) => {
                sql.params = vec![Param::text(operation.as_str()), Param::text(now_millis().to_string())];
                Some(ops::table(place))
            }
            _ => None,
        };
        let condition = if guard.is_some() { "NOT EXISTS (SELECT FROM done)" } else { "true" };
        let change = match &write.op {
            WriteOp::Insert { id, record } => {
                let cells = cells(table, id, record)?;
                let insert = sql.insert(table, &cells, condition);
                format!("{insert}{on_conflict} RETURNING {}", table.selected)
            }
            WriteOp::Replace { id, record } => sql.replace(table, &cells(table, id, record)?, condition),
            WriteOp::Patch { id, record } => {
                let record = with_id(id, record, &table.schema)?;
                let changed = cells_of(table, &record)?.into_iter().filter(|(field, _)| !table.is_key(field)).collect();
                match sql.patch(table, id, &changed, condition) {
                    Some(patch) => patch,
                    None => return Ok(None),
                }
            }
            WriteOp::Delete { id } => {
                let Some(by_id) = sql.by_id(table, id) else { return Ok(None) };
                format!("DELETE FROM {} WHERE {by_id} AND {condition} RETURNING 1 AS gone", table.from)
            }
            WriteOp::DeleteAll => {
                format!("DELETE FROM {} WHERE {condition} RETURNING 1 AS gone", table.from)
            }
        };
        sql.text = match guard {
            None => change,
            Some(ops) => {
                // All rows count as one effect, even of an empty table.
                let effect = match write.op {
                    WriteOp::DeleteAll => "WHERE NOT EXISTS (SELECT FROM done)",
                    _ => "FROM w",
                };
                format!(
                    "WITH done AS (SELECT FROM {ops} WHERE op = $1::text), w AS ({change}), \
                     noted AS (INSERT INTO {ops} (op, at) SELECT $1::text, $2::int8 {effect}) SELECT * FROM w{}",
                    if write.op == WriteOp::DeleteAll { " LIMIT 1" } else { "" }
                )
            }
        };
        Ok(Some(sql))
    }

    fn param(&mut self, field: &Field, text: Option<String>) -> String {
        self.params.push(Param(text));
        format!("${}{}", self.params.len(), field.cast)
    }

    fn by_id(&mut self, table: &Table, id: &str) -> Option<String> {
        let (test, params) = table.by_id(id, self.params.len() + 1)?;
        self.params.extend(params);
        Some(test)
    }

    /// Returns an INSERT of `cells` under a condition, which may be empty.
    pub(super) fn insert(&mut self, table: &Table, cells: &Cells<'_>, condition: &str) -> String {
        let values: Vec<String> = cells.iter().map(|(field, text)| self.param(field, text.clone())).collect();
        let condition = if condition.is_empty() { String::new() } else { format!(" WHERE {condition}") };
        insert_into(table, &fields_of(cells), &format!("{}{condition}", values.join(", ")))
    }

    /// Returns an INSERT that replaces a row with the same key. Columns that `cells` lacks get their defaults.
    fn replace(&mut self, table: &Table, cells: &Cells<'_>, condition: &str) -> String {
        let replace = on_conflict_replace(table, &fields_of(cells));
        format!("{}{replace} RETURNING {}", self.insert(table, cells, condition), table.selected)
    }

    /// Returns an UPDATE of the row `id`; `None` if there is nothing to set, or no row can have that id.
    fn patch(&mut self, table: &Table, id: &str, cells: &Cells<'_>, condition: &str) -> Option<String> {
        if cells.is_empty() {
            return None;
        }
        let set = |(field, text): &(&Field, Option<String>)| {
            format!("{} = {}", field.quoted, self.param(field, text.clone()))
        };
        let sets: Vec<String> = cells.iter().map(set).collect();
        let by_id = self.by_id(table, id)?;
        let sets = sets.join(", ");
        Some(format!("UPDATE {} SET {sets} WHERE {by_id} AND {condition} RETURNING {}", table.from, table.selected))
    }
}

/// Returns an INSERT into `fields` of what `values` selects.
pub(super) fn insert_into(table: &Table, fields: &[&Field], values: &str) -> String {
    let columns: Vec<&str> = fields.iter().map(|field| field.quoted.as_str()).collect();
    format!("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {values}", table.from, columns.join(", "))
}

/// Returns the end of an INSERT of `given` that replaces a row with the same key. Other columns get their defaults.
pub(super) fn on_conflict_replace(table: &Table, given: &[&Field]) -> String {
    let mut sets = Vec::new();
    for field in table.fields.iter().filter(|field| !field.is_generated && !table.is_key(field)) {
        let is_given = given.iter().any(|own| own.name == field.name);
        let value = if is_given { format!("EXCLUDED.{}", field.quoted) } else { "DEFAULT".into() };
        sets.push(format!("{} = {value}", field.quoted));
    }
    if let (true, Some(at)) = (sets.is_empty(), table.key.first()) {
        // A row of key columns only: an update of nothing returns it.
        let key = &table.fields[*at].quoted;
        sets.push(format!("{key} = EXCLUDED.{key}"));
    }
    format!(" ON CONFLICT ({}) DO UPDATE SET {}", table.key_columns().join(", "), sets.join(", "))
}

/// Returns the test that finds a row by its key, whose column at an index has this `value`. `of` comes before the columns' names.
pub(super) fn by_key(keys: &[&Field], of: &str, value: impl Fn(usize) -> String) -> String {
    let test = |(at, field): (usize, &&Field)| format!("{of}{} = {}", field.quoted, value(at));
    keys.iter().enumerate().map(test).collect::<Vec<_>>().join(" AND ")
}

fn fields_of<'t>(cells: &Cells<'t>) -> Vec<&'t Field> {
    cells.iter().map(|(field, _)| *field).collect()
}

/// Returns parameters as the client takes them.
pub(super) fn slice(params: &[Param]) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|param| param as _).collect()
}
