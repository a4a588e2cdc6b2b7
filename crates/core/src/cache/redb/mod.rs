//! Row storage in a redb file: one table per Dio, with the Dio's name.
//!
//! A row is stored under its slot as: version u8, xxh3-64 over the rest (seeded with table and slot, so that a page of another
//! table is detected), flags u8 (1 = CBOR after the JSON), ordinal u64, id length u32, JSON length u32, id, JSON, CBOR.
//! Integers are little-endian.
//!
//! `_meta` holds `format` and, per table, `table/<name>` (its meta) and `sum/<name>` (the sum of its rows' checksums). The sum
//! detects a lost or old page, which the tree itself would not. `_versions/<name>` holds, by id and sealed, the known versions
//! that are stored apart from the rows; files of 0.1.0 lack it.
//!
//! A file that cannot be used is set aside as `<path>.corrupt-<n>` and a new one created. Only the newest few of these files
//! are kept.

mod format;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, TableHandle as _};

#[cfg(any(test, feature = "testing"))]
pub use self::format::decode_stored;
use self::format::{Rows, Versions};
use self::table::{RedbTable, Table};
use crate::cache::{CacheError, RowStore, RowTable};
use crate::redb_file::{BackendFactory, Copy, Fault, Options, Owner, RedbFile, blocking, sync_folder, with_suffix};

#[cfg(any(test, feature = "testing"))]
use crate::cache::StoredRow;
#[cfg(any(test, feature = "testing"))]
use crate::record::{Body, Id, Layout};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("_meta");
const OPTIONS: Options =
    Options { format: 1, meta: META, cache_size: 16 << 20, check_integrity: false, tables: copy_tables };
/// Size in bytes up to which a file is verified at every start, which takes about 3 ms per MiB.
const VERIFIED: u64 = 64 << 20;
/// Default number of set-aside files that are kept.
pub(crate) const KEPT_ASIDE: usize = 3;
/// Slots per batch of a load.
const BATCH: u32 = 4096;
/// Batches that each thread of a load reads ahead.
const AHEAD: usize = 4;

/// Row storage in a redb file, for all Dios of a Lens in one process.
///
/// [`LensBuilder::cache_at`](crate::LensBuilder::cache_at) opens one by itself. Programs that need the result of opening pass
/// one to [`LensBuilder::cache_file`](crate::LensBuilder::cache_file). A clone is the same cache. After an I/O error the next
/// call reopens the file. After damage the next call sets the file aside and creates a new one; then the tables of all Dios
/// answer commits with [`CacheError::Corrupt`] until they are cleared or loaded, because their earlier content is gone.
#[derive(Clone, Debug)]
pub struct RedbCache(Arc<Inner>);

/// Content of a table, for tests.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug)]
pub struct TableContent {
    /// Rows in slot order.
    pub rows: Vec<(Id, Body)>,
    /// Journal position that the rows have reached.
    pub watermark: u64,
    /// Number of damaged or missing rows.
    pub damaged: u64,
}

/// State that the clones of a [`RedbCache`] share.
#[derive(Debug)]
struct Inner {
    file: RedbFile,
    /// Path of the file; `None` for custom storage, which cannot be set aside.
    path: Option<PathBuf>,
    /// Number of set-aside files that are kept.
    kept: usize,
    /// Locked while a broken file is reopened.
    healing: Mutex<()>,
    /// Number of files created to replace a damaged one.
    generation: AtomicU64,
    set_aside: Mutex<Option<PathBuf>>,
}

