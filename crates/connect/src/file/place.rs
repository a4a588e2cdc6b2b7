//! Place of a source file: a path, or a URL.

use std::path::{Path, PathBuf};
#[cfg(feature = "http")]
use std::sync::Arc;

#[cfg(feature = "http")]
use super::remote::{Download, RemoteFile};
use crate::connector::Settings;
#[cfg(all(feature = "csv", feature = "http"))]
use diorama_core::vista::Error;
use diorama_core::vista::Result;

/// Place of a source file, as configured.
#[derive(Clone, Debug)]
pub(crate) struct SourcePlace {
    location: Location,
    /// True if the file is to be read again when it is saved.
    watch: bool,
}

#[derive(Clone, Debug)]
enum Location {
    Path(PathBuf),
    #[cfg(feature = "http")]
    Remote(Arc<RemoteFile>),
}

impl SourcePlace {
    /// Returns the place of the file at `path`.
    pub(crate) fn new(path: impl Into<PathBuf>) -> SourcePlace {
        SourcePlace { location: Location::Path(path.into()), watch: false }
    }

    /// Returns the place of a file at a URL.
    #[cfg(all(test, feature = "csv", feature = "http"))]
    pub(crate) fn remote(remote: RemoteFile) -> SourcePlace {
        SourcePlace { location: Location::Remote(Arc::new(remote)), watch: false }
    }

    /// Reads the place under `key` and the keys that apply to it; `None` after reporting a mistake.
    pub(crate) fn read(settings: &dyn Settings, key: &'static str) -> Option<SourcePlace> {
        let watch = settings.flag("watch").unwrap_or(false);
        if watch && !cfg!(feature = "watch") {
            settings.wrong("watch", "this program was built without watch: build it with --features watch".into());
        }
        let text = settings.text(key)?;
        if ["http://", "https://", "s3://"].iter().any(|scheme| text.starts_with(scheme)) {
            if watch {
                settings.wrong("watch", "a file at a URL does not report that it is saved: use refresh_every".into());
            }
            return SourcePlace::at_url(settings, key, &text);
        }
        Some(SourcePlace { location: Location::Path(settings.path(key)?), watch })
    }

    #[cfg(feature = "http")]
    fn at_url(settings: &dyn Settings, key: &'static str, text: &str) -> Option<SourcePlace> {
        let remote = RemoteFile::read(settings, key, text)?;
        Some(SourcePlace { location: Location::Remote(Arc::new(remote)), watch: false })
    }

    #[cfg(not(feature = "http"))]
    fn at_url(settings: &dyn Settings, key: &'static str, _: &str) -> Option<SourcePlace> {
        settings.wrong(key, "this program was built without http: build it with --features http".into());
        None
    }

    /// Returns the path or URL for messages.
    pub(crate) fn path(&self) -> &Path {
        match &self.location {
            Location::Path(path) => path,
            #[cfg(feature = "http")]
            Location::Remote(remote) => remote.shown(),
        }
    }

    /// Returns the path if it is one on this machine.
    pub(crate) fn as_file(&self) -> Option<&Path> {
        match &self.location {
            Location::Path(path) => Some(path),
            #[cfg(feature = "http")]
            Location::Remote(_) => None,
        }
    }

    /// Returns the file, downloaded if it is at a URL.
    ///
    /// # Errors
    /// The file cannot be downloaded.
    pub(crate) async fn fetch(&self) -> Result<LocalFile> {
        match &self.location {
            Location::Path(path) => Ok(LocalFile::Path(path.clone())),
            #[cfg(feature = "http")]
            Location::Remote(remote) => remote.fetch().await.map(LocalFile::Download),
        }
    }

    /// [`SourcePlace::fetch`]; `None` if its server says that it is the one with this fingerprint.
    ///
    /// # Errors
    /// As [`SourcePlace::fetch`].
    pub(crate) async fn fetch_changed(&self, fingerprint: &str) -> Result<Option<LocalFile>> {
        match &self.location {
            Location::Path(path) => {
                let _ = fingerprint;
                Ok(Some(LocalFile::Path(path.clone())))
            }
            #[cfg(feature = "http")]
            Location::Remote(remote) => Ok(remote.fetch_changed(fingerprint).await?.map(LocalFile::Download)),
        }
    }

    /// Returns the file as it was last fetched.
    ///
    /// # Errors
    /// Its download is deleted.
    #[cfg(feature = "csv")]
    pub(crate) fn present(&self) -> Result<LocalFile> {
        match &self.location {
            Location::Path(path) => Ok(LocalFile::Path(path.clone())),
            #[cfg(feature = "http")]
            Location::Remote(remote) => {
                let held = remote.held().ok_or_else(|| Error::transient("the download is deleted"))?;
                Ok(LocalFile::Download(held))
            }
        }
    }

    /// Deletes a download whose rows are listed.
    pub(crate) fn release(&self) {
        match &self.location {
            Location::Path(_) => {}
            #[cfg(feature = "http")]
            Location::Remote(remote) => remote.release(),
        }
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

/// A file on this machine.
#[derive(Clone, Debug)]
pub(crate) enum LocalFile {
    Path(PathBuf),
    #[cfg(feature = "http")]
    Download(Arc<Download>),
}

impl LocalFile {
    pub(crate) fn path(&self) -> &Path {
        match self {
            LocalFile::Path(path) => path,
            #[cfg(feature = "http")]
            LocalFile::Download(download) => download.path(),
        }
    }

    /// Returns the text, if there is one, by which the server of a downloaded file recognizes it; `None` for other files.
    pub(crate) fn fingerprint(&self) -> Option<Option<&String>> {
        match self {
            LocalFile::Path(_) => None,
            #[cfg(feature = "http")]
            LocalFile::Download(download) => Some(download.fingerprint()),
        }
    }
}
