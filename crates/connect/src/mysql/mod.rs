//! MariaDB and MySQL: tables, views and queries as sources, and tables as destinations of writes.

mod address;
mod batch;
mod changes;
mod charset;
mod config;
mod describe;
mod dialect;
mod errors;
mod feed;
mod follow;
mod image;
mod layout;
mod ops;
mod options;
mod pool;
mod position;
mod progress;
mod query;
mod server;
mod shared;
mod source;
mod statement;
mod table;
mod value;
mod write;

pub use self::address::MySqlTls;
pub use self::config::MySqlConnector;
pub use self::options::MySqlOptions;
pub use self::source::MySql;
pub use self::table::MySqlRelation;
