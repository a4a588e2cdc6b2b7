//! Files as sources: opened without waiting, read whole, and believed once nobody writes to them any more.
//!
//! A reading is doubtful if the file was changed meanwhile, if it lacks rows or a last line end that the version before had, or if
//! it was written just now and looks cut off. A doubtful file is read again after a rest (`settle`); it is believed once two
//! readings that far apart are the same, byte for byte. Until then the caller waits, and what was known before stays in force.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::regular::{Identity, check_regular};
use crate::blocking::blocking;
use diorama_core::record::Rows;
use diorama_core::vista::{Error, Result};

/// Bytes of one row, at most.
pub(crate) const MAX_ROW: usize = 4 << 20;

/// Time that a doubtful file has to stay the same, where the options do not say.
const SETTLE: Duration = Duration::from_secs(5);

/// Readings of a file that never stays the same, before the caller is told to come again.
const READINGS: usize = 12;

/// Rows of a list that may vanish without anybody taking it for a mistake.
const SHRINK_FLOOR: usize = 100;

/// Opens a regular file for reading. Anything else is refused at once: a FIFO without a writer would never be opened.
///
/// # Errors
/// Why it cannot be read; it may come back or become readable.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Of no effect on regular files.
        options.custom_flags(libc::O_NONBLOCK);
    }
    // What cannot be opened at all may still be told by its type, as a socket is.
    let file = options.open(path).map_err(|error| match std::fs::metadata(path) {
        Ok(metadata) => check_regular(path, &metadata).err().unwrap_or_else(|| io_error(path, &error)),
        Err(_) => io_error(path, &error),
    })?;
    check_regular(path, &file.metadata().map_err(|error| io_error(path, &error))?)?;
    Ok(file)
}

/// The bytes of a file as they are read, with their hash.
pub(crate) struct Content {
    file: File,
    hash: Box<Xxh3>,
    read: u64,
    last: Option<u8>,
    framed: bool,
}

impl Content {
    pub(crate) fn new(file: File) -> Content {
        Content { file, hash: Box::default(), read: 0, last: None, framed: false }
    }

    /// Goes back to the beginning.
    pub(crate) fn rewind(&mut self) -> std::io::Result<()> {
        self.hash.reset();
        (self.read, self.last) = (0, None);
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }

    /// Notes the last byte of the text that was read, where it is not the file's own.
    pub(crate) fn set_last(&mut self, last: Option<u8>) {
        self.last = last;
    }

    /// Notes that the format itself says where the file ends, whether with a line end or not.
    pub(crate) fn set_framed(&mut self) {
        self.framed = true;
    }

    /// Whether the file ends where a writer would end it.
    pub(crate) fn is_closed(&self) -> bool {
        self.framed || self.last.is_none_or(|last| matches!(last, b'\n' | b'\r'))
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint { hash: self.hash.digest128(), bytes: self.read }
    }
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(into)?;
        self.hash.update(&into[..read]);
        self.read += read as u64;
        self.last = into[..read].last().copied().or(self.last);
        Ok(read)
    }
}

/// What was read, so that two readings can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    hash: u128,
    bytes: u64,
}

/// A version of a file, as far as its metadata tell.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    identity: Identity,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Version {
    fn of(metadata: &Metadata) -> Version {
        Version { identity: Identity::of(metadata), bytes: metadata.len(), modified: metadata.modified().ok() }
    }

    /// Whether the file was written to within the last `settle`. A time in the future counts as now.
    fn is_young(&self, settle: Duration) -> bool {
        let age = self.modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        !settle.is_zero() && age.is_none_or(|age| age < settle)
    }
}

/// The version of a file that was believed last.
#[derive(Debug)]
struct AcceptedVersion {
    fingerprint: Fingerprint,
    closed: bool,
    /// Hashes of the rows' ids, sorted.
    ids: Vec<u64>,
}

/// A reading that is not believed yet.
#[derive(Debug)]
struct UnconfirmedReading {
    why: String,
    fingerprint: Fingerprint,
    since: Instant,
    /// Whether somebody was seen writing.
    written: bool,
}

