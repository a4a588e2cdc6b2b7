//! [`RecordScenery`]: one row and its status.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::follow::{Follower, Notice};
use super::{Generation, TaskHandle};
use crate::dio::{Core, Coverage, Dio, DioEvent, StandingView};
use crate::record::{Body, Record};
use crate::vista::Result;

/// Status of the row of a [`RecordScenery`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordStatus {
    /// There is no first copy yet, so the row is unknown.
    Loading {
        /// Reason why the last attempt to make the copy failed, if it did.
        error: Option<String>,
    },
    /// The row does not exist.
    Missing,
    /// The row exists and has no pending writes.
    Present,
    /// Writes to the row are pending. It is shown with them applied, so a pending delete hides it.
    Pending,
    /// A write to the row failed and was rolled back, and the row has not changed since.
    Failed {
        /// Error of the write.
        error: String,
    },
}

/// Live view of one row. Clones share it.
#[derive(Clone)]
pub struct RecordScenery(Arc<TaskHandle<Shared>>);

/// State that the task writes and handles read.
struct Shared {
    id: String,
    current: RwLock<RecordState>,
    generation: watch::Sender<Generation>,
}

/// The row and its status.
#[derive(PartialEq)]
struct RecordState {
    body: Option<Body>,
    status: RecordStatus,
}

impl std::fmt::Debug for RecordScenery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, status) = (self.id(), self.status());
        f.debug_struct("RecordScenery").field("id", &id).field("status", &status).finish_non_exhaustive()
    }
}

impl RecordScenery {
    pub(super) async fn open(dio: Dio, id: String) -> Result<RecordScenery> {
        let core = Arc::clone(&dio.0.core);
        let mut follower = Follower::new(&core);
        load_if_unknown(&core, &id).await?;
        let current = RwLock::new(read_state(&core, &mut follower, &id, None));
        let shared = Arc::new(Shared { id, current, generation: watch::Sender::default() });
        let task = {
            let shared = Arc::clone(&shared);
            async move {
                let mut failed = None;
                while let Some(notices) = follower.next_batch().await {
                    for notice in &notices {
                        note_failure(&mut failed, notice, &shared.id);
                    }
                    if follower.is_loading()
                        && let Err(error) = load_if_unknown(&core, &shared.id).await
                    {
                        tracing::debug!(dio = %core.name, record = shared.id, %error, "a row could not be read");
                    }
                    shared.show(read_state(&core, &mut follower, &shared.id, failed.as_deref()));
                    follower.pause();
                }
            }
        };
        dio.0.refresh_on_open();
        Ok(RecordScenery(TaskHandle::start(dio, shared, task)))
    }

    /// Returns the row's id.
    pub fn id(&self) -> &str {
        &self.0.shared.id
    }

    /// Returns the row if it exists. Never fetches.
    pub fn record(&self) -> Option<Record> {
        self.0.shared.current.read().body.as_ref().and_then(|body| body.decode().ok())
    }

    /// Returns the status of the row.
    pub fn status(&self) -> RecordStatus {
        self.0.shared.current.read().status.clone()
    }

    /// Subscribes to the generation, which changes whenever the row or its status changes.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.0.shared.generation.subscribe()
    }

    /// Returns the current generation.
    pub fn generation(&self) -> Generation {
        *self.0.shared.generation.borrow()
    }
}

impl Shared {
    fn show(&self, now: RecordState) {
        let mut current = self.current.write();
        let moved = *current != now;
        *current = now;
        drop(current);
        if moved {
            Generation::bump(&self.generation);
        }
    }
}

/// Reads the row from the master if the cache is partial and does not hold it.
async fn load_if_unknown(core: &Arc<Core>, id: &str) -> Result<()> {
    let view = core.standing_view();
    if view.coverage == Coverage::Partial && view.state.get(id).is_none() {
        core.load_row(id).await?;
    }
    Ok(())
}

fn read_state(core: &Core, follower: &mut Follower, id: &str, failed: Option<&str>) -> RecordState {
    let StandingView { state, coverage } = core.standing_view();
    follower.note_coverage(&coverage);
    if let Coverage::Loading { error } = coverage {
        return RecordState { body: None, status: RecordStatus::Loading { error } };
    }
    let body = state.get(id).map(|row| row.body());
    let status = match (&body, failed) {
        _ if core.state().has_queued(id) => RecordStatus::Pending,
        (_, Some(error)) => RecordStatus::Failed { error: error.to_string() },
        (Some(_), None) => RecordStatus::Present,
        (None, None) => RecordStatus::Missing,
    };
    RecordState { body, status }
}

/// Records a failed write until the row changes. The rollback event comes before the failure event.
fn note_failure(failed: &mut Option<String>, notice: &Notice, row: &str) {
    let Notice::Item(item) = notice else { return };
    match &item.event {
        DioEvent::WriteFailed { id, error, .. } if id == row => *failed = Some(error.clone()),
        DioEvent::RecordChanged { id } | DioEvent::RecordInserted { id } | DioEvent::RecordRemoved { id }
            if id == row =>
        {
            *failed = None;
        }
        _ => {}
    }
}
