//! PostgreSQL: tables, views and queries as sources, tables as destinations of writes, and a cache.

mod address;
mod array;
mod batch;
mod bridge;
mod cache;
mod config;
mod describe;
mod dialect;
mod errors;
mod feed;
mod follow;
mod group;
mod listing;
mod notify;
mod ops;
mod options;
mod outbox;
mod pgoutput;
mod pool;
mod position;
mod progress;
mod shared;
mod slot;
mod source;
mod statement;
mod table;
mod trigger;
mod value;
mod write;

pub use self::address::PostgresTls;
pub use self::config::PostgresConnector;
pub use self::options::PostgresOptions;
pub use self::source::Postgres;
pub use self::table::PostgresRelation;
