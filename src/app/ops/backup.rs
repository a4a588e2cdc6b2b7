//! `diorama backup`: a running server's cache and journal of one moment, into a folder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::client::Client;
use super::{Failure, OTHER, UNREACHABLE, print, usage};

/// Ending of a file that is not there to its end yet.
const PART: &str = ".part";

/// Where the backup goes, and whose it is.
#[derive(Args, Debug)]
pub struct Backup {
    /// A new or empty folder.
    dir: PathBuf,
    /// The running server (TLS is not spoken).
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The server's token.
    #[arg(long, value_name = "env:NAME|file:PATH")]
    token: Option<String>,
}

/// Backs a running server's files up.
///
/// # Errors
/// A [`Failure`] with 1 if the folder cannot be written, 64 if there is something in it, 69 if the server cannot be reached, 78 for
/// what is wrong with the token.
pub async fn backup(asked: Backup) -> Result<(), Failure> {
    let Backup { dir, url, token } = asked;
    let client = Client::new(&url, token.as_deref())?;
    let made = !dir.exists();
    std::fs::create_dir_all(&dir).map_err(|error| failed(&dir, &error))?;
    let mut there = std::fs::read_dir(&dir).map_err(|error| failed(&dir, &error))?;
    if there.next().is_some() {
        return Err(usage(format!("{}: a backup needs a new or empty folder", dir.display())));
    }
    let mut written = Vec::new();
    let done = fetch(&client, &dir, &mut written);
    if done.is_err() {
        // What is there is not whole: nobody is to take it for a backup.
        written.iter().for_each(|name| drop(std::fs::remove_file(dir.join(format!("{name}{PART}")))));
        if made {
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
            .ok_or_else(|| broken(io::Error::other("the backup holds what is not a plain file")))?;
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

/// The path as a file's name without any folder.
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

/// A body, and how much of it was read.
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