impl RedbCache {
    /// Opens or creates the cache in the file at `path`, readable only by its owner. A file that is damaged, or that a newer
    /// program wrote, is set aside; [`RedbCache::set_aside`] then returns its path.
    ///
    /// Every page of a file of up to 64 MiB is verified. While the cache is open, an empty file `<path>.open` exists beside it.
    /// If an earlier process left one, the cache was not closed, and a larger file is verified too. redb may abort the process
    /// on damaged pages, but then not twice.
    ///
    /// # Errors
    /// [`CacheError::Locked`] if the file is open elsewhere, [`CacheError::Io`] otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CacheError> {
        Self::open_keeping(path, KEPT_ASIDE)
    }

    /// Opens like [`RedbCache::open`], but keeps the newest `kept` of the set-aside files, at least one. Older ones are removed
    /// when another file is set aside.
    ///
    /// # Errors
    /// As [`RedbCache::open`].
    pub fn open_keeping(path: impl AsRef<Path>, kept: usize) -> Result<Self, CacheError> {
        Self::open_verifying(path.as_ref(), VERIFIED, kept)
    }

    /// Opens like [`RedbCache::open_keeping`], but verifies files of up to `verified` bytes.
    pub(super) fn open_verifying(path: &Path, verified: u64, kept: usize) -> Result<Self, CacheError> {
        let of_path = |fault| cache_error(&path.display().to_string(), fault);
        let is_small = std::fs::metadata(path).is_ok_and(|file| file.len() <= verified);
        let options = Options { check_integrity: mark_open(path) || is_small, ..OPTIONS };
        let (file, set_aside) = match RedbFile::open(path, options) {
            Err(fault @ (Fault::Corrupt(_) | Fault::Newer { .. })) => {
                let aside = put_aside(path, &fault, kept).map_err(of_path)?;
                (RedbFile::open(path, options).map_err(of_path)?, Some(aside))
            }
            opened => (opened.map_err(of_path)?, None),
        };
        Ok(Self::new(file, Some(path.to_path_buf()), set_aside, kept))
    }

    /// Opens or creates a cache on custom storage. `factory` is called again whenever it is reopened.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be opened. Custom storage is never set aside.
    pub fn with_backend(factory: BackendFactory) -> Result<Self, CacheError> {
        let opened = RedbFile::with_backend(factory, OPTIONS);
        Ok(Self::new(opened.map_err(|fault| cache_error("(custom storage)", fault))?, None, None, KEPT_ASIDE))
    }

    fn new(file: RedbFile, path: Option<PathBuf>, set_aside: Option<PathBuf>, kept: usize) -> Self {
        RedbCache(Arc::new(Inner {
            file,
            path,
            kept,
            healing: Mutex::default(),
            generation: AtomicU64::new(0),
            set_aside: Mutex::new(set_aside),
        }))
    }

    /// Path of the newest file that was set aside since the cache was opened, if any.
    pub fn set_aside(&self) -> Option<PathBuf> {
        self.0.set_aside.lock().clone()
    }

    /// Flushes and closes the file for all clones. [`Lens::close`](crate::Lens::close) calls it. Later calls return
    /// [`CacheError::Closed`].
    pub async fn close(&self) {
        let inner = Arc::clone(&self.0);
        // Closing itself cannot fail. A runtime that is shutting down drops the file instead.
        let _ = blocking(move || {
            inner.file.close();
            if let Some(path) = &inner.path {
                // A mark that stays only slows the next start down.
                let _ = std::fs::remove_file(open_mark(path));
            }
            Ok(())
        })
        .await;
    }

    /// Takes a snapshot, which can be copied while the cache stays in use.
    pub fn snapshot(&self) -> Result<CacheSnapshot, CacheError> {
        let begun = self.0.with(|database| Ok(database.begin_read()?));
        begun.map(CacheSnapshot).map_err(|fault| cache_error(&self.0.file.label(), fault))
    }

    /// Returns a guard that marks the file as abandoned when it is dropped.
    pub(crate) fn owner(&self) -> Owner {
        self.0.file.owner()
    }

    /// Returns the stored content for the Dio `name`.
    ///
    /// # Errors
    /// [`CacheError`] if the table cannot be read.
    #[cfg(any(test, feature = "testing"))]
    pub async fn stored(&self, name: &str) -> Result<TableContent, CacheError> {
        let table = self.open_table(name).await?;
        let mut rows = Vec::new();
        let mut sink = |batch: Vec<StoredRow>| rows.extend(batch.into_iter().map(|row| (row.id, row.body)));
        let loaded = table.load(&Layout::new("", false, [""; 0]), &mut sink).await?;
        let watermark = loaded.meta.map_or(0, |meta| meta.watermark);
        Ok(TableContent { rows, watermark, damaged: loaded.damaged })
    }

    /// Makes the next call behave as if damage had been detected.
    #[cfg(test)]
    pub(super) fn find_damaged(&self) {
        self.0.file.set_broken(&Fault::Corrupt("pretended".into()));
    }
}

/// Snapshot of a cache.
#[derive(Debug)]
pub struct CacheSnapshot(ReadTransaction);

impl CacheSnapshot {
    /// Writes the snapshot to a new file at `path`. Blocks the thread.
    ///
    /// # Errors
    /// [`CacheError`] if a file cannot be read or written.
    pub fn write(&self, path: &Path) -> Result<(), CacheError> {
        self.copy(path).map_err(|fault| cache_error(&path.display().to_string(), fault))
    }

    fn copy(&self, path: &Path) -> Result<(), Fault> {
        let copy = Copy::begin(path, OPTIONS)?;
        copy.all(&self.0)?;
        copy.end()
    }
}

fn copy_tables(copy: &Copy, from: &ReadTransaction) -> Result<(), Fault> {
    for table in from.list_tables()? {
        match table.name() {
            name if name == META.name() => copy.table(from, META)?,
            name if name.starts_with("_versions/") => copy.table(from, Versions::new(name))?,
            name => copy.table(from, Rows::new(name))?,
        }
    }
    Ok(())
}

