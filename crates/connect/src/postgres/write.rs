//! Writes: each is one statement, which also stores the id of its operation and returns the row as stored afterwards.
//!
//! The writes of a batch share a transaction and are sent without waiting for each other's answers. If one of them fails, the
//! server undoes all, and each is made again in a transaction of its own. An operation whose id is stored already changes
//! nothing: two attempts at the same time meet at the primary key of the stored ids.

use futures_util::{FutureExt as _, poll};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error as PgError, Row, Statement};

use super::errors::{failed, refused};
use super::ops;
use super::pool::Session;
use super::statement::{Sql, cells, cells_of, slice};
use super::table::Table;
use super::value::{Codec, Param};
use crate::rows::{field_error, with_id};
use diorama_core::record::{CborValue, Record, merge_patch};
use diorama_core::vista::{Error, ErrorKind, Narrowing, Result, WriteOp, Written};

/// A write, with the id of its operation if it may be retried.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) operation: Option<String>,
    pub(super) op: WriteOp,
}

/// Prefix of the messages in the write-ahead log by which a feed recognizes this program's transactions.
pub(super) const MESSAGE_PREFIX: &str = "diorama";

/// Executes writes in order. The results end with the first failure that is not permanent: later writes were not tried.
///
/// `message` is written to the log with the last of them, for a feed that waits for it.
pub(super) async fn execute_all(
    session: &mut Session,
    table: &Table,
    writes: &[Write],
    message: Option<&str>,
) -> Vec<Result<Written>> {
    if !writes.iter().any(|write| is_merge(table, &write.op)) {
        match transact(session, table, writes, message).await {
            Ok(results) => return results,
            Err(error) if writes.len() == 1 || session.client.is_closed() => return vec![Err(error)],
            Err(_) => {}
        }
    }
    let results = execute_separately(session, table, writes).await;
    if let Some(message) = message {
        // If it fails, nobody waits longer than the patience with a feed.
        let _ = emit(session, message).await;
    }
    results
}

/// Writes a message to the log, in a transaction of its own.
pub(super) async fn emit(session: &Session, message: &str) -> std::result::Result<(), PgError> {
    session.client.batch_execute(&emission(message)).await
}

/// Returns the statement that writes a message, which consists of letters and digits, to the log.
fn emission(message: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, '{MESSAGE_PREFIX}', '{message}')")
}

/// Executes each write in a transaction of its own.
async fn execute_separately(session: &mut Session, table: &Table, writes: &[Write]) -> Vec<Result<Written>> {
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        results.push(match is_merge(table, &write.op) {
            true => merge(session, table, write).await,
            false => {
                let done = transact(session, table, std::slice::from_ref(write), None).await;
                done.and_then(|done| done.into_iter().next().unwrap_or_else(no_answer))
            }
        });
        if results.last().is_some_and(ends) {
            break;
        }
    }
    results
}

/// Returns true if later writes must not be tried after this result.
fn ends(result: &Result<Written>) -> bool {
    result.as_ref().err().is_some_and(|error| error.kind() != ErrorKind::Permanent)
}

fn no_answer() -> Result<Written> {
    Err(Error::unknown("the write was sent, but its outcome is unknown"))
}

