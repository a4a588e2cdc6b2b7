//! Database files as they stand at their paths: connections follow when another file is put in the place of the one they opened.
//!
//! SQLite finds the `-wal` and `-shm` files of a database by its path. A connection to a file that was replaced would go on in a
//! file that nobody sees, and its log would be taken for the log of the new file. So every use compares device and inode first;
//! when they differ, the log is written back into the former file and emptied, all connections of the process to it are closed,
//! and only then is the new file opened. That is why all sources on one path share a [`Database`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rusqlite::Connection;

use crate::file::regular::{Identity, check_regular};
use diorama_core::vista::{Error, Result};

/// How long another program may keep the log of a file that was replaced from being emptied.
const LOG_TIMEOUT: Duration = Duration::from_millis(500);

/// All databases that are in use.
static DATABASES: Mutex<BTreeMap<PathBuf, Weak<Database>>> = Mutex::new(BTreeMap::new());

/// A database file by its path.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    state: RwLock<State>,
    members: Mutex<Vec<Weak<Connections>>>,
}

#[derive(Debug)]
struct State {
    /// The file that connections are open to; `None` while there is none at the path.
    file: Option<Identity>,
    /// The log of a former file that could not be emptied: SQLite would apply it to the file that is there now.
    stale_log: Option<Identity>,
}

/// The connections of one source. They are opened when they are needed.
#[derive(Debug, Default)]
pub(super) struct Connections {
    pub(super) reader: Mutex<Option<Connection>>,
    pub(super) writer: Mutex<Option<Connection>>,
    /// Whether the file was replaced since its rows were last listed.
    pub(super) replaced: AtomicBool,
}

/// The right to use connections: the file does not change hands meanwhile.
pub(super) struct ConnectionLease<'a> {
    database: &'a Database,
    state: RwLockReadGuard<'a, State>,
}

impl ConnectionLease<'_> {
    /// Fails if the file has been replaced or removed since: what was written may be in a file that nobody sees.
    ///
    /// # Errors
    /// [`Error::Source`], which passes when the write is made again.
    pub(super) fn check(&self) -> Result<()> {
        match identify(&self.database.path)? {
            now if Some(now) == self.state.file => Ok(()),
            _ => Err(Error::transient(format!("{} was replaced meanwhile", self.database.path.display()))),
        }
    }

    /// A connection that `open` makes, to the file of this use and no other.
    ///
    /// # Errors
    /// What `open` says; [`Error::Source`] while the log of a former file lies beside the database.
    pub(super) fn connect<T>(&self, open: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.check()?;
        let log = log_of(&self.database.path);
        if self.state.stale_log.is_some() && unapplied(&log) == self.state.stale_log {
            let (path, log) = (self.database.path.display(), log.display());
            return Err(Error::transient(format!(
                "{path} was replaced, and {log} is the log of the former file, which SQLite would apply to it: \
                 remove {log} while no program has {path} open"
            )));
        }
        let opened = open(&self.database.path)?;
        self.check()?;
        Ok(opened)
    }
}

impl Database {
    /// The database at `path`, shared by all who use it.
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

    /// Has the connections be closed with all others when the file is replaced. The caller holds a [`ConnectionLease`].
    pub(super) fn join(&self, connections: &Arc<Connections>) {
        let mut members = self.members.lock();
        members.retain(|member| member.strong_count() > 0);
        members.push(Arc::downgrade(connections));
    }

    /// Holds on to the file that is at the path now.
    ///
    /// # Errors
    /// [`Error::Source`] while there is none, or no regular file.
    pub(super) fn hold(&self) -> Result<ConnectionLease<'_>> {
        let state = self.state.read();
        if identify(&self.path).ok() == state.file && state.file.is_some() {
            return Ok(ConnectionLease { database: self, state });
        }
        drop(state);
        let mut state = self.state.write();
        let now = identify(&self.path);
        if now.as_ref().ok() != state.file.as_ref() {
            self.leave(&mut state);
            state.file = now.as_ref().ok().copied();
        }
        now?;
        Ok(ConnectionLease { database: self, state: RwLockWriteGuard::downgrade(state) })
    }

    /// Closes every connection to the former file.
    fn leave(&self, state: &mut State) {
        let members: Vec<Arc<Connections>> = self.members.lock().iter().filter_map(Weak::upgrade).collect();
        let mut open: Vec<Connection> = Vec::new();
        for member in &members {
            member.replaced.store(true, Ordering::Release);
            open.extend(member.writer.lock().take());
            // Behind those that can write.
            open.extend(member.reader.lock().take());
        }
        if open.is_empty() {
            return;
        }
        tracing::warn!(path = %self.path.display(), "the database file was replaced or removed: it is opened anew");
        let logs: Vec<Log> = open.iter().map(|connection| self.empty_log(connection)).collect();
        let emptied = logs.contains(&Log::Emptied) || logs.iter().all(|log| *log == Log::Absent);
        state.stale_log = if emptied { None } else { unapplied(&log_of(&self.path)) };
    }

    /// Writes the log back into the file that `connection` is open to, wherever that is now, and empties it.
    fn empty_log(&self, connection: &Connection) -> Log {
        let emptying = connection.busy_timeout(LOG_TIMEOUT).and_then(|()| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok((row.get(0)?, row.get(1)?)))
        });
        match emptying {
            // A connection that has not read since the mode was changed knows of no log.
            Ok((0_i64, -1_i64)) => Log::Absent,
            Ok((0, _)) => Log::Emptied,
            Ok(_) => Log::InUse,
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "one connection cannot empty the log");
                Log::InUse
            }
        }
    }
}

/// What became of the write-ahead log of a database, as one connection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    /// There is none.
    Absent,
    /// Everything in it is in the database file now.
    Emptied,
    /// Another program reads from it.
    InUse,
}

/// Which file is at `path`.
fn identify(path: &Path) -> Result<Identity> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::transient(format!("there is no file {}", path.display())),
        _ => Error::transient(format!("cannot open {}: {error}", path.display())),
    })?;
    check_regular(path, &metadata)?;
    Ok(Identity::of(&metadata))
}

/// The log of the database at `path`. SQLite follows links first.
fn log_of(path: &Path) -> PathBuf {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut log = path.into_os_string();
    log.push("-wal");
    log.into()
}

/// A log that has something in it.
fn unapplied(log: &Path) -> Option<Identity> {
    std::fs::metadata(log).ok().filter(|metadata| metadata.len() > 0).map(|metadata| Identity::of(&metadata))
}
