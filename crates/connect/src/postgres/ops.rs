//! Log of the operations that have taken effect: their ids, stored in the transaction of their change.
//!
//! An operation whose response was lost is retried under its id, which is found here. The table is in the schema of the written
//! table; it is created by the first write, and stays bounded.

use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Error as PgError};

use super::errors::failed;
use super::table::{Place, Table};
use super::value::Param;
use crate::sql::operations::{KEEP_NEWEST, MAX_AGE, MAX_OPERATIONS, TABLE, now_millis};
use crate::sql::quote;
use diorama_core::vista::{Error, Result};

/// Returns the quoted name of the table of operations beside a table.
pub(super) fn table(place: &Place) -> String {
    format!("{}.{TABLE}", quote(&place.schema))
}

/// Returns the statement that creates the table.
fn create(place: &Place) -> String {
    format!("CREATE TABLE IF NOT EXISTS {} (op text COLLATE \"C\" PRIMARY KEY, at int8 NOT NULL)", table(place))
}

/// Checks that the user can use the table of operations for writes to `written`, or create it. Returns true if it exists.
///
/// # Errors
/// [`Error::Config`] with the statements for an administrator if the user may not.
pub(super) async fn check(client: &Client, written: &Table, user: &str) -> Result<bool> {
    let Some(place) = &written.place else { return Ok(false) };
    let sql = "SELECT c.oid IS NOT NULL, has_schema_privilege($1, 'CREATE'),
            coalesce(has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
                AND has_table_privilege(c.oid, 'DELETE'), false)
        FROM (SELECT to_regclass($2) AS oid) c";
    let row = client
        .query_one(sql, &[&Param::text(place.schema.as_str()), &Param::text(table(place))])
        .await
        .map_err(failed)?;
    let (exists, may_create, may_use): (bool, bool, bool) = (row.get(0), row.get(1), row.get(2));
    match (exists, may_create, may_use) {
        (true, _, true) => Ok(true),
        (false, true, _) => Ok(false),
        _ => {
            let detail = format!(
                "{user} may write {} but not the table for the ids of operations, which keep a write from taking effect twice: \
                 let an administrator run: {}GRANT SELECT, INSERT, DELETE ON {} TO {};",
                written.name,
                if exists { String::new() } else { format!("{}; ", create(place)) },
                table(place),
                quote(user)
            );
            Err(Error::Config(detail))
        }
    }
}

/// Creates the table of operations beside the table at `place` if it does not exist.
pub(super) async fn prepare(client: &Client, place: &Place) -> Result<()> {
    match client.batch_execute(&create(place)).await {
        // Another program has just created it.
        Err(error) if error.code().is_some_and(|code| matches!(code.code(), "23505" | "42P07")) => Ok(()),
        done => done.map_err(failed),
    }
}

/// Returns true if `operation` has taken effect, as far as the table remembers.
pub(super) async fn knows(client: &Client, place: &Place, operation: &str) -> std::result::Result<bool, PgError> {
    let sql = format!("SELECT EXISTS (SELECT FROM {} WHERE op = $1)", table(place));
    client.query_one(&sql, &[&Param::text(operation)]).await.map(|row| row.get(0))
}

/// Returns true if a statement failed because the id of an operation is stored already.
pub(super) fn is_stored_twice(error: &PgError) -> bool {
    let at_ids = |refusal: &DbError| *refusal.code() == SqlState::UNIQUE_VIOLATION && refusal.table() == Some(TABLE);
    error.as_db_error().is_some_and(at_ids)
}

/// Deletes operations that are no longer retried. Ids increase with the time of acceptance.
pub(super) async fn tidy(client: &Client, place: &Place) -> std::result::Result<(), PgError> {
    let ops = table(place);
    let nth = |param: u8| format!("(SELECT op FROM {ops} ORDER BY op DESC LIMIT 1 OFFSET ${param}::int8)");
    let sql = format!("DELETE FROM {ops} WHERE op <= {} OR (at < $2::int8 AND op <= {})", nth(1), nth(3));
    let number = |number: i64| Param::text(number.to_string());
    let params = [number(MAX_OPERATIONS.into()), number(now_millis() - MAX_AGE), number(KEEP_NEWEST.into())];
    client.execute(&sql, &[&params[0], &params[1], &params[2]]).await.map(drop)
}
