//! PostgreSQL: replication slots, and values outside of the rows.

use diorama_servers::PostgresServer;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Database, Dialect, Failed, OnConflict, Session, runtime};
use crate::feeds::table::{TABLES as ALL, Table};
use crate::harness::Random;

/// Statements that make the tables. `n` of a row of the writers only ever grows, also over its deletion.
pub(super) const TABLES: &str = "
    CREATE TABLE goods (id INTEGER PRIMARY KEY, n BIGINT, own TEXT, d NUMERIC, at TIMESTAMPTZ, j JSONB);
    CREATE TABLE shelves (place TEXT, name TEXT, n BIGINT, own TEXT, j JSONB, PRIMARY KEY (place, name));
    CREATE TABLE notes (id TEXT PRIMARY KEY, n BIGINT, own TEXT, large TEXT, more TEXT);
    CREATE TABLE pages (id TEXT PRIMARY KEY, n BIGINT, own TEXT, large TEXT, more TEXT);
    ALTER TABLE notes ALTER large SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL;
    ALTER TABLE pages ALTER large SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;";

/// Log that the server may keep for an idle slot, in bytes: one changed row is behind, the rest is acknowledged.
const KEPT: u64 = 1 << 20;
/// Codes of errors that locks and the end of the server cause.
const EXPECTED: [&str; 5] = ["40P01", "55P03", "57P01", "57P02", "57P03"];

impl Database for PostgresServer {
    fn dialect(&self) -> &'static dyn Dialect {
        &Postgres
    }

    fn url(&self) -> String {
        self.url("postgres")
    }

    fn port(&self) -> u16 {
        self.port()
    }

    fn run(&self, sql: &str) -> String {
        self.psql(sql)
    }

    fn kill(&mut self) {
        self.kill();
    }

    fn restart(&mut self) {
        self.restart();
    }

    fn rotate(&self) {
        self.psql("SELECT pg_switch_wal()");
    }

    fn lose_position(&self, table: Table, _: &mut Random) {
        let table = table.name();
        self.psql(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'diorama_{table}' AND active;
             SELECT pg_sleep(0.3);
             SELECT pg_drop_replication_slot('diorama_{table}')"
        ));
    }

    fn check_kept(&self) -> Result<(), String> {
        let kept = self.psql(
            "CHECKPOINT;
             SELECT slot_name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn),
                pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots",
        );
        let sizes = || kept.split(['\n', '|']).filter_map(|text| text.parse::<u64>().ok());
        match sizes().count() == 2 * ALL.len() && sizes().all(|size| size < KEPT) {
            true => Ok(()),
            false => Err(kept.clone()),
        }
    }
}

/// The SQL of PostgreSQL.
struct Postgres;

impl Dialect for Postgres {
    fn key(&self) -> &'static str {
        "postgres"
    }

    fn odd_decimal(&self) -> &'static str {
        "'NaN'"
    }

    fn begin(&self, _: &mut Random) -> String {
        "BEGIN".into()
    }

    fn truncate(&self, table: &str) -> String {
        format!("TRUNCATE {table}")
    }

    fn insert(&self, into: &str, rows: &str, key: &str, conflict: OnConflict) -> String {
        let rule = match conflict {
            OnConflict::Ignore => "DO NOTHING",
            OnConflict::Update | OnConflict::Replace => "DO UPDATE SET n = EXCLUDED.n",
        };
        format!("INSERT INTO {into} {rows} ON CONFLICT ({key}) {rule}")
    }

    fn rename(&self, table: &str, set: &str, is: &str, taken: &str) -> String {
        format!("UPDATE {table} SET {set} WHERE {is} AND NOT EXISTS (SELECT FROM {table} WHERE {taken})")
    }

    fn numbers(&self, most: u64) -> String {
        format!("generate_series(1, {most}) i")
    }

    fn connect(&self, url: &str) -> Option<Box<dyn Session>> {
        let runtime = runtime();
        let (client, connection) = runtime.block_on(tokio_postgres::connect(url, NoTls)).ok()?;
        runtime.spawn(connection);
        let mut connection = Connection { runtime, client };
        connection.execute("SET lock_timeout = '3s'").ok()?;
        Some(Box::new(connection))
    }
}

struct Connection {
    /// Its task of the connection ends with it.
    runtime: Runtime,
    client: Client,
}

impl Session for Connection {
    fn execute(&mut self, sql: &str) -> Result<u64, Failed> {
        let answers = self.runtime.block_on(self.client.simple_query(sql));
        let answers = answers.map_err(|error| match error.as_db_error() {
            Some(mistake) if !EXPECTED.contains(&mistake.code().code()) => Failed::Mistake(mistake.to_string()),
            _ => Failed::Expected,
        })?;
        let changed = answers.iter().filter_map(|answer| match answer {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        });
        Ok(changed.sum())
    }

    fn query(&mut self, sql: &str) -> Option<String> {
        let answers = self.runtime.block_on(self.client.simple_query(sql)).ok()?;
        answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
            _ => None,
        })
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
