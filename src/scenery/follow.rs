//! How a scenery hears of changes: a cursor on the event ring, read in batches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::dio::{At, Ring, RingItem};
use crate::journal::Seq;

/// The shortest time between two looks at the rows.
const PACE: Duration = Duration::from_millis(25);

/// What was told.
#[derive(Debug)]
pub(super) enum Told {
    /// An event.
    Item(Arc<RingItem>),
    /// Events that are gone: anything may have happened.
    Lagged,
}

impl Told {
    /// The position of an event of the log.
    pub(super) fn seq(&self) -> Option<Seq> {
        match self {
            Told::Item(item) => item.seq,
            Told::Lagged => None,
        }
    }
}

/// A cursor on the events from its making on.
#[derive(Debug)]
pub(super) struct Follower {
    ring: Arc<Ring>,
    head: watch::Receiver<u64>,
    at: u64,
    rests_until: Instant,
}

impl Follower {
    pub(super) fn new(ring: &Arc<Ring>) -> Follower {
        let head = ring.watch();
        Follower { at: ring.end(), ring: Arc::clone(ring), head, rests_until: Instant::now() }
    }

    /// Waits for events, and until the last [`Follower::rest`] is over; gives all that came, `None` once the Dio is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn told(&mut self) -> Option<Vec<Told>> {
        loop {
            self.head.borrow_and_update();
            match self.ring.at(self.at) {
                At::End => self.head.changed().await.ok()?,
                At::Closed => return None,
                At::Item(_) | At::Gone { .. } => break,
            }
        }
        tokio::time::sleep_until(self.rests_until).await;
        Some(self.take())
    }

    /// The rows were looked at: events of the next 25 ms are gathered.
    pub(super) fn rest(&mut self) {
        self.rests_until = Instant::now() + PACE;
    }

    fn take(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            match self.ring.at(self.at) {
                At::Item(item) => {
                    self.at += 1;
                    told.push(Told::Item(item));
                }
                At::Gone { next, .. } => {
                    self.at = next;
                    told.push(Told::Lagged);
                }
                At::End | At::Closed => return told,
            }
        }
    }
}
