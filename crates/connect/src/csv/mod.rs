//! CSV files.

mod column;
mod config;
mod dialect;
mod reader;
pub(crate) mod source;

pub use self::config::CsvConnector;
pub use self::source::{Csv, CsvOptions};
