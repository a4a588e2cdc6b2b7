//! What people do to the files of a stopped server, or to copies of them: the table in `docs/operating.md`, cell by cell.
//!
//! Whatever is done, an acknowledged write that is in the journal stays in it until it is applied, refused, or settled by a person,
//! and an older one never takes the place of a newer one that was delivered.

mod backup;
mod cache;
mod journal;
mod lives;
mod route;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::kill::position;
use crate::process::{Answer, PATIENCE, Server};

const CACHE: &str = "cache.redb";
const JOURNAL: &str = "cache.journal.redb";
const HEAD: &str = "cache.journal.redb.head";

const CONFIG: &str = r#"
[server]
drain_timeout = "100ms"

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[dio.products]
source = { csv = "products.csv" }
write = { sqlite = "shop.db", table = "products" }
"#;

/// A shop: orders in a database, products in a file that others write, whose changes go to the database.
struct Shop {
    dir: TempDir,
    log: PathBuf,
    /// Holds the database's lock, so that nothing is delivered.
    lock: Option<Connection>,
}

impl Shop {
    fn new() -> Shop {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
        std::fs::write(dir.path().join("products.csv"), "id,item,n\ncsv-1,Muffin,1\n").unwrap();
        let tables = "PRAGMA journal_mode = WAL;
            CREATE TABLE orders (id TEXT PRIMARY KEY, item TEXT, n INTEGER);
            CREATE TABLE products (id TEXT PRIMARY KEY, item TEXT, n INTEGER);";
        Connection::open(dir.path().join("shop.db")).unwrap().execute_batch(tables).unwrap();
        Shop { log: dir.path().join("log"), dir, lock: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn database(&self) -> Connection {
        let database = Connection::open(self.path("shop.db")).unwrap();
        database.busy_timeout(Duration::from_secs(10)).unwrap();
        database
    }

    /// Keeps the database from being written.
    fn hold(&mut self) {
        let lock = self.database();
        lock.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.lock = Some(lock);
    }

    fn release(&mut self) {
        self.lock = None;
    }

    fn start(&self) -> Server {
        let mut server = Server::launch_logged(self.dir.path(), &self.log);
        server.wait_for("ready");
        server
    }

    /// What the servers have said since they were asked last.
    fn said(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        std::fs::write(&self.log, "").unwrap();
        said
    }

    /// Puts copies of files aside under `name`.
    fn keep(&self, name: &str, files: &[&str]) {
        std::fs::create_dir_all(self.path(name)).unwrap();
        for file in files {
            std::fs::copy(self.path(file), self.path(name).join(file)).unwrap();
        }
    }

    fn put_back(&self, name: &str, files: &[&str]) {
        for file in files {
            std::fs::copy(self.path(name).join(file), self.path(file)).unwrap();
        }
    }

    fn delete(&self, file: &str) {
        std::fs::remove_file(self.path(file)).unwrap();
    }

    /// The number of a row as the database has it.
    fn stored(&self, table: &str, id: &str) -> Option<i64> {
        let sql = format!("SELECT n FROM {table} WHERE id = ?");
        self.database().query_row(&sql, [id], |row| row.get(0)).ok()
    }
}

fn put(server: &Server, path: &str, n: i64) -> String {
    put_at(&server.address, path, n)
}

fn put_at(address: &str, path: &str, n: i64) -> String {
    let body = serde_json::json!({ "item": "Bun", "n": n }).to_string();
    accepted(&crate::process::ask(address, "PUT", path, &[("content-type", "application/json")], &body).unwrap())
}

fn delete(server: &Server, path: &str) -> String {
    accepted(&server.request("DELETE", path, &[], ""))
}

/// The operation of a write that was accepted.
fn accepted(answer: &Answer) -> String {
    assert!(matches!(answer.status, 200..=299), "{answer:?}");
    let operation = answer.raw_header("dio-operation").unwrap_or_else(|| panic!("{answer:?}"));
    operation.rsplit('/').next().unwrap().to_string()
}

fn state(server: &Server, operation: &str) -> String {
    let answer = server.get(&format!("/operations/{operation}"));
    assert_eq!(answer.status, 200, "{operation} is gone: {answer:?}");
    answer.json()["state"].as_str().unwrap().to_string()
}

/// How an operation has ended.
fn end(server: &Server, operation: &str) -> String {
    let answer = server.get(&format!("/operations/{operation}?wait=20"));
    assert_eq!(answer.status, 200, "{operation} is gone: {answer:?}");
    answer.json()["state"].as_str().unwrap().to_string()
}

fn epoch(server: &Server, dio: &str) -> String {
    position(&server.get(&format!("/{dio}?limit=1"))).0
}

/// The number that readers see of a row.
fn shown(server: &Server, path: &str) -> Option<i64> {
    let answer = server.get(path);
    match answer.status {
        200 => Some(answer.json()["n"].as_i64().unwrap()),
        404 => None,
        _ => panic!("{answer:?}"),
    }
}

/// Waits until `done`.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lines(body: &str) -> Vec<Value> {
    serde_json::from_str(body).unwrap()
}

/// Whether the start refuses, with what it says.
fn refusal(dir: &Path) -> Option<String> {
    match crate::kill::start_or_refusal(dir, crate::process::serving(dir, &[])) {
        Ok((_, mut child)) => {
            child.kill().unwrap();
            child.wait().unwrap();
            None
        }
        Err((code, said)) => {
            assert_eq!(code, Some(78), "{said}");
            Some(said)
        }
    }
}
