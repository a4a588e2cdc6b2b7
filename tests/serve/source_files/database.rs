//! SQLite databases, as sources and as write routes.

use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use super::{JSON, eventually, reasons, refresh, refuses_what_is_no_file, rows, serve};
use super::{with_permissions, without_permissions};
use crate::process::{Answer, Server};

const TABLE: &str = "CREATE TABLE goods (id INTEGER PRIMARY KEY, price INTEGER)";

/// What the journal mode is to be; `None` leaves it alone.
const MODES: [Option<&str>; 2] = [None, Some("wal")];

fn database(path: &Path, rows: &[i64]) {
    let database = Connection::open(path).unwrap();
    database.execute_batch(TABLE).unwrap();
    for id in rows {
        database.execute("INSERT INTO goods VALUES (?1, 10)", [id]).unwrap();
    }
}

fn served(mode: Option<&str>) -> (TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    database(&dir.path().join("shop.db"), &[1, 2, 3]);
    let mode = mode.map(|mode| format!(", journal_mode = \"{mode}\"")).unwrap_or_default();
    let server = serve(dir.path(), &format!("source = {{ sqlite = \"shop.db\", table = \"goods\"{mode} }}"));
    (dir, server)
}

/// `mv restored.db shop.db`
fn restore(dir: &Path, rows: &[i64]) {
    database(&dir.join("restored.db"), rows);
    std::fs::rename(dir.join("restored.db"), dir.join("shop.db")).unwrap();
}