/// Executes writes in one transaction, without waiting for one answer before the next statement is sent.
async fn transact(
    session: &mut Session,
    table: &Table,
    writes: &[Write],
    message: Option<&str>,
) -> Result<Vec<Result<Written>>> {
    let mut results: Vec<Option<Result<Written>>> = writes.iter().map(|_| None).collect();
    let mut statements = Vec::with_capacity(writes.len());
    for (at, write) in writes.iter().enumerate() {
        match Sql::of(table, write) {
            Ok(Some(sql)) => statements.push((at, sql)),
            Ok(None) => {}
            Err(error) => results[at] = Some(Err(error)),
        }
    }
    let id = |at: usize| writes[at].op.id().unwrap_or_default();
    let mut prepared = Vec::with_capacity(statements.len());
    for (at, sql) in &statements {
        prepared.push(session.prepare(&sql.text).await.map_err(|error| refused(id(*at), error))?);
    }
    let parts = statements.iter().zip(&prepared).map(|((_, sql), statement)| (statement, sql.params.as_slice()));
    let answers = match statements.is_empty() {
        true => {
            if let Some(message) = message {
                emit(session, message).await.map_err(failed)?;
            }
            Vec::new()
        }
        false => pipeline(session, parts.collect(), message)
            .await
            .map_err(|(at, error)| refused(statements.get(at).map(|(at, _)| id(*at)).unwrap_or_default(), error))?,
    };
    for ((at, _), rows) in statements.iter().zip(answers) {
        results[*at] = written(table, &writes[*at].op, &rows);
    }
    let mut done = Vec::with_capacity(writes.len());
    for (write, result) in writes.iter().zip(results) {
        done.push(match result {
            Some(result) => result,
            None => resolve(session, table, write).await,
        });
        if done.last().is_some_and(ends) {
            break;
        }
    }
    Ok(done)
}

/// Sends a transaction of `statements` at once and returns their rows, or the index of the first that failed; the index after the
/// last stands for the commit.
async fn pipeline(
    session: &Session,
    statements: Vec<(&Statement, &[Param])>,
    message: Option<&str>,
) -> std::result::Result<Vec<Vec<Row>>, (usize, PgError)> {
    let client = &session.client;
    let count = statements.len();
    let mut begin = Box::pin(client.batch_execute("BEGIN"));
    let begun = poll!(&mut begin);
    let mut running = Vec::with_capacity(count);
    for (statement, params) in statements {
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param as _).collect();
        let mut answer = async move { client.query(statement, &params).await }.boxed();
        // The first poll sends the statement.
        let first = poll!(&mut answer);
        running.push((answer, first));
    }
    let end = match message {
        Some(message) => format!("{}; COMMIT", emission(message)),
        None => "COMMIT".into(),
    };
    let mut commit = Box::pin(client.batch_execute(&end));
    let committed = poll!(&mut commit);
    let mut failure = None;
    let begun = match begun {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => begin.await,
    };
    if let Err(error) = begun {
        failure = Some((0, error));
    }
    let mut answers = Vec::with_capacity(count);
    for (at, (answer, first)) in running.into_iter().enumerate() {
        let done = match first {
            std::task::Poll::Ready(done) => done,
            std::task::Poll::Pending => answer.await,
        };
        match done {
            Ok(rows) => answers.push(rows),
            Err(error) => failure = failure.or(Some((at, error))),
        }
    }
    let committed = match committed {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => commit.await,
    };
    match (failure, committed) {
        (Some(failure), committed) => {
            if committed.is_err() {
                // The statements before the COMMIT failed, so that it was skipped.
                let _ = client.batch_execute("ROLLBACK").await;
            }
            Err(failure)
        }
        (None, Err(error)) => {
            let _ = client.batch_execute("ROLLBACK").await;
            Err((count, error))
        }
        (None, Ok(())) => Ok(answers),
    }
}

/// Returns the result of a write from the rows of its statement; `None` if it changed nothing.
fn written(table: &Table, op: &WriteOp, rows: &[Row]) -> Option<Result<Written>> {
    let row = rows.first()?;
    Some(match op {
        WriteOp::Delete { .. } | WriteOp::DeleteAll => Ok(Written::default()),
        WriteOp::Insert { .. } | WriteOp::Replace { .. } | WriteOp::Patch { .. } => {
            table.row(row, 0).map(|(_, record)| Written { record: Some(record), ..Written::default() })
        }
    })
}

