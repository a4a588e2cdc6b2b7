//! Command: a change on its way to the committer, and the way there.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::commit::capacity::QueuePermit;
use super::commit::journal_failure::JournalFailure;
use super::core::Core;
use crate::journal::{Claim, JournalError, Seq, StoredDelivery};
use crate::state::{Command, Outcome};
use crate::vista::{Error, Result};

/// Where the answer of a command goes.
pub(crate) type Reply = oneshot::Sender<Result<CommitOutcome>>;

/// What became of a command, once it is durable and readers can see it.
#[derive(Clone, Debug)]
pub(crate) struct CommitOutcome {
    pub(crate) outcome: Outcome,
    /// Of each part of [`Submission::all`].
    pub(crate) each: Vec<Outcome>,
    /// Position of the submission's last entry, or of the State it was judged on.
    pub(crate) seq: Seq,
}

/// A command on its way.
pub(crate) struct Submission {
    pub(super) core: Arc<Core>,
    pub(super) work: SubmittedWork,
    pub(crate) claims: Vec<Claim>,
    /// A delivery that is kept with what it changes.
    pub(crate) keep: Option<StoredDelivery>,
    /// The place of an operation in the queue.
    pub(crate) place: QueuePermit,
    /// The place of anything else in the inbox.
    pub(crate) inbox: Option<OwnedSemaphorePermit>,
    pub(super) reply: Option<Reply>,
}

pub(super) enum SubmittedWork {
    One(Command),
    /// One after the other: all of them or none.
    All(Vec<Command>),
    /// Take what `invalidate_*` noted.
    Poke,
    /// What they noted, in its order.
    Told(Vec<Command>),
}

impl Submission {
    pub(crate) fn new(core: &Arc<Core>, command: Command) -> Submission {
        Submission::of(core, SubmittedWork::One(command))
    }

    /// All of `commands`, in their order and in one append, or none.
    pub(crate) fn all(core: &Arc<Core>, commands: Vec<Command>) -> Submission {
        Submission::of(core, SubmittedWork::All(commands))
    }

    fn of(core: &Arc<Core>, work: SubmittedWork) -> Submission {
        let core = Arc::clone(core);
        Submission {
            core,
            work,
            claims: Vec::new(),
            keep: None,
            place: QueuePermit::default(),
            inbox: None,
            reply: None,
        }
    }

    pub(crate) fn reply(mut self, reply: Reply) -> Submission {
        self.reply = Some(reply);
        self
    }

    pub(super) fn answer(self, result: Result<CommitOutcome>) {
        if let Some(reply) = self.reply {
            // The sender may have stopped waiting; what was decided stands.
            let _ = reply.send(result);
        }
    }
}

/// The way to a Lens' committer.
#[derive(Clone)]
pub(crate) struct CommitterHandle {
    pub(super) inbox: mpsc::UnboundedSender<Submission>,
    pub(super) journal_failure: JournalFailure,
}

impl CommitterHandle {
    /// Sends a command. The channel itself has no bound: users' writes hold permits, all else is bounded by who sends it.
    pub(crate) fn send(&self, submission: Submission) -> Result<()> {
        self.inbox.send(submission).map_err(|_| Error::Closed)
    }

    /// Why the journal cannot be written at present.
    pub(crate) fn journal_failure(&self) -> Option<String> {
        self.journal_failure.now()
    }

    /// Takes note that somebody else could not read the journal, and has it tried.
    pub(crate) fn journal_failed(&self, core: &Arc<Core>, why: &JournalError) {
        if !matches!(why, JournalError::Closed) {
            self.journal_failure.begin(&why.to_string());
            // A committer that is gone does not need to know.
            let _ = self.poke(core);
        }
    }

    pub(crate) fn poke(&self, core: &Arc<Core>) -> Result<()> {
        self.send(Submission::of(core, SubmittedWork::Poke))
    }
}
