//! Statements of writes.

use super::ops;
use super::table::{Field, Table};
use super::value::Codec;
use super::write::Write;
use crate::rows::{field_error, with_id};
use diorama_core::record::{CborValue, Record, id_from_value};
use diorama_core::vista::{Error, Result, WriteOp};

/// Cells of a write: fields and the literals of their values.
pub(super) type Cells<'t> = Vec<(&'t Field, String)>;

/// A write with its statements.
#[derive(Debug)]
pub(super) struct Change<'w> {
    pub(super) write: &'w Write,
    /// Statements that together affect no row if the write changes nothing. Empty if it cannot change anything.
    pub(super) statements: Vec<String>,
    /// Reason why the write is refused without a statement.
    pub(super) refusal: Option<Error>,
}

impl<'w> Change<'w> {
    pub(super) fn of(table: &Table, write: &'w Write) -> Change<'w> {
        match statements(table, &write.op) {
            Ok(statements) => Change { write, statements, refusal: None },
            Err(error) => Change { write, statements: Vec::new(), refusal: Some(error) },
        }
    }

    /// Returns the id of the operation if it is to be stored.
    pub(super) fn operation(&self) -> Option<&'w str> {
        self.write.operation.as_deref().filter(|_| !self.statements.is_empty())
    }

    /// Returns the number of bytes of the statements.
    pub(super) fn size(&self) -> usize {
        self.statements.iter().map(String::len).sum()
    }

    /// Returns the id of the row to read after the write.
    pub(super) fn written_id(&self) -> Option<&'w str> {
        match &self.write.op {
            WriteOp::Delete { .. } | WriteOp::DeleteAll => None,
            op => op.id().filter(|_| self.refusal.is_none()),
        }
    }
}

/// Purpose of a statement of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Begin,
    /// Storing the ids of operations.
    Operations,
    /// The write of this index.
    Write(usize),
    Read,
}

/// Statements that are sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) text: String,
    pub(super) purposes: Vec<Purpose>,
}

