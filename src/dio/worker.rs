//! The worker: delivers operations to `on_write` or to the master, in order per id, at least once, and settles them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::breaker::{LONGEST_RETRY_AFTER, Standing};
use super::core::{Core, Guard};
use super::hooks::{self, Kind, Scope};
pub(super) use super::operations::Attempt;
use super::settings::{OnUnknown, WriteRoute};
use super::{Dio, Handle};
use crate::hot::{Answer, Cmd, Effect, Op, OpError, OpId, OpState, State};
use crate::record::{Body, Id, Record, merge_patch};
use crate::vista::{Error, ErrorKind, Result, WriteKind, Written};

/// Delivers until the Dio closes and the queue is empty (or its patience at an end).
pub(super) async fn run(core: Arc<Core>, handle: std::sync::Weak<Handle>) {
    let mut published = core.published.subscribe();
    let mut running: JoinSet<()> = JoinSet::new();
    let closing = core.tasks.closing().clone();
    let mut deadline: Option<Instant> = None;
    loop {
        published.borrow_and_update();
        let due = start_due(&core, &handle, &mut running);
        let idle = running.is_empty() && due.is_none_or(|_| deadline.is_some());
        let state = core.state();
        if deadline.is_some() && idle && (state.queue().next().is_none() || due.is_some()) {
            // What is left has failed before and waits: it is in the journal.
            return;
        }
        drop(state);
        tokio::select! {
            Some(_) = running.join_next() => {}
            changed = published.changed() => if changed.is_err() { return },
            () = wait_until(due) => {}
            () = closing.cancelled(), if deadline.is_none() => {
                deadline = Some(Instant::now() + core.settings.drain_timeout);
            }
            () = wait_until(deadline) => {
                running.shutdown().await;
                return;
            }
        }
    }
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Operations whose attempts are remembered, beyond those that wait.
const MOST_ATTEMPTS: usize = 20_000;

/// Starts what may be delivered now; gives when to look again.
fn start_due(core: &Arc<Core>, handle: &std::sync::Weak<Handle>, running: &mut JoinSet<()>) -> Option<Instant> {
    let state = core.state();
    if core.seeding.load(Ordering::Acquire) && state.lacks_rows() {
        return None;
    }
    let mut attempts = core.attempts.lock();
    if attempts.len() > MOST_ATTEMPTS {
        attempts.retain(|id, _| state.op(*id).is_some_and(|op| op.state == OpState::Queued));
    }
    let now = Instant::now();
    let mut round = Round { core, handle, running, state: &state, attempts: &mut attempts, now };
    match core.outlet.standing(now) {
        Standing::Closed => round.start_all(),
        Standing::Due => round.start_probe(),
        Standing::Resting(until) => {
            round.give_up_old();
            Some(until)
        }
        Standing::Probing => {
            round.give_up_old();
            // The probe's answer wakes the worker, unless it never comes.
            Some(now + core.settings.breaker.first)
        }
    }
}

/// One look at the queue.
struct Round<'a> {
    core: &'a Arc<Core>,
    handle: &'a std::sync::Weak<Handle>,
    running: &'a mut JoinSet<()>,
    state: &'a State,
    attempts: &'a mut HashMap<OpId, Attempt>,
    now: Instant,
}

