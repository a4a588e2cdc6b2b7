//! SQLite databases: tables and views as sources, tables as write routes.

mod config;
mod database;
mod dialect;
mod ops;
mod source;
mod table;
mod value;
mod write;

pub use self::config::SqliteConnector;
pub use self::source::{JournalMode, Sqlite, SqliteOptions};