fn put(server: &Server, id: i64, wait: u32) -> Answer {
    let wait = format!("wait={wait}");
    server.request("PUT", &format!("/goods/{id}"), &[JSON, ("prefer", &wait)], r#"{"price":20}"#)
}

fn ids(path: &Path) -> Vec<i64> {
    let database = Connection::open(path).unwrap();
    let mut select = database.prepare("SELECT id FROM goods ORDER BY id").unwrap();
    select.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

fn served_ids(server: &Server) -> String {
    server.get("/goods?select=id&order=id").body
}

fn applied(server: &Server, queued: &Answer) -> bool {
    let operation = queued.raw_header("dio-operation").unwrap();
    server.get(&format!("{operation}?wait=20")).json()["state"] == "applied"
}

#[test]
fn a_database_that_is_replaced_gets_the_writes_and_is_listed_again() {
    for mode in MODES {
        let (dir, server) = served(mode);
        assert_eq!(put(&server, 4, 10).status, 201);
        restore(dir.path(), &[7, 8]);
        let written = put(&server, 9, 10);
        assert_eq!(written.status, 201, "{}", written.body);
        assert_eq!(ids(&dir.path().join("shop.db")), [7, 8, 9], "{mode:?}");
        // Nobody asks for a refresh.
        eventually("the copy is not read again", || rows(&server) == 3 && served_ids(&server).contains("7"));
        assert_eq!(reasons(&server), "[]");
    }
}

#[test]
fn a_database_that_is_restored_from_an_older_one_is_what_a_refresh_reads() {
    for mode in MODES {
        let (dir, server) = served(mode);
        assert_eq!(put(&server, 4, 10).status, 201);
        restore(dir.path(), &[1, 2]);
        let (done, _) = refresh(&server);
        assert_eq!((done.status, rows(&server)), (200, 2), "{}", done.body);
        assert_eq!(ids(&dir.path().join("shop.db")), [1, 2]);
    }
}

#[test]
fn writes_to_a_database_that_is_deleted_wait_until_it_is_back() {
    for mode in MODES {
        let (dir, server) = served(mode);
        assert_eq!(put(&server, 4, 10).status, 201);
        std::fs::remove_file(dir.path().join("shop.db")).unwrap();
        let queued = put(&server, 5, 1);
        assert_eq!(queued.status, 202, "{}", queued.body);
        let (refused, _) = refresh(&server);
        assert_eq!(refused.status, 502, "{}", refused.body);
        assert!(refused.body.contains("there is no file"), "{}", refused.body);
        assert_eq!(rows(&server), 5, "what was known, and the write");
        assert!(!dir.path().join("shop.db").exists());
        assert!(reasons(&server).contains("there is no file"), "{}", reasons(&server));
        restore(dir.path(), &[1, 2, 3]);
        assert!(applied(&server, &queued));
        assert_eq!(ids(&dir.path().join("shop.db")), [1, 2, 3, 5], "{mode:?}");
        eventually("the copy is not read again", || rows(&server) == 4);
    }
}

#[test]
fn a_database_that_is_truncated_is_a_failure_and_writes_wait() {
    let (dir, server) = served(None);
    let whole = std::fs::read(dir.path().join("shop.db")).unwrap();
    for broken in [
        &b"not a database, and not short either, so that it is looked at as one of those that SQLite makes..........."
            [..],
        &whole[..whole.len() / 2],
    ] {
        std::fs::write(dir.path().join("shop.db"), broken).unwrap();
        let (refused, _) = refresh(&server);
        assert_eq!(refused.status, 502, "{}", refused.body);
        assert_eq!(rows(&server), 3);
    }
    let queued = put(&server, 4, 1);
    assert_eq!(queued.status, 202, "{}", queued.body);
    restore(dir.path(), &[1, 2, 3]);
    assert!(applied(&server, &queued));
    assert_eq!(ids(&dir.path().join("shop.db")), [1, 2, 3, 4]);
}

#[test]
fn a_database_with_a_rollback_journal_that_is_overwritten_in_place_is_what_a_refresh_reads() {
    let (dir, server) = served(None);
    database(&dir.path().join("other.db"), &[1, 2, 3, 4, 5]);
    std::fs::copy(dir.path().join("other.db"), dir.path().join("shop.db")).unwrap();
    let (done, _) = refresh(&server);
    assert_eq!((done.status, rows(&server)), (200, 5), "{}", done.body);
}

#[test]
fn what_is_no_regular_file_is_refused_at_once_in_place_of_a_database() {
    for mode in MODES {
        let (dir, server) = served(mode);
        refuses_what_is_no_file(dir.path(), &server, "shop.db", 3);
        assert_eq!(put(&server, 4, 10).status, 201);
        assert_eq!(ids(&dir.path().join("shop.db")), [1, 2, 3, 4]);
    }
}

#[test]
fn a_database_that_may_not_be_opened_is_a_failure_until_it_may() {
    let (dir, server) = served(None);
    database(&dir.path().join("restored.db"), &[1]);
    if without_permissions(dir.path(), "restored.db").is_none() {
        return;
    }
    std::fs::rename(dir.path().join("restored.db"), dir.path().join("shop.db")).unwrap();
    let queued = put(&server, 4, 1);
    assert_eq!((queued.status, refresh(&server).0.status), (202, 502));
    with_permissions(dir.path(), "shop.db");
    assert!(applied(&server, &queued));
}

#[test]
fn a_database_may_be_backed_up_while_it_is_served() {
    for mode in MODES {
        let (dir, server) = served(mode);
        assert_eq!(put(&server, 4, 10).status, 201);
        let backup = format!("VACUUM INTO '{}'", dir.path().join("backup.db").display());
        Connection::open(dir.path().join("shop.db")).unwrap().execute_batch(&backup).unwrap();
        assert_eq!(ids(&dir.path().join("backup.db")), [1, 2, 3, 4], "{mode:?}");
        assert_eq!(put(&server, 5, 10).status, 201);
    }
}

#[test]
fn the_journal_mode_of_a_database_is_changed_only_where_that_is_asked_for() {
    for (mode, expected) in [(None, "delete"), (Some("wal"), "wal")] {
        let (dir, server) = served(mode);
        assert_eq!(put(&server, 4, 10).status, 201);
        let database = Connection::open(dir.path().join("shop.db")).unwrap();
        let now: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        assert_eq!(now, expected);
    }
}

#[test]
fn a_write_route_follows_its_database() {
    for mode in MODES {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("goods.csv"), "id,price\n1,10\n").unwrap();
        database(&dir.path().join("shop.db"), &[]);
        let mode = mode.map(|mode| format!(", journal_mode = \"{mode}\"")).unwrap_or_default();
        let write = format!("write = {{ sqlite = \"shop.db\", table = \"goods\"{mode} }}");
        let server = serve(dir.path(), &format!("source = {{ csv = \"goods.csv\" }}\n{write}"));
        let routed = put(&server, 4, 10);
        assert!((200..300).contains(&routed.status), "{}", routed.body);
        eventually("the write does not arrive", || ids(&dir.path().join("shop.db")) == [4]);
        std::fs::remove_file(dir.path().join("shop.db")).unwrap();
        let queued = put(&server, 5, 1);
        assert_eq!(queued.status, 202, "{}", queued.body);
        assert!(!dir.path().join("shop.db").exists());
        restore(dir.path(), &[]);
        eventually("the write does not arrive", || ids(&dir.path().join("shop.db")) == [5]);
    }
}
