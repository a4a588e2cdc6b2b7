//! Files as sources: opened with an error that names them, and read whole or not at all.

use std::fs::{File, Metadata};
use std::path::Path;

use crate::vista::{Error, Result};

/// Bytes of one row, at most.
pub(super) const MAX_ROW: usize = 4 << 20;

/// Opens `path` and has `read` read it. A file that somebody else writes meanwhile is an error, not a part of a list.
///
/// # Errors
/// What `read` says, or why the file cannot be read.
pub(super) fn read_whole<T>(path: &Path, read: impl FnOnce(File) -> Result<T>) -> Result<T> {
    let io = |error| io_error(path, &error);
    let file = File::open(path).map_err(io)?;
    let before = file.metadata().map_err(io)?;
    if before.is_dir() {
        return Err(Error::Config(format!("{} is a directory, not a file", path.display())));
    }
    let result = read(file);
    let after = std::fs::metadata(path).map_err(io)?;
    let shape = |of: &Metadata| (of.len(), of.modified().ok());
    if shape(&before) != shape(&after) {
        return Err(Error::transient(format!("{} was changed while it was being read", path.display())));
    }
    result
}

/// Rows of a file that cannot be decoded, beside those that can. A few are left out and counted; where there are as many of them
/// as of others, the file is not what it is taken for.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    good: u64,
    bad: u64,
    first: Option<Error>,
}

impl Sorted {
    pub(super) fn good(&mut self) {
        self.good += 1;
    }

    pub(super) fn bad(&mut self, error: Error) {
        self.bad += 1;
        self.first.get_or_insert(error);
    }

    /// # Errors
    /// What is wrong with the first bad row, if there are as many as good ones.
    pub(super) fn check(self) -> Result<()> {
        match self.first {
            Some(error) if self.bad >= self.good => Err(error),
            _ => Ok(()),
        }
    }
}

/// The file may come back or become readable: trying again can help.
pub(super) fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::transient(format!("cannot read {}: {error}", path.display()))
}
