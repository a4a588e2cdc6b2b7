//! Writes: the statements of a batch are one transaction in two round trips, which also stores the ids of its operations.
//!
//! The ids are stored first, so that two attempts of one operation at the same time meet there: the later one waits, and fails if
//! the first has committed. If a write is refused, the transaction is undone, and the writes before it, the write, and those after
//! it are made again in transactions of their own.

use std::collections::{HashMap, HashSet, VecDeque};

use mysql_async::Row;

use super::errors::{failed, is_duplicate, not_committed, refused};
use super::ops;
use super::pool::Session;
use super::statement::{Batch, Change, Purpose, cells_of, insert, is_identical};
use super::table::Table;
use super::value::{Codec, text_literal};
use crate::rows::{field_error, with_id};
use diorama_core::record::{Record, merge_patch};
use diorama_core::vista::{Error, ErrorKind, Narrowing, Result, WriteOp, Written};

/// Size in bytes from which the statements of a batch are sent as several, because the server limits a packet.
const MAX_TEXT: usize = 1 << 20;

/// A write, with the id of its operation if it may be retried.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) operation: Option<String>,
    pub(super) op: WriteOp,
}

/// A transaction that had no effect, or of which that is unknown.
#[derive(Debug)]
struct Failure {
    reason: Reason,
    error: Error,
}

/// Reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// An operation has taken effect before.
    Repeated,
    /// The write of this index was refused; a unique key may have its value already.
    Write {
        at: usize,
        is_duplicate: bool,
    },
    /// Another program has written the row meanwhile.
    Race,
    Other,
}

/// Executes writes in order. The results end with the first failure that is not permanent: later writes were not tried.
pub(super) async fn execute_all(session: &mut Session, table: &Table, writes: &[Write]) -> Vec<Result<Written>> {
    let changes: Vec<Change<'_>> = writes.iter().map(|write| Change::of(table, write)).collect();
    let mut runs = runs(table, &changes);
    let mut results = Vec::with_capacity(writes.len());
    while let Some(run) = runs.pop_front() {
        if let [change] = run {
            results.push(match is_merge(table, &change.write.op) {
                true => merge(session, table, change.write).await,
                false => execute_one(session, table, change).await,
            });
        } else {
            match transact(session, table, run, false).await {
                Ok(done) => results.extend(done),
                Err(failure) if session.is_broken() => results.push(Err(failure.error)),
                Err(failure) => split(&mut runs, run, failure.reason),
            }
        }
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

/// Divides writes into those that share a transaction: each of another row, because the rows are read after the last write.
fn runs<'c, 'w>(table: &Table, changes: &'c [Change<'w>]) -> VecDeque<&'c [Change<'w>]> {
    let mut runs = VecDeque::new();
    let (mut start, mut size, mut ids) = (0, 0, HashSet::new());
    for (at, change) in changes.iter().enumerate() {
        let is_alone = change.write.op == WriteOp::DeleteAll || is_merge(table, &change.write.op);
        let id = change.write.op.id().unwrap_or_default();
        if at > start && (is_alone || size + change.size() > MAX_TEXT || ids.contains(id)) {
            runs.push_back(&changes[start..at]);
            (start, size) = (at, 0);
            ids.clear();
        }
        size += change.size();
        ids.insert(id);
        if is_alone {
            runs.push_back(&changes[start..=at]);
            (start, size) = (at + 1, 0);
            ids.clear();
        }
    }
    if start < changes.len() {
        runs.push_back(&changes[start..]);
    }
    runs
}

/// Puts the writes of a failed transaction back, in order: around the refused one, or each for itself.
fn split<'c, 'w>(runs: &mut VecDeque<&'c [Change<'w>]>, run: &'c [Change<'w>], reason: Reason) {
    let parts: Vec<&[Change<'w>]> = match reason {
        Reason::Write { at, .. } => vec![&run[..at], &run[at..=at], &run[at + 1..]],
        _ => run.chunks(1).collect(),
    };
    for part in parts.into_iter().rev().filter(|part| !part.is_empty()) {
        runs.push_front(part);
    }
}

