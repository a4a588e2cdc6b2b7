//! Log of the operations that have taken effect: their ids, stored in the transaction of their change.
//!
//! An operation whose response was lost is retried under its id, which is found here. The table is in the database of the written
//! table; it is created when a writable table is opened, and stays bounded.

use super::cbor::{items, object};
use super::errors::{Failure, Refusal, failed};
use super::record_id::{parts, record, records_to};
use super::rpc::Session;
use super::table::is_refused;
use crate::sql::operations::{KEEP_NEWEST, MAX_AGE, MAX_OPERATIONS, TABLE, now_millis};
use diorama_core::record::CborValue;
use diorama_core::vista::Result;

/// Creates the table of operations if it does not exist. Returns false if the user may not write.
///
/// # Errors
/// [`Error::Source`](diorama_core::Error::Source) if the server fails.
pub(super) async fn prepare(session: &mut Session) -> Result<bool> {
    let sql = format!("DEFINE TABLE IF NOT EXISTS {TABLE} SCHEMALESS PERMISSIONS NONE");
    match session.last(&sql, object([]), None).await {
        Ok(_) => Ok(true),
        Err(failure) if is_refused(&failure, Refusal::is_right) => Ok(false),
        Err(failure) => Err(failed(failure)),
    }
}

/// Returns the record id of an operation.
pub(super) fn id(operation: &str) -> CborValue {
    record(TABLE, operation.into())
}

/// Returns the statement that stores the operation `$operation`. It fails if that is stored.
pub(super) fn store() -> String {
    format!("CREATE ONLY $operation SET at = {} RETURN NONE;", now_millis())
}

/// Returns true if the refusal says that the operation is stored.
pub(super) fn is_repeated(refusal: &Refusal) -> bool {
    let id = refusal.record.as_deref().unwrap_or_default();
    refusal.kind == "AlreadyExists/Record" && id.split(':').next() == Some(TABLE)
}

/// Returns true if `operation` has taken effect, as far as the table remembers.
pub(super) async fn knows(session: &mut Session, operation: &str) -> std::result::Result<bool, Failure> {
    let found = session.last("SELECT VALUE id FROM $operation", object([("operation", id(operation))]), None).await?;
    Ok(!items(found).is_empty())
}

/// Deletes operations that are no longer retried. Ids increase with the time of acceptance.
pub(super) async fn tidy(session: &mut Session) -> std::result::Result<(), Failure> {
    let oldest = now_millis() - MAX_AGE;
    for (start, condition) in [(MAX_OPERATIONS, String::new()), (KEEP_NEWEST, format!(" WHERE at < {oldest}"))] {
        let nth = format!("SELECT VALUE id FROM {TABLE} ORDER BY id DESC LIMIT 1 START {start}");
        let found = items(session.last(&nth, object([]), None).await?);
        let Some((_, key)) = found.first().and_then(parts) else { continue };
        let variables = object([("range", records_to(TABLE, key.clone()))]);
        session.last(&format!("DELETE $range{condition} RETURN NONE"), variables, None).await?;
    }
    Ok(())
}
