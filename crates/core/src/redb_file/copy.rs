//! Copies of redb files: of one that goes on, for a backup; and of one whose free pages may hold what was erased, in its place.

use std::fs::Metadata;
use std::path::Path;

use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};

use super::{Fault, Options, no_panic, sync_folder, with_suffix};

/// Key in the meta table of a file whose free pages may hold what was erased.
const ERASED: &str = "erased";
/// Bytes of a copy in one transaction, about.
const COPIED: usize = 4 << 20;

/// A new file that takes the tables of another while that one goes on. Its pages hold nothing else.
pub(crate) struct Copy {
    database: Database,
    options: Options,
}

impl Copy {
    /// Creates the file at `path`, readable by its owner only.
    pub(crate) fn begin(path: &Path, options: Options) -> Result<Copy, Fault> {
        let database = options.draft(path)?;
        Ok(Copy { database, options })
    }

    /// Copies a table, if it is there.
    pub(crate) fn table<K: redb::Key + 'static>(
        &self,
        from: &ReadTransaction,
        table: TableDefinition<'_, K, &'static [u8]>,
    ) -> Result<(), Fault> {
        no_panic(|| {
            let rows = match from.open_table(table) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
                rows => rows?,
            };
            let mut rows = rows.range::<K::SelfType<'_>>(..)?;
            loop {
                let transaction = self.database.begin_write()?;
                let mut copied = 0;
                {
                    let mut copy = transaction.open_table(table)?;
                    while copied < COPIED
                        && let Some(row) = rows.next()
                    {
                        let (key, value) = row?;
                        copied += value.value().len() + 64;
                        copy.insert(key.value(), value.value())?;
                    }
                }
                transaction.commit()?;
                if copied < COPIED {
                    return Ok(());
                }
            }
        })
    }

    /// Copies all tables.
    pub(crate) fn all(&self, from: &ReadTransaction) -> Result<(), Fault> {
        (self.options.tables)(self, from)?;
        no_panic(|| {
            let transaction = self.database.begin_write()?;
            transaction.open_table(self.options.meta)?.remove(ERASED)?;
            Ok(transaction.commit()?)
        })
    }

    /// Closes the file.
    pub(crate) fn end(self) -> Result<(), Fault> {
        no_panic(|| Ok(self.database.close()?))
    }
}

/// Notes that pages which `transaction` frees hold what was erased: whoever opens the file next copies it.
pub(crate) fn note_erased(transaction: &WriteTransaction, options: Options) -> Result<(), Fault> {
    transaction.open_table(options.meta)?.insert(ERASED, [1u8].as_slice())?;
    Ok(())
}

/// The database, or a copy that is put in the place of the file at `path` because that may hold what was erased. What keeps it
/// from being copied is logged: the next opening tries again.
pub(super) fn without_erased(database: Database, path: &Path, options: Options) -> Database {
    match copied(&database, path, options) {
        Ok(None) => database,
        Ok(Some(copy)) => {
            tracing::info!(path = %path.display(), "the file was copied, to be rid of rows that were erased");
            copy
        }
        Err(error) => {
            tracing::warn!(
                path = %path.display(), %error,
                "the file cannot be copied: free pages may hold erased rows until the next start"
            );
            database
        }
    }
}

fn copied(database: &Database, path: &Path, options: Options) -> Result<Option<Database>, Fault> {
    let transaction = no_panic(|| Ok(database.begin_read()?))?;
    if no_panic(|| Ok(transaction.open_table(options.meta)?.get(ERASED)?.is_none()))? {
        return Ok(None);
    }
    let draft = with_suffix(path, ".clean");
    if draft.try_exists()? {
        std::fs::remove_file(&draft)?;
    }
    let copy = Copy::begin(&draft, options)?;
    let put = copy.all(&transaction).and_then(|()| Ok(std::fs::rename(&draft, path)?));
    if let Err(error) = put {
        // What is left of it is removed by the next try, if not now.
        let _ = std::fs::remove_file(&draft);
        return Err(error);
    }
    if let Err(error) = sync_folder(path) {
        tracing::warn!(path = %path.display(), %error, "a power cut now may bring the earlier file back");
    }
    Ok(Some(copy.database))
}

/// Tells whether the file that is `opened` is the one at `path`.
#[cfg(unix)]
pub(super) fn is_at(opened: &Metadata, path: &Path) -> Result<bool, Fault> {
    use std::os::unix::fs::MetadataExt;
    let there = std::fs::metadata(path)?;
    Ok((opened.dev(), opened.ino()) == (there.dev(), there.ino()))
}

/// Tells whether the file that is `opened` is the one at `path`; open files are not replaced here.
#[cfg(not(unix))]
pub(super) fn is_at(_: &Metadata, _: &Path) -> Result<bool, Fault> {
    Ok(true)
}