#[derive(Debug, Default)]
struct SourceVersions {
    accepted: Option<AcceptedVersion>,
    doubt: Option<UnconfirmedReading>,
}

/// A file that is read again and again.
#[derive(Debug)]
pub(crate) struct SourceFile {
    path: PathBuf,
    settle: Duration,
    known: Mutex<SourceVersions>,
}

/// What came of one reading.
enum ReadOutcome<T> {
    Done(Result<T>),
    /// To be read again after a rest.
    Doubtful(Duration),
}

impl SourceFile {
    /// The file at `path`; it is opened when it is read.
    pub(crate) fn new(path: PathBuf, settle: Option<Duration>) -> SourceFile {
        SourceFile { path, settle: settle.unwrap_or(SETTLE), known: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Why the file is not believed at present.
    pub(crate) fn doubt(&self) -> Option<String> {
        let known = self.known.lock();
        let doubt = known.doubt.as_ref()?;
        let (path, settle) = (self.path.display(), self.settle.as_secs_f32());
        Some(format!("{path} {}: it is believed once it has stayed the same for {settle} s", doubt.why))
    }

    /// Has `read` read the file for something that is no list.
    ///
    /// # Errors
    /// What `read` says, or why the file cannot be read.
    pub(crate) async fn study<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl Fn(&mut Content) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        self.settled(read, |_| None).await
    }

    /// Has `read` list the file's rows. Rows that the version before had, and that this one lacks, are a doubt.
    ///
    /// # Errors
    /// What `read` says, or why the file cannot be read.
    pub(crate) async fn list(
        self: &Arc<Self>,
        read: impl Fn(&mut Content) -> Result<Rows> + Send + Sync + 'static,
    ) -> Result<Rows> {
        self.settled(read, |rows| Some(ids(rows))).await
    }

    /// Reads until a reading is believed. Dropping the future loses no doubt: a later call goes on with it.
    async fn settled<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl Fn(&mut Content) -> Result<T> + Send + Sync + 'static,
        ids: fn(&T) -> Option<Vec<u64>>,
    ) -> Result<T> {
        let read = Arc::new(read);
        for _ in 0..READINGS {
            let (file, read) = (Arc::clone(self), Arc::clone(&read));
            match blocking(move || file.read_once(&*read, ids)).await? {
                ReadOutcome::Done(result) => return result,
                ReadOutcome::Doubtful(rest) => tokio::time::sleep(rest).await,
            }
        }
        let why = self.doubt().unwrap_or_else(|| format!("{} is being written", self.path.display()));
        Err(Error::transient(format!("{why}; it has changed in each of {READINGS} readings")))
    }

    fn read_once<T>(
        &self,
        read: &impl Fn(&mut Content) -> Result<T>,
        ids: fn(&T) -> Option<Vec<u64>>,
    ) -> Result<ReadOutcome<T>> {
        let io = |error| io_error(&self.path, &error);
        let file = open_regular(&self.path)?;
        let before = Version::of(&file.metadata().map_err(io)?);
        let mut content = Content::new(file);
        let result = read(&mut content);
        let after = Version::of(&std::fs::metadata(&self.path).map_err(io)?);
        let ids = result.as_ref().ok().and_then(ids);
        let mut known = self.known.lock();
        let doubted = known.doubt.is_some();
        let reading = known.judge(&content, result, ids, self.settle, (&before, &after));
        let (path, why) = (self.path.display(), known.doubt.as_ref().map(|doubt| &doubt.why));
        match why {
            Some(why) if !doubted => {
                tracing::warn!(%path, why, settle = ?self.settle, "the file is not believed yet and will be read again");
            }
            None if doubted => tracing::info!(%path, "the file has settled"),
            _ => {}
        }
        Ok(reading)
    }
}

