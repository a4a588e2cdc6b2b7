//! Delivery of an operation, or of a batch, to `on_write` or to the master. The answer is committed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::breaker::LONGEST_RETRY_AFTER;
use super::call_order::CallTurn;
use super::carried_ops;
use super::carried_ops::has_inserted_values;
use crate::dio::backoff::Backoff;
use crate::dio::clock::fraction;
use crate::dio::core::Core;
use crate::dio::guard::Guard;
use crate::dio::handle::{Dio, Handle};
use crate::dio::scope;
use crate::dio::scope::{Kind, Scope};
use crate::dio::settings::{OnUnknown, WriteRoute};
use crate::record::{Body, Id, Record, merge_patch};
use crate::state::{Answer, Effect, Op, OpError, OpId};
use crate::vista::{Error, ErrorKind, Result, WriteKind, Written};

/// Returns true if an operation is older than `retry.max_age`, so that its next failure parks it.
pub(crate) fn is_old(core: &Core, op: &Op) -> bool {
    let age = crate::dio::clock::now().saturating_sub(op.created);
    u128::from(age) > core.settings.retry.max_age.as_millis()
}

/// Parks an operation whose master has been unreachable for too long.
pub(crate) async fn give_up(core: Arc<Core>, op: Op, error: Error) {
    match open_guard(&core, &op).await {
        Ok(guard) => settle(&core, &guard, op.id, Answer::Parked(op_error(&error))).await,
        Err(_) => schedule_retry(&core, op.id, &Error::Closed),
    }
}

async fn open_guard(core: &Arc<Core>, op: &Op) -> Result<Guard> {
    match &*op.targets {
        [_] => core.open_guards_for(&op.targets).await?.pop().ok_or(Error::Closed),
        _ => core.open_guard().await,
    }
}

/// Delivers one operation to `on_write` or to the master, and commits the answer.
pub(crate) async fn deliver(core: Arc<Core>, handle: Weak<Handle>, op: Op, probe: bool, mut turn: CallTurn) {
    let Ok(guard) = open_guard(&core, &op).await else {
        core.deliver.route_breaker.release(probe, Instant::now());
        return schedule_retry(&core, op.id, &Error::Closed);
    };
    if !begin_call(&core, std::slice::from_ref(&op), &mut turn).await {
        return core.deliver.route_breaker.release(probe, Instant::now());
    }
    let patience = core.settings.retry.attempt_timeout;
    let answered = match tokio::time::timeout(patience, attempt(&core, &handle, &op)).await {
        Ok(answered) => answered,
        Err(_) => Err(unanswered(patience)),
    };
    record_answer(&core, &op, &answered);
    core.deliver.route_breaker.release(probe, Instant::now());
    if answered.is_ok() {
        turn.end();
    }
    if conclude(&core, &guard, &op, answered).await {
        turn.end();
    }
}

/// Waits for the turn to call the master. Returns false if the operations wait for an earlier one again.
async fn begin_call(core: &Core, ops: &[Op], turn: &mut CallTurn) -> bool {
    let may = turn.begin().await;
    match may {
        true if turn.has_next() => core.wake(),
        true => {}
        false => ops.iter().for_each(|op| core.deliver.attempts.lock().not_tried(op.id)),
    }
    may
}

/// Delivers operations on different rows to a master that takes several in one transaction.
pub(crate) async fn deliver_batch(core: Arc<Core>, ops: Vec<Op>, mut turn: CallTurn) {
    let rows: Vec<Id> = ops.iter().filter_map(|op| op.targets.first().cloned()).collect();
    let Ok(guards) = core.open_guards_for(&rows).await else {
        return ops.iter().for_each(|op| schedule_retry(&core, op.id, &Error::Closed));
    };
    if !begin_call(&core, &ops, &mut turn).await {
        return;
    }
    let answers = attempt_batch(&core, &ops).await;
    // Operations on these rows wait until these are settled; others need not.
    let all = answers.len() == ops.len();
    if all && answers.iter().all(Result::is_ok) {
        turn.end();
    }
    let untried = ops.get(answers.len()..).unwrap_or_default();
    untried.iter().for_each(|op| core.deliver.attempts.lock().not_tried(op.id));
    ops.iter().zip(&answers).for_each(|(op, answer)| record_answer(&core, op, answer));
    let concluding = ops.iter().zip(answers).zip(&guards);
    let ended = join_all(concluding.map(|((op, answer), guard)| conclude(&core, guard, op, answer))).await;
    if all && ended.into_iter().all(|ended| ended) {
        turn.end();
    }
}

