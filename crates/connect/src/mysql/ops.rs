//! Log of the operations that have taken effect: their ids, stored in the transaction of their change.
//!
//! An operation whose response was lost is retried under its id, which is found here. The table is in the database of the written
//! table; it is created when a writable table is opened, and stays bounded.

use mysql_async::{Error as MyError, Value};

use super::describe::may;
use super::errors::{failed, is_denied};
use super::pool::Session;
use super::table::{Place, Table, quote};
use super::value::text_literal;
use crate::sql::operations::{KEEP_NEWEST, MAX_AGE, MAX_OPERATIONS, TABLE, now_millis};
use diorama_core::vista::{Error, Result};

/// Returns the quoted name of the table of operations beside a table.
fn table(place: &Place) -> String {
    format!("{}.{}", quote(&place.database), quote(TABLE))
}

/// Returns the statement that creates the table.
fn create(place: &Place) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (op VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, \
         `at` BIGINT NOT NULL) ENGINE = InnoDB",
        table(place)
    )
}

/// Creates the table of operations for writes to `written` if it does not exist.
///
/// # Errors
/// [`Error::Config`] with the statements for an administrator if the user may not.
pub(super) async fn prepare(session: &mut Session, written: &Table, user: &str) -> Result<()> {
    let Some(place) = &written.place else { return Ok(()) };
    let ops = table(place);
    let exists = format!(
        "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        text_literal(&place.database),
        text_literal(TABLE)
    );
    if session.rows(&exists).await.map_err(failed)?.is_empty() {
        match session.run(&create(place)).await {
            Err(error) if is_denied(&error) => return Err(not_allowed(place, &written.name, user)),
            done => done.map_err(failed)?,
        }
    }
    for statement in [
        format!("SELECT op, `at` FROM {ops}"),
        format!("INSERT INTO {ops} (op, `at`) VALUES ('', 0)"),
        format!("DELETE FROM {ops}"),
    ] {
        if !may(session, statement).await? {
            return Err(not_allowed(place, &written.name, user));
        }
    }
    Ok(())
}

fn not_allowed(place: &Place, written: &str, user: &str) -> Error {
    Error::Config(format!(
        "{user} may write {written} but has no table for the ids of operations, which keep a write from taking effect twice: \
         let an administrator run: {}; GRANT SELECT, INSERT, DELETE ON {} TO {user};",
        create(place),
        table(place)
    ))
}

/// Returns the statement that stores the ids of operations. It fails if one of them is stored, and waits for a transaction that is
/// about to store it.
pub(super) fn store<'o>(place: &Place, operations: impl Iterator<Item = &'o str>) -> String {
    let now = now_millis();
    let rows: Vec<String> = operations.map(|operation| format!("({}, {now})", text_literal(operation))).collect();
    format!("INSERT INTO {} (op, `at`) VALUES {}", table(place), rows.join(", "))
}

/// Returns the statement that removes the ids of operations without an effect.
pub(super) fn remove<'o>(place: &Place, operations: impl Iterator<Item = &'o str>) -> String {
    let ids: Vec<String> = operations.map(text_literal).collect();
    format!("DELETE FROM {} WHERE op IN ({})", table(place), ids.join(", "))
}

/// Returns true if `operation` has taken effect, as far as the table remembers.
pub(super) async fn knows(session: &mut Session, place: &Place, operation: &str) -> std::result::Result<bool, MyError> {
    let sql = format!("SELECT 1 FROM {} WHERE op = {}", table(place), text_literal(operation));
    session.rows(&sql).await.map(|rows| !rows.is_empty())
}

/// Deletes operations that are no longer retried. Ids increase with the time of acceptance.
pub(super) async fn tidy(session: &mut Session, place: &Place) -> std::result::Result<(), MyError> {
    let ops = table(place);
    for (offset, condition) in
        [(MAX_OPERATIONS, String::new()), (KEEP_NEWEST, format!(" AND `at` < {}", now_millis() - MAX_AGE))]
    {
        let nth = session.rows(&format!("SELECT op FROM {ops} ORDER BY op DESC LIMIT 1 OFFSET {offset}")).await?;
        let Some(Value::Bytes(op)) = nth.first().and_then(|row| row.as_ref(0)) else { continue };
        let newest = text_literal(&String::from_utf8_lossy(op));
        session.run(&format!("DELETE FROM {ops} WHERE op <= {newest}{condition}")).await?;
    }
    Ok(())
}
