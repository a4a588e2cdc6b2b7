//! Configuration `source = { sqlite = "FILE", table = "TABLE" }`, and `write` likewise.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use super::options::{JournalMode, SqliteOptions};
use super::source::Sqlite;
use crate::connector::{Connector, Key, Route, Settings, Source, SourceRequest};
use crate::file;
use diorama_core::vista::{Result, Schema, Vista};

/// Connector for SQLite databases.
#[derive(Clone, Copy, Debug)]
pub struct SqliteConnector;

const FORM: &str = r#"{ sqlite = "FILE", table = "TABLE" }"#;

impl Connector for SqliteConnector {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn source_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn source(&self, settings: &dyn Settings) -> Option<Arc<dyn Source>> {
        if !settings.has("table") {
            settings.wrong("table", r#"a sqlite source requires table = "TABLE""#.into());
        }
        Some(Arc::new(SqliteTable::read(settings)?))
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let route = SqliteTable::read(settings);
        if route.is_none() {
            settings.wrong("", format!("write must be {FORM}"));
        }
        Some(Arc::new(route?))
    }
}

/// A table of a database file.
#[derive(Debug)]
struct SqliteTable {
    path: PathBuf,
    table: String,
    journal_mode: Option<JournalMode>,
}

impl SqliteTable {
    fn read(settings: &dyn Settings) -> Option<SqliteTable> {
        let (path, table) = (settings.path("sqlite"), settings.text("table"));
        let mode = settings.word("journal_mode", &JournalMode::ALL.map(JournalMode::as_str));
        let journal_mode = mode.and_then(|word| JournalMode::ALL.into_iter().find(|mode| mode.as_str() == word));
        Some(SqliteTable { path: path?, table: table?, journal_mode })
    }

    async fn open_with(&self, name: &str, options: SqliteOptions) -> Result<Vista> {
        let options = SqliteOptions { journal_mode: self.journal_mode, ..options };
        Sqlite::open(name, &self.path, &self.table, options).await
    }
}

#[async_trait]
impl Source for SqliteTable {
    fn describe(&self) -> String {
        format!("{} {}", self.path.display(), self.table)
    }

    async fn open(&self, request: SourceRequest) -> Result<Vista> {
        let SourceRequest { name, id, columns, .. } = request;
        self.open_with(&name, SqliteOptions { id, columns, ..SqliteOptions::default() }).await
    }

    fn missing(&self) -> Option<String> {
        file::missing(&self.path)
    }

    fn has_fixed_columns(&self) -> bool {
        true
    }
}

#[async_trait]
impl Route for SqliteTable {
    async fn open(&self, name: &str, _: &Arc<Schema>) -> Result<Vista> {
        self.open_with(name, SqliteOptions::default()).await
    }
}

const KEYS: &[Key] = &[
    Key::new("source.sqlite", "", "A SQLite database."),
    Key::new("source.table", "", "`sqlite`: the table."),
    Key::new(
        "source.journal_mode",
        "unchanged",
        "`sqlite`: the journal mode to switch the database to. With `wal`, reads and writes do not wait for each other.",
    ),
    Key::new("write.sqlite", "", "A SQLite database."),
    Key::new("write.table", "required by databases", "The table."),
    Key::new("write.journal_mode", "unchanged", "`sqlite`: the journal mode to switch the database to."),
];
