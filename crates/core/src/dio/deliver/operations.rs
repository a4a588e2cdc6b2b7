//! [`Operation`]: the state of a write, and the actions on parked ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::attempts::Attempt;
use crate::dio::core::Core;
use crate::dio::status::BlockingWrite;
use crate::journal::Seq;
use crate::state::{Command, Op, OpError, OpId, OpState, State};
use crate::vista::{Result, WriteKind};

/// State and progress of one write.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Operation {
    /// Id of the operation.
    pub id: OpId,
    /// Name of the Dio.
    pub dio: Arc<str>,
    /// Id of the row, `None` for a write to all rows.
    pub record: Option<String>,
    /// Kind of the write.
    pub op: WriteKind,
    /// Present state.
    pub state: OperationState,
    /// Number of deliveries so far, in this process.
    pub attempts: u32,
    /// Unix milliseconds of the next delivery, if it waits for one.
    pub next_attempt: Option<u64>,
    /// Error of the last failed delivery, or the reason why the operation ended without effect.
    pub error: Option<OpError>,
    /// Position of the write in the Dio's history.
    pub position: Seq,
    /// Time of acceptance in Unix milliseconds.
    pub created: u64,
    /// Time of the last change of state in Unix milliseconds.
    pub updated: u64,
    /// The parked operation that this one retries.
    pub retry_of: Option<OpId>,
    /// Identity of the writer, if the caller provided it.
    pub principal: Option<Arc<str>>,
}

/// State of an operation as users see it. The journal has fewer states, because attempts are not journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Waits for its turn or its next attempt.
    Queued,
    /// Is being delivered.
    Running,
    /// An attempt ended without an answer, or with the process. The next attempt resolves it.
    Unknown,
    /// The master or the write route has accepted it.
    Applied,
    /// The master refused it; the row was rolled back.
    Failed,
    /// Delivery has stopped and the row was rolled back. Retry or discard it.
    Parked,
    /// Discarded permanently; the row was rolled back.
    Discarded,
}

impl OperationState {
    /// Every state.
    pub const ALL: &[OperationState] = &[
        OperationState::Queued,
        OperationState::Running,
        OperationState::Unknown,
        OperationState::Applied,
        OperationState::Failed,
        OperationState::Parked,
        OperationState::Discarded,
    ];

    /// Returns true if the state does not change any more without a user's action.
    pub fn is_final(self) -> bool {
        !matches!(self, OperationState::Queued | OperationState::Running | OperationState::Unknown)
    }

    /// Name of the state in HTTP answers.
    pub fn as_str(self) -> &'static str {
        match self {
            OperationState::Queued => "queued",
            OperationState::Running => "running",
            OperationState::Unknown => "unknown",
            OperationState::Applied => "applied",
            OperationState::Failed => "failed",
            OperationState::Parked => "parked",
            OperationState::Discarded => "discarded",
        }
    }
}

impl From<OpState> for OperationState {
    fn from(state: OpState) -> OperationState {
        match state {
            OpState::Queued => OperationState::Queued,
            OpState::Routed | OpState::Applied => OperationState::Applied,
            OpState::Failed => OperationState::Failed,
            OpState::Parked => OperationState::Parked,
            OpState::Discarded => OperationState::Discarded,
        }
    }
}

impl Operation {
    /// An operation from the journal alone, while no worker delivers.
    pub fn at_rest(dio: Arc<str>, op: &Op) -> Operation {
        let record = match op.effect {
            crate::state::Effect::DeleteAll => None,
            _ => op.targets.first().map(ToString::to_string),
        };
        Operation {
            id: op.id,
            dio,
            record,
            op: op.effect.kind(),
            state: op.state.into(),
            attempts: 0,
            next_attempt: None,
            error: op.error.clone(),
            position: op.staged,
            created: op.created,
            updated: op.updated,
            retry_of: op.retry_of,
            principal: op.principal.clone(),
        }
    }
}

/// Filter and page of a list of operations.
#[derive(Clone, Debug, Default)]
pub struct OperationQuery {
    /// States to list; all if empty.
    pub states: Vec<OperationState>,
    /// Id of the row to list; `None` for all.
    pub record: Option<String>,
    /// Name of the writer whose operations are listed; `None` for all.
    pub principal: Option<Arc<str>>,
    /// Lists only operations older than this one.
    pub after: Option<OpId>,
    /// Maximum number of operations.
    pub limit: usize,
}

