//! Operations as people follow them: where a write stands, and what a person may do about it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::core::Core;
use crate::hot::{Cmd, Op, OpError, OpId, OpState};
use crate::journal::Seq;
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
#[non_exhaustive]
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

/// What the worker knows of an operation's deliveries; not journaled.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempt {
    pub(super) count: u32,
    pub(super) running: bool,
    pub(super) unknown: bool,
    pub(super) next: Option<Instant>,
    pub(super) error: Option<OpError>,
}

impl Attempt {
    /// One more begins.
    pub(super) fn begin(&mut self) {
        self.running = true;
        self.count += 1;
        self.next = None;
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

    fn view(&self, op: &Op) -> Operation {
        let attempt = self.attempts.lock().get(&op.id).cloned().unwrap_or_default();
        let state = match op.state {
            OpState::Queued if attempt.running => OperationState::Running,
            OpState::Queued if attempt.unknown => OperationState::Unknown,
            OpState::Queued => OperationState::Queued,
            OpState::Routed | OpState::Applied => OperationState::Applied,
            OpState::Failed => OperationState::Failed,
            OpState::Parked => OperationState::Parked,
            OpState::Discarded => OperationState::Discarded,
        };
        let record = match op.effect {
            crate::hot::Effect::DeleteAll => None,
            _ => op.targets.first().map(ToString::to_string),
        };
        Operation {
            id: op.id,
            dio: Arc::clone(&self.name),
            record,
            op: op.effect.kind(),
            state,
            attempts: attempt.count,
            next_attempt: (op.state == OpState::Queued && !attempt.running)
                .then(|| attempt.next.max(self.outlet.rests_until()))
                .flatten()
                .map(wall_clock),
            error: op.error.clone().or(attempt.error),
            position: op.staged,
            created: op.created,
            updated: op.updated,
            retry_of: op.retry_of,
        }
    }

    /// Gives a parked operation another try, as a new operation at the end of the queue.
    pub(crate) async fn retry(self: &Arc<Self>, op: OpId) -> Result<OpId> {
        let new = OpId::new();
        self.write(Cmd::Retry { op, new }, Some(128), None, false).await?;
        Ok(new)
    }

    /// Gives a parked operation up.
    pub(crate) async fn discard(self: &Arc<Self>, op: OpId) -> Result<()> {
        self.write(Cmd::Discard(op), None, None, false).await.map(drop)
    }
}

/// A moment of the monotonic clock as Unix milliseconds.
fn wall_clock(at: Instant) -> u64 {
    let wait = at.saturating_duration_since(Instant::now());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    (now + wait).as_millis() as u64
}
