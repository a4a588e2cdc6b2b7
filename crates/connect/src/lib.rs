//! Connectors for external systems: one folder and one feature for each.
//!
//! A source is a [`TableShell`](diorama_core::TableShell); a feed reports changes to a Dio. Each system reads its settings in its
//! `config.rs`. [`Registry`] lists all connectors and accepts others that implement [`Connector`].

#[cfg(feature = "amqp")]
pub mod amqp;
#[cfg(any(
    feature = "csv",
    feature = "json",
    feature = "parquet",
    feature = "spreadsheet",
    feature = "sqlite",
    feature = "watch"
))]
mod blocking;
mod connector;
#[cfg(test)]
mod contract;
#[cfg(feature = "csv")]
pub mod csv;
mod deferred;
#[cfg(any(
    feature = "amqp",
    feature = "kafka",
    feature = "mqtt",
    feature = "mysql",
    feature = "nats",
    feature = "postgres",
    feature = "redis",
    feature = "surrealdb",
    feature = "ws"
))]
mod feed;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod fence;
#[cfg(any(
    feature = "csv",
    feature = "json",
    feature = "parquet",
    feature = "spreadsheet",
    feature = "sqlite",
    feature = "watch"
))]
mod file;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod registry;
mod rows;
#[cfg(feature = "spreadsheet")]
pub mod spreadsheet;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite", feature = "surrealdb"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "amqp", feature = "kafka", feature = "mqtt", feature = "nats", feature = "redis"))]
mod stream;
#[cfg(feature = "surrealdb")]
pub mod surrealdb;
#[cfg(any(
    feature = "amqp",
    feature = "http",
    feature = "kafka",
    feature = "mqtt",
    feature = "mysql",
    feature = "nats",
    feature = "postgres",
    feature = "redis",
    feature = "surrealdb",
    feature = "ws"
))]
mod tls;
#[cfg(feature = "ws")]
pub mod ws;

pub use self::connector::{CacheRequest, CacheStore, Connector, Key, Route, Settings, Source, SourceRequest};
#[cfg(feature = "feed")]
pub use self::connector::{Feed, FeedFormat, FeedSlot, FollowMode};
#[cfg(feature = "csv")]
pub use self::csv::{Csv, CsvOptions};
pub use self::deferred::Deferred;
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
