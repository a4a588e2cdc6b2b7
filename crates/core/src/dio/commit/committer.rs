//! The committer: the one task of a Lens through which every change of its Dios passes, in one order.
//!
//! A turn: take what waits -> decide and apply on private successors of the States -> append to the journal, all Dios in one
//! call -> publish the new States -> tell the rings -> answer. Readers see durable States only, and every answer, refusals
//! too, comes after the append that made it true. No hook, driver or other user code runs here.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::room::{Held, Place};
use super::trouble::Trouble;
use crate::dio::core::Core;
use crate::dio::counters::Moves;
use crate::dio::events::ring::{Old, RingItem};
use crate::journal::{AppendError, Claim, Fence, Journal, JournalError, Kept, LogBatch, LogEntry, Seq};
use crate::record::Body;
use crate::state::{Base, CacheChange, Cmd, Decision, Entry, Outcome, State};
use crate::vista::{Error, Result};

/// Commands of one Dio in one turn, at most.
const TURN: usize = 256;
/// How long a turn may decide before it appends what it has: about what an append takes.
const TURN_TIME: Duration = Duration::from_millis(4);
/// How long a turn lets others go first, at most.
const GATHER: Duration = Duration::from_millis(5);
/// How long answers are held while the journal is opened again after an error.
const HOLD: Duration = Duration::from_secs(5);
/// How often a journal that failed is tried while nobody writes.
const PROBE: Duration = Duration::from_secs(1);

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
    core: Arc<Core>,
    cmd: Work,
    pub(crate) claims: Vec<Claim>,
    /// A delivery that is kept with what it changes.
    pub(crate) keep: Option<Kept>,
    /// The place of an operation in the queue.
    pub(crate) place: Place,
    /// The place of anything else in the inbox.
    pub(crate) inbox: Option<OwnedSemaphorePermit>,
    reply: Option<Reply>,
}

enum Work {
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
}

/// The way to a Lens' committer.
#[derive(Clone)]
pub(crate) struct CommitterHandle {
    inbox: mpsc::UnboundedSender<Command>,
    trouble: Trouble,
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

/// The committer's task and its owner's end of it.
#[derive(Default)]
pub(crate) struct Committer {
    started: Mutex<Option<(CommitterHandle, JoinHandle<()>)>>,
}

impl Committer {
    /// The way to the committer, which is started by the first who asks.
    pub(crate) fn handle(&self, journal: &Arc<dyn Journal>) -> CommitterHandle {
        let mut started = self.started.lock();
        if let Some((handle, task)) = &*started
            && !task.is_finished()
        {
            return handle.clone();
        }
        let (inbox, commands) = mpsc::unbounded_channel();
        let trouble = Trouble::default();
        let handle = CommitterHandle { inbox, trouble: trouble.clone() };
        let turns = Turns {
            journal: Arc::clone(journal),
            commands,
            waiting: VecDeque::new(),
            dios: IndexMap::new(),
            broken: None,
            trouble,
        };
        #[expect(clippy::disallowed_methods, reason = "this is the owner: it keeps the handle")]
        let task = tokio::spawn(turns.run());
        *started = Some((handle.clone(), task));
        handle
    }
}

impl Committer {
    /// Ends the task. Commands that still wait are answered with `Closed`.
    pub(crate) async fn stop(&self) {
        let started = self.started.lock().take();
        if let Some((_, task)) = started {
            task.abort();
            // It was aborted on purpose.
            let _ = task.await;
        }
    }
}

struct Turns {
    journal: Arc<dyn Journal>,
    commands: mpsc::UnboundedReceiver<Command>,
    waiting: VecDeque<Command>,
    /// Every Dio that ever sent something.
    dios: IndexMap<Arc<str>, Weak<Core>>,
    /// What the journal said when it failed; it is opened again before the next append.
    broken: Option<String>,
    /// The same for others, until an append has gone through.
    trouble: Trouble,
}

/// A Dio's part of a turn.
struct Stage {
    core: Arc<Core>,
    before: Arc<State>,
    next: State,
    done: Vec<Done>,
    changes: Vec<CacheChange>,
    items: Vec<RingItem>,
    claims: Vec<Claim>,
    kept: Vec<Kept>,
    entries: Vec<LogEntry>,
    moves: Moves,
    bulk: bool,
    /// Applying a decision panicked: the successor may hold half of it.
    spoilt: bool,
}

/// What the journal holds of a stage whose append failed.
struct Found {
    stored: bool,
    /// Everything after the State it was decided on.
    entries: Vec<LogEntry>,
}

/// A command that was decided.
struct Done {
    command: Command,
    result: Result<Committed>,
    wrote: bool,
}

impl Turns {
    /// Runs until every sender is gone.
    async fn run(mut self) {
        while let Some(command) = self.next().await {
            self.waiting.push_front(command);
            self.turn().await;
            tokio::task::yield_now().await;
        }
    }

