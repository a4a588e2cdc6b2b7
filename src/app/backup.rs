//! Backups of a running server: cache and journal are copied next to the originals, then sent.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tempfile::TempDir;
use tokio::sync::mpsc;

use diorama_core::cache::RedbCache;
use diorama_core::journal::RedbJournal;
use diorama_core::vista::{Error, Result};
use diorama_gateway::{Archive, Backup};

/// Size of one piece in bytes.
const PIECE: usize = 256 << 10;
/// Maximum number of pieces that wait for a slow reader.
const AHEAD: usize = 4;
/// Block size of a tar file in bytes.
const BLOCK: u64 = 512;

/// Files of a Lens to back up, with their paths.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) cache: Option<(PathBuf, RedbCache)>,
    pub(super) journal: Option<(PathBuf, RedbJournal)>,
    /// Name of the server with the rows, which are not backed up.
    pub(super) server: Option<String>,
}

/// File of a backup that says where the rows are, if they are on a server.
const ELSEWHERE: &str = "rows-are-not-in-this-backup.txt";

impl Files {
    /// Returns a backup provider for these files; `None` if there are none.
    pub(super) fn backup(self) -> Option<Backup> {
        if self.cache.is_none() && self.journal.is_none() {
            return None;
        }
        let make = move || {
            let files = self.clone();
            async move { files.archive().await }.boxed()
        };
        Some(Backup::new(make))
    }

    async fn archive(self) -> Result<Archive> {
        #[expect(clippy::disallowed_methods, reason = "redb blocks; the request waits for the copy")]
        let copied = tokio::task::spawn_blocking(move || self.copy()).await;
        let copy = copied.map_err(|_| Error::Closed)??;
        let length = copy.sizes.iter().map(|size| BLOCK + size.next_multiple_of(BLOCK)).sum::<u64>() + 2 * BLOCK;
        let (send, pieces) = mpsc::channel(AHEAD);
        #[expect(clippy::disallowed_methods, reason = "it ends with the response, when its receiver is dropped")]
        tokio::task::spawn_blocking(move || {
            let failed = send.clone();
            if let Err(error) = copy.send(PieceSender(send)) {
                // The client has disconnected, or notices that the response is too short.
                let _ = failed.blocking_send(Err(error));
            }
        });
        let pieces = stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
        Ok(Archive { length, pieces: pieces.boxed() })
    }

    /// Copies the files into a folder next to them, which is removed with the response.
    fn copy(&self) -> Result<BackupCopy> {
        let original = self.journal.as_ref().map(|(path, _)| path).or(self.cache.as_ref().map(|(path, _)| path));
        let original = original.and_then(|path| path.parent()).filter(|folder| !folder.as_os_str().is_empty());
        let folder = tempfile::Builder::new().prefix(".backup-").tempdir_in(original.unwrap_or(Path::new(".")));
        let folder = folder.map_err(|error| failed(&error))?;
        // The cache is copied first, so that the journal contains everything the cache has seen.
        let cache = self.cache.as_ref().map(|(path, cache)| Ok::<_, Error>((path, cache.snapshot()?))).transpose()?;
        let journal =
            self.journal.as_ref().map(|(path, journal)| Ok::<_, Error>((path, journal.snapshot()?))).transpose()?;
        let mut names = Vec::new();
        if let Some((path, journal)) = journal {
            let name = name(path, "cache.journal.redb");
            journal.write(&folder.path().join(&name))?;
            names.extend([name.clone(), format!("{name}.head")]);
        }
        if let Some((path, cache)) = cache {
            let name = name(path, "cache.redb");
            if names.contains(&name) {
                let detail = format!(
                    "cache and journal are both named {name}, so a backup cannot contain both: rename one of the files"
                );
                return Err(Error::Config(detail));
            }
            cache.write(&folder.path().join(&name))?;
            names.push(name);
        }
        if let Some(server) = &self.server {
            let text = format!(
                "The rows are in the cache at {server}, and not in this backup, which has the journal only.\n\
                 A server that starts with both continues; without the cache, it reads its sources again.\n"
            );
            std::fs::write(folder.path().join(ELSEWHERE), text).map_err(|error| failed(&error))?;
            names.push(ELSEWHERE.into());
        }
        let size = |name: &String| Ok(std::fs::metadata(folder.path().join(name))?.len());
        let sizes = names.iter().map(size).collect::<io::Result<Vec<u64>>>().map_err(|error| failed(&error))?;
        Ok(BackupCopy { folder, names, sizes })
    }
}

fn name(path: &Path, usual: &str) -> String {
    path.file_name().map_or_else(|| usual.into(), |name| name.to_string_lossy().into_owned())
}

fn failed(error: &io::Error) -> Error {
    let full = error.kind() == io::ErrorKind::StorageFull;
    Error::Storage { detail: format!("cannot make the backup: {error}"), full }
}

/// Copies of the files, which no other program writes.
struct BackupCopy {
    folder: TempDir,
    names: Vec<String>,
    sizes: Vec<u64>,
}

impl BackupCopy {
    /// Writes the copies as a tar file.
    fn send(&self, to: PieceSender) -> io::Result<()> {
        let mut tar = tar::Builder::new(BufWriter::with_capacity(PIECE, to));
        for (name, size) in self.names.iter().zip(&self.sizes) {
            let mut header = tar::Header::new_gnu();
            header.set_size(*size);
            header.set_mode(0o600);
            header.set_mtime(diorama_core::dio::now() / 1000);
            tar.append_data(&mut header, name, File::open(self.folder.path().join(name))?)?;
        }
        tar.into_inner()?.flush()
    }
}

/// Writer that sends pieces to the response.
struct PieceSender(mpsc::Sender<io::Result<Bytes>>);

impl Write for PieceSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
