//! Writes: each is one request, a transaction that also stores the id of its operation.

use std::time::Duration;

use super::cbor::{is_nothing, object};
use super::errors::{DENIED, Failure, MISSING, failed, refused};
use super::ops;
use super::rpc::{Session, Transaction};
use super::table::{Table, is_refused};
use crate::rows::{field_error, with_id};
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Error, Narrowing, Result, WriteOp, Written};

/// Attempts of a transaction that meets others on the same rows.
const ATTEMPTS: u32 = 6;
/// Pause after the first of them.
const PAUSE: Duration = Duration::from_millis(2);

/// A write as statements, the last of which returns the row.
struct Change {
    statements: String,
    variables: CborValue,
}

impl Change {
    /// Returns the statements of a write.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no row can have the id; [`Error::Invalid`] for a cell that is not of its column's type.
    fn of(table: &Table, op: &WriteOp) -> Result<Change> {
        let row = |id: &str, record: &Record| table.content(&with_id(id, record, &table.schema)?);
        let (statement, content, error) = match op {
            WriteOp::Insert { id, record } => ("CREATE ONLY $id CONTENT $content", row(id, record)?, DENIED),
            WriteOp::Replace { id, record } => ("UPSERT ONLY $id CONTENT $content", row(id, record)?, DENIED),
            WriteOp::Patch { id, record } => {
                // Checks that the patch does not change the id.
                let patch = with_id(id, record, &table.schema)?;
                ("(UPDATE $id MERGE $content)[0]", table.patch(&patch)?, MISSING)
            }
            WriteOp::Delete { .. } => ("(DELETE $id RETURN BEFORE)[0]", CborValue::Null, MISSING),
            WriteOp::DeleteAll => {
                let variables =
                    object([("table", super::cbor::tagged(super::cbor::TABLE, table.name.as_str().into()))]);
                return Ok(Change { statements: "DELETE $table RETURN NONE; RETURN NONE;".into(), variables });
            }
        };
        let id = op.id().unwrap_or_default();
        let record = match (table.record_id(id), op) {
            (Some(record), _) => record,
            (None, WriteOp::Insert { .. } | WriteOp::Replace { .. }) => {
                let column = table.schema.id_column();
                return Err(field_error(
                    column,
                    &format!("cannot be {id:?}: the records of {} have other keys", table.name),
                ));
            }
            (None, _) => return Err(Error::NotFound { id: id.to_string() }),
        };
        let statements = format!("LET $row = {statement}; IF $row = NONE {{ THROW \"{error}\" }}; RETURN $row;");
        Ok(Change { statements, variables: object([("id", record), ("content", content)]) })
    }

    fn set(&mut self, name: &str, value: CborValue) {
        if let CborValue::Map(members) = &mut self.variables {
            members.push((name.into(), value));
        }
    }
}

/// Executes a write, once if it has the id of an operation.
pub(super) async fn execute(
    session: &mut Session,
    table: &Table,
    op: &WriteOp,
    operation: Option<&str>,
) -> Result<Written> {
    let mut change = Change::of(table, op)?;
    let store = match operation {
        Some(operation) => {
            change.set("operation", ops::id(operation));
            ops::store()
        }
        None => String::new(),
    };
    let transaction = format!("BEGIN; {store} {} COMMIT;", change.statements);
    let failure = match transact(session, &transaction, &change.variables).await {
        Ok(row) => return written(table, op, row),
        Err(failure) => failure,
    };
    let id = op.id().unwrap_or_default();
    if is_refused(&failure, ops::is_repeated) {
        return Ok(Written { record: stored(session, table, id).await?, ..Written::default() });
    }
    match (op, refused(id, failure)) {
        (WriteOp::Insert { record, .. }, Error::Conflict { detail, .. }) if detail == "already exists" => {
            inserted_before(session, table, id, record).await
        }
        (_, error) => Err(error),
    }
}