impl SourceVersions {
    /// Believes a reading, or notes why not.
    fn judge<T>(
        &mut self,
        content: &Content,
        result: Result<T>,
        ids: Option<Vec<u64>>,
        settle: Duration,
        (before, after): (&Version, &Version),
    ) -> ReadOutcome<T> {
        let written = before != after;
        let fingerprint = content.fingerprint();
        let same = self.doubt.as_ref().filter(|doubt| doubt.fingerprint == fingerprint);
        let why = match &result {
            _ if written => Some("was changed while it was being read".to_string()),
            Err(error) => after.is_young(settle).then(|| format!("was written just now and cannot be read ({error})")),
            Ok(_) if self.accepted.as_ref().is_some_and(|accepted| accepted.fingerprint == fingerprint) => None,
            Ok(_) => self.doubts(content.is_closed(), ids.as_deref(), after.is_young(settle)),
        };
        // Somebody was seen writing, and has written more since.
        let went_on = self.doubt.as_ref().is_some_and(|doubt| doubt.written && doubt.fingerprint != fingerprint);
        let why = why.or_else(|| went_on.then(|| "has been written to since it was read".to_string()));
        let rested = same.is_some_and(|doubt| doubt.since.elapsed() >= settle);
        let Some(why) = why.filter(|_| written || !rested) else {
            self.doubt = None;
            if let (Ok(_), Some(ids)) = (&result, ids) {
                self.accept(fingerprint, content.is_closed(), ids);
            }
            return ReadOutcome::Done(result);
        };
        let since = same.filter(|_| !written).map_or_else(Instant::now, |doubt| doubt.since);
        let doubt = UnconfirmedReading { why, fingerprint, since, written: written || went_on };
        let rest = settle.saturating_sub(since.elapsed());
        self.doubt = Some(doubt);
        ReadOutcome::Doubtful(rest)
    }

    /// Notes a list that was believed. One that lost most of its rows may yet be refused by the caller's shrink guard: the rows
    /// before it remain the measure.
    fn accept(&mut self, fingerprint: Fingerprint, closed: bool, ids: Vec<u64>) {
        let before = self.accepted.take().map(|accepted| accepted.ids).unwrap_or_default();
        let collapsed = before.len() > SHRINK_FLOOR && ids.len() < before.len() / 2;
        self.accepted = Some(AcceptedVersion { fingerprint, closed, ids: if collapsed { before } else { ids } });
    }

    /// Why a reading that nobody disturbed may be a part of the file.
    fn doubts(&self, closed: bool, ids: Option<&[u64]>, young: bool) -> Option<String> {
        if !closed && self.accepted.as_ref().is_some_and(|accepted| accepted.closed) {
            return Some("no longer ends with a line end".to_string());
        }
        if !closed && young {
            return Some("was written just now and does not end with a line end".to_string());
        }
        let accepted = self.accepted.as_ref()?;
        let lost = accepted.ids.iter().filter(|id| ids.is_some_and(|ids| ids.binary_search(id).is_err())).count();
        (lost > 0).then(|| format!("lacks {lost} of the {} rows that it had", accepted.ids.len()))
    }
}

/// Hashes of the rows' ids, sorted.
fn ids(rows: &Rows) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.ids().map(|id| xxh3_64(id.as_bytes())).collect();
    ids.sort_unstable();
    ids
}

/// Rows of a file that cannot be decoded, beside those that can. A few are left out and counted; where there are as many of them
/// as of others, the file is not what it is taken for.
#[derive(Debug, Default)]
pub(crate) struct DecodedRows {
    good: u64,
    bad: u64,
    first: Option<Error>,
}

impl DecodedRows {
    pub(crate) fn good(&mut self) {
        self.good += 1;
    }

    pub(crate) fn bad(&mut self, error: Error) {
        self.bad += 1;
        self.first.get_or_insert(error);
    }

    /// # Errors
    /// What is wrong with the first bad row, if there are as many as good ones.
    pub(crate) fn check(self) -> Result<()> {
        match self.first {
            Some(error) if self.bad >= self.good => Err(error),
            _ => Ok(()),
        }
    }
}

/// The file may come back or become readable: trying again can help.
pub(crate) fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::transient(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
