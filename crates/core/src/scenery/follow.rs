//! How a scenery hears of changes: a cursor on the event ring, read in batches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::dio::{Core, Coverage, CursorRead, Ring, RingItem};
use crate::journal::Seq;

/// The shortest time between two looks at the rows.
const PACE: Duration = Duration::from_millis(25);

/// What was told.
#[derive(Debug)]
pub(super) enum Notice {
    /// An event.
    Item(Arc<RingItem>),
    /// Events that are gone: anything may have happened.
    Lagged,
    /// The first copy is there, or an attempt to make it failed.
    Start,
}

impl Notice {
    /// The position of an event of the log.
    pub(super) fn seq(&self) -> Option<Seq> {
        match self {
            Notice::Item(item) => item.seq,
            Notice::Lagged | Notice::Start => None,
        }
    }
}

/// A cursor on the events from its making on.
#[derive(Debug)]
pub(super) struct Follower {
    core: Arc<Core>,
    ring: Arc<Ring>,
    head: watch::Receiver<u64>,
    at: u64,
    rests_until: Instant,
    /// Moves when the first copy is there, among other things.
    moves: watch::Receiver<u64>,
    /// What was last seen, while that is no copy.
    loading: Option<Coverage>,
}

impl Follower {
    pub(super) fn new(core: &Arc<Core>) -> Follower {
        let (ring, moves) = (Arc::clone(&core.ring), core.moves());
        let (head, at) = (ring.watch(), ring.end());
        Follower { core: Arc::clone(core), ring, head, at, rests_until: Instant::now(), moves, loading: None }
    }

    /// Notes what a look at the rows found: while that is no copy, its arrival is told.
    pub(super) fn saw(&mut self, coverage: &Coverage) {
        self.loading = matches!(coverage, Coverage::Loading { .. }).then(|| coverage.clone());
    }

    /// Whether the last look found no copy.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Waits for events, and until the last [`Follower::rest`] is over; gives all that came, `None` once the Dio is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn told(&mut self) -> Option<Vec<Notice>> {
        loop {
            self.head.borrow_and_update();
            self.moves.borrow_and_update();
            if let Some(seen) = &self.loading
                && *seen != self.core.coverage()
            {
                return Some(vec![Notice::Start]);
            }
            match self.ring.at(self.at) {
                CursorRead::End => tokio::select! {
                    changed = self.head.changed() => changed.ok()?,
                    changed = self.moves.changed(), if self.loading.is_some() => changed.ok()?,
                },
                CursorRead::Closed => return None,
                CursorRead::Item(_) | CursorRead::Gone { .. } => break,
            }
        }
        tokio::time::sleep_until(self.rests_until).await;
        Some(self.take())
    }

    /// The rows were looked at: events of the next 25 ms are gathered.
    pub(super) fn rest(&mut self) {
        self.rests_until = Instant::now() + PACE;
    }

    fn take(&mut self) -> Vec<Notice> {
        let mut told = Vec::new();
        loop {
            match self.ring.at(self.at) {
                CursorRead::Item(item) => {
                    self.at += 1;
                    told.push(Notice::Item(item));
                }
                CursorRead::Gone { next, .. } => {
                    self.at = next;
                    told.push(Notice::Lagged);
                }
                CursorRead::End | CursorRead::Closed => return told,
            }
        }
    }
}
