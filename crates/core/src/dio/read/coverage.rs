//! How much of the master a Dio holds. Facade, sceneries, aggregates, gateway and `Status` ask here and nowhere else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use crate::dio::core::Core;
use crate::dio::scope::scope_of;
use crate::vista::{Error, Result};

/// How much of the master's rows is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// There is no first copy yet: nothing can be said about any row.
    Loading {
        /// What the last attempt to make it said, if it failed.
        error: Option<String>,
    },
    /// Some rows, loaded piece by piece: questions about all of them are the master's.
    Partial,
    /// All rows, as far as anybody can know.
    Whole,
}

impl Coverage {
    /// Refuses while there is no first copy.
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
    /// How much of the master's rows is here.
    pub(crate) fn coverage(&self) -> Coverage {
        if self.is_loading() {
            return Coverage::Loading { error: self.sync.last_list.lock().failed.clone() };
        }
        self.held()
    }

    /// Whether there is no first copy yet.
    pub(crate) fn is_loading(&self) -> bool {
        self.sync.seeding.load(Ordering::Acquire)
    }

    /// Notes whether there is no first copy yet.
    pub(crate) fn loading(&self, loading: bool) {
        self.sync.seeding.store(loading, Ordering::Release);
    }

    /// Moves when the first copy is there or could not be made, and with every turn of the committer.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Whether the rows, once there is a first copy, answer questions about all of them.
    pub(crate) fn is_complete(&self) -> bool {
        // Without windowed loading the program says what the rows are.
        self.hooks.on_load_chunk.is_none() || self.sync.last_list.lock().complete
    }

    /// How much of the rows a reader finds who calls from here. The hooks that make the copy see what there is so far.
    ///
    /// # Errors
    /// [`Error::NotReady`] before the first copy.
    pub(crate) fn readable(&self) -> Result<Coverage> {
        if self.is_loading() && !scope_of(&self.name).is_some_and(|scope| scope.makes_copy()) {
            self.coverage().check(&self.name)?;
        }
        Ok(self.held())
    }

    /// Whether a write that is made from here can be judged: not before the first copy, but by the Dio's own hooks.
    ///
    /// # Errors
    /// [`Error::NotReady`].
    pub(crate) fn writable(&self) -> Result<()> {
        match self.is_loading() && scope_of(&self.name).is_none() {
            true => self.coverage().check(&self.name),
            false => Ok(()),
        }
    }

    fn held(&self) -> Coverage {
        if self.is_complete() { Coverage::Whole } else { Coverage::Partial }
    }
}
