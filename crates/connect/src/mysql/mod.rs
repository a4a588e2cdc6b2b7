//! MariaDB and MySQL: tables, views and queries as sources, and tables as destinations of writes.

mod address;
mod config;
mod describe;
mod dialect;
mod errors;
mod ops;
mod options;
mod pool;
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
