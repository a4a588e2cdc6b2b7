//! Rows in a redb file: one table per Dio, named like it.
//!
//! A row is stored under its slot as: version u8, xxh3-64 over the rest (seeded with table and slot: a page of another table is
//! no rows), flags u8 (1 = CBOR beside the JSON), ordinal u64, id length u32, JSON length u32, id, JSON, CBOR; integers
//! little-endian. `_meta` holds `format` and, per table, `table/<name>` and in `sum/<name>` the sum of its rows' checksums: a
//! page that is lost, or an old one, cannot pass for the rows, which the tree itself would not notice. `_versions/<name>` has, by id
//! and sealed, what is known of rows' versions beside the rows; files of 0.1.0 lack it. A file that cannot be
//! used is set aside as `<path>.corrupt-<n>` and a new one begun; of these files, the newest few are kept.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    TableHandle as _, WriteTransaction,
};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{CacheBatch, CacheError, CacheMeta, Loaded, RowStore, RowTable, StoredRow};
use crate::record::{Body, Id, Layout};
use crate::redb_file::{
    BackendFactory, Copy, Fault, Options, Owner, RedbFile, blocking, note_erased, seal, sync_folder, unseal,
    with_suffix,
};

type Versions<'a> = TableDefinition<'a, &'static str, &'static [u8]>;
type Rows<'a> = TableDefinition<'a, u32, &'static [u8]>;

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
pub struct Stored {
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

#[derive(Debug)]
struct Table {
    inner: Arc<Inner>,
    name: String,
    /// The generation of the file that this table is known to be complete in.
    generation: AtomicU64,
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
    pub async fn stored(&self, name: &str) -> Result<Stored, CacheError> {
        let table = self.open_table(name).await?;
        let mut rows = Vec::new();
        let mut sink = |batch: Vec<StoredRow>| rows.extend(batch.into_iter().map(|row| (row.id, row.body)));
        let loaded = table.load(&Layout::new("", false, [""; 0]), &mut sink).await?;
        let watermark = loaded.meta.map_or(0, |meta| meta.watermark);
        Ok(Stored { rows, watermark, damaged: loaded.damaged })
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

impl Table {
    fn rows(&self) -> Rows<'_> {
        TableDefinition::new(&self.name)
    }

    fn versions_name(&self) -> String {
        format!("_versions/{}", self.name)
    }

    fn meta_key(&self) -> String {
        format!("table/{}", self.name)
    }

    fn sum_key(&self) -> String {
        format!("sum/{}", self.name)
    }

    /// What the checksums of its rows begin with.
    fn salt(&self) -> u64 {
        xxh3_64(self.name.as_bytes())
    }

    fn create(&self) -> Result<(), Fault> {
        self.inner.with(|database| {
            // A full disk does not keep a table from being read.
            match database.begin_read()?.open_table(self.rows()) {
                Err(redb::TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
            let transaction = begin(database)?;
            transaction.open_table(self.rows())?;
            Ok(transaction.commit()?)
        })
    }

    fn commit(&self, batch: &CacheBatch) -> Result<(), Fault> {
        self.inner.heal()?;
        let complete_in = self.generation.load(Ordering::Acquire);
        self.inner
            .with(|database| {
                if complete_in != self.inner.generation.load(Ordering::Acquire) {
                    return Ok(None);
                }
                let transaction = begin(database)?;
                self.store(&transaction, batch)?;
                Ok(Some(transaction.commit()?))
            })?
            .ok_or_else(|| Fault::Corrupt("the file was set aside: clear the table and store every row again".into()))
    }

    fn store(&self, transaction: &WriteTransaction, batch: &CacheBatch) -> Result<(), Fault> {
        let mut rows = transaction.open_table(self.rows())?;
        let mut known = transaction.open_table(META)?;
        let mut sum = stored_sum(&known, &self.sum_key())?;
        for (slot, _) in &batch.deletes {
            let old = rows.remove(slot)?;
            sum = sum.wrapping_sub(old.map_or(0, |old| row_sum(old.value())));
        }
        let mut buffer = Vec::new();
        for row in &batch.upserts {
            encode_row(self.salt(), row, &mut buffer)?;
            let old = rows.insert(row.slot, buffer.as_slice())?;
            sum = sum.wrapping_add(row_sum(&buffer)).wrapping_sub(old.map_or(0, |old| row_sum(old.value())));
        }
        known.insert(self.sum_key().as_str(), sum.to_le_bytes().as_slice())?;
        if !batch.versions.is_empty() {
            let name = self.versions_name();
            let mut versions = transaction.open_table(Versions::new(&name))?;
            for (id, known) in &batch.versions {
                match known {
                    Some(known) => {
                        let sealed = seal(xxh3_64(id.as_bytes()), &[known]);
                        versions.insert(&**id, sealed.as_slice())?;
                    }
                    None => drop(versions.remove(&**id)?),
                }
            }
        }
        if let Some(meta) = &batch.meta {
            let key = self.meta_key();
            let json = serde_json::to_vec(meta).map_err(|error| too_large(&error.to_string()))?;
            let sealed = seal(xxh3_64(key.as_bytes()), &[&json]);
            known.insert(key.as_str(), sealed.as_slice())?;
        }
        Ok(())
    }

    fn note_erased(&self) -> Result<(), Fault> {
        self.inner.with(|database| {
            let transaction = begin(database)?;
            note_erased(&transaction, OPTIONS)?;
            Ok(transaction.commit()?)
        })
    }

    fn clear(&self) -> Result<(), Fault> {
        self.inner.heal()?;
        let generation = self.inner.generation.load(Ordering::Acquire);
        self.inner.with(|database| {
            let transaction = begin(database)?;
            transaction.delete_table(self.rows())?;
            transaction.delete_table(Versions::new(&self.versions_name()))?;
            transaction.open_table(self.rows())?;
            let mut known = transaction.open_table(META)?;
            known.remove(self.meta_key().as_str())?;
            known.remove(self.sum_key().as_str())?;
            drop(known);
            Ok(transaction.commit()?)
        })?;
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// The rows, the meta, how many rows there should be, and the highest slot.
    fn begin_load(&self) -> Result<Option<Loading>, Fault> {
        self.inner.heal()?;
        let generation = self.inner.generation.load(Ordering::Acquire);
        let loading = self.inner.with(|database| {
            let transaction = database.begin_read()?;
            let rows = match transaction.open_table(self.rows()) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                opened => opened?,
            };
            let key = self.meta_key();
            let known = transaction.open_table(META)?;
            let sum = stored_sum(&known, &self.sum_key())?;
            let meta = match known.get(key.as_str())? {
                Some(stored) => {
                    unseal(xxh3_64(key.as_bytes()), stored.value()).and_then(|json| serde_json::from_slice(json).ok())
                }
                None => None,
            };
            let versions = stored_versions(&transaction, &self.versions_name())?;
            let count = rows.len()?;
            let last = rows.last()?.map(|(slot, _)| slot.value());
            Ok(Some(Loading { table: self.salt(), rows: Arc::new(rows), meta, count, sum, last, versions }))
        })?;
        self.generation.store(generation, Ordering::Release);
        Ok(loading)
    }
}

struct Loading {
    /// What the checksums of the rows begin with.
    table: u64,
    rows: Arc<ReadOnlyTable<u32, &'static [u8]>>,
    meta: Option<CacheMeta>,
    count: u64,
    sum: u64,
    last: Option<u32>,
    versions: Option<Vec<(Id, Bytes)>>,
}

/// A part of a table as it was read.
#[derive(Default)]
struct Part {
    rows: Vec<StoredRow>,
    /// Rows that are not whole.
    damaged: u64,
    /// The sum of the checksums of those that are.
    sum: u64,
}

/// One batch of a load.
type Batch = Result<Part, Fault>;

impl Loading {
    /// Reads every second batch of slots, beginning with batch `first`, until nobody listens.
    fn read_batches(&self, inner: &Inner, first: u32, batches: &mpsc::Sender<Batch>) {
        let last = self.last.unwrap_or(0) / BATCH;
        for at in (first..=last).step_by(2) {
            let slots = at * BATCH..=(at * BATCH).saturating_add(BATCH - 1);
            // The table keeps its transaction; the handle is only held so that nobody closes it in between.
            let batch = inner.with(|_| read_batch(self.table, &self.rows, slots));
            let failed = batch.is_err();
            if batches.blocking_send(batch).is_err() || failed {
                return;
            }
        }
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, Fault> {
    let mut transaction = database.begin_write()?;
    // A start after a crash then need not read the whole file.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

fn too_large(detail: &str) -> Fault {
    Fault::Io { detail: detail.into(), full: false }
}

const VERSION: u8 = 2;
const HEAD: usize = 1 + 8 + 1 + 8 + 4 + 4;
const WITH_CBOR: u8 = 1;

fn encode_row(table: u64, row: &StoredRow, buffer: &mut Vec<u8>) -> Result<(), Fault> {
    let (json, cbor) = (row.body.json(), row.body.cbor());
    let length = |bytes: usize| u32::try_from(bytes).map_err(|_| too_large("a row of 4 GiB cannot be stored"));
    buffer.clear();
    buffer.push(VERSION);
    buffer.extend_from_slice(&[0; 8]);
    buffer.push(if cbor.is_some() { WITH_CBOR } else { 0 });
    buffer.extend_from_slice(&row.ordinal.to_le_bytes());
    buffer.extend_from_slice(&length(row.id.len())?.to_le_bytes());
    buffer.extend_from_slice(&length(json.len())?.to_le_bytes());
    buffer.extend_from_slice(row.id.as_bytes());
    buffer.extend_from_slice(json);
    buffer.extend_from_slice(cbor.map_or(&[], |cbor| &cbor[..]));
    let checksum = checksum(table, row.slot, &buffer[9..]);
    buffer[1..9].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn checksum(table: u64, slot: u32, covered: &[u8]) -> u64 {
    xxh3_64_with_seed(covered, table.wrapping_add(u64::from(slot)))
}

/// What a stored row adds to the sum of its table: its checksum.
fn row_sum(stored: &[u8]) -> u64 {
    stored.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// What is known of rows' versions. What is damaged is left out: it is not known.
fn stored_versions(transaction: &ReadTransaction, name: &str) -> Result<Option<Vec<(Id, Bytes)>>, Fault> {
    let versions = match transaction.open_table(Versions::new(name)) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        opened => opened?,
    };
    let mut found = Vec::new();
    for stored in versions.iter()? {
        let (id, sealed) = stored?;
        let known = unseal(xxh3_64(id.value().as_bytes()), sealed.value());
        found.extend(known.map(|known| (Id::from(id.value()), Bytes::copy_from_slice(known))));
    }
    Ok(Some(found))
}

/// The sum of a table as stored; that of no rows if there is none.
fn stored_sum(known: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> Result<u64, Fault> {
    let stored = known.get(key)?;
    Ok(stored.and_then(|bytes| bytes.value().try_into().ok()).map_or(0, u64::from_le_bytes))
}

/// A row whose bytes lie in a buffer it shares with its batch.
struct Parts {
    slot: u32,
    ordinal: u64,
    id: Id,
    json: Range<usize>,
    cbor: Option<Range<usize>>,
}

/// Checks a stored row and appends its body to `bodies`; `None` if it is damaged.
fn decode_row(table: u64, slot: u32, stored: &[u8], bodies: &mut Vec<u8>) -> Option<Parts> {
    let (head, content) = stored.split_at_checked(HEAD)?;
    let four = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?) as usize);
    let eight = |at: usize| Some(u64::from_le_bytes(head[at..at + 8].try_into().ok()?));
    if head[0] != VERSION || eight(1)? != checksum(table, slot, &stored[9..]) {
        return None;
    }
    let (id, body) = content.split_at_checked(four(18)?)?;
    let json_len = four(22)?;
    let start = bodies.len();
    let json = start..start + json_len;
    let cbor = (head[9] & WITH_CBOR != 0).then(|| json.end..start + body.len());
    if json_len > body.len() {
        return None;
    }
    let id = std::str::from_utf8(id).ok()?.into();
    bodies.extend_from_slice(body);
    Some(Parts { slot, ordinal: eight(10)?, id, json, cbor })
}

/// Reads a row whose checksum is right and whose content is anything, for fuzzing.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn decode_stored(content: &[u8]) -> Option<(Id, Body)> {
    let mut stored = vec![VERSION; 9 + content.len()];
    stored[9..].copy_from_slice(content);
    let sum = checksum(0, 0, content);
    stored[1..9].copy_from_slice(&sum.to_le_bytes());
    let mut bodies = Vec::new();
    let Parts { id, json, cbor, .. } = decode_row(0, 0, &stored, &mut bodies)?;
    let bodies = Bytes::from(bodies);
    Some((id, Body::from_parts(bodies.slice(json), cbor.map(|cbor| bodies.slice(cbor)))))
}

fn read_batch(table: u64, rows: &ReadOnlyTable<u32, &'static [u8]>, slots: std::ops::RangeInclusive<u32>) -> Batch {
    let (mut parts, mut bodies, mut damaged) = (Vec::with_capacity(BATCH as usize), Vec::new(), 0);
    let mut sum = 0u64;
    for stored in rows.range(slots)? {
        let (slot, stored) = stored?;
        match decode_row(table, slot.value(), stored.value(), &mut bodies) {
            Some(row) => {
                sum = sum.wrapping_add(row_sum(stored.value()));
                parts.push(row);
            }
            None => damaged += 1,
        }
    }
    let bodies = Bytes::from(bodies);
    let row = |Parts { slot, ordinal, id, json, cbor }| {
        let body = Body::from_parts(bodies.slice(json), cbor.map(|cbor| bodies.slice(cbor)));
        StoredRow { slot, ordinal, id, body }
    };
    Ok(Part { rows: parts.into_iter().map(row).collect(), damaged, sum })
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

/// A table that jobs on other threads can hold.
#[derive(Debug)]
struct RedbTable(Arc<Table>);

impl RedbTable {
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Table) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, CacheError> {
        let table = Arc::clone(&self.0);
        blocking(move || job(&table)).await.map_err(|fault| cache_error(&self.0.inner.file.label(), fault))
    }
}

#[async_trait]
impl RowTable for RedbTable {
    async fn load(&self, _: &Layout, sink: &mut (dyn FnMut(Vec<StoredRow>) + Send)) -> Result<Loaded, CacheError> {
        let Some(loading) = self.run(Table::begin_load).await? else { return Ok(Loaded::default()) };
        let loading = Arc::new(loading);
        // Two threads read alternate batches, which come together here in slot order.
        let mut readers = Vec::new();
        let mut threads = Vec::new();
        for first in 0..2 {
            let (sender, receiver) = mpsc::channel(AHEAD);
            let loading = Arc::clone(&loading);
            readers.push(receiver);
            threads.push(self.run(move |table| {
                loading.read_batches(&table.inner, first, &sender);
                Ok(())
            }));
        }
        let gathered = async {
            // Owned here, so that a thread sees that nobody listens as soon as this ends.
            let mut readers = readers;
            let (mut found, mut damaged, mut sum) = (0, 0, 0u64);
            loop {
                for reader in &mut readers {
                    let Some(batch) = reader.recv().await else { return Ok((found, damaged, sum)) };
                    let part = batch.map_err(|fault| cache_error(&self.0.inner.file.label(), fault))?;
                    found += part.rows.len() as u64;
                    damaged += part.damaged;
                    sum = sum.wrapping_add(part.sum);
                    if !part.rows.is_empty() {
                        sink(part.rows);
                    }
                }
            }
        };
        let (joined, gathered) =
            futures_util::future::join(futures_util::future::try_join_all(threads), gathered).await;
        let (found, mut damaged, sum) = gathered?;
        joined?;
        // Damage in the tree itself can hide rows or bring old ones back; count and sum are stored elsewhere.
        damaged = damaged.max(loading.count.saturating_sub(found));
        if damaged == 0 && sum != loading.sum {
            damaged = 1;
        }
        Ok(Loaded { meta: loading.meta.clone(), damaged, versions: loading.versions.clone() })
    }

    async fn meta(&self) -> Result<Option<CacheMeta>, CacheError> {
        Ok(self.run(Table::begin_load).await?.and_then(|loading| loading.meta))
    }

    async fn commit(&self, batch: CacheBatch) -> Result<(), CacheError> {
        self.run(move |table| table.commit(&batch)).await
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.run(Table::clear).await
    }

    async fn note_erased(&self) -> Result<(), CacheError> {
        self.run(Table::note_erased).await
    }
}
