//! [`Guard`]: an open read of the master or an open delivery, whose mark is registered in the State.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::core::Core;
use super::submission::Submission;
use crate::record::Id;
use crate::state::{Command, Outcome};
use crate::vista::{Error, Result};

/// Open mark of a read or a delivery, closed on drop.
#[derive(Debug)]
pub(super) struct Guard {
    core: Arc<Core>,
    pub(super) mark: u64,
    armed: AtomicBool,
}

impl Guard {
    /// Disables the close on drop, because a command with this mark has closed it.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Release);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed.load(Ordering::Acquire) {
            self.core.commit_later(Command::Close(self.mark));
        }
    }
}

impl Core {
    /// Opens a guard before a read of the master or a delivery.
    pub(super) async fn open_guard(self: &Arc<Self>) -> Result<Guard> {
        self.guard(Command::Open).await
    }

    /// [`Core::open_guard`] for a read of one row.
    pub(super) async fn open_guard_for(self: &Arc<Self>, id: &Id) -> Result<Guard> {
        self.guard(Command::OpenFor(Arc::clone(id))).await
    }

    /// Opens a guard for the delivery to each of these rows, without waiting for an append.
    pub(super) async fn open_guards_for(self: &Arc<Self>, rows: &[Id]) -> Result<Vec<Guard>> {
        let opened = self.submit_and_wait(Submission::guards(self, rows)).await?.each;
        opened.iter().map(|outcome| self.opened(outcome)).collect()
    }

    async fn guard(self: &Arc<Self>, open: Command) -> Result<Guard> {
        let outcome = self.commit(open).await?.outcome;
        self.opened(&outcome)
    }

    fn opened(self: &Arc<Self>, outcome: &Outcome) -> Result<Guard> {
        match outcome {
            Outcome::Mark(mark) => Ok(Guard { core: Arc::clone(self), mark: *mark, armed: AtomicBool::new(true) }),
            _ => Err(Error::Closed),
        }
    }
}
