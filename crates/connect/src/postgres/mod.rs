//! PostgreSQL: tables, views and queries as sources, and tables as destinations of writes.

mod address;
mod array;
mod config;
mod dialect;
mod errors;
mod ops;
mod options;
mod pool;
mod source;
mod table;
mod value;
mod write;

pub use self::address::PostgresTls;
pub use self::config::PostgresConnector;
pub use self::options::PostgresOptions;
pub use self::source::Postgres;
pub use self::table::PostgresRelation;
