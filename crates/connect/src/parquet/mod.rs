//! Parquet files.

mod cells;
mod config;
mod rows;
mod source;

pub use self::config::ParquetConnector;
pub use self::source::{Parquet, ParquetOptions};