/// Runs a transaction and returns the result of its `RETURN`. One that meets others on the same rows is run again.
async fn transact(
    session: &mut Session,
    statements: &str,
    variables: &CborValue,
) -> std::result::Result<CborValue, Failure> {
    let mut attempt = 1;
    loop {
        let failure = match results(session, statements, variables).await {
            Ok(row) => return Ok(row),
            Err(failure) => failure,
        };
        if attempt >= ATTEMPTS || !is_refused(&failure, super::errors::Refusal::is_conflict) {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
        attempt += 1;
    }
}

async fn results(
    session: &mut Session,
    statements: &str,
    variables: &CborValue,
) -> std::result::Result<CborValue, Failure> {
    let (mut values, mut refusal) = (Vec::new(), None);
    for result in session.query(statements, variables.clone(), None).await? {
        match result {
            Ok(value) => values.push(value),
            // The cause is more than its consequences.
            Err(own) if refusal.is_none() || !own.is_consequence() => refusal = Some(own),
            Err(_) => {}
        }
    }
    match refusal {
        Some(refusal) => Err(refusal.into()),
        // The last one is that of COMMIT.
        None => Ok(values.into_iter().nth_back(1).unwrap_or(CborValue::Null)),
    }
}

fn written(table: &Table, op: &WriteOp, row: CborValue) -> Result<Written> {
    if matches!(op, WriteOp::Delete { .. } | WriteOp::DeleteAll) {
        return Ok(Written::default());
    }
    let (_, record) = table.row(row).map_err(Error::permanent)?;
    Ok(Written { record: Some(record), ..Written::default() })
}

/// Returns the result of an insert whose row exists: it may have been made by the same insert.
async fn inserted_before(session: &mut Session, table: &Table, id: &str, record: &Record) -> Result<Written> {
    let conflict = || Error::Conflict { id: id.to_string(), detail: "already exists with other values".into() };
    let row = stored(session, table, id).await?.ok_or_else(conflict)?;
    match table.is_identical(record, &row)? {
        true => Ok(Written { record: Some(row), ..Written::default() }),
        false => Err(conflict()),
    }
}

/// Returns the row `id`.
pub(super) async fn stored(session: &mut Session, table: &Table, id: &str) -> Result<Option<Record>> {
    read(session, table, id, None).await
}

async fn read(
    session: &mut Session,
    table: &Table,
    id: &str,
    transaction: Option<&Transaction>,
) -> Result<Option<Record>> {
    let Some(record) = table.record_id(id) else { return Ok(None) };
    let found = session.last("SELECT * FROM ONLY $id", object([("id", record)]), transaction).await.map_err(failed)?;
    if is_nothing(&found) {
        return Ok(None);
    }
    table.row(found).map(|(_, row)| Some(row)).map_err(Error::permanent)
}

/// Executes a write bounded by `within`: reads the row, writes, and checks what it has made, in one transaction.
pub(super) async fn execute_within(
    session: &mut Session,
    table: &Table,
    op: &WriteOp,
    within: &Narrowing,
) -> Result<Written> {
    let op = within.completed(op.clone());
    let mut attempt = 1;
    loop {
        let transaction = session.begin().await.map_err(failed)?;
        let written = write_within(session, table, &op, within, &transaction).await;
        let failure = match written {
            Ok(written) => match session.commit(transaction).await {
                Ok(()) => return Ok(written),
                Err(failure) => failure,
            },
            Err(error) => {
                if !session.is_broken() {
                    session.cancel(transaction).await.map_err(failed)?;
                }
                return Err(error);
            }
        };
        if attempt >= ATTEMPTS || !is_refused(&failure, super::errors::Refusal::is_conflict) {
            return Err(refused(op.id().unwrap_or_default(), failure));
        }
        tokio::time::sleep(PAUSE * 2_u32.pow(attempt)).await;
        attempt += 1;
    }
}

async fn write_within(
    session: &mut Session,
    table: &Table,
    op: &WriteOp,
    within: &Narrowing,
    transaction: &Transaction,
) -> Result<Written> {
    let id = op.id().unwrap_or_default();
    let before = read(session, table, id, Some(transaction)).await?;
    within.check_before(op.kind(), id, before.as_ref())?;
    if let (WriteOp::Insert { record, .. }, Some(before)) = (op, &before) {
        let conflict = || Error::Conflict { id: id.to_string(), detail: "already exists with other values".into() };
        return match table.is_identical(record, before)? {
            true => Ok(Written { record: Some(before.clone()), ..Written::default() }),
            false => Err(conflict()),
        };
    }
    let change = Change::of(table, op)?;
    let row = session.last(&change.statements, change.variables, Some(transaction)).await;
    let written = written(table, op, row.map_err(|failure| refused(id, failure))?)?;
    if let Some(after) = &written.record {
        within.check_after(after)?;
    }
    Ok(written)
}

/// Inserts a row under the next number, a new UUID, or an id that the server chooses.
pub(super) async fn insert_return_id(session: &mut Session, table: &Table, record: &Record) -> Result<Written> {
    use super::record_id::KeyType;
    let mut record = record.clone();
    record.remove(table.schema.id_column());
    let content = table.content(&record)?;
    let name = table.name.as_str();
    let target = match table.key {
        KeyType::Integer => {
            "LET $last = (SELECT VALUE id FROM type::table($table) ORDER BY id DESC LIMIT 1)[0]; \
             LET $key = IF $last = NONE { 1 } ELSE { record::id($last) + 1 }; \
             LET $row = CREATE ONLY type::record($table, $key) CONTENT $content;"
        }
        KeyType::Uuid => "LET $row = CREATE ONLY type::record($table, rand::uuid::v7()) CONTENT $content;",
        KeyType::Text => "LET $row = CREATE ONLY type::table($table) CONTENT $content;",
    };
    let statements = format!("BEGIN; {target} IF $row = NONE {{ THROW \"{DENIED}\" }}; RETURN $row; COMMIT;");
    let variables = object([("table", name.into()), ("content", content)]);
    let row = transact(session, &statements, &variables).await.map_err(|failure| refused("", failure))?;
    let (id, record) = table.row(row).map_err(Error::permanent)?;
    Ok(Written { id: Some(id), record: Some(record), ..Written::default() })
}
