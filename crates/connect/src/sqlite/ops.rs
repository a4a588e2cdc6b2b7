//! Which operations have taken effect: their ids, remembered in the transaction of their change.
//!
//! An operation whose answer was lost comes again under its id and finds it here. The table appears with the first write and
//! stays bounded.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};

use super::source::failed;
use diorama_core::vista::Result;

/// Where they are kept. Other programs may look, and should leave it alone.
const TABLE: &str = "_diorama_ops";

/// Of the newest, so many are never forgotten, however old: the program may have stood still.
const ALWAYS: u32 = 10_000;

/// Never more than so many.
const MOST: u32 = 1_000_000;

/// Those in between are forgotten after so many milliseconds: twice as long as an operation is tried again by default.
const AGE: i64 = 48 * 3_600 * 1_000;

/// Writes from one tidying to the next.
pub(super) const TIDY_EVERY: u64 = 4_096;

/// Makes the table, if there is none yet.
pub(super) fn prepare(connection: &Connection) -> Result<()> {
    let create = format!("CREATE TABLE IF NOT EXISTS {TABLE} (op TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID");
    connection.execute(&create, []).map(drop).map_err(failed)
}

/// Notes that `operation` takes effect in the transaction under way; `false` if it has done so before. Needs [`prepare`].
pub(super) fn note(connection: &Connection, operation: &str) -> Result<bool> {
    let insert = format!("INSERT OR IGNORE INTO {TABLE} (op, at) VALUES (?, ?)");
    let noted = connection.prepare_cached(&insert).and_then(|mut insert| insert.execute(params![operation, now()]));
    noted.map(|rows| rows > 0).map_err(failed)
}

/// Whether `operation` has taken effect, as far as is remembered. Where nothing was ever noted there is no table.
pub(super) fn knows(connection: &Connection, operation: &str) -> Result<bool> {
    if !connection.table_exists(None, TABLE).map_err(failed)? {
        return Ok(false);
    }
    let select = format!("SELECT count(*) FROM {TABLE} WHERE op = ?");
    let found: i64 = connection.query_row(&select, [operation], |row| row.get(0)).map_err(failed)?;
    Ok(found > 0)
}

/// Forgets what nobody asks for any more. Ids rise with the time of their acceptance.
pub(super) fn tidy(connection: &Connection) -> Result<()> {
    let nth = format!("(SELECT op FROM {TABLE} ORDER BY op DESC LIMIT 1 OFFSET ?)");
    let sql = format!("DELETE FROM {TABLE} WHERE op <= {nth} OR (at < ? AND op <= {nth})");
    connection.execute(&sql, params![MOST, now() - AGE, ALWAYS]).map(drop).map_err(failed)
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_noted_once_and_with_its_transaction() {
        let mut connection = Connection::open_in_memory().unwrap();
        prepare(&connection).unwrap();
        let lost = connection.transaction().unwrap();
        assert!(note(&lost, "op_1").unwrap());
        lost.rollback().unwrap();
        let kept = connection.transaction().unwrap();
        assert!(note(&kept, "op_1").unwrap());
        kept.commit().unwrap();
        let again = connection.transaction().unwrap();
        assert!(!note(&again, "op_1").unwrap());
        assert!(note(&again, "op_2").unwrap());
        assert!(knows(&again, "op_1").unwrap() && !knows(&again, "op_3").unwrap());
        assert!(!knows(&Connection::open_in_memory().unwrap(), "op_1").unwrap(), "nothing was ever noted");
    }

    #[test]
    fn old_ones_are_forgotten_but_the_newest_and_the_young() {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        prepare(&transaction).unwrap();
        note(&transaction, "op_z").unwrap();
        let old = now() - AGE - 1_000;
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)
            INSERT INTO _diorama_ops SELECT printf('op_%06d', i), CASE WHEN i <= 1000 THEN ?2 ELSE ?1 END FROM n";
        transaction.execute(fill, params![old, now()]).unwrap();
        tidy(&transaction).unwrap();
        let left = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(left("SELECT count(*) FROM _diorama_ops WHERE op <= 'op_001000'"), 1_000, "young");
        assert_eq!(left("SELECT count(*) FROM _diorama_ops WHERE op > 'op_001000'"), 10_000, "newest");
    }
}
