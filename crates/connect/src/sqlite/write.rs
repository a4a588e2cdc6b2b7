//! Writes: concurrent ones share a transaction, each is atomic, and each returns the row as stored afterwards.

use rusqlite::{
    Connection, ErrorCode, Transaction, TransactionBehavior, ffi, params_from_iter,
    types::{Value, ValueRef},
};

use super::ops;
use super::source::{failed, id_of};
use super::table::{Field, Table};
use super::value::{Codec, from_sql, is_as_read, to_sql};
use crate::rows::{field_error, with_id};
use diorama_core::record::{CborValue, Record, merge_patch};
use diorama_core::vista::{ColumnType, Error, ErrorKind, Narrowing, Result, WriteOp, Written};

/// A write, with its operation if it may be retried.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) operation: Option<Operation>,
    pub(super) op: WriteOp,
    /// Narrowing that the row must satisfy before and after the write.
    pub(super) within: Option<Narrowing>,
}

/// Identity of a write that may be retried.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    /// True if this operation also deletes old operations.
    pub(super) tidy: bool,
}

/// Results of the writes of a group, up to the first transient failure; later writes were not tried.
type Group = Vec<Result<Written>>;

/// Executes the writes of all groups in one transaction, each group in order. A refused write does not affect the others; a
/// transient failure ends its group. After a failed commit each write is executed again in its own transaction.
pub(super) fn execute_groups(table: &Table, connection: &mut Connection, groups: &[Vec<Write>]) -> Vec<Group> {
    if groups.is_empty() {
        // Another task has taken the waiting writes.
        return Vec::new();
    }
    match execute_all(table, connection, groups) {
        Ok(written) => written,
        Err(error) => match groups {
            [group] if group.len() == 1 => vec![vec![Err(error)]],
            // The lock was not released in time: each write would wait for it in turn.
            _ if error.kind() != ErrorKind::Permanent && connection.is_autocommit() && is_locked(&error) => {
                groups.iter().map(|_| vec![Err(error.clone())]).collect()
            }
            // One write broke a rule that is checked on commit, or that ends the transaction.
            _ => groups.iter().map(|group| execute_separately(table, connection, group)).collect(),
        },
    }
}

/// Returns true if the transaction could not begin because of a lock.
fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Source { cause: Some(cause), .. }
        if cause.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code)
            == Some(ErrorCode::DatabaseBusy))
}

fn execute_separately(table: &Table, connection: &mut Connection, group: &[Write]) -> Group {
    let mut written = Group::with_capacity(group.len());
    for write in group {
        let mut execute_alone = || -> Result<Written> {
            let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let mut transaction = begun.map_err(|error| refused(table, "", error))?;
            prepare(&transaction, std::iter::once(write))?;
            let done = execute(table, &mut transaction, write)?;
            transaction.commit().map_err(|error| refused(table, write.op.id().unwrap_or_default(), error))?;
            Ok(done)
        };
        let done = execute_alone();
        let ends = done.as_ref().err().is_some_and(|error| error.kind() != ErrorKind::Permanent);
        written.push(done);
        if ends {
            break;
        }
    }
    written
}

/// Prepares the log of operations if one of the writes needs it.
fn prepare<'a>(connection: &Connection, mut writes: impl Iterator<Item = &'a Write>) -> Result<()> {
    if writes.any(|write| write.operation.is_some()) { ops::prepare(connection) } else { Ok(()) }
}

/// Executes all groups in one transaction.
fn execute_all(table: &Table, connection: &mut Connection, groups: &[Vec<Write>]) -> Result<Vec<Group>> {
    let failed = |error| refused(table, "", error);
    // Immediate, so that rows read here are unchanged when they are written.
    let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    prepare(&transaction, groups.iter().flatten())?;
    let mut written = Vec::with_capacity(groups.len());
    for group in groups {
        let mut done = Group::with_capacity(group.len());
        for write in group {
            let result = execute(table, &mut transaction, write);
            if transaction.is_autocommit() {
                // Errors like a full disk roll the whole transaction back.
                return Err(result.err().unwrap_or_else(|| Error::transient("the transaction was rolled back")));
            }
            let ends = result.as_ref().err().is_some_and(|error| error.kind() != ErrorKind::Permanent);
            done.push(result);
            if ends {
                break;
            }
        }
        written.push(done);
    }
    transaction.commit().map_err(failed)?;
    Ok(written)
}