/// Returns the result of a write that changed nothing: it took effect before, or its row is missing, or in the way.
async fn resolve(session: &mut Session, table: &Table, write: &Write) -> Result<Written> {
    let id = write.op.id().unwrap_or_default();
    let failed = |error| refused(id, error);
    let row = match table.select_one(id) {
        Some((sql, params)) => {
            let statement = session.prepare(&sql).await.map_err(failed)?;
            let row = session.client.query_opt(&statement, &slice(&params)).await.map_err(failed)?;
            row.map(|row| table.row(&row, 0)).transpose()?.map(|(_, record)| record)
        }
        None => None,
    };
    let done = match (&write.operation, &table.place) {
        (Some(operation), Some(place)) => ops::knows(&session.client, place, operation).await.map_err(failed)?,
        _ => false,
    };
    match (&write.op, row) {
        (_, record) if done => Ok(Written { record, ..Written::default() }),
        (WriteOp::Insert { record, .. }, Some(stored)) => {
            if is_identical(table, id, record, &stored)? {
                return Ok(Written { record: Some(stored), ..Written::default() });
            }
            Err(Error::Conflict { id: id.to_string(), detail: "already exists with other values".into() })
        }
        // The id is free, so that another unique column is in the way: the server says which.
        (WriteOp::Insert { record, .. }, None) => {
            let cells = cells(table, id, record)?;
            let mut sql = Sql::default();
            sql.text = format!("{} RETURNING {}", sql.insert(table, &cells, ""), table.selected);
            let statement = session.prepare(&sql.text).await.map_err(failed)?;
            let row = session.client.query_one(&statement, &slice(&sql.params)).await.map_err(failed)?;
            table.row(&row, 0).map(|(_, record)| Written { record: Some(record), ..Written::default() })
        }
        // A patch without columns.
        (WriteOp::Patch { .. }, Some(stored)) => Ok(Written { record: Some(stored), ..Written::default() }),
        (WriteOp::DeleteAll, _) => Ok(Written::default()),
        (WriteOp::Patch { .. } | WriteOp::Delete { .. }, _) => Err(Error::NotFound { id: id.to_string() }),
        (WriteOp::Replace { .. }, _) => Err(Error::unknown("the row was not replaced, and it is not known why")),
    }
}

