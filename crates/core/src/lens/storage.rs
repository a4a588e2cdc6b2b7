//! What a Lens stands on: cache and journal, opened when it is built or, if an earlier Lens of this process is still giving up its
//! files, when the first Dio is made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{RedbCache, RowStore};
use crate::dio::Committer;
use crate::journal::{InboxLimits, Journal, MemoryJournal, RedbJournal};
use crate::redb_file::{self, Owner};
use crate::vista::Result;

/// Time that tasks of an earlier Lens have to give up its files, beside what its Dios may take to drain.
const GRACE: Duration = Duration::from_secs(2);

/// Where rows are kept.
#[derive(Clone)]
pub(super) enum CacheAt {
    File(PathBuf),
    Store(Arc<dyn RowStore>),
}

/// Where the log is kept.
#[derive(Clone)]
pub(super) enum JournalAt {
    File(PathBuf),
    Backend(Arc<dyn Journal>),
    Memory,
}

/// What is to be opened.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) cache: CacheAt,
    pub(super) journal: JournalAt,
    pub(super) inbox: InboxLimits,
}

/// An open cache and the journals.
pub(super) struct Storage {
    pub(super) cache: Arc<dyn RowStore>,
    pub(super) log: Log,
    /// For Dios whose accepted writes need not survive the process.
    pub(super) memory: Log,
    /// Files that are left when the Lens ends.
    _files: Vec<Owner>,
}

/// A journal and the task that writes it.
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
    /// Opens what is planned, or leaves it to [`Plan::open_later`]: outside a runtime tasks that still have a file are waited for,
    /// inside of one they may need this very thread.
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

    /// Opens what is planned as soon as tasks of an earlier Lens have given it up. Its Dios may `drain` so long.
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
