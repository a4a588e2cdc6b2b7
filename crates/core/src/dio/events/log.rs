//! [`EventLog`]: events of a Dio, from memory or from its journal.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::event::Position;
use super::ring::{Ring, RingItem};
use crate::dio::core::Core;
use crate::dio::handle::Dio;
use crate::journal::Seq;
use crate::state::{Entry, State};
use crate::vista::Result;

/// Event log of a Dio for readers with a cursor of their own: the newest events from the [`Ring`], older ones from the journal.
///
/// A clone costs one `Arc`. It does not keep the Dio open: when the last handle of the Dio is dropped, the ring is closed.
#[derive(Clone, Debug)]
pub struct EventLog(Arc<Core>);

impl Dio {
    /// The event log.
    #[doc(hidden)]
    pub fn log(&self) -> EventLog {
        EventLog(Arc::clone(&self.0.core))
    }
}

impl EventLog {
    /// Name of the Dio.
    pub fn dio(&self) -> &str {
        &self.0.name
    }

    /// The newest events.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.0.ring
    }

    /// Snapshot of the State that readers see now.
    pub fn state(&self) -> Arc<State> {
        self.0.state()
    }

    /// Position of that State.
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// Events after position `after` from the journal, about `bytes` of them, up to the State that readers see.
    ///
    /// `None` if some of them were trimmed.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the journal cannot be read.
    pub async fn past(&self, after: Seq, bytes: usize) -> Result<Option<PastEvents>> {
        self.0.past(after, bytes).await
    }

    /// Position after which all events are available.
    pub async fn earliest(&self) -> Seq {
        self.0.earliest().await
    }

    /// Token that is cancelled when the Dio begins to close.
    pub fn closing(&self) -> &CancellationToken {
        self.0.tasks.closing()
    }
}

/// Events that were read back from the journal.
#[derive(Debug)]
pub struct PastEvents {
    /// The events, oldest first.
    pub items: Vec<RingItem>,
    /// Position up to which the events are complete.
    pub reached: Seq,
}

impl Core {
    /// Events of the log after `after`, about `bytes` of them, up to the State that readers see. `None` if some were trimmed.
    pub(crate) async fn past(&self, after: Seq, bytes: usize) -> Result<Option<PastEvents>> {
        // The journal has an entry before readers can see its row.
        let seen = self.state().seq();
        let layout = Arc::clone(self.vista.schema().layout());
        let mut past = PastEvents { items: Vec::new(), reached: after };
        for stored in self.journal.read(&self.name, after, bytes).await? {
            if stored.seq > seen {
                break;
            }
            // Entries that are kept for their operations are followed by a gap.
            if stored.seq != past.reached + 1 {
                return Ok(None);
            }
            let Ok(entry) = Entry::decode(&stored.bytes) else { return Ok(None) };
            past.reached = stored.seq;
            past.items.extend(RingItem::read_back(entry, &layout));
        }
        Ok(Some(past))
    }

    /// Position after which all events are available.
    pub(crate) async fn earliest(&self) -> Seq {
        let trimmed = self.commit.trimmed.lock().await.saturating_sub(1);
        self.ring.oldest.max(trimmed).min(self.ring.floor())
    }
}