impl Attempt {
    fn state(&self) -> OperationState {
        match (self.running, self.unknown) {
            (true, _) => OperationState::Running,
            (false, true) => OperationState::Unknown,
            (false, false) => OperationState::Queued,
        }
    }
}

impl Core {
    /// One operation, if it is open, parked or remembered.
    pub(crate) fn operation(&self, id: OpId) -> Option<Operation> {
        self.snapshot.load().op(id).map(|op| self.view(op))
    }

    /// All operations, newest first.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.snapshot.load().ops().rev().map(|op| self.view(op)).collect()
    }

    /// Operations that match `query`, newest first, and the number of matches on all pages.
    pub(crate) fn operations_by(&self, query: &OperationQuery) -> (Vec<Operation>, usize) {
        let state = self.snapshot.load();
        let fits = |op: &&Op| {
            let about = |record: &String| op.targets.iter().any(|id| **id == **record);
            query.record.as_ref().is_none_or(about)
                && (query.principal.is_none() || query.principal == op.principal)
                && (query.states.is_empty() || query.states.contains(&self.state_of(op)))
        };
        let (mut page, mut total) = (Vec::new(), 0);
        for op in state.ops().rev().filter(fits) {
            total += 1;
            if page.len() < query.limit && query.after.is_none_or(|after| op.id < after) {
                page.push(self.view(op));
            }
        }
        (page, total)
    }

    fn state_of(&self, op: &Op) -> OperationState {
        match op.state {
            OpState::Queued => self.deliver.attempts.lock().get(op.id).map_or(OperationState::Queued, Attempt::state),
            ended => OperationState::from(ended),
        }
    }

    fn view(&self, op: &Op) -> Operation {
        let attempt = self.deliver.attempts.lock().get(op.id).cloned().unwrap_or_default();
        let state = if op.state == OpState::Queued { attempt.state() } else { OperationState::from(op.state) };
        Operation {
            state,
            attempts: attempt.count,
            next_attempt: (op.state == OpState::Queued && !attempt.running)
                .then(|| attempt.next.max(self.deliver.route_breaker.rests_until()))
                .flatten()
                .map(wall_clock),
            error: op.error.clone().or(attempt.error),
            ..Operation::at_rest(Arc::clone(&self.name), op)
        }
    }

    /// The write at the head of an ordered queue, if it has failed.
    pub(crate) fn held_by(&self, state: &State) -> Option<BlockingWrite> {
        let head = state.queue().next().filter(|_| self.settings.delivers_in_order())?;
        let attempts = self.deliver.attempts.lock();
        let attempt = attempts.get(head.id)?;
        let error = attempt.error.as_ref()?.detail.clone();
        Some(BlockingWrite { operation: head.id, since: attempt.failing_since?.elapsed(), error })
    }

    /// Retries a parked operation, as a new operation at the end of the queue.
    pub(crate) async fn retry(self: &Arc<Self>, op: OpId) -> Result<OpId> {
        let new = OpId::new();
        // A retry needs no additional place in the queue.
        self.write(Command::Retry { op, new }, None, None, true).await?;
        Ok(new)
    }

    /// Discards a parked operation.
    pub(crate) async fn discard(self: &Arc<Self>, op: OpId) -> Result<()> {
        self.write(Command::Discard(op), None, None, true).await.map(drop)
    }
}

/// Converts an instant of the monotonic clock to Unix milliseconds.
fn wall_clock(at: Instant) -> u64 {
    let wait = at.saturating_duration_since(Instant::now());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    (now + wait).as_millis() as u64
}

impl Core {
    /// Waits until `op` is settled (or accepted by the route), at most `patience`, and returns it.
    pub(crate) async fn settled(self: &Arc<Self>, op: OpId, patience: Duration) -> Option<Operation> {
        let mut published = self.published.subscribe();
        let deadline = tokio::time::Instant::now() + patience;
        let _awaited = Awaited::new(&self.deliver.awaited);
        loop {
            published.borrow_and_update();
            let operation = self.operation(op)?;
            if operation.state.is_final() {
                return Some(operation);
            }
            tokio::select! {
                changed = published.changed() => if changed.is_err() { return Some(operation) },
                () = tokio::time::sleep_until(deadline) => return self.operation(op),
            }
        }
    }
}

/// Count of those who wait for an operation to be settled, while one of them does.
struct Awaited<'a>(&'a AtomicUsize);

impl<'a> Awaited<'a> {
    fn new(count: &'a AtomicUsize) -> Awaited<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Awaited(count)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
