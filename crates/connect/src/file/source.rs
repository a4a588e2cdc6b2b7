//! Files as sources: opened without blocking, read whole, and used once no other program is writing to them.
//!
//! A reading is doubtful if the file changed during it, if it lacks rows or a final line end that the previous version had, or if
//! the file was written recently and looks truncated. A doubtful file is read again after a pause (`settle`). It is accepted once
//! two readings that far apart are identical. Until then the caller waits and the previous rows remain in use.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::Instant;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::identity::Identity;
use super::place::{LocalFile, SourcePlace};
use super::regular::check_regular;
use crate::blocking::blocking;
use diorama_core::record::Rows;
use diorama_core::vista::{Error, Result};

/// Maximum size of one row in bytes.
pub(crate) const MAX_ROW: usize = 4 << 20;

/// Default time for which a doubtful file must stay unchanged.
const SETTLE: Duration = Duration::from_secs(5);

/// Age of a file from which its times identify its content. Some file systems keep times to two seconds only.
const LEAST_AGE: Duration = Duration::from_secs(2);

/// Maximum number of readings of a file that keeps changing before the caller gets an error.
const READINGS: usize = 12;

/// List size up to which losing more than half of the rows does not count as a collapse.
const SHRINK_FLOOR: usize = 100;

/// Opens a regular file for reading. Other types are rejected at once, because opening a FIFO without a writer would block.
///
/// # Errors
/// A transient error, because the file may reappear or become readable.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Has no effect on regular files.
        options.custom_flags(libc::O_NONBLOCK);
    }
    // A file that cannot be opened, like a socket, is still reported by its type.
    let file = options.open(path).map_err(|error| match std::fs::metadata(path) {
        Ok(metadata) => check_regular(path, &metadata).err().unwrap_or_else(|| io_error(path, &error)),
        Err(_) => io_error(path, &error),
    })?;
    check_regular(path, &file.metadata().map_err(|error| io_error(path, &error))?)?;
    Ok(file)
}

/// Reader of a file that hashes the bytes read.
pub(crate) struct Content {
    file: File,
    hash: Box<Xxh3>,
    /// Number of bytes read.
    read: u64,
    /// Last byte of the text read so far.
    last: Option<u8>,
    /// True if the format itself marks the end of the file.
    framed: bool,
}

impl Content {
    pub(crate) fn new(file: File) -> Content {
        Content { file, hash: Box::default(), read: 0, last: None, framed: false }
    }

    /// Seeks to the beginning and resets the hash.
    pub(crate) fn rewind(&mut self) -> std::io::Result<()> {
        self.hash.reset();
        (self.read, self.last) = (0, None);
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }

    /// Sets the last byte of the decoded text if it differs from the file's last byte.
    pub(crate) fn set_last(&mut self, last: Option<u8>) {
        self.last = last;
    }

    /// Notes that the format itself marks the end of the file, so that no final line end is needed.
    pub(crate) fn set_framed(&mut self) {
        self.framed = true;
    }

    /// Returns true if the file ends with a line end, or its format marks the end.
    pub(crate) fn is_closed(&self) -> bool {
        self.framed || self.last.is_none_or(|last| matches!(last, b'\n' | b'\r'))
    }

    /// Hashes the whole file and returns it for reading at any place, for a format that marks its own end.
    pub(crate) fn whole(&mut self) -> std::io::Result<File> {
        self.rewind()?;
        std::io::copy(self, &mut std::io::sink())?;
        self.set_framed();
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
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

/// Fingerprint of the bytes read, for comparing two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    hash: u128,
    bytes: u64,
}

/// Version of a file according to its metadata.
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

    /// Returns a text by which the file is recognized as unchanged, from its metadata alone. `None` if it was written so recently that
    /// another write could leave the same times.
    fn fingerprint(metadata: &Metadata) -> Option<String> {
        let Version { identity, bytes, modified } = Version::of(metadata);
        let modified = modified?;
        if SystemTime::now().duration_since(modified).ok()? < LEAST_AGE {
            return None;
        }
        let modified = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos();
        Some(format!("{identity} {bytes} {modified} {}", status_changed(metadata)))
    }

    /// Returns true if the file was written within the last `settle`. A time in the future counts as now.
    fn is_young(&self, settle: Duration) -> bool {
        let age = self.modified.and_then(|modified| SystemTime::now().duration_since(modified).ok());
        !settle.is_zero() && age.is_none_or(|age| age < settle)
    }
}

/// Time of the last change of the file or its metadata, which programs cannot set; constant on systems without it.
fn status_changed(metadata: &Metadata) -> i128 {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec())
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        0
    }
}

/// Last accepted version of a file.
#[derive(Debug)]
struct AcceptedVersion {
    fingerprint: Fingerprint,
    closed: bool,
    /// Hashes of the rows' ids, sorted.
    ids: Vec<u64>,
}

