//! Writes: each is one statement, which also stores the id of its operation and returns the row as stored afterwards.
//!
//! The writes of a batch share a transaction, whose statements are sent without waiting for each other's answers (`group.rs`). If one
//! of them fails, the server undoes all, and each half of the batch is tried by itself, so that a refusal affects no other write. An
//! operation whose id is stored already changes nothing: two attempts at the same time meet at the primary key of the stored ids.

use std::collections::HashSet;
use std::ops::Range;

use futures_util::{FutureExt as _, poll};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error as PgError, Row, Statement};

use super::errors::{failed, refused};
use super::group::{Step, key_of, steps};
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

/// Begins a transaction with statements of several writes. Their rows are found by key: the server may have planned a statement when
/// the table was small, and would read all of it.
const BEGIN_GROUPS: &str = "BEGIN; SET LOCAL enable_seqscan = off";

/// Executes writes in order. The results end with the first failure that is not permanent: later writes were not tried.
///
/// `message` is written to the log with the last of them, for a feed that waits for it.
pub(super) async fn execute_all(
    session: &mut Session,
    table: &Table,
    writes: &[Write],
    message: Option<&str>,
) -> Vec<Result<Written>> {
    let mut results = Vec::with_capacity(writes.len());
    let mut attempts = attempts(table, writes);
    let is_whole = attempts.len() == 1;
    let mut message = message;
    while let Some(Attempt { range, grouped }) = attempts.pop() {
        let part = &writes[range.clone()];
        let within = message.filter(|_| is_whole && part.len() == writes.len());
        let done = match part {
            [write] if is_merge(table, &write.op) => Ok(vec![merge(session, table, write, within).await]),
            part => transact(session, table, part, grouped, within).await,
        };
        match done {
            Ok(done) => {
                results.extend(done);
                message = message.filter(|_| within.is_none());
            }
            Err(failure) if part.len() == 1 || session.client.is_closed() => results.push(Err(failure.error)),
            Err(failure) if failure.is_known => attempts.push(Attempt { range, grouped: false }),
            Err(_) => {
                let middle = range.start + range.len() / 2;
                attempts.push(Attempt { range: middle..range.end, grouped });
                attempts.push(Attempt { range: range.start..middle, grouped });
            }
        }
        if results.last().is_some_and(ends) {
            break;
        }
    }
    if let Some(message) = message.filter(|_| results.iter().any(Result::is_ok)) {
        // If it fails, nobody waits longer than the patience with a feed.
        let _ = emit(session, message).await;
    }
    results
}

/// A part of a batch that is tried in one transaction.
struct Attempt {
    range: Range<usize>,
    /// True if writes may share a statement.
    grouped: bool,
}

/// A transaction that was not committed.
struct Failure {
    error: Error,
    /// True if the id of an operation is stored already: it, or another attempt of it, has taken effect.
    is_known: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, is_known: false }
    }
}

/// Returns the parts of a batch, the last one first. A patch that depends on the stored row is one by itself, and no row has two
/// writes in a part: the result of one without effect depends on the row as it is afterwards ([`resolve`]).
fn attempts(table: &Table, writes: &[Write]) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut keys = HashSet::new();
    let mut is_open = false;
    for (at, write) in writes.iter().enumerate() {
        let key = write.op.id().and_then(|id| key_of(table, id));
        let alone = write.op.id().is_none() || is_merge(table, &write.op);
        let joins = is_open && !alone && key.as_ref().is_none_or(|key| !keys.contains(key));
        match attempts.last_mut().filter(|_| joins) {
            Some(part) => part.range.end = at + 1,
            None => {
                keys.clear();
                attempts.push(Attempt { range: at..at + 1, grouped: true });
            }
        }
        keys.extend(key);
        is_open = !alone;
    }
    attempts.reverse();
    attempts
}

/// Writes a message to the log, in a transaction of its own.
pub(super) async fn emit(session: &Session, message: &str) -> std::result::Result<(), PgError> {
    session.client.batch_execute(&emission(message)).await
}

