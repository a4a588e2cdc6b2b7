//! Sending commands to the committer, with the places that they need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use crate::dio::command::{Command, Committed, Reply};
use crate::dio::core::Core;
use crate::dio::scope::scope_of;
use crate::journal::Claim;
use crate::record::Id;
use crate::state::{Cmd, Origin};
use crate::vista::{Error, Result};

impl Core {
    /// Sends a command of the program itself (settlements, news, guards): no place in the queue is needed.
    pub(crate) async fn commit(self: &Arc<Self>, cmd: Cmd) -> Result<Committed> {
        if self.ended.is_cancelled() {
            return Err(Error::Closed);
        }
        self.answered(Command::new(self, cmd)).await
    }

    /// Sends a command and waits for what became of it.
    pub(crate) async fn answered(self: &Arc<Self>, command: Command) -> Result<Committed> {
        let (reply, answer): (Reply, _) = tokio::sync::oneshot::channel();
        self.committer.send(command.reply(reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// [`Core::commit`] for senders that cannot wait.
    pub(crate) fn commit_later(self: &Arc<Self>, cmd: Cmd) {
        // A committer that is gone has no State that would need to know.
        let _ = self.committer.send(Command::new(self, cmd));
    }

    /// Tells everybody that rows may be different; `covered` if all differences were told one by one.
    pub(crate) async fn tell_all(self: &Arc<Self>, covered: bool) -> Result<Committed> {
        // Taken before the commit: what is written silently meanwhile is told next time.
        let untold = self.untold.swap(false, Ordering::AcqRel);
        let covered = covered && !untold;
        let told = self.commit(Cmd::InvalidateAll { covered, origin: Origin::Refresh }).await;
        if told.is_err() {
            self.untold.fetch_or(untold, Ordering::AcqRel);
        }
        told
    }

    /// Sends a user's command. `size` is what it adds to the backlog, `None` for nothing; `wait` says whether a full queue is
    /// waited for or refused.
    pub(crate) async fn write(
        self: &Arc<Self>,
        cmd: Cmd,
        size: Option<usize>,
        claim: Option<Claim>,
        wait: bool,
    ) -> Result<Committed> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let mut command = Command::new(self, cmd);
        self.reserve(&mut command, size, wait).await?;
        command.claims.extend(claim);
        self.answered(command).await
    }

    /// Room for what a command needs: an operation of `size` bytes a place in the queue, everything else one in the committer's
    /// inbox. A hook's own writes need room for their bytes only: what would make room may wait for that hook.
    async fn reserve(&self, command: &mut Command, size: Option<usize>, wait: bool) -> Result<()> {
        let inside = scope_of(&self.name).is_some();
        match (size, inside, wait) {
            (None, true, _) => {}
            (None, false, true) => command.inbox = Some(self.inbox_place().await?),
            (None, false, false) => {
                let inbox = Arc::clone(&self.inbox);
                command.inbox = Some(inbox.try_acquire_owned().map_err(|_| Error::QueueFull)?);
            }
            (Some(size), true, _) => command.place = self.room.try_take_bytes(size)?,
            (Some(size), false, true) => command.place = self.room.take(size, self.tasks.closing()).await?,
            (Some(size), false, false) => command.place = self.room.try_take(size)?,
        }
        Ok(())
    }

    /// A place in the committer's inbox for a command that is not an operation.
    pub(crate) async fn inbox_place(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.inbox).acquire_owned().await.map_err(|_| Error::Closed)
    }

    /// How many more operations the queue has places for.
    pub(crate) fn free_places(&self) -> usize {
        self.room.free()
    }

    /// Has subscribers told of a row, or of all rows, with the next turn.
    pub(crate) fn invalidate(self: &Arc<Self>, id: Option<Id>) {
        let poke = {
            let mut invalid = self.invalid.lock();
            invalid.add([id], false);
            !std::mem::replace(&mut invalid.poked, true)
        };
        if poke {
            let _ = self.committer.poke(self);
        }
    }

    /// Takes back what subscribers could not be told.
    pub(crate) fn keep_invalid(&self, cmds: &[Cmd]) {
        let calls = cmds.iter().flat_map(|cmd| match cmd {
            Cmd::Invalidate(ids) => ids.iter().cloned().map(Some).collect(),
            _ => vec![None],
        });
        self.invalid.lock().add(calls, true);
    }

    /// Has what was taken back told with the next turn.
    pub(crate) fn poke_again(self: &Arc<Self>) {
        let waits = {
            let mut invalid = self.invalid.lock();
            let waits = !invalid.poked && !invalid.calls.is_empty();
            invalid.poked |= waits;
            waits
        };
        if waits {
            let _ = self.committer.poke(self);
        }
    }

    /// Refuses writes from now on.
    pub(crate) fn close_writes(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
