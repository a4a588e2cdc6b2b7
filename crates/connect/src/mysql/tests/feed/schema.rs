//! Changes of columns, and changes that the log does not have as rows.

use super::*;

/// Columns that are added, retyped and dropped show in the rows at once, in the schema after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_need_no_restart() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    for change in [
        "ALTER TABLE t ADD COLUMN e TEXT DEFAULT 'new' AFTER id; UPDATE t SET e = 'changed' WHERE id = 7",
        "UPDATE t SET n = 5 WHERE id = 8; ALTER TABLE t MODIFY n TEXT; UPDATE t SET n = 'text' WHERE id = 9",
        "ALTER TABLE t DROP COLUMN large; INSERT INTO t (id, n) VALUES (300, 'x')",
        "CREATE TABLE other LIKE t; INSERT INTO other (id, n) VALUES (7, 'other'); RENAME TABLE t TO former, other TO t",
        "UPDATE former SET n = 'former'; UPDATE t SET n = 'now'",
        "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, e TEXT, n TEXT); INSERT INTO t VALUES (1, 'a', 'b')",
    ] {
        fixture.sql(change);
        followed.equals(&fixture, "t").await;
    }
    let told: Vec<String> = followed.dio.inferred().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[1].starts_with("column \"n\": is now of type text"), "{told:?}");
    fixture.sql("RENAME TABLE t TO gone");
    let error = || followed.dio.status().feeds[0].error.clone();
    followed.until("the missing table is told", || error().is_some_and(|error| error.contains("has no table"))).await;
    fixture.sql("RENAME TABLE gone TO t; UPDATE t SET e = 'back'");
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

/// Changes of rows that the log does not have are found by a list.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_not_logged_as_rows_are_found() {
    let Some(fixture) = Fixture::new(&format!(
        "{TABLE} CREATE TABLE grandparents (id INTEGER PRIMARY KEY); INSERT INTO grandparents VALUES (1), (2), (3);
        CREATE TABLE parents (id INTEGER PRIMARY KEY, above INTEGER, FOREIGN KEY (above) REFERENCES grandparents (id) ON DELETE CASCADE ON UPDATE CASCADE);
        INSERT INTO parents VALUES (1, 1), (2, 2), (3, 3);
        ALTER TABLE t ADD COLUMN parent INTEGER, ADD FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE;
        UPDATE t SET parent = 1 + id % 3;
        CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'reading-only'; GRANT SELECT ON shop.* TO reader@'127.0.0.1';
        GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO reader@'127.0.0.1';"
    )) else {
        return;
    };
    let followed = follow(&fixture.url().replace("root:diorama@", "reader:reading-only@"), "t").await;
    followed.connected().await;
    let lists = followed.lists();
    fixture.sql("UPDATE parents SET above = 2 WHERE id = 1");
    fixture.sql("UPDATE t SET n = 1");
    followed.equals(&fixture, "t").await;
    assert_eq!(followed.lists(), lists, "a parent's change that reaches no row");
    for change in [
        "DELETE FROM parents WHERE id = 3",
        "DELETE FROM grandparents WHERE id = 1",
        "DELETE FROM grandparents WHERE id = 2",
        "SET binlog_format = STATEMENT; UPDATE t SET n = 50 WHERE id = 5; INSERT INTO t (id, n) VALUES (500, 1)",
        "XA START 'a'; UPDATE t SET n = 60; XA END 'a'; XA PREPARE 'a'; XA COMMIT 'a'",
        "XA START 'b'; UPDATE t SET n = 70; XA END 'b'; XA PREPARE 'b'; XA ROLLBACK 'b'; INSERT INTO t (id, n) VALUES (501, 1)",
        "XA START 'c'; UPDATE t SET n = 80; XA END 'c'; XA COMMIT 'c' ONE PHASE",
    ] {
        fixture.sql(change);
        followed.equals(&fixture, "t").await;
    }
    followed.close().await;
}

/// Rows that do not say which columns they have are read by the description of the table.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_names_of_columns_are_read() {
    let options = ["binlog-row-metadata=NO_LOG", "innodb-flush-log-at-trx-commit=0"];
    let sql = "CREATE TABLE t (id INTEGER UNSIGNED PRIMARY KEY, hidden INTEGER INVISIBLE DEFAULT 3, small TINYINT UNSIGNED, mood ENUM('a', 'b'));
        INSERT INTO t VALUES (1, 200, 'b');";
    let Some(fixture) = Fixture::with(&options, sql) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    for change in [
        "INSERT INTO t VALUES (4000000000, 200, 'a')",
        "UPDATE t SET small = 255",
        "ALTER TABLE t ADD COLUMN first INTEGER DEFAULT 9 FIRST; UPDATE t SET mood = 'b'",
    ] {
        fixture.sql(change);
        followed.equals(&fixture, "t").await;
    }
    followed.close().await;
}