    async fn next(&mut self) -> Option<Command> {
        loop {
            if let Some(command) = self.waiting.pop_front() {
                return Some(command);
            }
            if self.trouble.now().is_none() {
                return self.commands.recv().await;
            }
            tokio::select! {
                command = self.commands.recv() => return command,
                () = tokio::time::sleep(PROBE) => self.probe().await,
            }
        }
    }

    /// Tries a journal that failed with a claim that has expired already. Nobody may be writing: writers with a key give up
    /// before they come here, because their key cannot be looked up.
    async fn probe(&mut self) {
        if self.broken.is_some()
            && let Err(error) = self.heal().await
        {
            return self.trouble.begin(&error.to_string());
        }
        let Some(core) = self.dios.values().find_map(Weak::upgrade) else { return };
        let claim = Claim { key: "probe".into(), value: now().to_le_bytes().to_vec().into(), expires: 0 };
        let (log, expect) = (Arc::clone(&core.name), core.root.load().seq());
        let batch = LogBatch {
            log,
            expect,
            fence: Fence::LOCAL,
            entries: Vec::new(),
            claims: vec![claim],
            deliveries: Vec::new(),
            marks: Vec::new(),
        };
        match self.journal.append(vec![batch]).await.pop().unwrap_or_else(lost) {
            Ok(()) => self.trouble.end(),
            Err(AppendError::Full(detail)) => self.trouble.begin(&full(&detail)),
            Err(AppendError::Unknown(detail) | AppendError::Io(detail)) => {
                self.trouble.begin(&detail);
                self.broken = Some(detail);
            }
            Err(AppendError::Moved { missed }) => catch_up(&core, &missed),
            Err(AppendError::Claimed { .. } | AppendError::Fenced) => {}
        }
    }

    /// Takes what waits. Tasks that are ready to run may be about to write: they go first, as long as that brings something, so
    /// that more writes share an append. Where nothing else is ready this takes no time.
    async fn gather(&mut self) {
        let started = Instant::now();
        loop {
            let before = self.waiting.len();
            while let Ok(command) = self.commands.try_recv() {
                self.waiting.push_back(command);
            }
            tokio::task::yield_now().await;
            let came = self.waiting.len() > before || !self.commands.is_empty();
            if !came || self.waiting.len() >= TURN || started.elapsed() > GATHER {
                return;
            }
        }
    }

    async fn turn(&mut self) {
        self.gather().await;
        for command in &self.waiting {
            self.dios.insert(Arc::clone(&command.core.name), Arc::downgrade(&command.core));
        }
        if self.broken.is_some()
            && let Err(error) = self.heal().await
        {
            self.trouble.begin(&error.to_string());
            self.broken = Some(error.to_string());
        }
        let stages = self.stage();
        let batches: Vec<LogBatch> = stages.iter().filter(|stage| stage.appends()).map(Stage::batch).collect();
        if batches.is_empty() {
            for stage in stages {
                stage.publish().await;
            }
            return;
        }
        if let Some(why) = &self.broken {
            for stage in stages {
                self.waiting.extend(stage.refuse(|_| storage(why, false)));
            }
            return;
        }
        let started = std::time::Instant::now();
        let mut results = self.journal.append(batches).await.into_iter();
        let took = started.elapsed();
        let mut failed = Vec::new();
        for stage in stages {
            let appends = stage.appends();
            let result = if appends { results.next().unwrap_or_else(lost) } else { Ok(()) };
            match result {
                Ok(()) => {
                    if appends {
                        stage.core.tally.appends.add(took);
                        self.trouble.end();
                    }
                    stage.publish().await;
                }
                Err(error) => failed.push((stage, error)),
            }
        }
        let mut unknown = Vec::new();
        for (stage, error) in failed {
            self.failed(stage, error, &mut unknown);
        }
        self.unknown(unknown).await;
    }