/// Delivers a batch. Returns the master's answers in order, up to the first transient failure.
async fn attempt_batch(core: &Arc<Core>, ops: &[Op]) -> Vec<Result<Answer>> {
    let mut writes = Vec::with_capacity(ops.len());
    for op in ops {
        match op.effect.to_write_op(op.targets.first().map(AsRef::as_ref).unwrap_or_default()) {
            Ok(write) => writes.push((op.id.to_string(), write)),
            Err(error) if writes.is_empty() => return vec![Err(error)],
            Err(_) => break,
        }
    }
    let (shell, patience) = (Arc::clone(core.vista.shell()), core.settings.retry.attempt_timeout);
    let request = core.ask_driver(async move { Ok(shell.write_batch(&writes).await) });
    let written = match tokio::time::timeout(patience, request).await {
        Ok(Ok(written)) if !written.is_empty() => written,
        Ok(Ok(_)) => vec![Err(Error::unknown("the source answered none of the writes of the batch"))],
        // Any of them may have taken effect.
        Ok(Err(error)) => ops.iter().map(|_| Err(error.clone())).collect(),
        Err(_) => ops.iter().map(|_| Err(unanswered(patience))).collect(),
    };
    let answer = |(op, written): (&Op, Result<Written>)| written.map(|written| confirmed(core, &op.targets, written));
    ops.iter().zip(written).map(answer).collect()
}

fn unanswered(patience: Duration) -> Error {
    Error::unknown(format!("no answer within {} s", patience.as_secs_f32()))
}

/// Records an answer in the breaker of the route.
///
/// Repeated failures of one row count once, because other calls show the state of the master. On a write route with
/// ordered delivery there are no other calls, so every failure counts.
fn record_answer(core: &Core, op: &Op, answered: &Result<Answer>) {
    let only_calls = core.callbacks.on_write.is_some() && core.settings.delivers_in_order();
    let row = if op.targets.len() == 1 && !only_calls { op.targets.first() } else { None };
    core.record_answer(&core.deliver.route_breaker, row, answered);
}

/// Commits the meaning of an answer, or schedules a retry. Returns true if the operation has ended.
async fn conclude(core: &Arc<Core>, guard: &Guard, op: &Op, answered: Result<Answer>) -> bool {
    let first = core.deliver.attempts.lock().get(op.id).is_none_or(|attempt| attempt.count <= 1);
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => match classify_failure(core, op, &error, first).await {
            Some(answer) => answer,
            None => {
                schedule_retry(core, op.id, &error);
                return false;
            }
        },
    };
    settle(core, guard, op.id, answer).await;
    true
}

/// Logs failed and parked operations, which an operator may have to act on.
fn log_failure(core: &Core, op: OpId, answer: &Answer) {
    let (what, OpError { code, detail }) = match answer {
        Answer::Failed(error) => ("a write failed and was rolled back", error),
        Answer::Parked(error) => ("a write was parked; retry or discard it", error),
        Answer::Confirmed { .. } | Answer::Reported | Answer::Routed => return,
    };
    if let Some(left_out) = core.lines.pass((what, code.clone())) {
        tracing::warn!(dio = %core.name, operation = %op, code, error = detail, left_out, "{what}");
    }
}

/// Commits the answer. Retries while the journal cannot be written, because the master may have the write already.
async fn settle(core: &Arc<Core>, guard: &Guard, op: OpId, answer: Answer) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let settled = core.settle(op, guard.mark, answer.clone()).await;
        match settled {
            Ok(_) => {
                log_failure(core, op, &answer);
                core.deliver.attempts.lock().ended(op);
                return guard.disarm();
            }
            Err(Error::Closed) => return,
            Err(error) => {
                if let Some(left_out) = core.lines.pass(("unsettled", String::new())) {
                    tracing::warn!(dio = %core.name, %op, %error, left_out, "a delivered operation cannot be settled yet");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.rest()) => {}
            () = core.tasks.closing().cancelled() => return,
        }
    }
}

