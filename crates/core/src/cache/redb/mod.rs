//! Rows in a redb file: one table per Dio, named like it.
//!
//! A row is stored under its slot as: version u8, xxh3-64 over the rest (seeded with table and slot: a page of another table is
//! no rows), flags u8 (1 = CBOR beside the JSON), ordinal u64, id length u32, JSON length u32, id, JSON, CBOR; integers
//! little-endian. `_meta` holds `format` and, per table, `table/<name>` and in `sum/<name>` the sum of its rows' checksums: a
//! page that is lost, or an old one, cannot pass for the rows, which the tree itself would not notice. `_versions/<name>` has, by id
//! and sealed, what is known of rows' versions beside the rows; files of 0.1.0 lack it. A file that cannot be
//! used is set aside as `<path>.corrupt-<n>` and a new one begun; of these files, the newest few are kept.

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
/// Files up to so many bytes are verified at every start, which takes some 3 ms per MiB.
const VERIFIED: u64 = 64 << 20;
/// Files set aside that are kept, unless somebody says otherwise.
pub(crate) const KEPT_ASIDE: usize = 3;
/// Slots that one batch of a load covers.
const BATCH: u32 = 4096;
/// Batches that a load reads ahead per thread.
const AHEAD: usize = 4;

/// Rows in a redb file, for all Dios of a Lens of one process.
///
/// [`LensBuilder::cache_at`](crate::LensBuilder::cache_at) opens one by itself; this is for programs that ask how that went, and
/// goes into [`LensBuilder::cache_file`](crate::LensBuilder::cache_file). A clone is the same cache. After an I/O error the next
/// call opens the file again. After damage the next call sets the file
/// aside and begins a new one; then the tables of all Dios answer [`CacheError::Corrupt`] to commits until they are cleared or
/// loaded, because what they held before is gone.
#[derive(Clone, Debug)]
pub struct RedbCache(Arc<Inner>);

/// Content of a table, for tests.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug)]
pub struct TableContent {
    /// The rows in slot order.
    pub rows: Vec<(Id, Body)>,
    /// The position in the journal that they have reached.
    pub watermark: u64,
    /// Rows that are not whole or not there.
    pub damaged: u64,
}

#[derive(Debug)]
struct Inner {
    file: RedbFile,
    /// Where the file is; custom storage cannot be set aside.
    path: Option<PathBuf>,
    /// How many files that were set aside are kept.
    kept: usize,
    /// Held while a broken file is opened again.
    healing: Mutex<()>,
    /// How many files have been begun in place of a bad one.
    generation: AtomicU64,
    set_aside: Mutex<Option<PathBuf>>,
}