impl Round<'_> {
    /// Starts everything that is due, as far as lanes and budget go.
    fn start_all(&mut self) -> Option<Instant> {
        let mut soonest: Option<Instant> = None;
        for op in self.state.queue() {
            if self.is_full() {
                break;
            }
            if !self.is_free(op) {
                continue;
            }
            let attempt = self.attempts.entry(op.id).or_default();
            let rests = attempt.next.filter(|next| *next > self.now);
            match rests.or_else(|| self.core.outlet.spend(attempt.count == 0, self.now).err()) {
                Some(at) => soonest = Some(soonest.map_or(at, |soonest| soonest.min(at))),
                None => self.start(op, false),
            }
        }
        soonest
    }

    /// Starts the one of those that are due that has failed least: what has not been tried yet has most to tell of the master.
    fn start_probe(&mut self) -> Option<Instant> {
        let mut soonest: Option<Instant> = None;
        let mut best: Option<(u32, &Op)> = None;
        for op in self.state.queue() {
            if self.is_full() || best.is_some_and(|(count, _)| count == 0) {
                break;
            }
            if !self.is_free(op) {
                continue;
            }
            let attempt = self.attempts.entry(op.id).or_default();
            match attempt.next.filter(|next| *next > self.now) {
                Some(at) => soonest = Some(soonest.map_or(at, |soonest| soonest.min(at))),
                None if best.is_none_or(|(count, _)| attempt.count < count) => best = Some((attempt.count, op)),
                None => {}
            }
        }
        let Some((_, op)) = best else { return soonest };
        // Its answer wakes the worker, unless it never comes.
        let later = self.now + self.core.settings.breaker.first;
        match self.core.outlet.admit(self.now) {
            Ok(probe) => self.start(op, probe),
            Err(at) => return Some(at),
        }
        Some(later)
    }

    /// Parks what has waited for too long for a master that is left alone. The queue is in the order of acceptance: behind a
    /// young one there are no old ones.
    fn give_up_old(&mut self) {
        for op in self.state.queue() {
            if self.is_full() || !is_old(self.core, op) {
                return;
            }
            if self.is_free(op) {
                self.attempts.entry(op.id).or_default().running = true;
                let said = self.core.outlet.error().unwrap_or_default();
                self.running.spawn(give_up(Arc::clone(self.core), op.clone(), Error::transient(said)));
            }
        }
    }

    fn is_full(&self) -> bool {
        self.running.len() >= self.core.settings.write_concurrency.max(1)
    }

    fn is_free(&self, op: &Op) -> bool {
        self.attempts.get(&op.id).is_none_or(|attempt| !attempt.running) && self.state.is_next(op)
    }

    fn start(&mut self, op: &Op, probe: bool) {
        self.attempts.entry(op.id).or_default().begin();
        self.running.spawn(deliver(Arc::clone(self.core), self.handle.clone(), op.clone(), probe));
    }
}

/// Whether an operation has waited long enough to be given up when it fails.
fn is_old(core: &Core, op: &Op) -> bool {
    let age = super::commit::now().saturating_sub(op.created);
    u128::from(age) > core.settings.retry.max_age.as_millis()
}

/// Parks an operation whose master has been away for too long.
async fn give_up(core: Arc<Core>, op: Op, error: Error) {
    match open_guard(&core, &op).await {
        Ok(guard) => settle(&core, &guard, op.id, Answer::Parked(op_error(&error))).await,
        Err(_) => pause(&core, op.id, &Error::Closed),
    }
}

async fn open_guard(core: &Arc<Core>, op: &Op) -> Result<Guard> {
    match &*op.targets {
        [id] => core.open_guard_for(id).await,
        _ => core.open_guard().await,
    }
}

async fn deliver(core: Arc<Core>, handle: std::sync::Weak<Handle>, op: Op, probe: bool) {
    let first = core.attempts.lock().get(&op.id).is_none_or(|attempt| attempt.count <= 1);
    let Ok(guard) = open_guard(&core, &op).await else {
        core.outlet.release(probe, Instant::now());
        return pause(&core, op.id, &Error::Closed);
    };
    let patience = core.settings.retry.attempt_timeout;
    let answered = match tokio::time::timeout(patience, attempt(&core, &handle, &op)).await {
        Ok(answered) => answered,
        Err(_) => Err(Error::unknown(format!("no answer within {} s", patience.as_secs_f32()))),
    };
    let row = if op.targets.len() == 1 { op.targets.first() } else { None };
    core.hear(&core.outlet, row, &answered);
    core.outlet.release(probe, Instant::now());
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => match judge(&core, &op, &error, first).await {
            Some(answer) => answer,
            None => return pause(&core, op.id, &error),
        },
    };
    settle(&core, &guard, op.id, answer).await;
}

/// Says what people may have to do something about.
fn tell(core: &Core, op: OpId, answer: &Answer) {
    match answer {
        Answer::Failed(OpError { code, detail }) => {
            tracing::warn!(dio = %core.name, operation = %op, code, error = detail, "a write failed and was rolled back");
        }
        Answer::Parked(OpError { code, detail }) => {
            tracing::warn!(dio = %core.name, operation = %op, code, error = detail, "a write was given up for now; retry or discard it");
        }
        Answer::Confirmed { .. } | Answer::Routed => {}
    }
}

