//! Shared redb file handling of the cache and the journal: opening, locking, formats, errors and recovery from them.
//!
//! redb may panic on damaged bytes, and its handle is dead after the first I/O error. Every use therefore runs inside
//! [`RedbFile::with`], which turns panics into [`Fault::Corrupt`]. [`RedbFile::reopen`] replaces a dead handle.

mod copy;
#[cfg(any(test, feature = "testing"))]
pub mod disk;
mod seal;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::{
    BackendError, Builder, Database, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition, TableHandle,
};

pub(crate) use copy::{Copy, note_erased};
pub(crate) use seal::{SEAL, SEAL_VERSION, salt_of, seal, unseal};

/// Creates the storage of a file each time it is opened; tests inject faults here.
pub(crate) type BackendFactory = Arc<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

/// Failure of a file operation.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Io {
        detail: String,
        full: bool,
    },
    Corrupt(String),
    Newer {
        found: u32,
    },
    Locked,
    /// The reader's handle was replaced during the read; a new reader uses the new handle.
    Replaced,
    Closed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io { detail, .. } | Fault::Corrupt(detail) => f.write_str(detail),
            Fault::Newer { found } => write!(f, "it has the newer format {found}"),
            Fault::Locked => f.write_str("it is in use by another process, or by a Lens or Dio of this one"),
            Fault::Replaced => f.write_str("it was opened again meanwhile"),
            Fault::Closed => f.write_str("it is closed"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        match error.kind() {
            // A file shorter than its header declares is truncated.
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Fault::Corrupt(error.to_string()),
            kind => Fault::Io { detail: error.to_string(), full: kind == io::ErrorKind::StorageFull },
        }
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Fault {
        match error {
            redb::Error::Io(error) => error.into(),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Fault::Locked,
            redb::Error::DatabaseClosed => Fault::Closed,
            error @ (redb::Error::PreviousIo | redb::Error::Backend(_) | redb::Error::ValueTooLarge(_)) => {
                Fault::Io { detail: error.to_string(), full: false }
            }
            error => Fault::Corrupt(error.to_string()),
        }
    }
}

macro_rules! fault_from {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Fault {
                redb::Error::from(error).into()
            }
        })*
    };
}

fault_from!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

/// Options for opening a file.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Newest format that this program reads; also the format that it writes.
    pub(crate) format: u32,
    /// Table that holds the format under `"format"`.
    pub(crate) meta: TableDefinition<'static, &'static str, &'static [u8]>,
    /// Size of redb's page cache in bytes.
    pub(crate) cache_size: usize,
    /// True to verify every page on open.
    pub(crate) check_integrity: bool,
    /// Copies every table that the file can contain.
    pub(crate) tables: fn(&Copy, &ReadTransaction) -> Result<(), Fault>,
}

/// A redb file whose handle can be replaced.
pub(crate) struct RedbFile {
    path: PathBuf,
    factory: Option<BackendFactory>,
    options: Options,
    handle: RwLock<Handle>,
    /// Registration of the open file. Dropped after the handle, so that an unregistered file is closed.
    open_file: Arc<OpenFile>,
}

/// Handle of the database.
enum Handle {
    Open(Database),
    /// Dead after a fault until it is reopened.
    Broken(Fault),
    Closed,
}

impl RedbFile {
    /// Opens or creates a file that only its owner can read.
    pub(crate) fn open(path: &Path, options: Options) -> Result<RedbFile, Fault> {
        Self::new(path.to_path_buf(), None, options)
    }

    /// Opens or creates a database on the storage that `factory` creates.
    pub(crate) fn with_backend(factory: BackendFactory, options: Options) -> Result<RedbFile, Fault> {
        Self::new("(custom storage)".into(), Some(factory), options)
    }

    fn new(path: PathBuf, factory: Option<BackendFactory>, options: Options) -> Result<RedbFile, Fault> {
        let (handle, open_file) = (RwLock::new(Handle::Closed), Arc::default());
        let mut file = RedbFile { path, factory, options, handle, open_file };
        let database = file.database()?;
        *file.handle.write() = Handle::Open(database);
        if file.factory.is_none() {
            file.open_file = OpenFile::register(&file.path);
        }
        Ok(file)
    }

    /// Returns a guard that marks the file as abandoned when it is dropped.
    pub(crate) fn owner(&self) -> Owner {
        Owner(Arc::clone(&self.open_file))
    }

