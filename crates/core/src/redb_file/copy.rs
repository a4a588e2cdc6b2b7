//! Copies of redb files: a backup of a file in use, and a replacement for a file whose free pages may hold erased rows.

use std::fs::Metadata;
use std::path::Path;

use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};

use super::{Fault, Options, no_panic, sync_folder, with_suffix};

/// Key in the meta table of a file whose free pages may hold erased rows.
const ERASED: &str = "erased";
/// Approximate number of bytes that one transaction copies.
const COPY_BYTES: usize = 4 << 20;

/// A new file that receives the tables of another file while that one stays in use. Its pages hold nothing else.
pub(crate) struct Copy {
    database: Database,
    options: Options,
}

impl Copy {
    /// Creates the file at `path`, readable only by its owner.
    pub(crate) fn begin(path: &Path, options: Options) -> Result<Copy, Fault> {
        let database = options.draft(path)?;
        Ok(Copy { database, options })
    }

    /// Copies a table if it exists.
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
                    while copied < COPY_BYTES
                        && let Some(row) = rows.next()
                    {
                        let (key, value) = row?;
                        copied += value.value().len() + 64;
                        copy.insert(key.value(), value.value())?;
                    }
                }
                transaction.commit()?;
                if copied < COPY_BYTES {
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

/// Notes that the pages freed by `transaction` hold erased rows. The next opening of the file copies it.
pub(crate) fn note_erased(transaction: &WriteTransaction, options: Options) -> Result<(), Fault> {
    transaction.open_table(options.meta)?.insert(ERASED, [1u8].as_slice())?;
    Ok(())
}

/// Returns the database, or a copy that has replaced the file at `path` because its free pages may hold erased rows. A failed
/// copy is logged and tried again at the next opening.
pub(super) fn without_erased(database: Database, path: &Path, options: Options) -> Database {
    match copied(&database, path, options) {
        Ok(None) => database,
        Ok(Some(copy)) => {
            tracing::info!(path = %path.display(), "the file was copied to drop erased rows from its free pages");
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
    let renamed = copy.all(&transaction).and_then(|()| Ok(std::fs::rename(&draft, path)?));
    if let Err(error) = renamed {
        // If this fails, the next attempt removes the rest.
        let _ = std::fs::remove_file(&draft);
        return Err(error);
    }
    if let Err(error) = sync_folder(path) {
        tracing::warn!(path = %path.display(), %error, "a power cut now may bring the earlier file back");
    }
    Ok(Some(copy.database))
}

/// Returns true if `opened` is the file at `path`.
#[cfg(unix)]
pub(super) fn is_at(opened: &Metadata, path: &Path) -> Result<bool, Fault> {
    use std::os::unix::fs::MetadataExt;
    let there = std::fs::metadata(path)?;
    Ok((opened.dev(), opened.ino()) == (there.dev(), there.ino()))
}

/// Always true: open files cannot be replaced on this platform.
#[cfg(not(unix))]
pub(super) fn is_at(_: &Metadata, _: &Path) -> Result<bool, Fault> {
    Ok(true)
}
