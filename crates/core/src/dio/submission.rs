//! [`Submission`]: commands on their way to the committer, and the handle that sends them.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::commit::capacity::QueuePermit;
use super::commit::journal_failure::JournalFailure;
use super::commit::mark::FeedMark;
use super::core::Core;
use super::sync::outbox::SendProgress;
use crate::journal::{Claim, JournalError, LogBatch, Seq, StoredDelivery};
use crate::record::Id;
use crate::state::{Answer, Command, OpId, Outcome};
use crate::vista::{Error, Result};

/// Sender of a submission's answer.
pub(crate) type Reply = oneshot::Sender<Result<CommitOutcome>>;

/// Outcome of a submission, once it is durable and readers can see it.
#[derive(Clone, Debug)]
pub(crate) struct CommitOutcome {
    pub(crate) outcome: Outcome,
    /// Outcome of each command, in their order.
    pub(crate) each: Vec<Outcome>,
    /// Position of the submission's last entry, or of the State that it was decided on.
    pub(crate) seq: Seq,
}

/// Commands for the committer, with what they hold until they are answered.
pub(crate) struct Submission {
    pub(super) core: Arc<Core>,
    pub(super) work: SubmittedWork,
    /// True if it is decided before the others of its turn, and answered before the append: it has nothing for the journal.
    pub(super) comes_first: bool,
    /// True if it may wait a moment for another submission to share an append with, because nobody waits for it.
    pub(super) is_patient: bool,
    pub(crate) claims: Vec<Claim>,
    /// Delivery to store in the same append as its changes.
    pub(crate) keep: Option<StoredDelivery>,
    /// Mark to store in the same append as the changes.
    pub(crate) mark: Option<FeedMark>,
    /// Progress of a notification to store.
    pub(crate) sending: Option<SendProgress>,
    /// Place of an operation in the queue.
    pub(crate) place: QueuePermit,
    /// Place of any other command in the inbox.
    pub(crate) inbox: Option<OwnedSemaphorePermit>,
    pub(super) reply: Option<Reply>,
}

/// Work of a submission.
pub(super) enum SubmittedWork {
    One(Command),
    /// Commands in order, of which all are applied or none.
    All(Vec<Command>),
    /// Request for a turn, which takes the calls of `invalidate_*`.
    TurnRequest,
    /// Calls of `invalidate_*`, in their order.
    Invalidations(Vec<Command>),
}

impl Submission {
    pub(crate) fn new(core: &Arc<Core>, command: Command) -> Submission {
        Submission::of(core, SubmittedWork::One(command))
    }

    /// Submission that applies all of `commands`, in their order and in one append, or none.
    pub(crate) fn all(core: &Arc<Core>, commands: Vec<Command>) -> Submission {
        Submission::of(core, SubmittedWork::All(commands))
    }

    /// Submission of guards that deliveries wait for. A guard that opens before changes of the same turn takes them into account.
    pub(super) fn guards(core: &Arc<Core>, rows: &[Id]) -> Submission {
        let open = rows.iter().map(|id| Command::OpenFor(Arc::clone(id))).collect();
        Submission { comes_first: true, ..Submission::all(core, open) }
    }

    /// Submission that settles an operation. A patient one may share an append with a later command.
    pub(super) fn settlement(core: &Arc<Core>, op: OpId, mark: u64, answer: Answer, is_patient: bool) -> Submission {
        Submission { is_patient, ..Submission::new(core, Command::Settle { op, mark, answer }) }
    }

    fn of(core: &Arc<Core>, work: SubmittedWork) -> Submission {
        let core = Arc::clone(core);
        Submission {
            core,
            work,
            comes_first: false,
            is_patient: false,
            claims: Vec::new(),
            keep: None,
            mark: None,
            sending: None,
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
            // The sender may have stopped waiting; the decision is not affected.
            let _ = reply.send(result);
        }
    }
}

/// Keys of the claims whose append has begun and whose effect is not published yet. A clone is the same set.
#[derive(Clone, Default)]
pub(crate) struct UnpublishedClaims(Arc<Mutex<HashSet<String>>>);

impl UnpublishedClaims {
    /// Adds the claims of an append that is about to begin.
    pub(super) fn add(&self, batches: &[LogBatch]) {
        let keys = batches.iter().flat_map(|batch| &batch.claims).map(|claim| claim.key.clone());
        self.0.lock().extend(keys);
    }

    /// Removes all claims: what is durable is published.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

/// Handle of the committer of a Lens.
#[derive(Clone)]
pub(crate) struct CommitterHandle {
    pub(super) inbox: mpsc::UnboundedSender<Submission>,
    pub(super) journal_failure: JournalFailure,
    pub(super) unpublished: UnpublishedClaims,
}

impl CommitterHandle {
    /// Sends a submission. The channel is unbounded: users' writes hold permits, and the senders bound everything else.
    pub(crate) fn send(&self, submission: Submission) -> Result<()> {
        self.inbox.send(submission).map_err(|_| Error::Closed)
    }

    /// Error of the journal if it cannot be written at present.
    pub(crate) fn journal_failure(&self) -> Option<String> {
        self.journal_failure.now()
    }

    /// True if the journal may have the claim `key` while readers do not see its effect yet.
    pub(crate) fn is_unpublished(&self, key: &str) -> bool {
        self.unpublished.0.lock().contains(key)
    }

    /// Notes that a read of the journal failed, and has the committer test it.
    pub(crate) fn journal_failed(&self, core: &Arc<Core>, why: &JournalError) {
        if !matches!(why, JournalError::Closed) {
            self.journal_failure.begin(&why.to_string());
            // The only error is a committer that has ended, after which there is nothing to test.
            let _ = self.request_turn(core);
        }
    }

    pub(crate) fn request_turn(&self, core: &Arc<Core>) -> Result<()> {
        self.send(Submission::of(core, SubmittedWork::TurnRequest))
    }
}
