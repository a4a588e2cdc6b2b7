//! Identity of the file at a path.

use std::fs::Metadata;

/// Identity of a file, independent of its name: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Constant: on other systems an open file cannot be replaced.
    #[cfg(not(unix))]
    pub(crate) fn of(_: &Metadata) -> Identity {
        Identity { device: 0, inode: 0 }
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}
