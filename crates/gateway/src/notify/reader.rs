//! [`EventReader`]: the events of a Dio in their order, from memory or from the journal.

use std::sync::Arc;

use tokio::sync::watch;

use diorama_core::dio::{CursorRead, EventLog, Position, RingItem};
use diorama_core::journal::Seq;
use diorama_core::vista::Result;

/// Approximate size of a piece of the journal in bytes.
const PIECE: usize = 256 << 10;
/// Maximum number of events that are read from memory at a time.
const BATCH: usize = 256;

/// Reader of a Dio's events after a position.
pub(super) struct EventReader {
    log: EventLog,
    head: watch::Receiver<u64>,
    epoch: Arc<str>,
    seq: Seq,
}

/// Events that were read.
pub(super) struct Batch {
    /// The events, oldest first.
    pub(super) items: Vec<Arc<RingItem>>,
    /// Position up to which they are complete.
    pub(super) reached: Seq,
}

/// Reason why events cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// The log has begun a new epoch.
    Epoch,
    /// They were trimmed.
    Trimmed,
}

impl EventReader {
    pub(super) fn new(log: EventLog, epoch: Arc<str>, seq: Seq) -> EventReader {
        let head = log.ring().watch();
        EventReader { log, head, epoch, seq }
    }

    /// Newest position up to which rows were purged. Messages that were built before must neither be sent nor stored.
    pub(super) fn erased(&self) -> Seq {
        self.log.ring().erased()
    }

    /// Present position of the log.
    pub(super) fn now(&self) -> Position {
        self.log.position()
    }

    /// Continues after `position`.
    pub(super) fn skip_to(&mut self, position: &Position) {
        (self.epoch, self.seq) = (Arc::clone(&position.epoch), position.seq);
    }

    /// Returns the next events; none if there are none yet.
    ///
    /// # Errors
    /// [`Error::Storage`](diorama_core::vista::Error::Storage) if the journal cannot be read.
    pub(super) async fn next(&mut self) -> Result<std::result::Result<Batch, Gap>> {
        self.head.borrow_and_update();
        let now = self.log.position();
        if now.epoch != self.epoch || now.seq < self.seq {
            return Ok(Err(Gap::Epoch));
        }
        let batch = match self.log.ring().after(self.seq) {
            Some(next) => self.read_ring(next),
            None => match self.log.past(self.seq, PIECE).await? {
                Some(past) if past.reached > self.seq => {
                    Batch { items: past.items.into_iter().map(Arc::new).collect(), reached: past.reached }
                }
                _ => return Ok(Err(Gap::Trimmed)),
            },
        };
        self.seq = batch.reached;
        Ok(Ok(batch))
    }

    fn read_ring(&self, mut next: u64) -> Batch {
        let mut batch = Batch { items: Vec::new(), reached: self.seq };
        while batch.items.len() < BATCH
            && let CursorRead::Item(item) = self.log.ring().at(next)
        {
            next += 1;
            if let Some(seq) = item.seq.filter(|seq| *seq > batch.reached) {
                batch.reached = seq;
                batch.items.push(item);
            }
        }
        batch
    }

    /// Waits until there may be new events since [`EventReader::next`].
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn changed(&mut self) {
        if self.head.changed().await.is_err() {
            // The Dio closes, which its owner notices.
            std::future::pending::<()>().await;
        }
    }
}
