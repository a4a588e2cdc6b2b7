//! Type of the file at a path.

use std::fs::Metadata;
use std::path::Path;

use diorama_core::vista::{Error, Result};

/// Rejects everything but regular files.
///
/// # Errors
/// A transient error that names the type of the file found at `path`.
pub(crate) fn check_regular(path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let (path, kind) = (path.display(), kind(metadata));
    Err(Error::transient(format!("{path} is {kind}, not a regular file: put a regular file there")))
}

#[cfg(unix)]
fn kind(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(not(unix))]
fn kind(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() { "a directory" } else { "a device" }
}