/// Commits the answer; tries again while the journal is away, because the master has it already.
async fn settle(core: &Arc<Core>, guard: &Guard, op: OpId, answer: Answer) {
    let mut wait = Duration::from_millis(50);
    loop {
        let settled = core.commit(Cmd::Settle { op, mark: guard.mark, answer: answer.clone() }).await;
        match settled {
            Ok(_) => {
                tell(core, op, &answer);
                return guard.disarm();
            }
            Err(Error::Closed) => return,
            Err(error) => tracing::warn!(dio = %core.name, %op, %error, "a delivered operation cannot be settled yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(5)),
            () = core.tasks.closing().cancelled() => return,
        }
    }
}

/// One delivery by the one route there is.
async fn attempt(core: &Arc<Core>, handle: &std::sync::Weak<Handle>, op: &Op) -> Result<Answer> {
    let id = op.targets.first().map(AsRef::as_ref).unwrap_or_default();
    let write = op.effect.to_write_op(id)?;
    if let Some(answer) = resolve(core, op).await? {
        return Ok(answer);
    }
    let Some(on_write) = core.hooks.on_write.clone() else {
        let (shell, operation) = (Arc::clone(core.vista.shell()), op.id.to_string());
        let written = core.ask_driver(async move { shell.write_once(&operation, &write).await }).await?;
        return Ok(confirmed(core, &op.targets, written));
    };
    // The last handle may be gone while the queue drains: the hook gets one of its own.
    let handle = handle.upgrade().unwrap_or_else(|| Arc::new(Handle::new(Arc::clone(core))));
    let scope = Scope { op: Some(op.id), ..Scope::new(&core.name, Kind::Write) };
    let delivery = hooks::calling(Dio(handle), move |dio| on_write(dio, write));
    hooks::run(core, Arc::new(scope), delivery).await?;
    Ok(match core.settings.write_route {
        WriteRoute::Around => Answer::Routed,
        WriteRoute::Through => Answer::Confirmed { row: None, id: None },
    })
}

/// What became of an operation that may have taken effect already: an answer, or `None` to send it (again). Settled by the
/// first that can: the master's own proof, an effect that can be repeated without harm, the row as it is now, `on_unknown`.
async fn resolve(core: &Arc<Core>, op: &Op) -> Result<Option<Answer>> {
    let routed = core.hooks.on_write.is_some();
    let shell = core.vista.shell();
    let proven = if routed { core.settings.route_writes_once } else { shell.writes_once() };
    if proven || !is_unknown(core, op) || matches!(op.effect, Effect::Replace(_) | Effect::Delete) {
        return Ok(None);
    }
    if !routed && shell.reads_one() && op.effect != Effect::DeleteAll {
        let id = op.targets.first().cloned().unwrap_or_else(|| Id::from(""));
        let row = core.read_one(&id).await?;
        match found(core, op, &id, row.as_ref()) {
            Found::Applied => {
                let row = row.map(|row| Body::encode(&id, &row, core.vista.schema().layout()));
                return Ok(Some(Answer::Confirmed { row, id: None }));
            }
            Found::Untouched => return Ok(None),
            Found::Other => {}
        }
    }
    Ok(match core.settings.on_unknown {
        OnUnknown::Retry => None,
        OnUnknown::Park => {
            let said = core.attempts.lock().get(&op.id).and_then(|attempt| attempt.error.clone());
            let said = said.map_or_else(|| "the program ended meanwhile".to_string(), |error| error.detail);
            let detail =
                format!("it is not known whether this took effect ({said}): look at the row, then retry or discard");
            Some(Answer::Parked(OpError { code: "outcome-unknown".into(), detail }))
        }
    })
}

/// What the master's row says of an operation.
enum Found {
    /// It has taken effect, or makes no difference.
    Applied,
    /// The row is as it was before.
    Untouched,
    /// Somebody changed the row; perhaps this operation was among it.
    Other,
}

fn found(core: &Core, op: &Op, id: &Id, row: Option<&Record>) -> Found {
    let schema = core.vista.schema();
    match (&op.effect, row) {
        (Effect::Insert(_), None) => Found::Untouched,
        (Effect::Insert(body), Some(row)) if is_of(body, row, schema.id_column()) => Found::Applied,
        (Effect::Patch(body), Some(row)) => {
            let patch = body.decode().unwrap_or_default();
            let before = core.state().base(id).and_then(|base| base.body.decode().ok());
            if merge_patch(row.clone(), &patch, schema.layout()) == *row {
                return Found::Applied;
            }
            let same = before.is_some_and(|before| patch.columns().all(|column| before.get(column) == row.get(column)));
            if same { Found::Untouched } else { Found::Other }
        }
        _ => Found::Other,
    }
}

/// Whether `row` has what an insert of `body` would have put there.
fn is_of(body: &Body, row: &Record, id_column: &str) -> bool {
    let ours: Record = body.decode().unwrap_or_default();
    ours.iter().all(|(column, value)| &**column == id_column || row.get(column) == Some(value))
}

fn confirmed(core: &Core, targets: &[Id], written: Written) -> Answer {
    let schema = core.vista.schema();
    let id: Option<Id> = written.id.map(Id::from).or_else(|| targets.first().cloned());
    let row = match (&written.record, &id) {
        (Some(record), Some(id)) => Some(Body::encode(id, record, schema.layout())),
        _ => None,
    };
    Answer::Confirmed { row, id }
}

/// What a failed delivery means: an answer, or `None` to try again.
async fn judge(core: &Arc<Core>, op: &Op, error: &Error, first: bool) -> Option<Answer> {
    match (error.kind(), op.effect.kind(), error) {
        (_, _, Error::Closed) => None,
        (ErrorKind::Permanent, WriteKind::Delete | WriteKind::DeleteAll, Error::NotFound { .. }) => {
            Some(Answer::Confirmed { row: None, id: None })
        }
        (ErrorKind::Permanent, WriteKind::Insert, Error::Conflict { .. }) if !first || is_unknown(core, op) => {
            read_back(core, op, error).await
        }
        (ErrorKind::Permanent, _, _) => Some(Answer::Failed(op_error(error))),
        (ErrorKind::Transient | ErrorKind::Unknown, _, _) => is_old(core, op).then(|| Answer::Parked(op_error(error))),
    }
}

/// Whether an attempt ended without an answer, or with an earlier process.
fn is_unknown(core: &Core, op: &Op) -> bool {
    core.attempts.lock().get(&op.id).is_some_and(|attempt| attempt.unknown)
}

/// An insert that was tried before conflicts, perhaps with itself: the master's row tells.
/// `None` while it cannot be asked.
async fn read_back(core: &Arc<Core>, op: &Op, error: &Error) -> Option<Answer> {
    let id = op.targets.first().map(AsRef::as_ref).unwrap_or_default();
    let row = core.read_one(id).await.ok()?;
    let (Effect::Insert(body), Some(row)) = (&op.effect, row) else {
        return Some(Answer::Failed(op_error(error)));
    };
    let schema = core.vista.schema();
    Some(match is_of(body, &row, schema.id_column()) {
        true => Answer::Confirmed { row: Some(Body::encode(id, &row, schema.layout())), id: None },
        false => Answer::Failed(op_error(error)),
    })
}

/// Notes a failed attempt and when the next one is due, and wakes the worker.
fn pause(core: &Arc<Core>, op: OpId, error: &Error) {
    if let Some(attempt) = core.attempts.lock().get_mut(&op) {
        let chance = f64::from(fraction()) / f64::from(u32::MAX);
        let wait = error.retry_after().unwrap_or_else(|| core.settings.retry.wait(attempt.count, chance));
        attempt.running = false;
        // Only the master's word ends that: a later attempt that was not taken up says nothing of this one.
        attempt.unknown |= error.kind() == ErrorKind::Unknown;
        attempt.error = Some(op_error(error));
        attempt.next = Some(Instant::now() + wait.min(LONGEST_RETRY_AFTER.max(core.settings.retry.most)));
        tracing::info!(dio = %core.name, %op, attempts = attempt.count, %error, "a delivery failed and will be tried again");
    }
    core.wake();
}

/// Random bits for jitter.
pub(super) fn fraction() -> u32 {
    (uuid::Uuid::new_v4().as_u128() >> 96) as u32
}

/// An error as operations and events carry it.
pub(super) fn op_error(error: &Error) -> OpError {
    OpError { code: code(error).to_string(), detail: error.to_string() }
}

/// A stable code for why a delivery failed.
fn code(error: &Error) -> &'static str {
    match error {
        Error::Conflict { .. } => "conflict",
        Error::NotFound { .. } => "not-found",
        Error::Invalid { .. } => "validation-failed",
        Error::Unsupported { .. } => "unsupported",
        Error::Precondition { .. } => "precondition-failed",
        _ => "upstream-error",
    }
}
