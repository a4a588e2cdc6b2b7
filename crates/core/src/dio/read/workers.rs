//! Workers: the threads that queries over many rows run on, so few that a core is left to everybody else.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use tokio::sync::Semaphore;

use crate::vista::query::Meter;
use crate::vista::{Error, Result};

/// Queries that may wait for their turn, for each worker.
const WAITING_PER_WORKER: usize = 256;

/// Bounded work over many rows, off the async threads. Shared by the Dios of a Lens.
#[derive(Debug)]
pub struct Workers {
    turns: Arc<Semaphore>,
    /// Work that nobody waits for takes one turn at a time.
    background: Arc<Semaphore>,
    count: usize,
    waiting: AtomicUsize,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers::new(available_parallelism().map_or(1, NonZeroUsize::get).saturating_sub(1))
    }
}

/// One that waits; counted until dropped.
struct WaitGuard<'a>(&'a AtomicUsize);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives the query up when its caller has gone before it was answered.
struct CancelGuard {
    meter: Arc<Meter>,
    answered: bool,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if !self.answered {
            self.meter.cancel();
        }
    }
}

impl Workers {
    /// `count` workers, one at least.
    pub fn new(count: usize) -> Workers {
        let count = count.clamp(1, 1_024);
        Workers {
            turns: Arc::new(Semaphore::new(count)),
            background: Arc::new(Semaphore::new(1)),
            count,
            waiting: AtomicUsize::new(0),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many of them work.
    pub fn busy(&self) -> usize {
        self.count - self.turns.available_permits()
    }

    /// How many queries wait for their turn.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Runs `work` when it is its turn, in the order of the calls.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many wait already, or the meter's time is up before the turn comes. What `work` says, and
    /// [`Meter::check`] after it.
    pub async fn run<T: Send + 'static>(
        &self,
        meter: &Arc<Meter>,
        work: impl FnOnce(&Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = async {
            // Of those, one at most waits beside the queries.
            let background = match meter.is_background() {
                true => Some(Arc::clone(&self.background).acquire_owned().await),
                false => None,
            };
            (Arc::clone(&self.turns).acquire_owned().await, background)
        };
        let turn = {
            let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = WaitGuard(&self.waiting);
            match meter.until() {
                Some(_) if waiting >= self.count * WAITING_PER_WORKER => return Err(Error::Busy),
                Some(until) => tokio::time::timeout_at(until.into(), turn).await.map_err(|_| Error::Busy)?,
                None => turn.await,
            }
        };
        let mut awaited = CancelGuard { meter: Arc::clone(meter), answered: false };
        let meter = Arc::clone(meter);
        let job = move || {
            let _turn = turn;
            let done = work(&meter)?;
            meter.check()?;
            Ok(done)
        };
        #[expect(clippy::disallowed_methods, reason = "work over many rows, bounded by the turns")]
        let done = tokio::task::spawn_blocking(job).await;
        awaited.answered = true;
        done.map_err(|error| Error::permanent(format!("an internal error: {error}")))?
    }
}