    /// Decides what waits, in order, at most [`TURN`] commands of a Dio; the others keep waiting.
    fn stage(&mut self) -> Vec<Stage> {
        let started = std::time::Instant::now();
        // By Core and not by name: one that is ending may still speak when its successor does.
        let mut stages: IndexMap<*const Core, Stage> = IndexMap::new();
        let mut later = VecDeque::new();
        while let Some(command) = self.waiting.pop_front() {
            let stage =
                stages.entry(Arc::as_ptr(&command.core)).or_insert_with(|| Stage::new(Arc::clone(&command.core)));
            let late = started.elapsed() > TURN_TIME && !stage.done.is_empty();
            if stage.done.len() >= TURN || late || stage.bulk {
                later.push_back(command);
                continue;
            }
            stage.take(command);
            while stage.spoilt {
                let fresh = Stage::new(Arc::clone(&stage.core));
                *stage = std::mem::replace(stage, fresh).redone();
            }
        }
        self.waiting = later;
        stages.into_values().collect()
    }

    /// Brings a Dio on after an append that did not go through; those of which more must be known go to `unknown`.
    fn failed(&mut self, stage: Stage, error: AppendError, unknown: &mut Vec<(Stage, String)>) {
        match error {
            AppendError::Moved { missed } => {
                catch_up(&stage.core, &missed);
                self.again(stage.into_commands());
            }
            AppendError::Claimed { key, by } => {
                let mut rest = VecDeque::new();
                for done in stage.done {
                    let own = done.command.claims.iter().find(|claim| claim.key == key);
                    if let Some(own) = own {
                        let result = Err(super::write::replayed(Some(own), &by));
                        done.command.answer(result);
                    } else {
                        rest.push_back(done.command);
                    }
                }
                self.again(rest);
            }
            AppendError::Fenced => self.waiting.extend(stage.refuse(|_| Error::Closed)),
            AppendError::Full(detail) => {
                stage.core.tally.append_failed();
                self.trouble.begin(&full(&detail));
                self.waiting.extend(stage.refuse(|_| storage(&detail, true)));
            }
            AppendError::Unknown(detail) | AppendError::Io(detail) => {
                stage.core.tally.append_failed();
                unknown.push((stage, detail));
            }
        }
    }

    /// Commands that are decided once more, before all others.
    fn again(&mut self, commands: VecDeque<Command>) {
        for command in commands.into_iter().rev() {
            self.waiting.push_front(command);
        }
    }

    /// The appends may be on disk: hold the answers, open the journal again and look.
    async fn unknown(&mut self, stages: Vec<(Stage, String)>) {
        let Some((stage, detail)) = stages.first() else { return };
        tracing::debug!(dio = %stage.core.name, error = %detail, "the journal failed; opening it again");
        self.trouble.begin(detail);
        self.broken = Some(detail.clone());
        let deadline = Instant::now() + HOLD;
        let mut wait = Duration::from_millis(10);
        let found = loop {
            match self.look(&stages).await {
                Ok(found) => break found,
                Err(error) if Instant::now() + wait > deadline => {
                    self.broken = Some(error.to_string());
                    for (stage, detail) in stages {
                        self.waiting.extend(stage.refuse(|op| match op {
                            Some(operation) => Error::OutcomeUnknown { operation },
                            None => storage(&detail, false),
                        }));
                    }
                    return;
                }
                Err(_) => tokio::time::sleep(wait).await,
            }
            wait = (wait * 2).min(Duration::from_secs(1));
        };
        self.broken = None;
        for ((stage, detail), found) in stages.into_iter().zip(found) {
            let core = Arc::clone(&stage.core);
            if found.stored {
                // The successor and not the log's entries: rows of bulk entries are only here.
                stage.publish().await;
            } else {
                self.waiting.extend(stage.refuse(|_| storage(&detail, false)));
            }
            catch_up(&core, &found.entries);
        }
    }