/// Returns the statement that writes a message, which consists of letters and digits, to the log.
fn emission(message: &str) -> String {
    format!("SELECT pg_logical_emit_message(true, '{MESSAGE_PREFIX}', '{message}')")
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
    grouped: bool,
    message: Option<&str>,
) -> std::result::Result<Vec<Result<Written>>, Failure> {
    let (steps, errors) = steps(table, writes, grouped);
    let mut results: Vec<Option<Result<Written>>> = writes.iter().map(|_| None).collect();
    for (at, error) in errors {
        results[at] = Some(Err(error));
    }
    let id_of = |step: Option<&Step>| match step.map(|step| step.writes.as_slice()) {
        Some([only]) => writes[*only].op.id().unwrap_or_default(),
        _ => "",
    };
    let mut prepared = Vec::with_capacity(steps.len());
    for step in &steps {
        prepared.push(session.prepare(&step.sql.text).await.map_err(|error| refused(id_of(Some(step)), error))?);
    }
    let statements: Vec<_> = steps.iter().zip(&prepared).map(|(step, sql)| (sql, step.sql.params.as_slice())).collect();
    let answers = match statements.is_empty() {
        true => {
            if let Some(message) = message {
                emit(session, message).await.map_err(failed)?;
            }
            Vec::new()
        }
        false => {
            let begin = if steps.iter().any(Step::is_group) { BEGIN_GROUPS } else { "BEGIN" };
            pipeline(session, begin, statements, message).await.map_err(|(at, error)| Failure {
                is_known: steps.get(at).is_some_and(Step::is_group) && ops::is_stored_twice(&error),
                error: refused(id_of(steps.get(at)), error),
            })?
        }
    };
    for (step, rows) in steps.iter().zip(&answers) {
        note_results(table, writes, step, rows, &mut results);
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

/// Notes the results of the writes of a statement, from the rows that it returned. A write that changed nothing has none.
fn note_results(table: &Table, writes: &[Write], step: &Step, rows: &[Row], results: &mut [Option<Result<Written>>]) {
    for row in rows {
        let (at, first) = match step.writes.as_slice() {
            [only] => (*only, 0),
            several => {
                let number = usize::try_from(row.get::<_, i64>(0)).unwrap_or_default();
                let Some(at) = number.checked_sub(1).and_then(|index| several.get(index)) else { continue };
                (*at, 1)
            }
        };
        results[at].get_or_insert_with(|| written(table, &writes[at].op, row, first));
    }
}

/// Sends a transaction of `statements` at once and returns their rows, or the index of the first that failed; the index after the
/// last stands for the commit.
async fn pipeline(
    session: &Session,
    begin: &str,
    statements: Vec<(&Statement, &[Param])>,
    message: Option<&str>,
) -> std::result::Result<Vec<Vec<Row>>, (usize, PgError)> {
    let client = &session.client;
    let count = statements.len();
    let mut begin = Box::pin(client.batch_execute(begin));
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

/// Returns the result of a write from a row of its statement, whose first field is result column `first`.
fn written(table: &Table, op: &WriteOp, row: &Row, first: usize) -> Result<Written> {
    match op {
        WriteOp::Delete { .. } | WriteOp::DeleteAll => Ok(Written::default()),
        WriteOp::Insert { .. } | WriteOp::Replace { .. } | WriteOp::Patch { .. } => {
            table.row(row, first).map(|(_, record)| Written { record: Some(record), ..Written::default() })
        }
    }
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
        (WriteOp::Insert { .. }, None) => {
            let sql = Sql::insert_or_fail(table, write)?;
            let statement = session.prepare(&sql.text).await.map_err(failed)?;
            match session.client.query_opt(&statement, &slice(&sql.params)).await.map_err(failed)? {
                Some(row) => written(table, &write.op, &row, 0),
                None => no_answer(),
            }
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
async fn merge(session: &mut Session, table: &Table, write: &Write, message: Option<&str>) -> Result<Written> {
    locked(session, table, write, message, |stored, op| match (op, stored) {
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
    match rows.first() {
        Some(row) => written(table, &made.op, row, 0),
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
    let answers = pipeline(session, "BEGIN", vec![(&statement, &sql.params)], message).await;
    let rows = answers.map_err(|(_, error)| refused("", error))?;
    let row = rows.first().and_then(|rows| rows.first());
    let Some(row) = row else { return no_answer() };
    let (id, record) = table.row(row, 0)?;
    Ok(Written { id: Some(id), record: Some(record), ..Written::default() })
}
