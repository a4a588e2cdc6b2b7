//! Operations as people follow them: where a write stands, and what a person may do about it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::attempts::Attempt;
use crate::dio::core::Core;
use crate::dio::status::BlockingWrite;
use crate::journal::Seq;
use crate::state::{Command, Op, OpError, OpId, OpState, State};
use crate::vista::{Result, WriteKind};

/// Where a write stands.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Operation {
    /// Its id.
    pub id: OpId,
    /// The Dio.
    pub dio: Arc<str>,
    /// The row, `None` for a write to all of them.
    pub record: Option<String>,
    /// What it does.
    pub op: WriteKind,
    /// Where it stands.
    pub state: OperationState,
    /// Deliveries so far, in this process.
    pub attempts: u32,
    /// Unix milliseconds of the next delivery, if it waits for one.
    pub next_attempt: Option<u64>,
    /// Why the last delivery failed, or why it ended without effect.
    pub error: Option<OpError>,
    /// Its position in the Dio's history.
    pub position: Seq,
    /// Unix milliseconds of its acceptance.
    pub created: u64,
    /// Unix milliseconds of its last change of state.
    pub updated: u64,
    /// The operation it repeats.
    pub retry_of: Option<OpId>,
}

/// The states that people see; the State itself knows fewer, because what a worker does right now is not journaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It waits for its turn or its next attempt.
    Queued,
    /// It is being delivered.
    Running,
    /// An attempt ended without an answer (or with the process); the next one finds out.
    Unknown,
    /// The master or the write route has it.
    Applied,
    /// The master refused it; the row was rolled back.
    Failed,
    /// Given up for now; the row was rolled back; retry or discard it.
    Parked,
    /// Given up for good.
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

    /// Whether nothing more happens by itself.
    pub fn is_final(self) -> bool {
        !matches!(self, OperationState::Queued | OperationState::Running | OperationState::Unknown)
    }

    /// The state's name as HTTP answers spell it.
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
    /// An operation as the journal has it, while no worker delivers.
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
        }
    }
}

/// What a list of operations is narrowed by.
#[derive(Clone, Debug, Default)]
pub struct OperationQuery {
    /// Only in one of these states; any, if there is none.
    pub states: Vec<OperationState>,
    /// Only about this row.
    pub record: Option<String>,
    /// Only older than this one.
    pub after: Option<OpId>,
    /// At most so many.
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
        self.root.load().op(id).map(|op| self.view(op))
    }

    /// All of them, newest first.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.root.load().ops().rev().map(|op| self.view(op)).collect()
    }

    /// Those that `asked` fits, newest first, and how many there are on all pages.
    pub(crate) fn operations_by(&self, asked: &OperationQuery) -> (Vec<Operation>, usize) {
        let root = self.root.load();
        let fits = |op: &&Op| {
            let about = |record: &String| op.targets.iter().any(|id| **id == **record);
            asked.record.as_ref().is_none_or(about)
                && (asked.states.is_empty() || asked.states.contains(&self.standing(op)))
        };
        let (mut found, mut total) = (Vec::new(), 0);
        for op in root.ops().rev().filter(fits) {
            total += 1;
            if found.len() < asked.limit && asked.after.is_none_or(|after| op.id < after) {
                found.push(self.view(op));
            }
        }
        (found, total)
    }

    fn standing(&self, op: &Op) -> OperationState {
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

    /// The write that holds the queue, if it has failed.
    pub(crate) fn held_by(&self, state: &State) -> Option<BlockingWrite> {
        let head = state.queue().next().filter(|_| self.settings.delivers_in_order())?;
        let attempts = self.deliver.attempts.lock();
        let attempt = attempts.get(head.id)?;
        let error = attempt.error.as_ref()?.detail.clone();
        Some(BlockingWrite { operation: head.id, since: attempt.failing_since?.elapsed(), error })
    }

    /// Gives a parked operation another try, as a new operation at the end of the queue.
    pub(crate) async fn retry(self: &Arc<Self>, op: OpId) -> Result<OpId> {
        let new = OpId::new();
        // Parked operations count as waiting ones do: this one needs no room that it has not got.
        self.write(Command::Retry { op, new }, None, None, true).await?;
        Ok(new)
    }

    /// Gives a parked operation up.
    pub(crate) async fn discard(self: &Arc<Self>, op: OpId) -> Result<()> {
        self.write(Command::Discard(op), None, None, true).await.map(drop)
    }
}

/// A moment of the monotonic clock as Unix milliseconds.
fn wall_clock(at: Instant) -> u64 {
    let wait = at.saturating_duration_since(Instant::now());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    (now + wait).as_millis() as u64
}

impl Core {
    /// Waits until `op` has ended (or was taken by the route), at most `patience`; gives how it stands then.
    pub(crate) async fn settled(self: &Arc<Self>, op: OpId, patience: Duration) -> Option<Operation> {
        let mut published = self.published.subscribe();
        let deadline = tokio::time::Instant::now() + patience;
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
