//! Sending commands to the committer, with the queue capacity that they need.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use crate::dio::core::Core;
use crate::dio::scope::scope_of;
use crate::dio::submission::{CommitOutcome, Reply, Submission};
use crate::journal::Claim;
use crate::record::Id;
use crate::state::{Answer, Command, OpId, Origin};
use crate::vista::{Error, Result};

impl Core {
    /// Sends a command of the Dio itself (settlements, reads, guards), which needs no place in the queue.
    pub(crate) async fn commit(self: &Arc<Self>, command: Command) -> Result<CommitOutcome> {
        if self.ended.is_cancelled() {
            return Err(Error::Closed);
        }
        self.submit_and_wait(Submission::new(self, command)).await
    }

    /// Commits the answer of the master to an operation.
    pub(crate) async fn settle(self: &Arc<Self>, op: OpId, mark: u64, answer: Answer) -> Result<CommitOutcome> {
        if self.ended.is_cancelled() {
            return Err(Error::Closed);
        }
        let is_patient = !self.is_awaited(op);
        self.submit_and_wait(Submission::settlement(self, op, mark, answer, is_patient)).await
    }

    /// Sends a submission and waits for its outcome.
    pub(crate) async fn submit_and_wait(self: &Arc<Self>, submission: Submission) -> Result<CommitOutcome> {
        let (reply, answer): (Reply, _) = tokio::sync::oneshot::channel();
        self.committer.send(submission.reply(reply))?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Waits until readers see everything that is durable at the call.
    pub(crate) async fn wait_until_published(self: &Arc<Self>) -> Result<()> {
        self.submit_and_wait(Submission::all(self, Vec::new())).await.map(drop)
    }

    /// [`Core::commit`] for senders that cannot wait.
    pub(crate) fn commit_later(self: &Arc<Self>, command: Command) {
        // The only error is a committer that has ended, after which the State does not change any more.
        let _ = self.committer.send(Submission::new(self, command));
    }

    /// Publishes `Invalidated`. `covered` is true if all differences were published as row events before.
    pub(crate) async fn publish_invalidated(self: &Arc<Self>, covered: bool) -> Result<CommitOutcome> {
        self.commit(Command::InvalidateAll { covered, origin: Origin::Refresh }).await
    }

    /// Sends a user's command.
    ///
    /// `size` is the number of bytes that it adds to the backlog, `None` if it is not an operation. If the queue is full,
    /// the command waits if `wait` is set, else it is refused.
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
        self.submit_and_wait(submission).await
    }

    /// Takes the capacity that a command needs: a place in the queue for an operation of `size` bytes, a place in the
    /// committer's inbox for anything else.
    ///
    /// A callback's own writes need capacity for their bytes only, because the operations in the queue may wait for that
    /// callback.
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

    /// Takes a place in the committer's inbox, for a command that is not an operation.
    pub(crate) async fn inbox_place(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.commit.inbox).acquire_owned().await.map_err(|_| Error::Closed)
    }

    /// Number of operations that the queue can accept at present.
    pub(crate) fn free_places(&self) -> usize {
        self.commit.capacity.free()
    }

    /// Publishes the invalidation of a row, or of all rows, with the next turn.
    pub(crate) fn invalidate(self: &Arc<Self>, id: Option<Id>) {
        let request_turn = {
            let mut invalidations = self.commit.invalidations.lock();
            invalidations.add([id], false);
            !std::mem::replace(&mut invalidations.turn_requested, true)
        };
        if request_turn {
            let _ = self.committer.request_turn(self);
        }
    }

    /// Puts back invalidations that could not be published.
    pub(crate) fn keep_invalid(&self, commands: &[Command]) {
        let calls = commands.iter().flat_map(|command| match command {
            Command::Invalidate(ids) => ids.iter().cloned().map(Some).collect(),
            _ => vec![None],
        });
        self.commit.invalidations.lock().add(calls, true);
    }

    /// Requests a turn for invalidations that were put back.
    pub(crate) fn request_turn_again(self: &Arc<Self>) {
        let waits = {
            let mut invalidations = self.commit.invalidations.lock();
            let waits = !invalidations.turn_requested && !invalidations.calls.is_empty();
            invalidations.turn_requested |= waits;
            waits
        };
        if waits {
            let _ = self.committer.request_turn(self);
        }
    }

    /// Refuses writes from now on.
    pub(crate) fn close_writes(&self) {
        self.commit.closed.store(true, Ordering::Release);
    }
}
