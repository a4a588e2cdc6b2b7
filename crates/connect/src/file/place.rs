//! Place of a source file.

use std::path::{Path, PathBuf};

use crate::connector::Settings;

/// Place of a source file, as configured.
#[derive(Clone, Debug)]
pub(crate) struct SourcePlace {
    /// The path.
    path: PathBuf,
    /// True if the file is to be read again when it is saved.
    watch: bool,
}

impl SourcePlace {
    /// Returns the place of the file at `path`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> SourcePlace {
        SourcePlace { path: path.into(), watch: false }
    }

    /// Reads the place under `key` and the keys that apply to it; `None` after reporting a mistake.
    pub(crate) fn read(settings: &dyn Settings, key: &'static str) -> Option<SourcePlace> {
        let watch = settings.flag("watch").unwrap_or(false);
        if watch && !cfg!(feature = "watch") {
            settings.wrong("watch", "this program was built without watch: build it with --features watch".into());
        }
        Some(SourcePlace { path: settings.path(key)?, watch })
    }

    /// Returns the path for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path if it is one on this machine.
    pub(crate) fn as_file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    /// Returns the path of the file whose changes refresh the resource.
    pub(crate) fn watched(&self) -> Option<&Path> {
        self.as_file().filter(|_| self.watch)
    }

    /// Message for a missing file; `None` if there is one.
    pub(crate) fn missing(&self) -> Option<String> {
        super::missing(self.as_file()?)
    }
}
