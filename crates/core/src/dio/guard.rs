//! Guard: an open read of the master or delivery, which pins the clock of the State.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::core::Core;
use super::submission::Submission;
use crate::record::Id;
use crate::state::{Command, Outcome};
use crate::vista::{Error, Result};

/// An open mark: closes by itself when dropped.
#[derive(Debug)]
pub(super) struct Guard {
    core: Arc<Core>,
    pub(super) mark: u64,
    armed: AtomicBool,
}

impl Guard {
    /// The command that was sent with this mark closes it.
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
    /// Opens a guard: a read of the master or a delivery begins.
    pub(super) async fn open_guard(self: &Arc<Self>) -> Result<Guard> {
        self.guard(Command::Open).await
    }

    /// [`Core::open_guard`] for a read or a delivery of one row.
    pub(super) async fn open_guard_for(self: &Arc<Self>, id: &Id) -> Result<Guard> {
        self.guard(Command::OpenFor(Arc::clone(id))).await
    }

    /// [`Core::open_guard_for`] for deliveries to several rows.
    pub(super) async fn open_guards_for(self: &Arc<Self>, rows: &[Id]) -> Result<Vec<Guard>> {
        let open = rows.iter().map(|id| Command::OpenFor(Arc::clone(id))).collect();
        let opened = self.answered(Submission::all(self, open)).await?.each;
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
