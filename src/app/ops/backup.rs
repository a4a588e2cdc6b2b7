//! Implementation of `diorama backup`: saves a consistent snapshot of a running server's cache and journal into a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::client::Client;
use super::trust::TrustArgs;
use super::{Failure, OTHER, UNREACHABLE, print, usage};

/// Suffix of an incomplete file.
const PART: &str = ".part";

/// Arguments of `backup`.
#[derive(Args, Debug)]
pub struct Backup {
    /// A new or empty folder.
    dir: PathBuf,
    /// The running server.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The server's token.
    #[arg(long, value_name = "env:NAME|file:PATH")]
    token: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Backs up a running server's files.
///
/// # Errors
/// A [`Failure`] with 1 if the folder cannot be written, 64 if it is not empty, 69 if the server cannot be reached, 78 for an
/// invalid token.
pub async fn backup(arguments: Backup) -> Result<(), Failure> {
    let Backup { dir, url, token, trust } = arguments;
    let client = Client::new(&url, token.as_deref(), &trust)?;
    let is_new = !dir.exists();
    std::fs::create_dir_all(&dir).map_err(|error| failed(&dir, &error))?;
    let mut entries = std::fs::read_dir(&dir).map_err(|error| failed(&dir, &error))?;
    if entries.next().is_some() {
        return Err(usage(format!("{}: the folder is not empty: pass a new or empty folder", dir.display())));
    }
    let mut written = Vec::new();
    let done = fetch(&client, &dir, &mut written);
    if done.is_err() {
        // Remove incomplete files, so that they are not mistaken for a backup.
        written.iter().for_each(|name| drop(std::fs::remove_file(dir.join(format!("{name}{PART}")))));
        if is_new {
            let _ = std::fs::remove_dir(&dir);
        }
    }
    done?;
    print(&format!("{}: {}\n", dir.display(), written.join(", ")))
}

fn fetch(client: &Client, dir: &Path, written: &mut Vec<String>) -> Result<(), Failure> {
    let (length, body) = client.download("/_backup")?;
    let mut body = CountedBody { body, read: 0 };
    let mut archive = tar::Archive::new(&mut body);
    let broken = |error: io::Error| Failure { code: UNREACHABLE, message: format!("{client}: {error}") };
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = plain_name(&entry.path().map_err(broken)?)
            .filter(|_| entry.header().entry_type().is_file())
            .ok_or_else(|| broken(io::Error::other("the backup contains an entry that is not a plain file")))?;
        written.push(name.clone());
        let path = dir.join(format!("{name}{PART}"));
        let mut file = create(&path).map_err(|error| failed(&path, &error))?;
        let expected = entry.size();
        let copied = io::copy(&mut entry, &mut file).map_err(|error| failed(&path, &error))?;
        if copied != expected {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        file.flush().and_then(|()| file.sync_all()).map_err(|error| failed(&path, &error))?;
    }
    io::copy(&mut body, &mut io::sink()).map_err(broken)?;
    if body.read != length || written.is_empty() {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    for name in &*written {
        let path = dir.join(name);
        std::fs::rename(dir.join(format!("{name}{PART}")), &path).map_err(|error| failed(&path, &error))?;
    }
    #[cfg(unix)]
    File::open(dir).and_then(|folder| folder.sync_all()).map_err(|error| failed(dir, &error))?;
    Ok(())
}

/// Returns the file name of a path without folders; `None` for other paths.
fn plain_name(path: &Path) -> Option<String> {
    match path.components().collect::<Vec<_>>()[..] {
        [Component::Normal(name)] => name.to_str().map(str::to_string),
        _ => None,
    }
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure { code: OTHER, message: format!("{}: {error}", path.display()) }
}

/// A body and the number of bytes read.
struct CountedBody<R> {
    body: R,
    read: u64,
}

impl<R: Read> Read for CountedBody<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(into)?;
        self.read += read as u64;
        Ok(read)
    }
}