    /// Path for messages.
    pub(crate) fn label(&self) -> String {
        self.path.display().to_string()
    }

    /// Runs `job` on the database. A panic inside becomes a [`Fault::Corrupt`].
    pub(crate) fn with<T>(&self, job: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        match &*self.handle.read() {
            // This handle is open, so the closed one is an earlier handle that the job still reads from.
            Handle::Open(database) => match no_panic(|| job(database)) {
                Err(Fault::Closed) => Err(Fault::Replaced),
                done => done,
            },
            Handle::Broken(fault) => {
                Err(Fault::Io { detail: format!("broken by an earlier error: {fault}"), full: false })
            }
            Handle::Closed => Err(Fault::Closed),
        }
    }

    /// Drops the handle after `fault`. Calls fail until [`RedbFile::reopen`].
    pub(crate) fn set_broken(&self, fault: &Fault) {
        let mut handle = self.handle.write();
        if let Handle::Open(_) = &*handle {
            drop_handle(std::mem::replace(&mut *handle, Handle::Broken(fault.clone())));
        }
    }

    /// Fault that broke the handle, if any.
    pub(crate) fn broken(&self) -> Option<Fault> {
        match &*self.handle.read() {
            Handle::Broken(fault) => Some(fault.clone()),
            Handle::Open(_) | Handle::Closed => None,
        }
    }

    /// Replaces the handle with a new one.
    pub(crate) fn reopen(&self) -> Result<(), Fault> {
        let mut handle = self.handle.write();
        if let Handle::Closed = &*handle {
            return Err(Fault::Closed);
        }
        let pending = Handle::Broken(Fault::Io { detail: "being reopened".into(), full: false });
        drop_handle(std::mem::replace(&mut *handle, pending));
        match self.database() {
            Ok(database) => {
                *handle = Handle::Open(database);
                Ok(())
            }
            Err(fault) => {
                *handle = Handle::Broken(fault.clone());
                Err(fault)
            }
        }
    }

    /// Closes the file permanently.
    pub(crate) fn close(&self) {
        let handle = std::mem::replace(&mut *self.handle.write(), Handle::Closed);
        if let Handle::Open(database) = handle
            && let Err(fault) = no_panic(|| Ok(database.close()?))
        {
            tracing::warn!(
                path = %self.path.display(), error = %fault,
                "the file was not closed cleanly: the next start recovers it"
            );
        }
        self.open_file.closed.store(true, Ordering::Release);
    }

    fn database(&self) -> Result<Database, Fault> {
        let Some(factory) = &self.factory else { return self.open_path() };
        let database = self.options.database(BoxedBackend(factory()?))?;
        self.options.prepare(&database)?;
        Ok(database)
    }

    fn open_path(&self) -> Result<Database, Fault> {
        if !self.path.try_exists()? {
            self.options.create(&self.path)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        let opened = file.metadata()?;
        if opened.len() == 0 {
            return Err(Fault::Corrupt("it is empty".into()));
        }
        let database = self.options.database(redb::backends::FileBackend::new(file)?)?;
        // The previous holder of the lock may have replaced the file with a copy.
        if !copy::is_at(&opened, &self.path)? {
            return Err(Fault::Locked);
        }
        self.options.prepare(&database)?;
        Ok(copy::without_erased(database, &self.path, self.options))
    }
}

impl fmt::Debug for RedbFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A file that this process has open. Tasks of a closed Lens may keep it open for a while, until they have stored their state.
#[derive(Debug, Default)]
struct OpenFile {
    path: PathBuf,
    /// True once the owner has been dropped.
    abandoned: AtomicBool,
    closed: AtomicBool,
}

static OPEN_FILES: Mutex<Vec<Weak<OpenFile>>> = Mutex::new(Vec::new());

impl OpenFile {
    fn register(path: &Path) -> Arc<OpenFile> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let open_file = Arc::new(OpenFile { path, ..OpenFile::default() });
        let mut open_files = OPEN_FILES.lock();
        open_files.retain(|open| open.strong_count() > 0);
        open_files.push(Arc::downgrade(&open_file));
        open_file
    }
}

/// Owner's guard of an open file. After it is dropped, only background tasks use the file.
#[derive(Debug)]
pub(crate) struct Owner(Arc<OpenFile>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Release);
    }
}

