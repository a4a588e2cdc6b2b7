//! Cache and journal of a Lens. They are opened when it is built or, if an earlier Lens of this process still uses the files,
//! when the first Dio is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{RedbCache, RowStore};
use crate::dio::Committer;
use crate::journal::{InboxLimits, Journal, MemoryJournal, OutboxLimits, RedbJournal};
use crate::redb_file::{self, Owner};
use crate::vista::Result;

/// Time for tasks of an earlier Lens to close its files, in addition to the drain time of its Dios.
const GRACE: Duration = Duration::from_secs(2);

/// Location of the rows.
#[derive(Clone)]
pub(super) enum CacheAt {
    File(PathBuf),
    Store(Arc<dyn RowStore>),
}

/// Location of the journal.
#[derive(Clone)]
pub(super) enum JournalAt {
    File(PathBuf),
    Backend(Arc<dyn Journal>),
    Memory,
}

/// Storage to open.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) cache: CacheAt,
    pub(super) journal: JournalAt,
    pub(super) inbox: InboxLimits,
    pub(super) outbox: OutboxLimits,
}

/// Open cache and journals.
pub(super) struct Storage {
    pub(super) cache: Arc<dyn RowStore>,
    pub(super) log: Log,
    /// Log of Dios whose accepted writes need not survive the process.
    pub(super) memory: Log,
    /// Guards that mark the files as abandoned when the Lens is dropped.
    _files: Vec<Owner>,
}

/// A journal and its committer.
pub(super) struct Log {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) committer: Arc<Committer>,
}

impl Log {
    fn new(journal: Arc<dyn Journal>) -> Log {
        Log { journal, committer: Arc::default() }
    }
}

impl Plan {
    /// Opens the storage, or returns `None` to leave it to [`Plan::open_later`]. Outside a runtime this waits for tasks that
    /// still use a file; inside a runtime they may need this thread.
    pub(super) fn open_now(&self) -> Result<Option<Storage>> {
        let files = self.files();
        if files.iter().any(|path| redb_file::is_abandoned(path)) {
            if tokio::runtime::Handle::try_current().is_ok() {
                return Ok(None);
            }
            redb_file::block_until_closed(&files, GRACE);
        }
        self.open().map(Some)
    }

    /// Opens the storage as soon as tasks of an earlier Lens have closed the files. Its Dios may take up to `drain` to end.
    pub(super) async fn open_later(&self, drain: Duration) -> Result<Storage> {
        redb_file::wait_until_closed(&self.files(), drain.saturating_add(GRACE)).await;
        self.open()
    }

    fn open(&self) -> Result<Storage> {
        let mut files = Vec::new();
        let cache = match &self.cache {
            CacheAt::Store(store) => Arc::clone(store),
            CacheAt::File(path) => {
                let cache = RedbCache::open(path)?;
                files.push(cache.owner());
                Arc::new(cache)
            }
        };
        let journal: Arc<dyn Journal> = match &self.journal {
            JournalAt::Backend(journal) => Arc::clone(journal),
            JournalAt::Memory => Arc::new(MemoryJournal::new()),
            JournalAt::File(path) => {
                let journal = RedbJournal::open(path)?;
                files.push(journal.owner());
                Arc::new(journal)
            }
        };
        let memory = MemoryJournal::new();
        journal.limit_inbox(self.inbox);
        memory.limit_inbox(self.inbox);
        journal.limit_outbox(self.outbox);
        memory.limit_outbox(self.outbox);
        Ok(Storage { cache, log: Log::new(journal), memory: Log::new(Arc::new(memory)), _files: files })
    }

    fn files(&self) -> Vec<&Path> {
        let cache = match &self.cache {
            CacheAt::File(path) => Some(path.as_path()),
            CacheAt::Store(_) => None,
        };
        let journal = match &self.journal {
            JournalAt::File(path) => Some(path.as_path()),
            JournalAt::Backend(_) | JournalAt::Memory => None,
        };
        cache.into_iter().chain(journal).collect()
    }
}