/// Attempts one delivery to `on_write` or to the master.
async fn attempt(core: &Arc<Core>, handle: &Weak<Handle>, op: &Op) -> Result<Answer> {
    let id = op.targets.first().map(AsRef::as_ref).unwrap_or_default();
    let write = op.effect.to_write_op(id)?;
    if let Some(answer) = resolve(core, op).await? {
        return Ok(answer);
    }
    let Some(on_write) = core.callbacks.on_write.clone() else {
        let (shell, operation) = (Arc::clone(core.vista.shell()), op.id.to_string());
        let written = core.ask_driver(async move { shell.write_once(&operation, &write).await }).await?;
        return Ok(confirmed(core, &op.targets, written));
    };
    // The last handle may be dropped while the queue drains: the callback gets a new one.
    let handle = handle.upgrade().unwrap_or_else(|| Arc::new(Handle::new(Arc::clone(core))));
    let scope = Scope { op: Some(op.id), ..Scope::new(&core.name, Kind::Write) };
    let delivery = scope::calling(Dio(handle), move |dio| on_write(dio, write));
    scope::run(core, Arc::new(scope), delivery).await?;
    Ok(match core.settings.write_route {
        WriteRoute::Around => Answer::Routed,
        WriteRoute::Through => Answer::Confirmed { row: None, id: None },
    })
}

/// Decides on an operation that may have taken effect already: an answer, or `None` to deliver it (again).
///
/// The first of these decides: the master's own proof, an idempotent effect, the row as it is now, `on_unknown`.
async fn resolve(core: &Arc<Core>, op: &Op) -> Result<Option<Answer>> {
    let base_hash = core.deliver.attempts.lock().get(op.id).and_then(|attempt| attempt.base_hash);
    if let Some(base_hash) = base_hash {
        return carried_ops::resolve(core, op, base_hash).await;
    }
    let routed = core.callbacks.on_write.is_some();
    let shell = core.vista.shell();
    let proven = if routed { core.settings.route_writes_once } else { shell.writes_once() };
    if proven || !is_unknown(core, op) || matches!(op.effect, Effect::Replace(_) | Effect::Delete) {
        return Ok(None);
    }
    if !routed && shell.reads_one() && op.effect != Effect::DeleteAll {
        let id = op.targets.first().cloned().unwrap_or_else(|| Id::from(""));
        let row = core.read_one(&id).await?;
        match evidence(core, op, &id, row.as_ref()) {
            Evidence::Applied => {
                let row = row.map(|row| Body::encode(&id, &row, core.vista.schema().layout()));
                return Ok(Some(Answer::Confirmed { row, id: None }));
            }
            Evidence::Untouched => return Ok(None),
            Evidence::Unclear => {}
        }
    }
    Ok(match core.settings.on_unknown {
        OnUnknown::Retry => None,
        OnUnknown::Park => {
            let cause = core.deliver.attempts.lock().get(op.id).and_then(|attempt| attempt.error.clone());
            let cause = cause.map_or_else(|| "the program ended meanwhile".to_string(), |error| error.detail);
            let detail =
                format!("it is not known whether this took effect ({cause}): look at the row, then retry or discard");
            Some(Answer::Parked(OpError { code: "outcome-unknown".into(), detail }))
        }
    })
}

/// Evidence in the master's row that an operation has taken effect.
enum Evidence {
    /// It has taken effect, or makes no difference.
    Applied,
    /// The row is as it was before.
    Untouched,
    /// The row has changed, perhaps also by this operation.
    Unclear,
}

fn evidence(core: &Core, op: &Op, id: &Id, row: Option<&Record>) -> Evidence {
    let schema = core.vista.schema();
    match (&op.effect, row) {
        (Effect::Insert(_), None) => Evidence::Untouched,
        (Effect::Insert(body), Some(row)) if has_inserted_values(body, row, schema.id_column()) => Evidence::Applied,
        (Effect::Patch(body), Some(row)) => {
            let patch = body.decode().unwrap_or_default();
            let before = core.state().base(id).and_then(|base| base.body.decode().ok());
            if merge_patch(row.clone(), &patch, schema.layout()) == *row {
                return Evidence::Applied;
            }
            let same = before.is_some_and(|before| patch.columns().all(|column| before.get(column) == row.get(column)));
            if same { Evidence::Untouched } else { Evidence::Unclear }
        }
        _ => Evidence::Unclear,
    }
}

fn confirmed(core: &Core, targets: &[Id], written: Written) -> Answer {
    if written.reported {
        return Answer::Reported;
    }
    let schema = core.vista.schema();
    let id: Option<Id> = written.id.map(Id::from).or_else(|| targets.first().cloned());
    let row = match (&written.record, &id) {
        (Some(record), Some(id)) => Some(Body::encode(id, record, schema.layout())),
        _ => None,
    };
    if let Some(id) = &id {
        core.note_mismatches(id, row.as_ref());
    }
    Answer::Confirmed { row, id }
}

