//! The worker: delivers operations to `on_write` or to the master, in order per id, at least once, and settles them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::core::{Core, Guard};
use super::hooks::{self, Kind, Scope};
pub(super) use super::operations::Attempt;
use super::settings::WriteRoute;
use super::{Dio, Handle};
use crate::hot::{Answer, Cmd, Effect, Op, OpError, OpId, OpState};
use crate::record::{Body, Id, Record};
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

/// Starts what may be delivered now; gives when the next one that waits is due.
fn start_due(core: &Arc<Core>, handle: &std::sync::Weak<Handle>, running: &mut JoinSet<()>) -> Option<Instant> {
    let state = core.state();
    if core.seeding.load(Ordering::Acquire) && state.lacks_rows() {
        return None;
    }
    let mut soonest: Option<Instant> = None;
    let mut attempts = core.attempts.lock();
    if attempts.len() > MOST_ATTEMPTS {
        attempts.retain(|id, _| state.op(*id).is_some_and(|op| op.state == OpState::Queued));
    }
    for op in state.queue() {
        if running.len() >= core.settings.write_concurrency.max(1) {
            return soonest;
        }
        let attempt = attempts.entry(op.id).or_default();
        if attempt.running || !state.is_next(op) {
            continue;
        }
        if let Some(next) = attempt.next.filter(|next| *next > Instant::now()) {
            soonest = Some(soonest.map_or(next, |soonest| soonest.min(next)));
            continue;
        }
        attempt.running = true;
        attempt.count += 1;
        attempt.next = None;
        running.spawn(deliver(Arc::clone(core), handle.clone(), op.clone()));
    }
    soonest
}

async fn deliver(core: Arc<Core>, handle: std::sync::Weak<Handle>, op: Op) {
    let first = core.attempts.lock().get(&op.id).is_none_or(|attempt| attempt.count <= 1);
    let opened = match &*op.targets {
        [id] => core.open_guard_for(id).await,
        _ => core.open_guard().await,
    };
    let Ok(guard) = opened else { return pause(&core, op.id, &Error::Closed) };
    let patience = core.settings.retry.attempt_timeout;
    let answered = match tokio::time::timeout(patience, attempt(&core, &handle, &op)).await {
        Ok(answered) => answered,
        Err(_) => Err(Error::unknown(format!("no answer within {} s", patience.as_secs_f32()))),
    };
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
    let Some(on_write) = core.hooks.on_write.clone() else {
        let shell = Arc::clone(core.vista.shell());
        let written = core.ask_driver(async move { shell.write(&write).await }).await?;
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
        (ErrorKind::Permanent, WriteKind::Insert, Error::Conflict { .. }) if !first || recovered(core, op) => {
            read_back(core, op, error).await
        }
        (ErrorKind::Permanent, _, _) => Some(Answer::Failed(op_error(error))),
        (ErrorKind::Transient | ErrorKind::Unknown, _, _) => {
            let age = super::commit::now().saturating_sub(op.created);
            (age > core.settings.retry.max_age.as_millis() as u64).then(|| Answer::Parked(op_error(error)))
        }
    }
}

/// Whether the operation was accepted by an earlier process, which may have delivered it.
fn recovered(core: &Core, op: &Op) -> bool {
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
    let ours: Record = body.decode().unwrap_or_default();
    let schema = core.vista.schema();
    let same = ours.iter().all(|(column, value)| &**column == schema.id_column() || row.get(column) == Some(value));
    Some(match same {
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
        attempt.unknown = error.kind() == ErrorKind::Unknown;
        attempt.error = Some(op_error(error));
        attempt.next = Some(Instant::now() + wait.min(Duration::from_secs(300)));
        tracing::info!(dio = %core.name, %op, attempts = attempt.count, %error, "a delivery failed and will be tried again");
    }
    core.published.send_modify(|_| {});
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