    /// Opens the journal again and looks what became of each stage.
    async fn look(&self, stages: &[(Stage, String)]) -> Result<Vec<Found>> {
        let failed = |error: JournalError| storage(&error.to_string(), false);
        self.journal.reopen().await.map_err(failed)?;
        let mut all = Vec::with_capacity(stages.len());
        for (stage, _) in stages {
            let name = &stage.core.name;
            let entries = self.journal.read(name, stage.before.seq(), usize::MAX).await.map_err(failed)?;
            let stored = match (&stage.entries[..], stage.claims.first(), stage.kept.first()) {
                ([], Some(claim), _) => {
                    self.journal.claim(&claim.key).await.map_err(failed)?.is_some_and(|by| by == claim.value)
                }
                ([], None, Some(Kept { delivery, .. })) => {
                    let found = self.journal.delivery(delivery.id).await.map_err(failed)?;
                    found.is_some_and(|(found, _)| found == *delivery)
                }
                (own, ..) => entries.starts_with(own),
            };
            all.push(Found { stored, entries });
        }
        Ok(all)
    }

    /// Opens the journal again and applies what it holds that is not published yet.
    async fn heal(&mut self) -> Result<()> {
        self.journal.reopen().await.map_err(|error| storage(&error.to_string(), false))?;
        self.dios.retain(|_, core| core.strong_count() > 0);
        for core in self.dios.values().filter_map(Weak::upgrade).collect::<Vec<_>>() {
            let missed = self.journal.read(&core.name, core.root.load().seq(), usize::MAX).await;
            catch_up(&core, &missed.map_err(|error| storage(&error.to_string(), false))?);
            core.poke_again();
        }
        self.broken = None;
        Ok(())
    }
}

impl Stage {
    fn new(core: Arc<Core>) -> Stage {
        let before = core.root.load_full();
        Stage {
            next: (*before).clone(),
            before,
            core,
            done: Vec::new(),
            changes: Vec::new(),
            items: Vec::new(),
            claims: Vec::new(),
            kept: Vec::new(),
            entries: Vec::new(),
            moves: Moves::default(),
            bulk: false,
            spoilt: false,
        }
    }

    /// Begins anew and decides again what was taken, but for what was refused: what panicked is never tried twice.
    fn redone(self) -> Stage {
        let mut fresh = Stage::new(self.core);
        for done in self.done {
            match done.result {
                Ok(_) => fresh.take(done.command),
                Err(_) => fresh.done.push(done),
            }
        }
        fresh
    }

    /// Decides one command and applies what follows to the successor.
    fn take(&mut self, command: Command) {
        match &command.cmd {
            Work::Cmd(cmd) => {
                let decided = match self.twice(&command) {
                    Some(refused) => Err(refused),
                    None => decide(&self.next, cmd),
                };
                self.finish(command, decided);
            }
            Work::Told(cmds) => {
                let done = self.take_all(cmds);
                self.conclude(command, done);
            }
            Work::All(cmds) => {
                let done = match self.twice(&command) {
                    Some(refused) => Err(refused),
                    None => self.take_all(cmds),
                };
                self.conclude(command, done);
            }
            Work::Poke => {
                let cmds = self.core.invalid.lock().take();
                let done = self.take_all(&cmds);
                self.conclude(Command { cmd: Work::Told(cmds), ..command }, done);
            }
        }
    }

    /// The refusal of a command whose key an earlier one of this turn has taken.
    fn twice(&self, command: &Command) -> Option<Error> {
        let taken = |claim: &&Claim| self.claims.iter().any(|own| own.key == claim.key);
        let second = command.claims.iter().find(taken)?;
        let first = self.claims.iter().find(|own| own.key == second.key)?;
        Some(super::write::replayed(Some(second), &first.value))
    }

    /// Decides and applies one command after the other; what they did is taken back if one is refused.
    fn take_all(&mut self, cmds: &[Cmd]) -> Result<(Vec<Outcome>, bool)> {
        let (before, bulk) = (self.next.clone(), self.bulk);
        let lengths = (self.entries.len(), self.changes.len(), self.items.len(), self.moves);
        let mut each = Vec::with_capacity(cmds.len());
        for cmd in cmds {
            let decided = decide(&self.next, cmd);
            let outcome = decided.as_ref().map_or(Outcome::Unchanged, |decision| decision.outcome.clone());
            if let Err(error) = decided.and_then(|decision| self.apply_all(decision)) {
                (self.next, self.bulk, self.moves) = (before, bulk, lengths.3);
                self.entries.truncate(lengths.0);
                self.changes.truncate(lengths.1);
                self.items.truncate(lengths.2);
                return Err(error);
            }
            each.push(outcome);
        }
        Ok((each, self.entries.len() > lengths.0))
    }

