//! Limit on the open sockets and streams of a server, and their end at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::http::budget::Lease;

/// Maximum jitter of the closing time of a socket at shutdown, so that clients do not reconnect all at once.
const SPREAD: Duration = Duration::from_secs(2);
/// Jitter for each open socket, up to [`SPREAD`].
const EACH: Duration = Duration::from_millis(2);

/// Limit on the open sockets and streams of a server, and their end at shutdown. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Sockets {
    permits: Arc<Semaphore>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Default for Sockets {
    fn default() -> Sockets {
        Sockets::new(10_000)
    }
}

impl Sockets {
    /// Creates a limit of `most` sockets and streams.
    pub fn new(most: usize) -> Sockets {
        let permits = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Sockets { permits, closing: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Number of open sockets and streams.
    pub fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Closes all sockets (with code 1001) and streams, including those that open later, with up to two seconds of jitter.
    /// Returns when all have ended.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Permit for one more socket or stream, which holds the caller's `leases`; `None` if the limit is reached.
    pub(super) fn permit(&self, leases: Vec<Lease>) -> Option<SocketPermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(SocketPermit { sockets: self.clone(), _permit: permit, _leases: leases, _task: self.tasks.token() })
    }
}

/// Permit of one socket or stream; released when dropped.
pub(super) struct SocketPermit {
    sockets: Sockets,
    _permit: OwnedSemaphorePermit,
    _leases: Vec<Lease>,
    _task: TaskTrackerToken,
}

impl SocketPermit {
    /// Waits until the socket is to close: after the start of the shutdown, with jitter.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped, but the jitter is drawn again.
    pub(super) async fn closing(&self) {
        self.sockets.closing.cancelled().await;
        let open = u32::try_from(self.sockets.open()).unwrap_or(u32::MAX);
        let span = EACH.saturating_mul(open).min(SPREAD);
        let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        tokio::time::sleep(span.mul_f64(share)).await;
    }

    /// Waits until the server is stopping.
    pub(super) async fn stopping(&self) {
        self.sockets.closing.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_sockets_is_bounded() {
        let sockets = Sockets::new(1);
        let permit = sockets.permit(Vec::new());
        assert!(permit.is_some() && sockets.permit(Vec::new()).is_none());
        assert_eq!(sockets.open(), 1);
        drop(permit);
        assert!(sockets.permit(Vec::new()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn many_sockets_close_with_jitter_within_two_seconds() {
        let sockets = Sockets::new(2_000);
        let permits: Vec<_> = (0..2_000).map(|_| sockets.permit(Vec::new()).unwrap()).collect();
        let start = tokio::time::Instant::now();
        sockets.closing.cancel();
        let ends = futures_util::future::join_all(permits.iter().map(|permit| async {
            permit.closing().await;
            start.elapsed()
        }));
        let ends = ends.await;
        let early = ends.iter().filter(|end| **end < SPREAD / 2).count();
        assert!((600..1_400).contains(&early), "{early}");
        assert!(ends.iter().all(|end| *end <= SPREAD + Duration::from_millis(2)));
    }
}
