//! Sending commands to the committer, with the places that they need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use crate::dio::core::Core;
use crate::dio::scope::scope_of;
use crate::dio::submission::{CommitOutcome, Reply, Submission};
use crate::journal::Claim;
use crate::record::Id;
use crate::state::{Command, Origin};
use crate::vista::{Error, Result};

impl Core {
    /// Sends a command of the program itself (settlements, news, guards): no place in the queue is needed.
    pub(crate) async fn commit(self: &Arc<Self>, command: Command) -> Result<CommitOutcome> {
        if self.ended.is_cancelled() {
            return Err(Error::Closed);
        }
        self.answered(Submission::new(self, command)).await
    }

    /// Sends a command and waits for what became of it.
    pub(crate) async fn answered(self: &Arc<Self>, submission: Submission) -> Result<CommitOutcome> {
        let (reply, answer): (Reply, _) = tokio::sync::oneshot::channel();
        self.committer.send(submission.reply(reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// [`Core::commit`] for senders that cannot wait.
    pub(crate) fn commit_later(self: &Arc<Self>, command: Command) {
        // A committer that is gone has no State that would need to know.
        let _ = self.committer.send(Submission::new(self, command));
    }

    /// Tells everybody that rows may be different; `covered` if all differences were told one by one.
    pub(crate) async fn tell_all(self: &Arc<Self>, covered: bool) -> Result<CommitOutcome> {
        // Taken before the commit: what is written silently meanwhile is told next time.
        let untold = self.sync.untold.swap(false, Ordering::AcqRel);
        let covered = covered && !untold;
        let told = self.commit(Command::InvalidateAll { covered, origin: Origin::Refresh }).await;
        if told.is_err() {
            self.sync.untold.fetch_or(untold, Ordering::AcqRel);
        }
        told
    }

    /// Sends a user's command. `size` is what it adds to the backlog, `None` for nothing; `wait` says whether a full queue is
    /// waited for or refused.
    pub(crate) async fn write(
        self: &Arc<Self>,
        command: Command,
        size: Option<usize>,
        claim: Option<Claim>,
        wait: bool,
    ) -> Result<CommitOutcome> {
        if self.commit.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let mut submission = Submission::new(self, command);
        self.reserve(&mut submission, size, wait).await?;
        submission.claims.extend(claim);
        self.answered(submission).await
    }

    /// Room for what a command needs: an operation of `size` bytes a place in the queue, everything else one in the committer's
    /// inbox. A hook's own writes need room for their bytes only: what would make room may wait for that hook.
    async fn reserve(&self, submission: &mut Submission, size: Option<usize>, wait: bool) -> Result<()> {
        let inside = scope_of(&self.name).is_some();
        match (size, inside, wait) {
            (None, true, _) => {}
            (None, false, true) => submission.inbox = Some(self.inbox_place().await?),
            (None, false, false) => {
                let inbox = Arc::clone(&self.commit.inbox);
                submission.inbox = Some(inbox.try_acquire_owned().map_err(|_| Error::QueueFull)?);
            }
            (Some(size), true, _) => submission.place = self.commit.capacity.try_take_bytes(size)?,
            (Some(size), false, true) => {
                submission.place = self.commit.capacity.take(size, self.tasks.closing()).await?
            }
            (Some(size), false, false) => submission.place = self.commit.capacity.try_take(size)?,
        }
        Ok(())
    }

    /// A place in the committer's inbox for a command that is not an operation.
    pub(crate) async fn inbox_place(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.commit.inbox).acquire_owned().await.map_err(|_| Error::Closed)
    }

    /// How many more operations the queue has places for.
    pub(crate) fn free_places(&self) -> usize {
        self.commit.capacity.free()
    }

    /// Has subscribers told of a row, or of all rows, with the next turn.
    pub(crate) fn invalidate(self: &Arc<Self>, id: Option<Id>) {
        let poke = {
            let mut invalidations = self.commit.invalidations.lock();
            invalidations.add([id], false);
            !std::mem::replace(&mut invalidations.poked, true)
        };
        if poke {
            let _ = self.committer.poke(self);
        }
    }

    /// Takes back what subscribers could not be told.
    pub(crate) fn keep_invalid(&self, commands: &[Command]) {
        let calls = commands.iter().flat_map(|command| match command {
            Command::Invalidate(ids) => ids.iter().cloned().map(Some).collect(),
            _ => vec![None],
        });
        self.commit.invalidations.lock().add(calls, true);
    }

    /// Has what was taken back told with the next turn.
    pub(crate) fn poke_again(self: &Arc<Self>) {
        let waits = {
            let mut invalidations = self.commit.invalidations.lock();
            let waits = !invalidations.poked && !invalidations.calls.is_empty();
            invalidations.poked |= waits;
            waits
        };
        if waits {
            let _ = self.committer.poke(self);
        }
    }

    /// Refuses writes from now on.
    pub(crate) fn close_writes(&self) {
        self.commit.closed.store(true, Ordering::Release);
    }
}