/// Returns true if the file at `path` is open in this process only for the tasks of a dropped owner.
pub(crate) fn is_abandoned(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    OPEN_FILES
        .lock()
        .iter()
        .filter_map(Weak::upgrade)
        .any(|file| file.path == path && file.abandoned.load(Ordering::Acquire) && !file.closed.load(Ordering::Acquire))
}

/// Poll interval while waiting for a file to be closed.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Waits at most `patience` until abandoned files are closed. Blocks the thread, so the tasks must run on other threads.
pub(crate) fn block_until_closed(paths: &[&Path], patience: Duration) {
    let began = Instant::now();
    while paths.iter().any(|path| is_abandoned(path)) && began.elapsed() < patience {
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Async version of [`block_until_closed`].
pub(crate) async fn wait_until_closed(paths: &[&Path], patience: Duration) {
    let began = Instant::now();
    while paths.iter().any(|path| is_abandoned(path)) && began.elapsed() < patience {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

impl Options {
    fn database(self, backend: impl StorageBackend) -> Result<Database, Fault> {
        no_panic(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(self.cache_size).set_check_integrity_on_open(self.check_integrity);
            Ok(builder.create_with_backend(backend)?)
        })
    }

    /// Creates the file under a temporary name and renames it, so that a crash never leaves half a file at `path`.
    fn create(self, path: &Path) -> Result<(), Fault> {
        let draft = with_suffix(path, ".new");
        let database = match self.draft(&draft) {
            Err(Fault::Corrupt(_)) => {
                std::fs::remove_file(&draft)?;
                self.draft(&draft)?
            }
            drafted => drafted?,
        };
        no_panic(|| Ok(database.close()?))?;
        match std::fs::rename(&draft, path) {
            // Another process created the same file first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        sync_folder(path)
    }

    fn draft(self, draft: &Path) -> Result<Database, Fault> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let database = self.database(redb::backends::FileBackend::new(options.open(draft)?)?)?;
        self.prepare(&database)?;
        Ok(database)
    }

    /// Writes the format into a database that is new or has an older format, and checks it in any other. Code that raises the
    /// format must still read the older ones.
    fn prepare(self, database: &Database) -> Result<(), Fault> {
        let found = no_panic(|| self.found_format(database))?;
        match found {
            Some(format) if format > self.format => Err(Fault::Newer { found: format }),
            Some(format) if format == self.format => Ok(()),
            Some(_) | None => no_panic(|| {
                let mut transaction = database.begin_write()?;
                transaction.set_two_phase_commit(true);
                transaction.set_quick_repair(true);
                transaction.open_table(self.meta)?.insert("format", self.format.to_le_bytes().as_slice())?;
                Ok(transaction.commit()?)
            }),
        }
    }

    fn found_format(self, database: &Database) -> Result<Option<u32>, Fault> {
        let transaction = database.begin_read()?;
        let tables: Vec<_> = transaction.list_tables()?.collect();
        if tables.is_empty() {
            return Ok(None);
        }
        if !tables.iter().any(|table| table.name() == self.meta.name()) {
            return Err(Fault::Corrupt("it is a redb file of another program".into()));
        }
        let stored = transaction.open_table(self.meta)?.get("format")?;
        let format = stored.and_then(|bytes| bytes.value().try_into().ok()).map(u32::from_le_bytes);
        format.map(Some).ok_or_else(|| Fault::Corrupt("it has no valid format number".into()))
    }
}

/// Runs `job` and turns a panic, which is redb's reaction to damaged bytes, into a [`Fault::Corrupt`].
pub(crate) fn no_panic<T>(job: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Fault::Corrupt(text.unwrap_or_else(|| "redb panicked".into())))
    })
}

/// Runs `job` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    #[expect(clippy::disallowed_methods, reason = "redb blocks; this is where both files are used")]
    let done = tokio::task::spawn_blocking(|| no_panic(job)).await;
    done.unwrap_or_else(|_| Err(Fault::Closed))
}

fn drop_handle(handle: Handle) {
    // Dropping a database with a damaged file may panic like any other use of it.
    let _ = no_panic(|| {
        drop(handle);
        Ok(())
    });
}

/// Appends `suffix` to the file name of the path.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Syncs the folder of `path`, which makes a new or changed file name durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Fault> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// Adapter that implements `StorageBackend` for a boxed backend.
#[derive(Debug)]
struct BoxedBackend(Box<dyn StorageBackend>);

impl StorageBackend for BoxedBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
