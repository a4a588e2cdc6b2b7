//! Tests of database files that are replaced or removed while connections to them are open.

use super::*;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER)";

fn insert(id: i64) -> WriteOp {
    WriteOp::Insert { id: id.to_string(), record: record([("n", id.into())]) }
}

fn ids(path: &Path) -> Vec<i64> {
    let connection = Connection::open(path).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let mut select = connection.prepare("SELECT id FROM t ORDER BY id").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

async fn listed(sqlite: &Sqlite) -> Vec<String> {
    sqlite.list(&Query::default()).await.unwrap().ids().map(String::from).collect()
}

impl Fixture {
    /// Moves another database to the path of the first.
    fn replace(&self, sql: &str) {
        let restored = self.dir.path().join("restored.db");
        Connection::open(&restored).unwrap().execute_batch(sql).unwrap();
        std::fs::rename(restored, self.path()).unwrap();
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("shop.db-wal")
    }
}

#[tokio::test]
async fn a_replaced_file_takes_the_writes_and_is_to_be_listed_again() {
    for (options, mode) in [(SqliteOptions::default(), "DELETE"), (wal(), "DELETE"), (wal(), "WAL")] {
        let fixture =
            Fixture::new(&format!("{TABLE}; INSERT INTO t VALUES (1, 1); CREATE TABLE u (id TEXT PRIMARY KEY)"));
        let sqlite = super::super::open(&fixture.path(), "t", &options).unwrap();
        let other = super::super::open(&fixture.path(), "u", &options).unwrap();
        for id in 2..400 {
            sqlite.write_once(&format!("op_{id}"), &insert(id)).await.unwrap();
        }
        assert_eq!((listed(&sqlite).await.len(), listed(&other).await.len(), sqlite.is_replaced()), (399, 0, false));
        fixture.replace(&format!(
            "PRAGMA journal_mode = {mode}; {TABLE}; INSERT INTO t VALUES (7000, 1);
             CREATE TABLE u (id TEXT PRIMARY KEY); INSERT INTO u VALUES ('x');"
        ));
        let written = sqlite.write_batch(&[("op_500".into(), insert(500))]).await;
        assert!(written[0].is_ok(), "{written:?}");
        assert_eq!(ids(&fixture.path()), [500, 7000], "{mode}: nothing of the former file is in the new one");
        assert!(sqlite.is_replaced() && other.is_replaced(), "all sources on the file are notified");
        assert_eq!(
            (listed(&sqlite).await, listed(&other).await),
            (vec!["500".to_string(), "7000".into()], vec!["x".into()])
        );
        assert!(!sqlite.is_replaced() && !other.is_replaced());
    }
}

#[tokio::test]
async fn a_file_that_is_moved_aside_keeps_all_its_writes() {
    let fixture = Fixture::new(TABLE);
    let sqlite = super::super::open(&fixture.path(), "t", &wal()).unwrap();
    sqlite.write(&insert(1)).await.unwrap();
    let aside = fixture.dir.path().join("aside.db");
    std::fs::rename(fixture.path(), &aside).unwrap();
    let error = sqlite.write(&insert(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(ids(&aside), [1], "the log was written back");
    assert_eq!(std::fs::metadata(fixture.log()).map_or(0, |log| log.len()), 0, "and is empty");
    fixture.replace(TABLE);
    sqlite.write(&insert(2)).await.unwrap();
    assert_eq!((ids(&aside), ids(&fixture.path())), (vec![1], vec![2]));
}

#[tokio::test]
async fn a_removed_file_is_a_transient_failure_and_no_new_file_is_created() {
    for options in [SqliteOptions::default(), wal()] {
        let fixture = Fixture::new(TABLE);
        let sqlite = super::super::open(&fixture.path(), "t", &options).unwrap();
        sqlite.write(&insert(1)).await.unwrap();
        std::fs::remove_file(fixture.path()).unwrap();
        for _ in 0..2 {
            let errors = [
                sqlite.write(&insert(2)).await.unwrap_err(),
                sqlite.write_batch(&[("op_2".into(), insert(2))]).await.remove(0).unwrap_err(),
                sqlite.insert_return_id(&record([("n", 3.into())])).await.unwrap_err(),
                sqlite.list(&Query::default()).await.unwrap_err(),
                sqlite.get("1").await.unwrap_err(),
                sqlite.count(&Query::default()).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
                assert!(error.to_string().starts_with("there is no file"), "{error}");
            }
        }
        assert!(!fixture.path().exists());
        fixture.replace(TABLE);
        sqlite.write(&insert(2)).await.unwrap();
        assert_eq!(ids(&fixture.path()), [2]);
        assert!(sqlite.is_replaced());
    }
}

#[tokio::test]
async fn writes_wait_while_the_path_holds_something_other_than_the_table() {
    let fixture = Fixture::new(TABLE);
    let sqlite = super::super::open(&fixture.path(), "t", &SqliteOptions::default()).unwrap();
    let text = fixture.dir.path().join("text");
    for (sql, expected) in [
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, more TEXT)", "its columns differ"),
        ("CREATE TABLE u (id INTEGER PRIMARY KEY)", "has no table"),
    ] {
        fixture.replace(sql);
        let error = sqlite.write(&insert(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    std::fs::write(&text, "not a database, and long enough to be examined: ".repeat(40)).unwrap();
    std::fs::rename(&text, fixture.path()).unwrap();
    let error = sqlite.write(&insert(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    std::fs::remove_file(fixture.path()).unwrap();
    std::fs::create_dir(fixture.path()).unwrap();
    let error = sqlite.write(&insert(1)).await.unwrap_err();
    assert!(error.to_string().contains("is a directory, not a regular file"), "{error}");
    std::fs::remove_dir(fixture.path()).unwrap();
    fixture.replace(TABLE);
    sqlite.write(&insert(1)).await.unwrap();
    assert_eq!(ids(&fixture.path()), [1]);
}

/// A reader that another program keeps open prevents SQLite from emptying the log, which must not be applied to the new file.
#[tokio::test]
async fn a_log_that_cannot_be_emptied_is_not_applied_to_the_new_file() {
    let fixture = Fixture::new(TABLE);
    let sqlite = super::super::open(&fixture.path(), "t", &wal()).unwrap();
    let other = fixture.direct();
    sqlite.write(&insert(1)).await.unwrap();
    other.execute_batch("BEGIN").unwrap();
    assert_eq!(other.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    sqlite.write(&insert(2)).await.unwrap();
    fixture.replace(&format!("{TABLE}; INSERT INTO t VALUES (9, 9)"));
    for _ in 0..2 {
        let error = sqlite.write(&insert(3)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(error.to_string().contains("shop.db-wal while no program has"), "{error}");
    }
    drop(other);
    std::fs::remove_file(fixture.log()).unwrap();
    sqlite.write(&insert(3)).await.unwrap();
    assert_eq!(ids(&fixture.path()), [3, 9]);
}

#[tokio::test]
async fn the_journal_mode_is_unchanged_unless_one_is_configured() {
    let mode = |fixture: &Fixture| -> String {
        fixture.direct().query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap()
    };
    for before in ["delete", "wal"] {
        let fixture = Fixture::new(&format!("PRAGMA journal_mode = {before}; {TABLE}"));
        let sqlite = super::super::open(&fixture.path(), "t", &SqliteOptions::default()).unwrap();
        sqlite.write(&insert(1)).await.unwrap();
        assert_eq!((mode(&fixture), fixture.log().exists()), (before.to_string(), before == "wal"));
    }
    for (asked, expected) in [(JournalMode::Delete, "delete"), (JournalMode::Wal, "wal")] {
        let fixture = Fixture::new(TABLE);
        let options = SqliteOptions { journal_mode: Some(asked), ..SqliteOptions::default() };
        let sqlite = super::super::open(&fixture.path(), "t", &options).unwrap();
        assert_eq!(mode(&fixture), expected);
        fixture.replace(TABLE);
        sqlite.write(&insert(1)).await.unwrap();
        assert_eq!(mode(&fixture), expected, "also for the new file");
    }
}
