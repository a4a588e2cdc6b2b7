//! Command: a change on its way to the committer, and the way there.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::commit::room::Place;
use super::commit::trouble::Trouble;
use super::core::Core;
use crate::journal::{Claim, JournalError, Kept, Seq};
use crate::state::{Cmd, Outcome};
use crate::vista::{Error, Result};

/// Where the answer of a command goes.
pub(crate) type Reply = oneshot::Sender<Result<Committed>>;

/// What became of a command, once it is durable and readers can see it.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) outcome: Outcome,
    /// Of each part of [`Command::all`].
    pub(crate) each: Vec<Outcome>,
    /// Position of the command's last entry, or of the State it was judged on.
    pub(crate) seq: Seq,
}

/// A command on its way.
pub(crate) struct Command {
    pub(super) core: Arc<Core>,
    pub(super) cmd: Work,
    pub(crate) claims: Vec<Claim>,
    /// A delivery that is kept with what it changes.
    pub(crate) keep: Option<Kept>,
    /// The place of an operation in the queue.
    pub(crate) place: Place,
    /// The place of anything else in the inbox.
    pub(crate) inbox: Option<OwnedSemaphorePermit>,
    pub(super) reply: Option<Reply>,
}

pub(super) enum Work {
    Cmd(Cmd),
    /// One after the other: all of them or none.
    All(Vec<Cmd>),
    /// Take what `invalidate_*` noted.
    Poke,
    /// What they noted, in its order.
    Told(Vec<Cmd>),
}

impl Command {
    pub(crate) fn new(core: &Arc<Core>, cmd: Cmd) -> Command {
        Command::of(core, Work::Cmd(cmd))
    }

    /// All of `cmds`, in their order and in one append, or none.
    pub(crate) fn all(core: &Arc<Core>, cmds: Vec<Cmd>) -> Command {
        Command::of(core, Work::All(cmds))
    }

    fn of(core: &Arc<Core>, cmd: Work) -> Command {
        let core = Arc::clone(core);
        Command { core, cmd, claims: Vec::new(), keep: None, place: Place::default(), inbox: None, reply: None }
    }

    pub(crate) fn reply(mut self, reply: Reply) -> Command {
        self.reply = Some(reply);
        self
    }

    pub(super) fn answer(self, result: Result<Committed>) {
        if let Some(reply) = self.reply {
            // The sender may have stopped waiting; what was decided stands.
            let _ = reply.send(result);
        }
    }
}

/// The way to a Lens' committer.
#[derive(Clone)]
pub(crate) struct CommitterHandle {
    pub(super) inbox: mpsc::UnboundedSender<Command>,
    pub(super) trouble: Trouble,
}

impl CommitterHandle {
    /// Sends a command. The channel itself has no bound: users' writes hold permits, all else is bounded by who sends it.
    pub(crate) fn send(&self, command: Command) -> Result<()> {
        self.inbox.send(command).map_err(|_| Error::Closed)
    }

    /// Why the journal cannot be written at present.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.now()
    }

    /// Takes note that somebody else could not read the journal, and has it tried.
    pub(crate) fn journal_failed(&self, core: &Arc<Core>, why: &JournalError) {
        if !matches!(why, JournalError::Closed) {
            self.trouble.begin(&why.to_string());
            // A committer that is gone does not need to know.
            let _ = self.poke(core);
        }
    }

    pub(crate) fn poke(&self, core: &Arc<Core>) -> Result<()> {
        self.send(Command::of(core, Work::Poke))
    }
}
