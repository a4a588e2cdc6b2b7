//! Refresh of a resource when its file is saved.
//!
//! The folder is watched and not the file, so that a file that is replaced, deleted or created is followed too. Reports of the
//! system only say that something may have happened: the resource is refreshed if the file's metadata differ from those before.
//! They are also looked at from time to time, for file systems that report nothing.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{EventHandler, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::identity::Identity;
use crate::blocking::blocking;
use diorama_core::dio::{Dio, WeakDio};
use diorama_core::vista::Result;

/// Time without another report after which a burst has ended.
const QUIET: Duration = Duration::from_millis(100);
/// Maximum duration of a burst.
const BURST: Duration = Duration::from_secs(1);
/// Time between two looks at a file without a report.
const LOOK: Duration = Duration::from_secs(5);
/// Time within which the watching thread ends.
const END: Duration = Duration::from_secs(2);

/// A file whose changes refresh a resource.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    seen: Option<FileState>,
}

impl FileWatch {
    /// Notes the present state of the file at `path`. Created before the file is read, so that no change is missed.
    pub fn new(path: &Path) -> FileWatch {
        FileWatch { path: path.to_path_buf(), seen: FileState::of(path) }
    }

    /// Refreshes `dio` whenever the file changes, until the Dio closes.
    pub fn start(self, dio: &Dio) {
        dio.listen(follow(self.path, self.seen, dio.downgrade()));
    }
}

/// State of the file at a path according to its metadata; links are followed.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    identity: Identity,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl FileState {
    /// Returns the state; `None` if there is no file.
    fn of(path: &Path) -> Option<FileState> {
        let metadata: Metadata = std::fs::metadata(path).ok()?;
        Some(FileState { identity: Identity::of(&metadata), bytes: metadata.len(), modified: metadata.modified().ok() })
    }
}

async fn follow(path: PathBuf, mut seen: Option<FileState>, dio: WeakDio) {
    let reports = Arc::new(Notify::new());
    let mut folders = None;
    loop {
        let (own, current) = (path.clone(), folders.take());
        let to = Arc::clone(&reports);
        // The thread of the system's reports begins and ends here, and this waits for it.
        let looked = blocking(move || Ok((WatchedFolders::of(&own, current, to), FileState::of(&own))));
        let Ok((watched, state)) = looked.await else { return };
        folders = Some(watched);
        if state != seen {
            let is_there = state.is_some();
            let Some(refreshed) = refresh(&dio).await else { return };
            if refreshed.is_ok() || !is_there {
                seen = state;
            }
        }
        if timeout(LOOK, reports.notified()).await.is_ok() {
            let last = Instant::now() + BURST;
            while Instant::now() < last
                && timeout_at(last, timeout(QUIET, reports.notified())).await.is_ok_and(|more| more.is_ok())
            {
            }
        }
    }
}

/// Refreshes the resource; `None` if it has closed.
async fn refresh(dio: &WeakDio) -> Option<Result<()>> {
    Some(dio.upgrade()?.refresh_from_now().await.map(drop))
}

/// Watched folders of one file: its own, and that of the file to which it links.
struct WatchedFolders {
    folders: BTreeSet<(PathBuf, Identity)>,
    /// `None` if the system reports nothing.
    watcher: Option<RecommendedWatcher>,
    /// Closed when the watcher's thread has ended.
    ended: Receiver<()>,
}

impl WatchedFolders {
    /// Returns `current` if it still watches the folders of the file at `path`, or watches them anew.
    fn of(path: &Path, current: Option<WatchedFolders>, reports: Arc<Notify>) -> WatchedFolders {
        let target = std::fs::canonicalize(path).ok();
        let folders = [Some(path), target.as_deref()].into_iter().flatten().filter_map(|path| {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = std::fs::canonicalize(folder).ok()?;
            let identity = Identity::of(&std::fs::metadata(&folder).ok()?);
            Some((folder, identity))
        });
        let folders: BTreeSet<(PathBuf, Identity)> = folders.collect();
        match current {
            Some(current) if current.folders == folders => current,
            _ => WatchedFolders::new(path, folders, reports),
        }
    }

    fn new(path: &Path, folders: BTreeSet<(PathBuf, Identity)>, reports: Arc<Notify>) -> WatchedFolders {
        let (alive, ended) = sync_channel(0);
        let watch = || -> notify::Result<RecommendedWatcher> {
            let mut watcher = notify::recommended_watcher(ReportHandler { reports, _alive: alive })?;
            for (folder, _) in &folders {
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        };
        let watcher = watch().inspect_err(|error| {
            let path = path.display();
            tracing::warn!(%path, %error, "the system does not report changes of the file: it is looked at every 5 seconds");
        });
        WatchedFolders { folders, watcher: watcher.ok(), ended }
    }
}

impl Drop for WatchedFolders {
    fn drop(&mut self) {
        self.watcher = None;
        // Nothing is ever sent: this waits for the end of the handler, which the thread owns.
        let _ = self.ended.recv_timeout(END);
    }
}

/// Passes on that there was a report.
struct ReportHandler {
    reports: Arc<Notify>,
    _alive: SyncSender<()>,
}

impl EventHandler for ReportHandler {
    fn handle_event(&mut self, event: notify::Result<notify::Event>) {
        // Reading the file is reported too, and would be answered by another look.
        let is_reading =
            |kind: EventKind| kind.is_access() && kind != EventKind::Access(AccessKind::Close(AccessMode::Write));
        if !event.is_ok_and(|event| is_reading(event.kind)) {
            self.reports.notify_one();
        }
    }
}