/// Decides on a failed delivery: an answer, or `None` to retry.
async fn classify_failure(core: &Arc<Core>, op: &Op, error: &Error, first: bool) -> Option<Answer> {
    match (error.kind(), op.effect.kind(), error) {
        (_, _, Error::Closed) => None,
        (ErrorKind::Permanent, WriteKind::Delete | WriteKind::DeleteAll, Error::NotFound { .. }) => {
            Some(Answer::Confirmed { row: None, id: None })
        }
        (ErrorKind::Permanent, WriteKind::Insert, Error::Conflict { .. }) if !first || is_unknown(core, op) => {
            read_back(core, op, error).await
        }
        (ErrorKind::Permanent, _, _) => Some(Answer::Failed(op_error(error))),
        (ErrorKind::Transient | ErrorKind::Unknown, _, _) => {
            let given_up = is_old(core, op) || holds_up_others(core, op);
            given_up.then(|| Answer::Parked(op_error(error)))
        }
    }
}

/// Returns true if an operation at the head of an ordered queue has failed for `head_patience`, while the master answered
/// all other calls.
fn holds_up_others(core: &Core, op: &Op) -> bool {
    let since = core.deliver.attempts.lock().get(op.id).and_then(|attempt| attempt.failing_since);
    let patience = core.settings.head_patience;
    core.settings.delivers_in_order()
        && since.is_some_and(|since| core.deliver.route_breaker.answers_others(since, patience))
}

/// Returns true if an attempt ended without an answer, or with an earlier process.
fn is_unknown(core: &Core, op: &Op) -> bool {
    core.deliver.attempts.lock().get(op.id).is_some_and(|attempt| attempt.unknown)
}

/// Decides on an insert that was tried before and conflicts, perhaps with itself, by the master's row. `None` if the row
/// cannot be read.
async fn read_back(core: &Arc<Core>, op: &Op, error: &Error) -> Option<Answer> {
    let id = op.targets.first().map(AsRef::as_ref).unwrap_or_default();
    let row = core.read_one(id).await.ok()?;
    let (Effect::Insert(body), Some(row)) = (&op.effect, row) else {
        return Some(Answer::Failed(op_error(error)));
    };
    let schema = core.vista.schema();
    Some(match has_inserted_values(body, &row, schema.id_column()) {
        true => Answer::Confirmed { row: Some(Body::encode(id, &row, schema.layout())), id: None },
        false => Answer::Failed(op_error(error)),
    })
}

/// Notes a failed attempt and when the next one is due, and wakes the worker.
fn schedule_retry(core: &Arc<Core>, op: OpId, error: &Error) {
    if let Some(attempt) = core.deliver.attempts.lock().get_mut(op) {
        let chance = f64::from(fraction()) / f64::from(u32::MAX);
        let wait = error.retry_after().unwrap_or_else(|| {
            let wait = core.settings.retry.wait(attempt.count, chance);
            // In an ordered queue the blocking operation itself has to find out that the route has recovered.
            if core.settings.delivers_in_order() { wait.min(core.settings.breaker.most) } else { wait }
        });
        attempt.running = false;
        attempt.failing_since.get_or_insert_with(Instant::now);
        // Only an answer of the master clears this: a later attempt that was refused proves nothing about this one.
        attempt.unknown |= error.kind() == ErrorKind::Unknown;
        attempt.error = Some(op_error(error));
        attempt.next = Some(Instant::now() + wait.min(LONGEST_RETRY_AFTER.max(core.settings.retry.most)));
        if let Some(left_out) = core.lines.pass(("repeated", String::new())) {
            let attempts = attempt.count;
            tracing::info!(dio = %core.name, %op, attempts, %error, left_out, "a delivery failed and will be retried");
        }
    }
    core.wake();
}

/// Error of an operation, as in its state and events.
pub(crate) fn op_error(error: &Error) -> OpError {
    OpError { code: code(error).to_string(), detail: error.to_string() }
}

/// Stable error code of a failed delivery.
fn code(error: &Error) -> &'static str {
    match error {
        Error::Conflict { .. } => "conflict",
        Error::NotFound { .. } => "not-found",
        Error::Invalid { .. } => "validation-failed",
        Error::Unsupported { .. } => "unsupported",
        Error::Precondition { .. } => "precondition-failed",
        Error::Forbidden { .. } => "forbidden",
        _ => "upstream-error",
    }
}
