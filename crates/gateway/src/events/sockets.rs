//! The open sockets and streams of a server: how many there may be, and how they end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Over this time sockets are closed at a stop, if there are many: clients come back at different moments.
const SPREAD: Duration = Duration::from_secs(2);
/// What each socket adds to that time.
const EACH: Duration = Duration::from_millis(2);

/// The open sockets and streams of a server: how many there may be, and how they end. Clones share them.
#[derive(Clone, Debug)]
pub struct Sockets {
    places: Arc<Semaphore>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Default for Sockets {
    fn default() -> Sockets {
        Sockets::new(10_000)
    }
}

impl Sockets {
    /// At most `most` sockets and streams.
    pub fn new(most: usize) -> Sockets {
        let places = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Sockets { places, closing: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Closes all, sockets with code 1001, and those that still come; many over up to two seconds. Returns when they are gone.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A place for one more, `None` if all are taken.
    pub(super) fn permit(&self) -> Option<SocketPermit> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(SocketPermit { sockets: self.clone(), _permit: permit, _task: self.tasks.token() })
    }
}

/// The right to be of one socket or stream; given back when dropped.
pub(super) struct SocketPermit {
    sockets: Sockets,
    _permit: OwnedSemaphorePermit,
    _task: TaskTrackerToken,
}

impl SocketPermit {
    /// Returns when it is time to end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped, but the time to end may be another.
    pub(super) async fn closing(&self) {
        self.sockets.closing.cancelled().await;
        let open = u32::try_from(self.sockets.open()).unwrap_or(u32::MAX);
        let span = EACH.saturating_mul(open).min(SPREAD);
        let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        tokio::time::sleep(span.mul_f64(share)).await;
    }

    /// Returns when the server is stopping.
    pub(super) async fn stopping(&self) {
        self.sockets.closing.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_only_so_many_places() {
        let sockets = Sockets::new(1);
        let permit = sockets.permit();
        assert!(permit.is_some() && sockets.permit().is_none());
        assert_eq!(sockets.open(), 1);
        drop(permit);
        assert!(sockets.permit().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn many_sockets_end_one_after_the_other_within_two_seconds() {
        let sockets = Sockets::new(2_000);
        let places: Vec<_> = (0..2_000).map(|_| sockets.permit().unwrap()).collect();
        let start = tokio::time::Instant::now();
        sockets.closing.cancel();
        let ends = futures_util::future::join_all(places.iter().map(|permit| async {
            permit.closing().await;
            start.elapsed()
        }));
        let ends = ends.await;
        let early = ends.iter().filter(|end| **end < SPREAD / 2).count();
        assert!((600..1_400).contains(&early), "{early}");
        assert!(ends.iter().all(|end| *end <= SPREAD + Duration::from_millis(2)));
    }
}
