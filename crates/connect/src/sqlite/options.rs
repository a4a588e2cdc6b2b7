//! Options of a table.

use diorama_core::vista::Column;

/// How a table is to be understood. The default takes everything from its declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The column that identifies rows; else the primary key, else the rowid. Views need one (or a column `id`).
    pub id: Option<String>,
    /// Columns with declared types and flags in place of those that the database declares.
    pub columns: Vec<Column>,
    /// Never write, and advertise no write.
    pub read_only: bool,
    /// The journal mode that the database is switched to; else it is left as it is.
    pub journal_mode: Option<JournalMode>,
}

/// How SQLite makes a transaction whole. The database file remembers `Wal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalMode {
    /// A rollback journal that is deleted: the default of SQLite.
    Delete,
    /// A rollback journal that is emptied.
    Truncate,
    /// A rollback journal that is overwritten.
    Persist,
    /// A write-ahead log: reads and writes do not wait for each other.
    Wal,
}

impl JournalMode {
    /// All of them.
    pub(crate) const ALL: [JournalMode; 4] =
        [JournalMode::Delete, JournalMode::Truncate, JournalMode::Persist, JournalMode::Wal];

    /// The mode as SQLite calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            JournalMode::Delete => "delete",
            JournalMode::Truncate => "truncate",
            JournalMode::Persist => "persist",
            JournalMode::Wal => "wal",
        }
    }
}
