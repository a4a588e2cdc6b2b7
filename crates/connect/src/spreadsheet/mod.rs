//! Spreadsheets of Excel (`.xlsx`) and LibreOffice (`.ods`).

mod archive;
mod book;
mod config;
mod header;
mod source;

pub use self::config::SpreadsheetConnector;
pub use self::source::{Spreadsheet, SpreadsheetOptions};