/// Executes a write, unless its operation has taken effect before; then the current row is returned.
fn execute(table: &Table, transaction: &mut Transaction<'_>, write: &Write) -> Result<Written> {
    let Write { operation, op, within } = write;
    let id = op.id().unwrap_or_default();
    let refused = |error| refused(table, id, error);
    let part = transaction.savepoint().map_err(refused)?;
    let is_new = match operation {
        Some(operation) => {
            let is_new = ops::record(&part, &operation.id)?;
            if operation.tidy {
                ops::tidy(&part)?;
            }
            is_new
        }
        None => true,
    };
    if let Some(within) = within {
        within.check_before(op.kind(), id, table.read(&part, id)?.as_ref())?;
    }
    if is_new {
        match op {
            WriteOp::Insert { id, record } => insert(table, &part, id, record)?,
            WriteOp::Replace { id, record } => replace(table, &part, id, record)?,
            WriteOp::Patch { id, record } => patch(table, &part, id, record)?,
            WriteOp::Delete { id } => delete(table, &part, id)?,
            WriteOp::DeleteAll => {
                part.execute(&format!("DELETE FROM {}", table.quoted), []).map_err(refused)?;
            }
        }
    }
    let record = match op {
        WriteOp::Delete { .. } | WriteOp::DeleteAll => None,
        WriteOp::Insert { .. } | WriteOp::Replace { .. } | WriteOp::Patch { .. } => table.read(&part, id)?,
    };
    // A refusal rolls the savepoint back.
    if let (Some(within), Some(record)) = (within, &record) {
        within.check_after(record)?;
    }
    part.commit().map_err(refused)?;
    Ok(Written { record, ..Written::default() })
}

/// Inserts a row under an id assigned by SQLite, by the column's default, or as a new UUID.
pub(super) fn insert_return_id(table: &Table, connection: &mut Connection, record: &Record) -> Result<Written> {
    let refused = |error| refused(table, "", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(refused)?;
    let field = table.id_field();
    let mut record = record.clone();
    record.remove(&field.name);
    if !field.is_rowid && field.default.is_none() {
        let id = new_id(table, &transaction)?;
        record.insert(field.name.as_str(), id);
    }
    let (columns, values) = cells(table, &record)?;
    let sql = format!("{} RETURNING {}", insert_sql(table, &columns), field.quoted);
    let id = transaction
        .query_row(&sql, params_from_iter(values), |row| Ok(from_sql(field.codec, row.get_ref(0)?)))
        .map_err(refused)?;
    // A virtual table does not return the rowid that it chose.
    let id = if field.is_rowid { transaction.last_insert_rowid().into() } else { id };
    let id = id_of(&table.name, &id)?;
    let record = table.read(&transaction, &id)?;
    transaction.commit().map_err(refused)?;
    Ok(Written { id: Some(id), record, ..Written::default() })
}

fn new_id(table: &Table, connection: &Connection) -> Result<CborValue> {
    let uuid = uuid::Uuid::now_v7();
    match table.id_field().kind {
        ColumnType::Integer => {}
        ColumnType::Bytes => return Ok(from_sql(Codec::BlobKey, ValueRef::Blob(uuid.as_bytes()))),
        _ => return Ok(uuid.to_string().into()),
    }
    let sql = format!("SELECT max({}) FROM {}", table.id_field().quoted, table.quoted);
    let highest: Option<i64> = connection.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
    let next = highest.unwrap_or(0).checked_add(1);
    next.map(CborValue::from).ok_or_else(|| Error::permanent("the integer ids are exhausted: the highest id is in use"))
}

fn insert(table: &Table, connection: &Connection, id: &str, record: &Record) -> Result<()> {
    let (columns, values) = cells(table, &keyed(table, id, record)?)?;
    if table.read(connection, id)?.is_some() {
        if is_identical(table, connection, id, &columns, &values)? {
            return Ok(());
        }
        return Err(Error::Conflict { id: id.to_string(), detail: "already exists with other values".into() });
    }
    connection
        .execute(&insert_sql(table, &columns), params_from_iter(values))
        .map(drop)
        .map_err(|error| refused(table, id, error))
}

/// Returns true if the stored row equals the row of this insert, which makes it a retry. Compared in SQL, under the columns'
/// affinities.
fn is_identical(
    table: &Table,
    connection: &Connection,
    id: &str,
    columns: &[&Field],
    values: &[Value],
) -> Result<bool> {
    let (by_id, key) = table.by_id(id);
    let mut tests = vec![by_id];
    tests.extend(columns.iter().map(|field| format!("{} IS ? COLLATE BINARY", field.quoted)));
    let absent = table.fields.iter().filter(|field| !columns.iter().any(|given| given.name == field.name));
    let absent = absent.filter(|field| field.default.is_none() && !field.is_generated && !field.is_rowid);
    tests.extend(absent.map(|field| format!("{} IS NULL", field.quoted)));
    let sql = format!("SELECT count(*) FROM {} WHERE {}", table.quoted, tests.join(" AND "));
    let params = std::iter::once(&key).chain(values);
    let found: i64 = connection.query_row(&sql, params_from_iter(params), |row| row.get(0)).map_err(failed)?;
    Ok(found > 0)
}

/// Replaces or inserts a row without SQLite's REPLACE, which would delete other rows with the same unique values.
fn replace(table: &Table, connection: &Connection, id: &str, record: &Record) -> Result<()> {
    if table.read(connection, id)?.is_none() {
        return insert(table, connection, id, record);
    }
    let (columns, values) = cells(table, &keyed(table, id, record)?)?;
    let mut sets: Vec<String> = columns.iter().map(|field| format!("{} = ?", field.quoted)).collect();
    let absent =
        table.fields.iter().filter(|field| !record.contains(&field.name) && field.name != table.id_field().name);
    for field in absent.filter(|field| !field.is_generated && !field.is_rowid) {
        sets.push(format!("{} = ({})", field.quoted, field.default.as_deref().unwrap_or("NULL")));
    }
    update(table, connection, id, &sets, values)
}

fn patch(table: &Table, connection: &Connection, id: &str, changes: &Record) -> Result<()> {
    let old = table.read(connection, id)?.ok_or_else(|| Error::NotFound { id: id.to_string() })?;
    let changes = with_id(id, changes, &table.schema)?;
    let merged = merge_patch(old, &changes, table.schema.layout());
    let changed = merged.into_iter().filter(|(column, _)| changes.contains(column) && *column != table.id_field().name);
    let (columns, values) = cells(table, &changed.collect())?;
    let sets: Vec<String> = columns.iter().map(|field| format!("{} = ?", field.quoted)).collect();
    if sets.is_empty() {
        return Ok(());
    }
    update(table, connection, id, &sets, values)
}

fn update(table: &Table, connection: &Connection, id: &str, sets: &[String], mut values: Vec<Value>) -> Result<()> {
    let (by_id, key) = table.by_id(id);
    values.push(key);
    let sql = format!("UPDATE {} SET {} WHERE {by_id}", table.quoted, sets.join(", "));
    connection.execute(&sql, params_from_iter(values)).map(drop).map_err(|error| refused(table, id, error))
}

fn delete(table: &Table, connection: &Connection, id: &str) -> Result<()> {
    let (by_id, key) = table.by_id(id);
    let sql = format!("DELETE FROM {} WHERE {by_id}", table.quoted);
    let deleted = connection.execute(&sql, [key]).map_err(|error| refused(table, id, error))?;
    if deleted == 0 { Err(Error::NotFound { id: id.to_string() }) } else { Ok(()) }
}

/// Returns `record` with its id set, if the column can hold that id.
fn keyed(table: &Table, id: &str, record: &Record) -> Result<Record> {
    let record = with_id(id, record, &table.schema)?;
    let column = &table.id_field().name;
    if table.id_field().kind == ColumnType::Integer && !record.get(column).is_some_and(CborValue::is_integer) {
        return Err(field_error(column, "must be an integer of 64 bits"));
    }
    Ok(record)
}

/// Returns the columns of `record` with their cells, without generated columns.
fn cells<'a>(table: &'a Table, record: &Record) -> Result<(Vec<&'a Field>, Vec<Value>)> {
    let (mut columns, mut values) = (Vec::new(), Vec::new());
    for (column, value) in record {
        let field = table
            .field(column)
            .ok_or_else(|| field_error(column, &format!("does not exist: {} has {}", table.name, names(table))))?;
        if !field.is_generated && !is_as_read(value) {
            columns.push(field);
            values.push(to_sql(column, field.codec, value)?);
        }
    }
    Ok((columns, values))
}

