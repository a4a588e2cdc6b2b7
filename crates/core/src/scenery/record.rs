//! [`RecordScenery`]: one row, and how it stands with it.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::follow::{Follower, Notice};
use super::{Generation, TaskHandle};
use crate::dio::{Core, Coverage, Dio, DioEvent, StandingView};
use crate::record::{Body, Record};
use crate::vista::Result;

/// How it stands with the row of a [`RecordScenery`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordStatus {
    /// There is no first copy yet, so nothing is known of the row.
    Loading {
        /// Why the last attempt to make the copy failed, if it did.
        error: Option<String>,
    },
    /// There is no such row.
    Missing,
    /// It is there, and nothing is on its way.
    Present,
    /// Writes to it wait for the master. It is shown as they make it, which may be: not at all.
    Pending,
    /// A write to it failed and was rolled back, and nothing has happened to it since.
    Failed {
        /// Why.
        error: String,
    },
}

/// A standing view of one row. Clones share it.
#[derive(Clone)]
pub struct RecordScenery(Arc<TaskHandle<Shared>>);

struct Shared {
    id: String,
    held: RwLock<RecordState>,
    generation: watch::Sender<Generation>,
}

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
        let held = RwLock::new(look(&core, &mut follower, &id, None));
        let shared = Arc::new(Shared { id, held, generation: watch::Sender::default() });
        let task = {
            let shared = Arc::clone(&shared);
            async move {
                let mut failed = None;
                while let Some(told) = follower.told().await {
                    for told in &told {
                        note_failure(&mut failed, told, &shared.id);
                    }
                    if follower.is_loading()
                        && let Err(error) = load_if_unknown(&core, &shared.id).await
                    {
                        tracing::debug!(dio = %core.name, record = shared.id, %error, "a row could not be read");
                    }
                    shared.show(look(&core, &mut follower, &shared.id, failed.as_deref()));
                    follower.rest();
                }
            }
        };
        dio.0.refresh_on_open();
        Ok(RecordScenery(TaskHandle::start(dio, shared, task)))
    }

    /// The row's id.
    pub fn id(&self) -> &str {
        &self.0.shared.id
    }

    /// The row, if it is there. Never fetches.
    pub fn record(&self) -> Option<Record> {
        self.0.shared.held.read().body.as_ref().and_then(|body| body.decode().ok())
    }

    /// How it stands with it.
    pub fn status(&self) -> RecordStatus {
        self.0.shared.held.read().status.clone()
    }

    /// Follows the generation: it moves whenever the row or its status has changed.
    pub fn subscribe(&self) -> watch::Receiver<Generation> {
        self.0.shared.generation.subscribe()
    }

    /// The generation now.
    pub fn generation(&self) -> Generation {
        *self.0.shared.generation.borrow()
    }
}

impl Shared {
    fn show(&self, now: RecordState) {
        let mut held = self.held.write();
        let moved = *held != now;
        *held = now;
        drop(held);
        if moved {
            Generation::bump(&self.generation);
        }
    }
}

/// Reads the row from the master if it is not among those that are here, and these are not all.
async fn load_if_unknown(core: &Arc<Core>, id: &str) -> Result<()> {
    let view = core.standing_view();
    if view.coverage == Coverage::Partial && view.state.get(id).is_none() {
        core.load_row(id).await?;
    }
    Ok(())
}

fn look(core: &Core, follower: &mut Follower, id: &str, failed: Option<&str>) -> RecordState {
    let StandingView { state, coverage } = core.standing_view();
    follower.saw(&coverage);
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

/// A failed write is remembered until the row changes. (The event that takes it back comes before the one that says so.)
fn note_failure(failed: &mut Option<String>, told: &Notice, row: &str) {
    let Notice::Item(item) = told else { return };
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