/// Returns true if the stored row equals the row of an insert, which makes it a retry. Columns that the insert lacks must be null
/// or have a default.
fn is_identical(table: &Table, id: &str, record: &Record, stored: &Record) -> Result<bool> {
    let given = cells(table, id, record)?;
    for field in table.fields.iter().filter(|field| !field.is_generated) {
        let stored = stored.get(&field.name).unwrap_or(&CborValue::Null);
        let same = match given.iter().find(|(own, _)| own.name == field.name) {
            _ if table.is_key(field) => true,
            // Read as the server would show it.
            Some((_, Some(text))) => {
                field.codec.read_text(text).as_ref() == Some(stored)
                    || field.codec.to_text(&field.name, stored)?.as_ref() == Some(text)
            }
            Some((_, None)) => stored.is_null(),
            None => field.has_default || stored.is_null(),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns true if a write depends on the stored row: a patch that merges into a JSON column.
fn is_merge(table: &Table, op: &WriteOp) -> bool {
    let WriteOp::Patch { record, .. } = op else { return false };
    let is_json = |column: &str| table.field(column).is_some_and(|field| matches!(field.codec, Codec::Json { .. }));
    record.iter().any(|(column, value)| value.is_map() && is_json(column))
}

/// Executes a patch that depends on the stored row, which is locked meanwhile.
async fn merge(session: &mut Session, table: &Table, write: &Write) -> Result<Written> {
    locked(session, table, write, None, |stored, op| match (op, stored) {
        (WriteOp::Patch { id, record }, Some(stored)) => {
            let merged = merge_patch(stored.clone(), record, table.schema.layout());
            let changed = merged.into_iter().filter(|(column, _)| record.contains(column)).collect();
            Ok(WriteOp::Patch { id: id.clone(), record: changed })
        }
        (op, _) => Ok(op.clone()),
    })
    .await
}

/// Executes a write bounded by `within`, whose row is locked meanwhile.
pub(super) async fn execute_within(
    session: &mut Session,
    table: &Table,
    write: &Write,
    within: &Narrowing,
    message: Option<&str>,
) -> Result<Written> {
    let completed = within.completed(write.op.clone());
    let write = Write { op: completed, operation: write.operation.clone() };
    let check = |stored: Option<&Record>, op: &WriteOp| {
        within.check_before(op.kind(), op.id().unwrap_or_default(), stored)?;
        match (op, stored) {
            (WriteOp::Patch { id, record }, Some(stored)) => {
                let merged = merge_patch(stored.clone(), record, table.schema.layout());
                within.check_after(&merged)?;
                let changed = merged.into_iter().filter(|(column, _)| record.contains(column)).collect();
                Ok(WriteOp::Patch { id: id.clone(), record: changed })
            }
            (WriteOp::Insert { id, record } | WriteOp::Replace { id, record }, _) => {
                within.check_after(&with_id(id, record, &table.schema)?)?;
                Ok(op.clone())
            }
            (op, _) => Ok(op.clone()),
        }
    };
    locked(session, table, &write, message, check).await
}

/// Executes the write that `make` returns for the stored row, which is locked meanwhile.
async fn locked(
    session: &mut Session,
    table: &Table,
    write: &Write,
    message: Option<&str>,
    make: impl Fn(Option<&Record>, &WriteOp) -> Result<WriteOp>,
) -> Result<Written> {
    let id = write.op.id().unwrap_or_default();
    let failed = |error| refused(id, error);
    let transaction = session.client.transaction().await.map_err(failed)?;
    let stored = match table.select_one(id) {
        Some((sql, params)) => {
            let row = transaction.query_opt(&format!("{sql} FOR UPDATE"), &slice(&params)).await.map_err(failed)?;
            row.map(|row| table.row(&row, 0)).transpose()?.map(|(_, record)| record)
        }
        None => None,
    };
    let op = make(stored.as_ref(), &write.op)?;
    let made = Write { operation: write.operation.clone(), op };
    let rows = match Sql::of(table, &made)? {
        Some(sql) => transaction.query(&sql.text, &slice(&sql.params)).await.map_err(failed)?,
        None => Vec::new(),
    };
    if let Some(message) = message {
        transaction.batch_execute(&emission(message)).await.map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)?;
    match written(table, &made.op, &rows) {
        Some(result) => result,
        None => resolve(session, table, &made).await,
    }
}

/// Inserts a row under an id assigned by the server, or as a new UUID.
pub(super) async fn insert_return_id(
    session: &mut Session,
    table: &Table,
    record: &Record,
    message: Option<&str>,
) -> Result<Written> {
    let mut record = record.clone();
    record.remove(table.schema.id_column());
    let mut given = cells_of(table, &record)?;
    for at in &table.key {
        let field = &table.fields[*at];
        if field.has_default || given.iter().any(|(own, _)| own.name == field.name) {
            continue;
        }
        let id = match (&field.codec, table.key.len()) {
            (Codec::Integer, 1) => {
                let sql = format!("SELECT coalesce(max({}), 0)::int8 + 1 FROM {}", field.quoted, table.from);
                let next = session.client.query_one(&sql, &[]).await.map_err(failed)?;
                next.get::<_, i64>(0).to_string()
            }
            (Codec::Text | Codec::Uuid, 1) => uuid::Uuid::now_v7().to_string(),
            _ => return Err(field_error(&field.name, "must be given: the database does not choose it")),
        };
        given.push((field, Some(id)));
    }
    let mut sql = Sql::default();
    sql.text = match given.is_empty() {
        true => format!("INSERT INTO {} DEFAULT VALUES RETURNING {}", table.from, table.selected),
        false => format!("{} RETURNING {}", sql.insert(table, &given, ""), table.selected),
    };
    let statement = session.prepare(&sql.text).await.map_err(|error| refused("", error))?;
    let answers = pipeline(session, vec![(&statement, &sql.params)], message).await;
    let rows = answers.map_err(|(_, error)| refused("", error))?;
    let row = rows.first().and_then(|rows| rows.first());
    let Some(row) = row else { return no_answer() };
    let (id, record) = table.row(row, 0)?;
    Ok(Written { id: Some(id), record: Some(record), ..Written::default() })
}