impl Batch {
    /// Returns the begin of a transaction. Without locks of gaps between rows, writes of different rows do not wait for each other.
    pub(super) fn begin() -> Batch {
        let mut batch = Batch::default();
        batch.push(Purpose::Begin, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED");
        batch.push(Purpose::Begin, "START TRANSACTION");
        batch
    }

    pub(super) fn push(&mut self, purpose: Purpose, statement: &str) {
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(statement);
        self.purposes.push(purpose);
    }

    /// Adds the ids of the operations of `changes`.
    pub(super) fn push_operations(&mut self, table: &Table, changes: &[Change<'_>]) {
        let mut operations = changes.iter().filter_map(Change::operation).peekable();
        if let (Some(place), Some(_)) = (&table.place, operations.peek()) {
            self.push(Purpose::Operations, &ops::store(place, operations));
        }
    }

    /// Adds the writes of `changes`, and a SELECT of the written rows.
    pub(super) fn push_changes(&mut self, table: &Table, changes: &[Change<'_>]) {
        for (at, change) in changes.iter().enumerate() {
            for statement in &change.statements {
                self.push(Purpose::Write(at), statement);
            }
        }
        let ids = changes.iter().filter_map(Change::written_id);
        let keys: Vec<Vec<String>> = ids.filter_map(|id| table.key_literals(id)).collect();
        if !keys.is_empty() {
            let rows = match table.key_field() {
                Some(field) if !matches!(field.codec, Codec::Text | Codec::Other) => {
                    format!("{} IN ({})", field.quoted, keys.concat().join(", "))
                }
                _ => {
                    let tests: Vec<String> = keys.iter().map(|key| format!("({})", table.by_key(key))).collect();
                    tests.join(" OR ")
                }
            };
            self.push(Purpose::Read, &format!("SELECT {} FROM {} WHERE {rows}", table.selected, table.from));
        }
    }
}

/// Returns the statements of a write.
fn statements(table: &Table, op: &WriteOp) -> Result<Vec<String>> {
    match op {
        WriteOp::Insert { id, record } => Ok(vec![insert(table, &cells(table, id, record)?)]),
        WriteOp::Replace { id, record } => replace(table, id, record),
        WriteOp::Patch { id, record } => {
            let record = with_id(id, record, &table.schema)?;
            let changed: Cells<'_> =
                cells_of(table, &record)?.into_iter().filter(|(field, _)| !table.is_key(field)).collect();
            let sets: Vec<String> =
                changed.iter().map(|(field, literal)| format!("{} = {literal}", field.quoted)).collect();
            Ok(match table.by_id(id) {
                Some(by_id) if !sets.is_empty() => vec![update(table, &sets, &by_id)],
                _ => Vec::new(),
            })
        }
        WriteOp::Delete { id } => {
            Ok(table.by_id(id).map(|by_id| format!("DELETE FROM {} WHERE {by_id}", table.from)).into_iter().collect())
        }
        WriteOp::DeleteAll => Ok(vec![format!("DELETE FROM {}", table.from)]),
    }
}

fn update(table: &Table, sets: &[String], condition: &str) -> String {
    format!("UPDATE {} SET {} WHERE {condition}", table.from, sets.join(", "))
}

/// Returns an INSERT of a row.
pub(super) fn insert(table: &Table, cells: &Cells<'_>) -> String {
    let (columns, values) = columns_and_values(cells);
    format!("INSERT INTO {} ({columns}) VALUES ({values})", table.from)
}

fn columns_and_values(cells: &Cells<'_>) -> (String, String) {
    let columns: Vec<&str> = cells.iter().map(|(field, _)| field.quoted.as_str()).collect();
    let values: Vec<&str> = cells.iter().map(|(_, literal)| literal.as_str()).collect();
    (columns.join(", "), values.join(", "))
}

/// Returns an UPDATE of a row, and an INSERT that does nothing if it exists. Columns that `record` lacks get their defaults. One
/// statement cannot do this: `ON DUPLICATE KEY UPDATE` and `REPLACE` change other rows with the same unique value.
fn replace(table: &Table, id: &str, record: &Record) -> Result<Vec<String>> {
    let cells = cells(table, id, record)?;
    let Some(by_id) = table.by_id(id) else { return Ok(Vec::new()) };
    let mut sets = Vec::new();
    for field in &table.fields {
        if field.is_generated || field.is_automatic || table.is_key(field) {
            continue;
        }
        let given = cells.iter().find(|(own, _)| own.name == field.name);
        sets.push(format!("{} = {}", field.quoted, given.map_or("DEFAULT", |(_, literal)| literal.as_str())));
    }
    if let (true, Some(at)) = (sets.is_empty(), table.key.first()) {
        // A row of key columns only: an update of nothing finds it.
        let key = &table.fields[*at].quoted;
        sets.push(format!("{key} = {key}"));
    }
    let (columns, values) = columns_and_values(&cells);
    let insert = format!(
        "INSERT INTO {} ({columns}) SELECT {values} FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM {} WHERE {by_id})",
        table.from, table.from
    );
    Ok(vec![update(table, &sets, &by_id), insert])
}

/// Returns the cells of the whole row `id`, its key first.
pub(super) fn cells<'t>(table: &'t Table, id: &str, record: &Record) -> Result<Cells<'t>> {
    let record = with_id(id, record, &table.schema)?;
    let literals = table.key_literals(id).ok_or_else(|| not_a_key(table))?;
    let mut cells: Cells<'t> = table.key.iter().map(|at| &table.fields[*at]).zip(literals).collect();
    for (field, literal) in cells_of(table, &record)? {
        match cells.iter().find(|(own, _)| own.name == field.name) {
            None => cells.push((field, literal)),
            Some((_, part)) if table.key.len() == 1 || field.codec.is_same(part, &literal) => {}
            Some(_) => return Err(field_error(&field.name, "must be as in the id of the row")),
        }
    }
    Ok(cells)
}

fn not_a_key(table: &Table) -> Error {
    let detail = match table.key_field().map(|field| field.codec) {
        Some(Codec::Integer) => "must be an integer of 64 bits".to_string(),
        Some(_) => "is not a key of this table".to_string(),
        None => format!("must be the values of {} with commas between them", table.key_columns().join(", ")),
    };
    field_error(table.schema.id_column(), &detail)
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
            let literal = match id_from_value(value).filter(|_| is_id) {
                Some(id) => field.codec.key_literal(&id).ok_or_else(|| not_a_key(table))?,
                None => field.codec.to_literal(column, value)?,
            };
            cells.push((field, literal));
        }
    }
    Ok(cells)
}

/// Returns true if the stored row equals the row of an insert, which makes it a retry. Columns that the insert lacks must be null
/// or have a default.
pub(super) fn is_identical(table: &Table, id: &str, record: &Record, stored: &Record) -> Result<bool> {
    let given = cells(table, id, record)?;
    for field in table.fields.iter().filter(|field| !field.is_generated && !table.is_key(field)) {
        let stored = stored.get(&field.name).unwrap_or(&CborValue::Null);
        let same = match given.iter().find(|(own, _)| own.name == field.name) {
            Some((_, literal)) => field.codec.is_same(&field.codec.to_literal(&field.name, stored)?, literal),
            None => field.has_default || stored.is_null(),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
