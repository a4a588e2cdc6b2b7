//! MariaDB: a binary log, whose rows may lack columns that did not change.

use diorama_servers::MariaDbServer;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Error, Row};
use tokio::runtime::Runtime;

use super::{Database, Dialect, Failed, OnConflict, Session, runtime};
use crate::feeds::table::Table;
use crate::feeds::world::pause;
use crate::harness::Random;

/// Options of a server that loses nothing when it is killed, and need not wait for its disk.
pub(super) const OPTIONS: &[&str] = &["innodb-flush-log-at-trx-commit=2", "sync-binlog=0"];

/// Statements that make the tables. `n` of a row of the writers only ever grows, also over its deletion.
pub(super) const TABLES: &str = "
    CREATE DATABASE storm CHARACTER SET utf8mb4 COLLATE utf8mb4_bin; USE storm;
    CREATE TABLE goods (id INTEGER PRIMARY KEY, n BIGINT, own TEXT, d DECIMAL(40, 5), at TIMESTAMP(3) NULL, j JSON);
    CREATE TABLE shelves (place VARCHAR(20), name VARCHAR(20), n BIGINT, own TEXT, j JSON, PRIMARY KEY (place, name));
    CREATE TABLE notes (id VARCHAR(20) PRIMARY KEY, n BIGINT, own TEXT, large LONGTEXT, more LONGTEXT);
    CREATE TABLE pages (id VARCHAR(20) PRIMARY KEY, n BIGINT, own TEXT, large LONGTEXT, more LONGTEXT);";

/// Numbers of errors that locks and the end of the server cause.
const EXPECTED: [u16; 6] = [1053, 1180, 1205, 1213, 1317, 1927];

impl Database for MariaDbServer {
    fn dialect(&self) -> &'static dyn Dialect {
        &MariaDb
    }

    fn url(&self) -> String {
        self.url("storm")
    }

    fn port(&self) -> u16 {
        self.port()
    }

    fn run(&self, sql: &str) -> String {
        self.sql(&format!("USE storm; {sql}")).trim_end().replace('\t', "|")
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn restart(&mut self) {
        self.restart();
    }

    fn rotate(&self) {
        self.sql("FLUSH BINARY LOGS");
    }

    /// Removes the files of the log, or begins it anew. A file that is sent to somebody would stay.
    fn lose_position(&self, _: Table, random: &mut Random) {
        // A connection whose other end is gone is noticed with the next sign of life.
        while !self.sql("SELECT id FROM information_schema.processlist WHERE command = 'Binlog Dump'").is_empty() {
            pause(50);
        }
        if random.below(2) == 0 {
            // Files of one name are told apart by the second in which they were made.
            pause(1_000);
            self.sql("RESET MASTER");
        } else {
            self.sql("FLUSH BINARY LOGS");
            loop {
                let logs = self.sql("SHOW BINARY LOGS");
                let newest = logs.lines().last().and_then(|line| line.split('\t').next()).unwrap();
                if logs.lines().count() == 1 {
                    break;
                }
                // A file that a crash would need stays for a moment.
                self.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
                pause(10);
            }
        }
    }

    /// The server keeps its log for a time of its own.
    fn check_kept(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The SQL of MariaDB.
struct MariaDb;

impl Dialect for MariaDb {
    fn key(&self) -> &'static str {
        "mysql"
    }

    fn odd_decimal(&self) -> &'static str {
        "-99999999999999999999999999999999999.99999"
    }

    fn begin(&self, random: &mut Random) -> String {
        let row_image = ["FULL", "FULL", "MINIMAL", "NOBLOB"][random.below(4) as usize];
        format!("SET binlog_row_image = {row_image}; BEGIN")
    }

    fn truncate(&self, table: &str) -> String {
        // It ends the transaction.
        format!("TRUNCATE {table}; BEGIN")
    }

    fn insert(&self, into: &str, rows: &str, _: &str, conflict: OnConflict) -> String {
        match conflict {
            OnConflict::Ignore => format!("INSERT IGNORE INTO {into} {rows}"),
            OnConflict::Update => format!("INSERT INTO {into} {rows} ON DUPLICATE KEY UPDATE n = VALUES(n)"),
            OnConflict::Replace => format!("REPLACE INTO {into} {rows}"),
        }
    }

    fn rename(&self, table: &str, set: &str, is: &str, _: &str) -> String {
        format!("UPDATE IGNORE {table} SET {set} WHERE {is}")
    }

    fn numbers(&self, most: u64) -> String {
        format!("(SELECT seq AS i FROM seq_1_to_{most}) numbers")
    }

    fn connect(&self, url: &str) -> Option<Box<dyn Session>> {
        let runtime = runtime();
        let conn = runtime.block_on(Conn::from_url(url)).ok()?;
        let mut connection = Connection { runtime, conn, is_closed: false };
        connection.execute("SET innodb_lock_wait_timeout = 3, lock_wait_timeout = 3").ok()?;
        Some(Box::new(connection))
    }
}

struct Connection {
    runtime: Runtime,
    conn: Conn,
    is_closed: bool,
}

impl Session for Connection {
    fn execute(&mut self, sql: &str) -> Result<u64, Failed> {
        let Connection { runtime, conn, is_closed } = self;
        let executing = async {
            let mut answer = conn.query_iter(sql).await?;
            let mut changed = 0;
            while !answer.is_empty() {
                changed += answer.affected_rows();
                answer.collect::<Row>().await?;
            }
            Ok(changed)
        };
        runtime.block_on(executing).map_err(|error| match error {
            Error::Server(error) if EXPECTED.contains(&error.code) => Failed::Expected,
            Error::Server(error) => Failed::Mistake(error.to_string()),
            _ => {
                *is_closed = true;
                Failed::Expected
            }
        })
    }

    fn query(&mut self, sql: &str) -> Option<String> {
        self.runtime.block_on(self.conn.query_first::<Option<String>, _>(sql)).ok()??
    }

    fn is_closed(&self) -> bool {
        self.is_closed
    }
}
