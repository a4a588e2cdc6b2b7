//! The tasks of one Dio: spawned here, stopped by one token, joined on close.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owner of a Dio's tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    closing: CancellationToken,
}

impl Tasks {
    /// Runs `future` until it ends; it must end soon after [`Tasks::closing`] is cancelled.
    pub(crate) fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn(future)
    }

    /// Runs `future` to its end, whoever waits for it; given up (`None`) when it outlasts the closing of the Dio by `grace`.
    pub(crate) fn spawn_bounded<T: Send + 'static>(
        &self,
        grace: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let closing = self.closing.clone();
        self.spawn(async move {
            tokio::select! {
                done = future => Some(done),
                () = async { closing.cancelled().await; tokio::time::sleep(grace).await } => None,
            }
        })
    }

    /// Cancelled when the Dio begins to close.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Waits until every task has ended.
    pub(crate) async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// How many run.
    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }
}

/// Rows from which work is done off the async threads.
pub(crate) const HEAVY: usize = 5_000;
