//! Log of the operations that have taken effect: their ids, stored in the transaction of their change.
//!
//! An operation whose response was lost is retried under its id, which is found here. The table is created by the first write and
//! stays bounded.

use rusqlite::{Connection, params};

use super::source::failed;
use crate::sql::operations::{KEEP_NEWEST, MAX_AGE, MAX_OPERATIONS, TABLE, now_millis};
use diorama_core::vista::Result;

/// Creates the table if it does not exist.
pub(super) fn prepare(connection: &Connection) -> Result<()> {
    let create = format!("CREATE TABLE IF NOT EXISTS {TABLE} (op TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID");
    connection.execute(&create, []).map(drop).map_err(failed)
}

/// Records that `operation` takes effect in the current transaction; returns `false` if it has done so before. Requires
/// [`prepare`].
pub(super) fn record(connection: &Connection, operation: &str) -> Result<bool> {
    let insert = format!("INSERT OR IGNORE INTO {TABLE} (op, at) VALUES (?, ?)");
    let noted =
        connection.prepare_cached(&insert).and_then(|mut insert| insert.execute(params![operation, now_millis()]));
    noted.map(|rows| rows > 0).map_err(failed)
}

/// Returns true if `operation` has taken effect, as far as the table remembers. The table does not exist before the first write.
pub(super) fn knows(connection: &Connection, operation: &str) -> Result<bool> {
    if !connection.table_exists(None, TABLE).map_err(failed)? {
        return Ok(false);
    }
    let select = format!("SELECT count(*) FROM {TABLE} WHERE op = ?");
    let found: i64 = connection.query_row(&select, [operation], |row| row.get(0)).map_err(failed)?;
    Ok(found > 0)
}

/// Deletes operations that are no longer retried. Ids increase with the time of acceptance.
pub(super) fn tidy(connection: &Connection) -> Result<()> {
    let nth = format!("(SELECT op FROM {TABLE} ORDER BY op DESC LIMIT 1 OFFSET ?)");
    let sql = format!("DELETE FROM {TABLE} WHERE op <= {nth} OR (at < ? AND op <= {nth})");
    connection.execute(&sql, params![MAX_OPERATIONS, now_millis() - MAX_AGE, KEEP_NEWEST]).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_noted_once_and_with_its_transaction() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&connection).unwrap();
        let lost = connection.transaction().unwrap();
        assert!(record(&lost, "op_1").unwrap());
        lost.rollback().unwrap();
        let kept = connection.transaction().unwrap();
        assert!(record(&kept, "op_1").unwrap());
        kept.commit().unwrap();
        let again = connection.transaction().unwrap();
        assert!(!record(&again, "op_1").unwrap());
        assert!(record(&again, "op_2").unwrap());
        assert!(knows(&again, "op_1").unwrap() && !knows(&again, "op_3").unwrap());
        assert!(!knows(&Connection::open_in_memory().unwrap(), "op_1").unwrap(), "there is no table yet");
    }

    #[test]
    fn old_operations_are_deleted_except_the_newest_and_the_recent() {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        prepare(&transaction).unwrap();
        record(&transaction, "op_z").unwrap();
        let old = now_millis() - MAX_AGE - 1_000;
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
            INSERT INTO _diorama_ops SELECT printf('op_%06d', i), CASE WHEN i <= 1000 THEN ?2 ELSE ?1 END FROM n";
        transaction.execute(fill, params![old, now_millis()]).unwrap();
        tidy(&transaction).unwrap();
        let left = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(left("SELECT count(*) FROM _diorama_ops WHERE op <= 'op_001000'"), 1_000, "young");
        assert_eq!(left("SELECT count(*) FROM _diorama_ops WHERE op > 'op_001000'"), 10_000, "newest");
    }
}