/// A reading that is not accepted yet.
#[derive(Debug)]
struct UnconfirmedReading {
    why: String,
    fingerprint: Fingerprint,
    since: Instant,
    /// True if the file changed during a reading.
    written: bool,
}

/// Last accepted version of a file, and the reading in doubt since, if there is one.
#[derive(Debug, Default)]
struct SourceVersions {
    accepted: Option<AcceptedVersion>,
    doubt: Option<UnconfirmedReading>,
}

/// A source file with what is known from earlier readings.
#[derive(Debug)]
pub(crate) struct SourceFile {
    place: SourcePlace,
    settle: Duration,
    known: Mutex<SourceVersions>,
}

/// Outcome of one reading.
enum ReadOutcome<T> {
    /// With a text by which the file is recognized as unchanged.
    Done(Result<(T, Option<String>)>),
    /// Must be read again after this pause.
    Doubtful(Duration),
}

impl SourceFile {
    /// Returns the source for the file at `place`, which is opened on each reading.
    pub(crate) fn new(place: SourcePlace, settle: Option<Duration>) -> SourceFile {
        SourceFile { place, settle: settle.unwrap_or(SETTLE), known: Mutex::default() }
    }

    /// Returns the path for messages.
    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    /// Reason why the file is not accepted at present; `None` if it is.
    pub(crate) fn doubt(&self) -> Option<String> {
        let known = self.known.lock();
        let doubt = known.doubt.as_ref()?;
        let (path, settle) = (self.path().display(), self.settle.as_secs_f32());
        Some(format!("{path} {}: it is used once it has stayed unchanged for {settle} s", doubt.why))
    }

    /// Runs `read` on the file for a result other than a list of rows.
    ///
    /// # Errors
    /// Errors of `read`, or a transient error if the file cannot be read.
    pub(crate) async fn study<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl Fn(&mut Content) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let file = self.place.fetch().await?;
        self.settled(file, read, |_| None).await.map(|(result, _)| result)
    }

    /// Runs `read` to list the file's rows. A reading that lacks rows of the previous version is doubtful.
    ///
    /// # Errors
    /// Errors of `read`, or a transient error if the file cannot be read.
    pub(crate) async fn list(
        self: &Arc<Self>,
        read: impl Fn(&mut Content) -> Result<Rows> + Send + Sync + 'static,
    ) -> Result<Rows> {
        let file = self.place.fetch().await?;
        self.list_of(file, read).await
    }

    /// [`SourceFile::list`]; `None` without reading the file if it is the one with this fingerprint, by its metadata or by the word
    /// of its server.
    ///
    /// # Errors
    /// As [`SourceFile::list`].
    pub(crate) async fn list_changed(
        self: &Arc<Self>,
        fingerprint: &str,
        read: impl Fn(&mut Content) -> Result<Rows> + Send + Sync + 'static,
    ) -> Result<Option<Rows>> {
        if self.place.as_file().is_none() {
            let Some(changed) = self.place.fetch_changed(fingerprint).await? else { return Ok(None) };
            return self.list_of(changed, read).await.map(Some);
        }
        let file = Arc::clone(self);
        let metadata = blocking(move || std::fs::metadata(file.path()).map_err(|error| io_error(file.path(), &error)));
        let current = Version::fingerprint(&metadata.await?);
        let is_same = current.as_deref() == Some(fingerprint) && self.known.lock().doubt.is_none();
        if is_same { Ok(None) } else { self.list(read).await.map(Some) }
    }

    async fn list_of(
        self: &Arc<Self>,
        file: LocalFile,
        read: impl Fn(&mut Content) -> Result<Rows> + Send + Sync + 'static,
    ) -> Result<Rows> {
        let (rows, fingerprint) = self.settled(file, read, |rows| Some(ids(rows))).await?;
        self.place.release();
        Ok(rows.with_fingerprint(fingerprint))
    }

    /// Opens the file that is being read once more.
    ///
    /// # Errors
    /// As [`open_regular`].
    #[cfg(feature = "csv")]
    pub(crate) fn open_again(&self) -> Result<File> {
        open_regular(self.place.present()?.path())
    }

    /// Reads until a reading is accepted.
    ///
    /// # Cancel safety
    /// A later call continues with the doubt that this call left behind.
    async fn settled<T: Send + 'static>(
        self: &Arc<Self>,
        local: LocalFile,
        read: impl Fn(&mut Content) -> Result<T> + Send + Sync + 'static,
        ids: fn(&T) -> Option<Vec<u64>>,
    ) -> Result<(T, Option<String>)> {
        let read = Arc::new(read);
        for _ in 0..READINGS {
            let (file, local, read) = (Arc::clone(self), local.clone(), Arc::clone(&read));
            match blocking(move || file.read_once(&local, &*read, ids)).await? {
                ReadOutcome::Done(result) => return result,
                ReadOutcome::Doubtful(rest) => tokio::time::sleep(rest).await,
            }
        }
        let why = self.doubt().unwrap_or_else(|| format!("{} is being written", self.path().display()));
        Err(Error::transient(format!("{why}; it has changed in each of {READINGS} readings")))
    }

    fn read_once<T>(
        &self,
        local: &LocalFile,
        read: &impl Fn(&mut Content) -> Result<T>,
        ids: fn(&T) -> Option<Vec<u64>>,
    ) -> Result<ReadOutcome<T>> {
        let io = |error| io_error(self.path(), &error);
        let file = open_regular(local.path())?;
        let before = Version::of(&file.metadata().map_err(io)?);
        let mut content = Content::new(file);
        let result = read(&mut content);
        if let Some(fingerprint) = local.fingerprint() {
            // A download is whole, or it has failed.
            return Ok(ReadOutcome::Done(result.map(|result| (result, fingerprint.cloned()))));
        }
        let metadata = std::fs::metadata(self.path()).map_err(io)?;
        let after = Version::of(&metadata);
        let ids = result.as_ref().ok().and_then(ids);
        let mut known = self.known.lock();
        let doubted = known.doubt.is_some();
        let result = result.map(|result| (result, Version::fingerprint(&metadata)));
        let reading = known.judge(&content, result, ids, self.settle, (&before, &after));
        let (path, why) = (self.path().display(), known.doubt.as_ref().map(|doubt| &doubt.why));
        match why {
            Some(why) if !doubted => {
                tracing::warn!(%path, why, settle = ?self.settle, "the file may be incomplete and will be read again");
            }
            None if doubted => tracing::info!(%path, "the file has settled"),
            _ => {}
        }
        Ok(reading)
    }
}