impl Inner {
    /// Runs `job` on a working handle. The next call repairs a fault.
    fn with<T>(&self, job: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        self.heal()?;
        let generation = self.generation.load(Ordering::Acquire);
        let done = self.file.with(job);
        if let Err(fault @ (Fault::Io { .. } | Fault::Corrupt(_))) = &done {
            let _healing = self.healing.lock();
            // A fault of a file that was set aside meanwhile does not affect the new file.
            if self.generation.load(Ordering::Acquire) == generation {
                self.file.set_broken(fault);
            }
        }
        done
    }

    fn heal(&self) -> Result<(), Fault> {
        let _healing = self.healing.lock();
        let Some(broken) = self.file.broken() else { return Ok(()) };
        let reopened = match broken {
            fault @ Fault::Corrupt(_) if self.path.is_some() => Err(fault),
            _ => self.file.reopen(),
        };
        match (reopened, &self.path) {
            (Err(fault @ (Fault::Corrupt(_) | Fault::Newer { .. })), Some(path)) => {
                *self.set_aside.lock() = Some(put_aside(path, &fault, self.kept)?);
                self.generation.fetch_add(1, Ordering::AcqRel);
                self.file.reopen()
            }
            (reopened, _) => reopened,
        }
    }
}

fn open_mark(path: &Path) -> PathBuf {
    with_suffix(path, ".open")
}

/// Creates the mark of an open cache. Returns true if one already existed. A mark that cannot be created is only logged.
fn mark_open(path: &Path) -> bool {
    let mark = open_mark(path);
    let was_there = mark.exists();
    if let Err(error) = std::fs::File::create(&mark) {
        tracing::debug!(mark = %mark.display(), %error, "the mark of the open cache cannot be created");
    }
    was_there
}

/// Renames an unusable file so that it can be examined, and removes all but the newest `kept` such files.
fn put_aside(path: &Path, fault: &Fault, kept: usize) -> Result<PathBuf, Fault> {
    let mut numbers = aside_numbers(path)?;
    let number = numbers.iter().max().copied().unwrap_or(0).saturating_add(1);
    let aside = aside(path, number);
    std::fs::rename(path, &aside)?;
    sync_folder(path)?;
    tracing::warn!(
        path = %path.display(), set_aside = %aside.display(), error = %fault,
        "the cache file cannot be used: it is set aside and filled again"
    );
    numbers.push(number);
    numbers.sort_unstable();
    let old = numbers.len().saturating_sub(kept.max(1));
    numbers[..old].iter().for_each(|number| remove_aside(path, *number));
    Ok(aside)
}

/// Path of a set-aside file.
fn aside(path: &Path, number: u64) -> PathBuf {
    with_suffix(path, &format!(".corrupt-{number}"))
}

/// Numbers of the files that were set aside for the file at `path`.
fn aside_numbers(path: &Path) -> Result<Vec<u64>, Fault> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.rsplit_once(".corrupt-")?.1.parse().ok());
        // Compare the whole name, so that neither `+1` nor another file's name matches.
        numbers.extend(number.filter(|number| aside(path, *number).file_name() == Some(&name)));
    }
    Ok(numbers)
}

/// Removes an old set-aside file. One that cannot be removed only takes up space.
fn remove_aside(path: &Path, number: u64) {
    let old = aside(path, number);
    match std::fs::remove_file(&old) {
        Ok(()) => tracing::info!(removed = %old.display(), "an old cache file that was set aside is removed"),
        Err(error) => {
            tracing::warn!(path = %old.display(), %error, "a cache file that was set aside cannot be removed")
        }
    }
}

fn cache_error(path: &str, fault: Fault) -> CacheError {
    let path = path.to_string();
    match fault {
        Fault::Io { detail, full } => CacheError::Io { path, detail, full },
        Fault::Corrupt(detail) => CacheError::Corrupt { path, detail },
        fault @ Fault::Newer { .. } => CacheError::Corrupt { path, detail: fault.to_string() },
        Fault::Replaced => CacheError::Io { path, detail: fault.to_string(), full: false },
        Fault::Locked => CacheError::Locked { path },
        Fault::Closed => CacheError::Closed,
    }
}

#[async_trait]
impl RowStore for RedbCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn RowTable>, CacheError> {
        if name == redb::TableHandle::name(&META) {
            let detail = format!("{name:?} is not a valid Dio name: the cache file reserves it");
            return Err(CacheError::Io { path: self.0.file.label(), detail, full: false });
        }
        let table = RedbTable(Arc::new(Table {
            inner: Arc::clone(&self.0),
            name: name.into(),
            generation: AtomicU64::new(self.0.generation.load(Ordering::Acquire)),
        }));
        table.run(Table::create).await?;
        Ok(Arc::new(table))
    }

    async fn close(&self) {
        RedbCache::close(self).await;
    }
}
