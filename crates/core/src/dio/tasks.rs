//! [`Tasks`] of one Dio: spawned here, stopped by one token, joined on close.

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
    /// Spawns `future`, which must end soon after [`Tasks::closing`] is cancelled.
    pub(crate) fn spawn<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn(future)
    }

    /// Spawns `future`, which runs to its end even if the handle is dropped. The result is `None` if it is cancelled
    /// because it runs longer than `grace` after the Dio began to close.
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

    /// Token that is cancelled when the Dio begins to close.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Waits until every task has ended.
    pub(crate) async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Number of running tasks.
    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }
}

/// Number of rows from which work runs off the async threads.
pub(crate) const HEAVY: usize = 5_000;
