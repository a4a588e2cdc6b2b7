//! What differs between the database systems of a storm: the server, a connection of a writer, and the SQL.

mod mariadb;
mod postgres;

use diorama_servers::{MariaDbServer, PostgresServer};

use super::table::Table;
use crate::harness::Random;

/// A running server with the tables of the storm.
pub(super) trait Database {
    /// The SQL of this system.
    fn dialect(&self) -> &'static dyn Dialect;

    /// Address for its superuser.
    fn url(&self) -> String;

    fn port(&self) -> u16;

    /// Runs statements and returns the rows, with `|` between columns.
    fn run(&self, sql: &str) -> String;

    /// Kills the server, as a crash does.
    fn kill(&mut self);

    /// Starts the server again.
    fn restart(&mut self);

    /// Begins the next file of the server's log.
    fn rotate(&self);

    /// Makes the position of the feed of `table` useless, and perhaps those of others. Nothing follows meanwhile.
    fn lose_position(&self, table: Table, random: &mut Random);

    /// Checks what the server keeps for feeds that have caught up.
    fn check_kept(&self) -> Result<(), String>;
}

/// The SQL of a system.
pub(super) trait Dialect: Sync {
    /// Key of a source in the configuration.
    fn key(&self) -> &'static str;

    /// A decimal that the others do not have, as a literal.
    fn odd_decimal(&self) -> &'static str;

    /// Begins a transaction.
    fn begin(&self, random: &mut Random) -> String;

    /// Removes all rows of a table at once. A transaction is under way afterwards.
    fn truncate(&self, table: &str) -> String;

    /// Inserts `rows`, which are `VALUES` or a query, into a table with its columns.
    fn insert(&self, into: &str, rows: &str, key: &str, conflict: OnConflict) -> String;

    /// Updates rows of `table` whose new key may be another row's; then nothing happens.
    fn rename(&self, table: &str, set: &str, is: &str, taken: &str) -> String;

    /// Something to select `i` from, which goes from 1 to `most`.
    fn numbers(&self, most: u64) -> String;

    /// Connects a writer. `None` while the server cannot be reached.
    fn connect(&self, url: &str) -> Option<Box<dyn Session>>;
}

/// Rule of an insert for a row that is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnConflict {
    Ignore,
    /// Changes `n` only.
    Update,
    /// Puts the new row in its place, where a system has a statement for that.
    Replace,
}

/// Connection of a writer.
pub(super) trait Session {
    /// Executes statements, and returns the number of rows that they changed.
    fn execute(&mut self, sql: &str) -> Result<u64, Failed>;

    /// Returns the first value of the result of a query; `None` without a row, or if it fails.
    fn query(&mut self, sql: &str) -> Option<String>;

    fn is_closed(&self) -> bool;
}

/// Why statements were not executed.
pub(super) enum Failed {
    /// A lock, or the end of the server.
    Expected,
    Mistake(String),
}

/// Starts a PostgreSQL server; `None` if it is not installed.
pub(super) fn postgres() -> Option<Box<dyn Database>> {
    let server = PostgresServer::start()?;
    server.psql(postgres::TABLES);
    Some(Box::new(server))
}

/// Starts a MariaDB server; `None` if it is not installed.
pub(super) fn mariadb() -> Option<Box<dyn Database>> {
    let server = MariaDbServer::start_with(mariadb::OPTIONS)?;
    server.sql(mariadb::TABLES);
    Some(Box::new(server))
}

/// Returns a runtime for the connection of a writer.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