impl RedbCache {
    /// Opens or creates the cache in the file at `path`, readable by its owner only. A file that is damaged or of a newer
    /// program is set aside, which [`RedbCache::set_aside`] tells.
    ///
    /// Every page of a file of up to 64 MiB is verified. While it is open, an empty file `<path>.open` lies beside it: one that an
    /// earlier process left means that the cache was not closed, and a larger file is verified too. redb may end the process over
    /// damaged pages, but then not twice.
    ///
    /// # Errors
    /// [`CacheError::Locked`] if it is open elsewhere, [`CacheError::Io`] otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CacheError> {
        Self::open_keeping(path, KEPT_ASIDE)
    }

    /// [`RedbCache::open`], where the newest `kept` of the files that were set aside are kept, and one at least. Older ones are
    /// removed when another is set aside.
    ///
    /// # Errors
    /// As [`RedbCache::open`].
    pub fn open_keeping(path: impl AsRef<Path>, kept: usize) -> Result<Self, CacheError> {
        Self::open_verifying(path.as_ref(), VERIFIED, kept)
    }

    /// [`RedbCache::open_keeping`], where files up to `verified` bytes are verified.
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

    /// Opens or creates a cache on custom storage, made anew each time it is opened again.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be opened; custom storage is never set aside.
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

    /// Where the newest file that could not be used has been put, if there was one since the cache was opened.
    pub fn set_aside(&self) -> Option<PathBuf> {
        self.0.set_aside.lock().clone()
    }

    /// Flushes and closes the file for all clones; [`Lens::close`](crate::Lens::close) does so. Calls after this are
    /// [`CacheError::Closed`].
    pub async fn close(&self) {
        let inner = Arc::clone(&self.0);
        // Closing itself cannot fail; a runtime that is shutting down drops the file instead.
        let _ = blocking(move || {
            inner.file.close();
            if let Some(path) = &inner.path {
                // One that stays costs the next start some time.
                let _ = std::fs::remove_file(open_mark(path));
            }
            Ok(())
        })
        .await;
    }

    /// The cache as it is now, to be copied while it goes on.
    pub fn snapshot(&self) -> Result<CacheSnapshot, CacheError> {
        let begun = self.0.with(|database| Ok(database.begin_read()?));
        begun.map(CacheSnapshot).map_err(|fault| cache_error(&self.0.file.label(), fault))
    }

    /// The file as whoever opened it has it.
    pub(crate) fn owner(&self) -> Owner {
        self.0.file.owner()
    }

    /// What is stored for the Dio `name`.
    ///
    /// # Errors
    /// [`CacheError`] if it cannot be read.
    #[cfg(any(test, feature = "testing"))]
    pub async fn stored(&self, name: &str) -> Result<TableContent, CacheError> {
        let table = self.open_table(name).await?;
        let mut rows = Vec::new();
        let mut sink = |batch: Vec<StoredRow>| rows.extend(batch.into_iter().map(|row| (row.id, row.body)));
        let loaded = table.load(&Layout::new("", false, [""; 0]), &mut sink).await?;
        let watermark = loaded.meta.map_or(0, |meta| meta.watermark);
        Ok(TableContent { rows, watermark, damaged: loaded.damaged })
    }

    /// Behaves from now on as if damage had been found.
    #[cfg(test)]
    pub(super) fn find_damaged(&self) {
        self.0.file.set_broken(&Fault::Corrupt("pretended".into()));
    }
}

/// A cache at one moment.
#[derive(Debug)]
pub struct CacheSnapshot(ReadTransaction);

impl CacheSnapshot {
    /// Writes it to a new file at `path`. Blocks the thread.
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
    /// Runs `job` on a working handle; a fault is healed by the next call.
    fn with<T>(&self, job: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        self.heal()?;
        let generation = self.generation.load(Ordering::Acquire);
        let done = self.file.with(job);
        if let Err(fault @ (Fault::Io { .. } | Fault::Corrupt(_))) = &done {
            let _healing = self.healing.lock();
            // What went wrong with a file that was set aside meanwhile says nothing of the new one.
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

/// Leaves the mark of an open cache; says whether one was there. A mark that cannot be made is only missed.
fn mark_open(path: &Path) -> bool {
    let mark = open_mark(path);
    let was_there = mark.exists();
    if let Err(error) = std::fs::File::create(&mark) {
        tracing::debug!(mark = %mark.display(), %error, "the cache is open without its mark");
    }
    was_there
}

/// Renames a file that cannot be used, for people to look at, and removes all but the newest `kept` such files.
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

/// The name of a file that was set aside.
fn aside(path: &Path, number: u64) -> PathBuf {
    with_suffix(path, &format!(".corrupt-{number}"))
}

/// The numbers of the files that were set aside for the one at `path`.
fn aside_numbers(path: &Path) -> Result<Vec<u64>, Fault> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.rsplit_once(".corrupt-")?.1.parse().ok());
        // Compared as a whole, so that neither `+1` nor another file's name passes for one of these.
        numbers.extend(number.filter(|number| aside(path, *number).file_name() == Some(&name)));
    }
    Ok(numbers)
}

/// Removes a file that was set aside long ago. One that cannot be removed only takes up room.
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
            let detail = format!("no Dio can be named {name:?}, which the file needs for itself");
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