impl SourceVersions {
    /// Accepts a reading or records why it is doubtful.
    fn judge<T>(
        &mut self,
        content: &Content,
        result: Result<(T, Option<String>)>,
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
        // Another program was writing and has written more since.
        let continued = self.doubt.as_ref().is_some_and(|doubt| doubt.written && doubt.fingerprint != fingerprint);
        let why = why.or_else(|| continued.then(|| "has been written to since it was read".to_string()));
        let rested = same.is_some_and(|doubt| doubt.since.elapsed() >= settle);
        let Some(why) = why.filter(|_| written || !rested) else {
            self.doubt = None;
            if let (Ok(_), Some(ids)) = (&result, ids) {
                self.accept(fingerprint, content.is_closed(), ids);
            }
            return ReadOutcome::Done(result);
        };
        let since = same.filter(|_| !written).map_or_else(Instant::now, |doubt| doubt.since);
        let doubt = UnconfirmedReading { why, fingerprint, since, written: written || continued };
        let rest = settle.saturating_sub(since.elapsed());
        self.doubt = Some(doubt);
        ReadOutcome::Doubtful(rest)
    }

    /// Records an accepted list. If it lost most of its rows, the caller's shrink guard may still refuse it, so the previous rows
    /// remain the baseline.
    fn accept(&mut self, fingerprint: Fingerprint, closed: bool, ids: Vec<u64>) {
        let before = self.accepted.take().map(|accepted| accepted.ids).unwrap_or_default();
        let collapsed = before.len() > SHRINK_FLOOR && ids.len() < before.len() / 2;
        self.accepted = Some(AcceptedVersion { fingerprint, closed, ids: if collapsed { before } else { ids } });
    }

    /// Reason why an undisturbed reading may be incomplete.
    fn doubts(&self, closed: bool, ids: Option<&[u64]>, young: bool) -> Option<String> {
        if !closed && self.accepted.as_ref().is_some_and(|accepted| accepted.closed) {
            return Some("no longer ends with a line end".to_string());
        }
        if !closed && young {
            return Some("was written just now and does not end with a line end".to_string());
        }
        let accepted = self.accepted.as_ref()?;
        let lost = accepted.ids.iter().filter(|id| ids.is_some_and(|ids| ids.binary_search(id).is_err())).count();
        (lost > 0).then(|| format!("lacks {lost} of its previous {} rows", accepted.ids.len()))
    }
}

/// Hashes of the rows' ids, sorted.
fn ids(rows: &Rows) -> Vec<u64> {
    let mut ids: Vec<u64> = rows.ids().map(|id| xxh3_64(id.as_bytes())).collect();
    ids.sort_unstable();
    ids
}

/// Counts of the rows that can and cannot be decoded. A few bad rows are left out and counted. If there are as many bad rows as
/// good ones, the file is not in the expected format.
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
    /// The error of the first bad row, if there are at least as many bad rows as good ones.
    pub(crate) fn check(self) -> Result<()> {
        match self.first {
            Some(error) if self.bad >= self.good => Err(error),
            _ => Ok(()),
        }
    }
}

/// A transient error, because the file may reappear or become readable.
pub(crate) fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::transient(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