/// Executes a write in a transaction of its own.
async fn execute_one(session: &mut Session, table: &Table, change: &Change<'_>) -> Result<Written> {
    if let Some(refusal) = &change.refusal {
        return Err(refusal.clone());
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match transact(session, table, std::slice::from_ref(change), false).await {
            Ok(results) => return results.into_iter().next().unwrap_or_else(no_answer),
            Err(failure) => failure,
        };
        let is_replace = matches!(change.write.op, WriteOp::Replace { .. });
        let may_be_race = matches!(failure.reason, Reason::Race | Reason::Write { is_duplicate: true, .. });
        if !(is_replace && may_be_race && tries == 1) {
            return settle(session, table, change.write, failure).await;
        }
    }
}

fn no_answer() -> Result<Written> {
    Err(Error::unknown("the write was sent, but its outcome is unknown"))
}

/// Returns the result of a write whose transaction failed: it may have taken effect before.
async fn settle(session: &mut Session, table: &Table, write: &Write, failure: Failure) -> Result<Written> {
    let id = write.op.id().unwrap_or_default();
    match (failure.reason, &write.op) {
        (Reason::Repeated, _) => Ok(Written { record: stored(session, table, id).await?, ..Written::default() }),
        (Reason::Write { is_duplicate: true, .. }, WriteOp::Insert { record, .. }) => {
            // If the id is free, another unique column is in the way: the server says which.
            let Some(row) = stored(session, table, id).await? else { return Err(failure.error) };
            match is_identical(table, id, record, &row)? {
                true => Ok(Written { record: Some(row), ..Written::default() }),
                false => Err(Error::Conflict { id: id.to_string(), detail: "already exists with other values".into() }),
            }
        }
        _ => Err(failure.error),
    }
}

async fn stored(session: &mut Session, table: &Table, id: &str) -> Result<Option<Record>> {
    let Some(sql) = table.select_one(id) else { return Ok(None) };
    let row = session.rows(&sql).await.map_err(failed)?.into_iter().next();
    Ok(row.map(|row| table.row(row)).transpose()?.map(|(_, record)| record))
}

