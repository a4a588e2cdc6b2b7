//! Connectors for external systems: one folder and one feature for each.
//!
//! A source is a [`TableShell`](diorama_core::TableShell); a feed reports changes to a Dio. Each system reads its settings in its
//! `config.rs`. [`Registry`] lists all connectors and accepts others that implement [`Connector`].

#[cfg(any(feature = "file", feature = "sqlite", feature = "watch"))]
mod blocking;
mod connector;
#[cfg(test)]
mod contract;
#[cfg(feature = "csv")]
pub mod csv;
mod deferred;
#[cfg(feature = "feed")]
mod feed;
#[cfg(any(feature = "file", feature = "sqlite", feature = "watch"))]
mod file;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "json")]
pub mod json;
pub mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(feature = "postgres")]
pub mod postgres;
mod registry;
mod rows;
#[cfg(feature = "spreadsheet")]
pub mod spreadsheet;
#[cfg(feature = "sql")]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "ws")]
pub mod ws;

pub use self::connector::{Connector, Key, Route, Settings, Source, SourceRequest};
#[cfg(feature = "feed")]
pub use self::connector::{Feed, FeedSlot, FollowMode};
#[cfg(feature = "csv")]
pub use self::csv::{Csv, CsvOptions};
pub use self::deferred::Deferred;
#[cfg(feature = "feed")]
pub use self::feed::FeedFormat;
#[cfg(feature = "watch")]
pub use self::file::watch::FileWatch;
#[cfg(feature = "http")]
pub use self::http::{Http, HttpOptions};
#[cfg(feature = "json")]
pub use self::json::{Json, JsonOptions};
pub use self::memory::MemoryTable;
#[cfg(feature = "mysql")]
pub use self::mysql::{MySql, MySqlOptions, MySqlRelation, MySqlTls};
#[cfg(feature = "parquet")]
pub use self::parquet::{Parquet, ParquetOptions};
#[cfg(feature = "postgres")]
pub use self::postgres::{Postgres, PostgresOptions, PostgresRelation, PostgresTls};
pub use self::registry::Registry;
#[cfg(feature = "spreadsheet")]
pub use self::spreadsheet::{Spreadsheet, SpreadsheetOptions};
#[cfg(feature = "sqlite")]
pub use self::sqlite::{JournalMode, Sqlite, SqliteOptions};
#[cfg(feature = "ws")]
pub use self::ws::WsFeed;