    fn finish(&mut self, command: Command, decided: Result<Decision>) {
        let done = decided.and_then(|decision| {
            let (outcome, wrote) = (decision.outcome.clone(), !decision.entries.is_empty());
            self.apply_all(decision)?;
            Ok((vec![outcome], wrote))
        });
        self.conclude(command, done);
    }

    /// Takes note of the keys and the delivery of a command, and of its answer.
    fn conclude(&mut self, command: Command, done: Result<(Vec<Outcome>, bool)>) {
        let mut wrote = false;
        let result = done.map(|(each, some)| {
            let outcome = each.first().cloned().unwrap_or_default();
            // A write of what is there already made no operation that its key could stand for.
            let claims = if outcome == Outcome::Identical { &[] } else { &command.claims[..] };
            let kept = command.keep.as_ref().map(|kept| crate::dio::sync::inbox::concluded(kept, &each));
            wrote = some || !claims.is_empty() || kept.is_some();
            self.claims.extend_from_slice(claims);
            self.kept.extend(kept);
            Committed { outcome, each, seq: self.next.seq() }
        });
        self.done.push(Done { command, result, wrote });
    }

    /// Applies a decision whole, in place: what several commands of a turn touch is copied once. After a panic the stage is
    /// spoilt, and only this command is refused.
    fn apply_all(&mut self, decision: Decision) -> Result<()> {
        let work = AssertUnwindSafe(|| {
            for entry in decision.entries {
                self.moves.add(Moves::of(&entry.op));
                let (stored, change, item) = record(&mut self.next, entry, &mut self.bulk);
                self.entries.push(stored);
                self.changes.push(change);
                self.items.extend(item);
            }
            decision.notes.iter().for_each(|note| self.next.note(note));
        });
        std::panic::catch_unwind(work).map_err(|_| {
            tracing::error!(dio = %self.core.name, "applying a decision panicked");
            self.spoilt = true;
            Error::permanent("an internal error; nothing was changed")
        })
    }

    fn appends(&self) -> bool {
        !self.entries.is_empty() || !self.claims.is_empty() || !self.kept.is_empty()
    }

    fn batch(&self) -> LogBatch {
        LogBatch {
            log: Arc::clone(&self.core.name),
            expect: self.before.seq(),
            fence: Fence::LOCAL,
            entries: self.entries.clone(),
            claims: self.claims.clone(),
            deliveries: self.kept.clone(),
            marks: Vec::new(),
        }
    }

    /// Hands over the places of writers whose operations are in the queue now.
    fn keep_places(&mut self) -> Held {
        let mut held = Held::default();
        for done in &mut self.done {
            if matches!(done.result, Ok(Committed { outcome: Outcome::Staged { .. }, .. })) {
                held += done.command.place.keep();
            }
        }
        held
    }

    /// The append is durable: readers first, then subscribers, then the senders.
    async fn publish(mut self) {
        let kept = self.keep_places();
        let seq = self.next.seq();
        let dirty = self.next.dirty().next().is_some();
        self.core.store.learn(self.changes, seq);
        if self.bulk {
            // Rows of a bulk entry are not in the log: they go to disk before anybody sees them. If they cannot, a restart
            // knows from the entry that it has to read the master again.
            self.core.store.flush_or_tell(&self.core.name).await;
        }
        let next = Arc::new(self.next);
        self.core.root.store(Arc::clone(&next));
        self.core.room.settle(kept, &next);
        self.core.tally.moved(self.moves);
        if !self.entries.is_empty() {
            let bytes = self.entries.iter().map(|entry| entry.bytes.len()).sum();
            self.core.ledger.lock().note(seq, now(), bytes);
        }
        if !self.items.is_empty() {
            self.core.ring.push(self.items);
        }
        if seq != self.before.seq() || dirty {
            self.core.published.send_replace(seq);
        }
        for done in self.done {
            done.command.answer(done.result);
        }
        self.core.poke_again();
    }