/// Executes writes in one transaction, which may have begun.
async fn transact(
    session: &mut Session,
    table: &Table,
    changes: &[Change<'_>],
    has_begun: bool,
) -> std::result::Result<Vec<Result<Written>>, Failure> {
    let mut batch = Batch::default();
    if !has_begun {
        batch = Batch::begin();
        batch.push_operations(table, changes);
    }
    batch.push_changes(table, changes);
    let (affected, rows) = run(session, &batch, changes).await?;
    let mut effects = vec![0; changes.len()];
    for (purpose, affected) in batch.purposes.iter().zip(affected) {
        if let Purpose::Write(at) = purpose {
            effects[*at] += affected;
        }
    }
    let lost = |(change, effect): (&Change<'_>, &u64)| {
        *effect == 0 && change.refusal.is_none() && matches!(change.write.op, WriteOp::Replace { .. })
    };
    if changes.iter().zip(&effects).any(lost) {
        session.rollback().await;
        let error = Error::transient("another program has written the row at the same time");
        return Err(Failure { reason: Reason::Race, error });
    }
    let rows = match by_id(table, rows) {
        Ok(rows) => rows,
        Err(error) => {
            session.rollback().await;
            return Err(Failure { reason: Reason::Other, error });
        }
    };
    commit(session, table, changes, &effects).await?;
    Ok(changes.iter().zip(effects).map(|(change, effect)| written(table, change, effect, &rows)).collect())
}

/// Sends the statements of a batch. If one fails, the transaction is undone.
async fn run(
    session: &mut Session,
    batch: &Batch,
    changes: &[Change<'_>],
) -> std::result::Result<(Vec<u64>, Vec<Row>), Failure> {
    if batch.text.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let (at, error) = match session.run_all(&batch.text, batch.purposes.len()).await {
        Ok(done) => return Ok(done),
        Err(failure) => failure,
    };
    session.rollback().await;
    let is_duplicate = is_duplicate(&error);
    Err(match batch.purposes.get(at) {
        Some(Purpose::Write(at)) => {
            let id = changes.get(*at).and_then(|change| change.write.op.id()).unwrap_or_default();
            Failure { reason: Reason::Write { at: *at, is_duplicate }, error: refused(id, error) }
        }
        Some(Purpose::Operations) if is_duplicate => Failure { reason: Reason::Repeated, error: failed(error) },
        _ => Failure { reason: Reason::Other, error: failed(error) },
    })
}

fn by_id(table: &Table, rows: Vec<Row>) -> Result<HashMap<String, Record>> {
    rows.into_iter().map(|row| table.row(row)).collect()
}

/// Commits, without the ids of operations that had no effect.
async fn commit(
    session: &mut Session,
    table: &Table,
    changes: &[Change<'_>],
    effects: &[u64],
) -> std::result::Result<(), Failure> {
    let vain = |(change, effect): (&Change<'_>, &u64)| {
        change.write.operation.clone().filter(|_| *effect == 0 && change.write.op != WriteOp::DeleteAll)
    };
    let vain: Vec<String> = changes.iter().zip(effects).filter_map(vain).collect();
    let sql = match (&table.place, vain.is_empty()) {
        (Some(place), false) => format!("{}; COMMIT", ops::remove(place, vain.iter().map(String::as_str))),
        _ => "COMMIT".into(),
    };
    if let Err(error) = session.run(&sql).await {
        session.rollback().await;
        return Err(Failure { reason: Reason::Other, error: not_committed(error) });
    }
    Ok(())
}

/// Returns the result of a write in a transaction that has been committed.
fn written(table: &Table, change: &Change<'_>, effect: u64, rows: &HashMap<String, Record>) -> Result<Written> {
    if let Some(refusal) = &change.refusal {
        return Err(refusal.clone());
    }
    let id = change.write.op.id().unwrap_or_default();
    // The server may have another spelling of the same key.
    let row =
        rows.get(id).or_else(|| rows.iter().find(|(own, _)| table.schema.is_same_id(own, id)).map(|(_, row)| row));
    match &change.write.op {
        WriteOp::DeleteAll => Ok(Written::default()),
        WriteOp::Delete { .. } if effect > 0 => Ok(Written::default()),
        WriteOp::Delete { .. } => Err(Error::NotFound { id: id.to_string() }),
        // A patch without columns has no statement.
        WriteOp::Patch { .. } if effect == 0 && (row.is_none() || !change.statements.is_empty()) => {
            Err(Error::NotFound { id: id.to_string() })
        }
        WriteOp::Insert { .. } | WriteOp::Replace { .. } | WriteOp::Patch { .. } => {
            Ok(Written { record: row.cloned(), ..Written::default() })
        }
    }
}

/// Returns true if a write depends on the stored row: a patch that merges into a JSON column.
fn is_merge(table: &Table, op: &WriteOp) -> bool {
    let WriteOp::Patch { record, .. } = op else { return false };
    let is_json = |column: &str| table.field(column).is_some_and(|field| field.codec == Codec::Json);
    record.iter().any(|(column, value)| value.is_map() && is_json(column))
}

/// Executes a patch that depends on the stored row, which is locked meanwhile.
async fn merge(session: &mut Session, table: &Table, write: &Write) -> Result<Written> {
    locked(session, table, write, |stored, op| match (op, stored) {
        (WriteOp::Patch { id, record }, Some(stored)) => Ok(merged(table, id, record, stored.clone()).0),
        (op, _) => Ok(op.clone()),
    })
    .await
}

/// Returns the patch of whole columns that has the effect of `record` on the stored row, and the row afterwards.
fn merged(table: &Table, id: &str, record: &Record, stored: Record) -> (WriteOp, Record) {
    let row = merge_patch(stored, record, table.schema.layout());
    let changed = row.clone().into_iter().filter(|(column, _)| record.contains(column)).collect();
    (WriteOp::Patch { id: id.to_string(), record: changed }, row)
}

/// Executes a write bounded by `within`, whose row is locked meanwhile.
pub(super) async fn execute_within(
    session: &mut Session,
    table: &Table,
    write: &Write,
    within: &Narrowing,
) -> Result<Written> {
    let write = Write { op: within.completed(write.op.clone()), operation: write.operation.clone() };
    let check = |stored: Option<&Record>, op: &WriteOp| {
        within.check_before(op.kind(), op.id().unwrap_or_default(), stored)?;
        match (op, stored) {
            (WriteOp::Patch { id, record }, Some(stored)) => {
                let (patch, row) = merged(table, id, record, stored.clone());
                within.check_after(&row)?;
                Ok(patch)
            }
            (WriteOp::Insert { id, record } | WriteOp::Replace { id, record }, _) => {
                within.check_after(&with_id(id, record, &table.schema)?)?;
                Ok(op.clone())
            }
            (op, _) => Ok(op.clone()),
        }
    };
    locked(session, table, &write, check).await
}

/// Executes the write that `make` returns for the stored row, which is locked meanwhile.
async fn locked(
    session: &mut Session,
    table: &Table,
    write: &Write,
    make: impl Fn(Option<&Record>, &WriteOp) -> Result<WriteOp>,
) -> Result<Written> {
    let id = write.op.id().unwrap_or_default();
    let mut batch = Batch::begin();
    if let (Some(operation), Some(place)) = (&write.operation, &table.place) {
        batch.push(Purpose::Operations, &ops::store(place, std::iter::once(operation.as_str())));
    }
    let select = table.select_one(id).unwrap_or_else(|| "SELECT 1 FROM DUAL WHERE false".into());
    batch.push(Purpose::Read, &format!("{select} FOR UPDATE"));
    let rows = match run(session, &batch, &[]).await {
        Ok((_, rows)) => rows,
        Err(failure) => return settle(session, table, write, failure).await,
    };
    let stored = rows.into_iter().next().map(|row| table.row(row)).transpose();
    let op = match stored.and_then(|stored| make(stored.map(|(_, record)| record).as_ref(), &write.op)) {
        Ok(op) => op,
        Err(error) => {
            session.rollback().await;
            return Err(error);
        }
    };
    let made = Write { operation: write.operation.clone(), op };
    let change = Change::of(table, &made);
    if let Some(refusal) = change.refusal {
        session.rollback().await;
        return Err(refusal);
    }
    match transact(session, table, std::slice::from_ref(&change), true).await {
        Ok(results) => results.into_iter().next().unwrap_or_else(no_answer),
        Err(failure) => settle(session, table, &made, failure).await,
    }
}

/// Inserts a row under an id assigned by the server, or as a new UUID.
pub(super) async fn insert_return_id(session: &mut Session, table: &Table, record: &Record) -> Result<Written> {
    let mut record = record.clone();
    record.remove(table.schema.id_column());
    let mut given = cells_of(table, &record)?;
    let mut key = Vec::new();
    for at in &table.key {
        let field = &table.fields[*at];
        let literal = match given.iter().find(|(own, _)| own.name == field.name) {
            Some((_, literal)) => {
                key.push(literal.clone());
                continue;
            }
            None if field.is_automatic => {
                key.push("last_insert_id()".into());
                continue;
            }
            None => match (field.codec, table.key.len()) {
                (Codec::Integer, 1) => {
                    let sql = format!("SELECT coalesce(max({}), 0) + 1 FROM {}", field.quoted, table.from);
                    let next = session.rows(&sql).await.map_err(failed)?;
                    next.first().and_then(|row| row.get::<u64, _>(0)).unwrap_or(1).to_string()
                }
                (Codec::Text | Codec::Uuid, 1) => text_literal(&uuid::Uuid::now_v7().to_string()),
                _ => return Err(field_error(&field.name, "must be given: the database does not choose it")),
            },
        };
        key.push(literal.clone());
        given.push((field, literal));
    }
    let mut batch = Batch::begin();
    batch.push(Purpose::Write(0), &insert(table, &given));
    let by_key = table.by_key(&key);
    batch.push(Purpose::Read, &format!("SELECT {} FROM {} WHERE {by_key}", table.selected, table.from));
    let (_, rows) = run(session, &batch, &[]).await.map_err(|failure| failure.error)?;
    commit(session, table, &[], &[]).await.map_err(|failure| failure.error)?;
    let Some(row) = rows.into_iter().next() else { return no_answer() };
    let (id, record) = table.row(row)?;
    Ok(Written { id: Some(id), record: Some(record), ..Written::default() })
}
