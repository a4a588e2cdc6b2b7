//! Coverage: how much of the master a Dio has cached. The only source of this for facade, sceneries, aggregates, gateway
//! and `Status`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::dio::core::Core;
use crate::dio::scope::scope_of;
use crate::vista::{Error, Result};

/// Part of the master's rows that is cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// There is no first copy yet, so that no read can be answered.
    Loading {
        /// Error of the last attempt to make the first copy, if it failed.
        error: Option<String>,
    },
    /// Some rows, loaded in chunks. Only the master can answer queries over all rows.
    Partial,
    /// All rows, as of the last list and the changes since.
    Whole,
}

impl Coverage {
    /// Fails while there is no first copy.
    ///
    /// # Errors
    /// [`Error::NotReady`].
    pub(crate) fn check(&self, dio: &Arc<str>) -> Result<()> {
        match self {
            Coverage::Loading { error } => Err(Error::NotReady { dio: Arc::clone(dio), reason: error.clone() }),
            Coverage::Partial | Coverage::Whole => Ok(()),
        }
    }
}

impl Core {
    /// Part of the master's rows that is cached.
    pub(crate) fn coverage(&self) -> Coverage {
        if self.is_loading() {
            return Coverage::Loading { error: self.sync.last_list.lock().failed.clone() };
        }
        self.copy_coverage()
    }

    /// Returns true while there is no first copy.
    pub(crate) fn is_loading(&self) -> bool {
        self.sync.seeding.load(Ordering::Acquire)
    }

    /// Sets whether the first copy is missing.
    pub(crate) fn loading(&self, loading: bool) {
        self.sync.seeding.store(loading, Ordering::Release);
    }

    /// Notifies when the first copy is complete or has failed, and after every turn of the committer.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Returns true if the copy has all rows, once there is a first copy.
    pub(crate) fn is_complete(&self) -> bool {
        // Without chunked loading the program provides all rows.
        self.callbacks.on_load_chunk.is_none() || self.sync.last_list.lock().complete
    }

    /// Coverage for a read by this caller. The callbacks that make the copy see the rows so far.
    ///
    /// # Errors
    /// [`Error::NotReady`] before the first copy.
    pub(crate) fn readable(&self) -> Result<Coverage> {
        if self.is_loading() && !scope_of(&self.name).is_some_and(|scope| scope.makes_copy()) {
            self.coverage().check(&self.name)?;
        }
        Ok(self.copy_coverage())
    }

    /// Checks that this caller may write. Before the first copy only the Dio's own callbacks may.
    ///
    /// # Errors
    /// [`Error::NotReady`].
    pub(crate) fn writable(&self) -> Result<()> {
        match self.is_loading() && scope_of(&self.name).is_none() {
            true => self.coverage().check(&self.name),
            false => Ok(()),
        }
    }

    fn copy_coverage(&self) -> Coverage {
        if self.is_complete() { Coverage::Whole } else { Coverage::Partial }
    }
}
