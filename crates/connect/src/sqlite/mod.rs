//! SQLite databases: tables and views as sources, tables as write routes.

mod config;
mod database;
mod dialect;
mod ops;
mod options;
mod source;
mod table;
mod value;
mod write;

pub use self::config::SqliteConnector;
pub use self::options::{JournalMode, SqliteOptions};
pub use self::source::Sqlite;