    /// Answers everything that wanted to write with an error; gives back what only keeps books, to be done again.
    fn refuse(self, error: impl Fn(Option<String>) -> Error) -> Vec<Command> {
        let mut again = Vec::new();
        let core = self.core;
        for done in self.done {
            if done.wrote || done.result.is_err() {
                let op = match &done.command.cmd {
                    Work::Cmd(Cmd::Write(write)) => Some(write.op.to_string()),
                    _ => None,
                };
                if let Work::Told(cmds) = &done.command.cmd {
                    core.keep_invalid(cmds);
                }
                // A refusal was judged on a State that never came to be.
                done.command.answer(Err(error(op)));
            } else {
                again.push(done.command);
            }
        }
        again
    }

    fn into_commands(self) -> VecDeque<Command> {
        self.done.into_iter().map(|done| done.command).collect()
    }
}

impl Command {
    fn answer(self, result: Result<Committed>) {
        if let Some(reply) = self.reply {
            // The sender may have stopped waiting; what was decided stands.
            let _ = reply.send(result);
        }
    }
}

fn full(detail: &str) -> String {
    format!("the disk is full: {detail}")
}

/// Decides; a panic in there refuses the command and harms nobody else.
fn decide(state: &State, cmd: &Cmd) -> Result<Decision> {
    std::panic::catch_unwind(AssertUnwindSafe(|| state.decide(cmd, now()))).unwrap_or_else(|_| {
        tracing::error!(?cmd, "deciding a command panicked");
        Err(Error::permanent("an internal error; nothing was changed"))
    })
}

/// A row that cannot be applied.
#[cfg(test)]
pub(crate) const PANICS: &str = "panics";

/// Applies a new entry and completes it with the row that readers saw before; gives what journal, cache file and ring get.
fn record(state: &mut State, mut entry: Entry, bulk: &mut bool) -> (LogEntry, CacheChange, Option<RingItem>) {
    let (cache, old, new) = step(state, &entry, bulk);
    entry.remember(old.as_ref(), new.as_ref(), state.rules().schema.layout());
    let stored = LogEntry { seq: entry.seq, bytes: entry.encode() };
    (stored, cache, RingItem::of(entry, old.map_or(Old::Absent, Old::Known), new))
}

/// Applies an entry of the log; gives what the cache file and the ring have to know.
pub(crate) fn apply(state: &mut State, entry: Entry, bulk: &mut bool) -> (CacheChange, Option<RingItem>) {
    let (cache, old, new) = step(state, &entry, bulk);
    (cache, RingItem::of(entry, old.map_or(Old::Absent, Old::Known), new))
}

/// Applies an entry; gives what the cache file has to know, and the visible row before and after.
fn step(state: &mut State, entry: &Entry, bulk: &mut bool) -> (CacheChange, Option<Body>, Option<Body>) {
    let applied = state.apply(entry);
    #[cfg(test)]
    assert_ne!(entry.id.as_deref(), Some(PANICS), "as a test wants it");
    *bulk |= matches!(entry.base, Base::Many { .. });
    let new = entry.id.as_deref().and_then(|id| state.get(id)).map(|row| row.body());
    (applied.cache, applied.old, new)
}

/// Applies and publishes entries that the journal holds and the Dio has not seen.
fn catch_up(core: &Arc<Core>, missed: &[LogEntry]) {
    let mut next = (**core.root.load()).clone();
    let (mut changes, mut items, mut moves) = (Vec::new(), Vec::new(), Moves::default());
    for entry in missed.iter().filter(|entry| entry.seq > next.seq()).cloned().collect::<Vec<_>>() {
        match Entry::decode(&entry.bytes) {
            Ok(entry) => {
                moves.add(Moves::of(&entry.op));
                let (change, item) = apply(&mut next, entry, &mut false);
                changes.push(change);
                items.extend(item);
            }
            Err(error) => {
                tracing::error!(dio = %core.name, seq = entry.seq, %error, "an entry of the journal cannot be read");
                next.advance(entry.seq);
            }
        }
    }
    let seq = next.seq();
    core.store.learn(changes, seq);
    core.room.settle(Held::default(), &next);
    core.root.store(Arc::new(next));
    core.tally.moved(moves);
    core.ring.push(items);
    core.published.send_replace(seq);
}

fn storage(detail: &str, full: bool) -> Error {
    Error::Storage { detail: detail.to_string(), full }
}

fn lost() -> std::result::Result<(), AppendError> {
    Err(AppendError::Io("the journal did not answer for every log".into()))
}

/// Unix milliseconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
