//! What stands at a path: which file, and whether it is one that can be read to its end.

use std::fs::Metadata;
use std::path::Path;

use diorama_core::vista::{Error, Result};

/// Which file stands at a path: another one has another identity, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Identity {
        use std::os::unix::fs::MetadataExt as _;
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Elsewhere a file that is open cannot be replaced.
    #[cfg(not(unix))]
    pub(crate) fn of(_: &Metadata) -> Identity {
        Identity { device: 0, inode: 0 }
    }
}

/// Refuses everything but regular files.
///
/// # Errors
/// Says what stands at `path` instead; somebody may put it right.
pub(crate) fn check_regular(path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let (path, what) = (path.display(), kind(metadata));
    Err(Error::transient(format!("{path} is {what}, not a file: put a regular file there")))
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