fn names(table: &Table) -> String {
    table.fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn insert_sql(table: &Table, columns: &[&Field]) -> String {
    if columns.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", table.quoted);
    }
    let names: Vec<&str> = columns.iter().map(|field| field.quoted.as_str()).collect();
    format!("INSERT INTO {} ({}) VALUES ({})", table.quoted, names.join(", "), vec!["?"; names.len()].join(", "))
}

/// Converts the error of a write: mistakes in the data are permanent; a lock or a full disk is transient.
fn refused(table: &Table, id: &str, error: rusqlite::Error) -> Error {
    let rusqlite::Error::SqliteFailure(code, message) = &error else { return failed(error) };
    let message = message.clone().unwrap_or_else(|| code.to_string());
    match (code.code, code.extended_code) {
        (ErrorCode::DiskFull, _) => Error::Storage { detail: format!("{}: {message}", table.name), full: true },
        (
            ErrorCode::ConstraintViolation,
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID,
        ) => Error::Conflict { id: id.to_string(), detail: format!("conflicts with another row: {message}") },
        (ErrorCode::ConstraintViolation, ffi::SQLITE_CONSTRAINT_NOTNULL) => {
            let prefix = format!("NOT NULL constraint failed: {}.", table.name);
            match message.strip_prefix(&prefix) {
                Some(column) => field_error(column, "must not be null"),
                None => Error::invalid(message),
            }
        }
        (ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig, _) => Error::invalid(message),
        _ => failed(error),
    }
}
