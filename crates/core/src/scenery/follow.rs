//! Change notification for sceneries: a cursor on the event ring, read in batches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::dio::{Core, Coverage, CursorRead, Ring, RingItem};
use crate::journal::Seq;

/// Minimum time between two reads of the rows.
const PACE: Duration = Duration::from_millis(25);

/// Notification about a change.
#[derive(Debug)]
pub(super) enum Notice {
    /// An event.
    Item(Arc<RingItem>),
    /// Events were lost from the ring: anything may have changed.
    Lagged,
    /// The first copy is complete, or an attempt to make it failed.
    Start,
}

impl Notice {
    /// Log position of the event; `None` if it has none.
    pub(super) fn seq(&self) -> Option<Seq> {
        match self {
            Notice::Item(item) => item.seq,
            Notice::Lagged | Notice::Start => None,
        }
    }
}

/// Cursor on the events since its creation.
#[derive(Debug)]
pub(super) struct Follower {
    core: Arc<Core>,
    ring: Arc<Ring>,
    head: watch::Receiver<u64>,
    at: u64,
    paused_until: Instant,
    /// Changes when the first copy is complete, among other times.
    moves: watch::Receiver<u64>,
    /// Coverage of the last read, while there is no copy.
    loading: Option<Coverage>,
}

impl Follower {
    pub(super) fn new(core: &Arc<Core>) -> Follower {
        let (ring, moves) = (Arc::clone(&core.ring), core.moves());
        let (head, at) = (ring.watch(), ring.end());
        Follower { core: Arc::clone(core), ring, head, at, paused_until: Instant::now(), moves, loading: None }
    }

    /// Records the coverage of a read. While there is no copy, a change of it is reported as [`Notice::Start`].
    pub(super) fn note_coverage(&mut self, coverage: &Coverage) {
        self.loading = matches!(coverage, Coverage::Loading { .. }).then(|| coverage.clone());
    }

    /// Returns true if the last read found no copy.
    pub(super) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }

    /// Waits for events and for the end of the last [`Follower::pause`]. Returns all events since the last call; `None` once
    /// the Dio is closed.
    ///
    /// # Cancel safety
    /// No event is lost when the future is dropped.
    pub(super) async fn next_batch(&mut self) -> Option<Vec<Notice>> {
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
        tokio::time::sleep_until(self.paused_until).await;
        Some(self.take())
    }

    /// Starts the pause after a read: events of the next 25 ms are collected.
    pub(super) fn pause(&mut self) {
        self.paused_until = Instant::now() + PACE;
    }

    fn take(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        loop {
            match self.ring.at(self.at) {
                CursorRead::Item(item) => {
                    self.at += 1;
                    notices.push(Notice::Item(item));
                }
                CursorRead::Gone { next, .. } => {
                    self.at = next;
                    notices.push(Notice::Lagged);
                }
                CursorRead::End | CursorRead::Closed => return notices,
            }
        }
    }
}
