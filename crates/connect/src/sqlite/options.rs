//! Options of a SQLite table.

use diorama_core::vista::Column;

/// Options for opening a table. By default everything is taken from its declaration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The id column; by default the primary key, else the rowid. A view requires one, or a column `id`.
    pub id: Option<String>,
    /// Columns with declared types and flags, which replace those of the database.
    pub columns: Vec<Column>,
    /// True to refuse writes and advertise none.
    pub read_only: bool,
    /// The journal mode to switch the database to; `None` leaves it unchanged.
    pub journal_mode: Option<JournalMode>,
}

/// Journal mode, which makes transactions atomic. The database file remembers `Wal`.
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
    /// All journal modes.
    pub(crate) const ALL: [JournalMode; 4] =
        [JournalMode::Delete, JournalMode::Truncate, JournalMode::Persist, JournalMode::Wal];

    /// Returns SQLite's name of the mode.
    pub fn as_str(self) -> &'static str {
        match self {
            JournalMode::Delete => "delete",
            JournalMode::Truncate => "truncate",
            JournalMode::Persist => "persist",
            JournalMode::Wal => "wal",
        }
    }
}
