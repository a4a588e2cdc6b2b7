//! Database files by path: connections are reopened when the file at the path is replaced.
//!
//! SQLite finds the `-wal` and `-shm` files of a database by its path. A connection to a replaced file would write to a file that
//! is no longer visible, and its log would be taken for the log of the new file. Therefore every use compares device and inode
//! first. If they differ, the log is written back into the former file and emptied, all connections of the process to it are
//! closed, and then the new file is opened. For this reason all sources on one path share a [`Database`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rusqlite::Connection;

use crate::file::identity::Identity;
use crate::file::regular::check_regular;
use diorama_core::vista::{Error, Result};

/// Maximum wait for another program that keeps the log of a replaced file from being emptied.
const LOG_TIMEOUT: Duration = Duration::from_millis(500);

/// All databases in use.
static DATABASES: Mutex<BTreeMap<PathBuf, Weak<Database>>> = Mutex::new(BTreeMap::new());

/// A database file by its path.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    state: RwLock<State>,
    members: Mutex<Vec<Weak<Connections>>>,
}

/// Identities of the files at the path of a database.
#[derive(Debug)]
struct State {
    /// Identity of the file that connections are open to; `None` while there is no file at the path.
    file: Option<Identity>,
    /// Log of a former file that could not be emptied. SQLite would apply it to the new file.
    stale_log: Option<Identity>,
}

/// Connections of one source, opened on demand.
#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) reader: Mutex<Option<Connection>>,
    pub(super) writer: Mutex<Option<Connection>>,
    /// True if the file was replaced since its rows were last listed.
    pub(super) replaced: AtomicBool,
}

/// Lease on the connections of a database. The connections are not switched to another file while it exists.
pub(super) struct ConnectionLease<'a> {
    database: &'a Database,
    state: RwLockReadGuard<'a, State>,
}

impl ConnectionLease<'_> {
    /// Fails if the file was replaced or removed since the lease was taken, because the writes may be in a file that is no longer
    /// visible.
    ///
    /// # Errors
    /// A transient [`Error::Source`]: the write can be retried.
    pub(super) fn check(&self) -> Result<()> {
        match identify(&self.database.path)? {
            now if Some(now) == self.state.file => Ok(()),
            _ => Err(Error::transient(format!("{} was replaced during the operation", self.database.path.display()))),
        }
    }

    /// Returns a connection made by `open`, to the file of this lease and no other.
    ///
    /// # Errors
    /// Errors of `open`; [`Error::Source`] while the log of a former file is next to the database.
    pub(super) fn connect<T>(&self, open: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.check()?;
        let log = log_path(&self.database.path);
        if self.state.stale_log.is_some() && unapplied(&log) == self.state.stale_log {
            let (path, log) = (self.database.path.display(), log.display());
            return Err(Error::transient(format!(
                "{path} was replaced, and {log} is the log of the former file, which SQLite would apply to the new one: \
                 remove {log} while no program has {path} open"
            )));
        }
        let opened = open(&self.database.path)?;
        self.check()?;
        Ok(opened)
    }
}

impl Database {
    /// Returns the database at `path`, shared by all its users.
    pub(super) fn at(path: &Path) -> Result<Arc<Database>> {
        let key = std::path::absolute(path)?;
        let file = identify(path)?;
        let mut databases = DATABASES.lock();
        databases.retain(|_, database| database.strong_count() > 0);
        if let Some(database) = databases.get(&key).and_then(Weak::upgrade) {
            return Ok(database);
        }
        let state = RwLock::new(State { file: Some(file), stale_log: None });
        let database = Arc::new(Database { path: path.to_path_buf(), state, members: Mutex::default() });
        databases.insert(key, Arc::downgrade(&database));
        Ok(database)
    }

    /// Registers connections to be closed when the file is replaced. The caller holds a [`ConnectionLease`].
    pub(super) fn join(&self, connections: &Arc<Connections>) {
        let mut members = self.members.lock();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(connections));
    }

    /// Takes a lease on the file that is at the path now.
    ///
    /// # Errors
    /// [`Error::Source`] while there is no regular file at the path.
    pub(super) fn hold(&self) -> Result<ConnectionLease<'_>> {
        let state = self.state.read();
        if identify(&self.path).ok() == state.file && state.file.is_some() {
            return Ok(ConnectionLease { database: self, state });
        }
        drop(state);
        let mut state = self.state.write();
        let now = identify(&self.path);
        if now.as_ref().ok() != state.file.as_ref() {
            self.close_former(&mut state);
            state.file = now.as_ref().ok().copied();
        }
        now?;
        Ok(ConnectionLease { database: self, state: RwLockWriteGuard::downgrade(state) })
    }

    /// Closes every connection to the former file.
    fn close_former(&self, state: &mut State) {
        let members: Vec<Arc<Connections>> = self.members.lock().iter().filter_map(Weak::upgrade).collect();
        let mut open: Vec<Connection> = Vec::new();
        for member in &members {
            member.replaced.store(true, Ordering::Release);
            open.extend(member.writer.lock().take());
            // Readers close after writers.
            open.extend(member.reader.lock().take());
        }
        if open.is_empty() {
            return;
        }
        tracing::warn!(path = %self.path.display(), "the database file was replaced or removed and will be reopened");
        let logs: Vec<Log> = open.iter().map(|connection| self.empty_log(connection)).collect();
        let emptied = logs.contains(&Log::Emptied) || logs.iter().all(|log| *log == Log::Absent);
        state.stale_log = if emptied { None } else { unapplied(&log_path(&self.path)) };
    }

    /// Checkpoints the log into the file that `connection` has open, wherever that file is now, and empties the log.
    fn empty_log(&self, connection: &Connection) -> Log {
        let emptying = connection.busy_timeout(LOG_TIMEOUT).and_then(|()| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?)))
        });
        match emptying {
            // A connection that has not read since the journal mode changed reports no log.
            Ok((0_i64, -1_i64)) => Log::Absent,
            Ok((0, _)) => Log::Emptied,
            Ok(_) => Log::InUse,
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "a connection cannot empty the log");
                Log::InUse
            }
        }
    }
}

/// State of a database's write-ahead log after a checkpoint, as reported by one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    /// There is no log.
    Absent,
    /// The database file contains everything from the log.
    Emptied,
    /// Another program reads from the log.
    InUse,
}

/// Returns the identity of the file at `path`.
fn identify(path: &Path) -> Result<Identity> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::transient(format!("there is no file {}", path.display())),
        _ => Error::transient(format!("cannot open {}: {error}", path.display())),
    })?;
    check_regular(path, &metadata)?;
    Ok(Identity::of(&metadata))
}

/// Returns the path of the database's log. SQLite resolves symbolic links first.
fn log_path(path: &Path) -> PathBuf {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut log = path.into_os_string();
    log.push("-wal");
    log.into()
}

/// Returns the identity of a log that is not empty.
fn unapplied(log: &Path) -> Option<Identity> {
    std::fs::metadata(log).ok().filter(|metadata| metadata.len() > 0).map(|metadata| Identity::of(&metadata))
}
