//! [`EventLog`]: a Dio's events, from memory or from its journal.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::event::Position;
use super::ring::{Ring, RingItem};
use crate::dio::core::Core;
use crate::dio::handle::Dio;
use crate::journal::Seq;
use crate::state::{Entry, State};
use crate::vista::Result;

/// Events of a Dio for readers with a position of their own: the newest from the [`Ring`], those before from the journal.
///
/// A clone is one `Arc`. It does not keep the Dio open: when the last handle of that is dropped, the ring is closed.
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
    /// The Dio's name.
    pub fn dio(&self) -> &str {
        &self.0.name
    }

    /// The newest events.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.0.ring
    }

    /// What readers see now.
    pub fn state(&self) -> Arc<State> {
        self.0.state()
    }

    /// Where that is.
    pub fn position(&self) -> Position {
        self.0.position()
    }

    /// Events after `after` that are in the journal and that readers see, about `bytes` of them; `None` if some are gone.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the journal cannot be read.
    pub async fn past(&self, after: Seq, bytes: usize) -> Result<Option<PastEvents>> {
        self.0.past(after, bytes).await
    }

    /// The position after which all events are at hand.
    pub async fn earliest(&self) -> Seq {
        self.0.earliest().await
    }

    /// Cancelled when the Dio begins to close.
    pub fn closing(&self) -> &CancellationToken {
        self.0.tasks.closing()
    }
}

/// Events that were read back from the journal.
#[derive(Debug)]
pub struct PastEvents {
    /// Oldest first.
    pub items: Vec<RingItem>,
    /// Everything up to here is among them.
    pub reached: Seq,
}

impl Core {
    /// Events of the log after `after`, about `bytes` of them, of those that readers see; `None` if some are gone.
    pub(crate) async fn past(&self, after: Seq, bytes: usize) -> Result<Option<PastEvents>> {
        // The journal has an entry before readers see its row.
        let seen = self.state().seq();
        let layout = Arc::clone(self.vista.schema().layout());
        let mut past = PastEvents { items: Vec::new(), reached: after };
        for stored in self.journal.read(&self.name, after, bytes).await? {
            if stored.seq > seen {
                break;
            }
            // Entries that are kept for their operations lie before a gap.
            if stored.seq != past.reached + 1 {
                return Ok(None);
            }
            let Ok(entry) = Entry::decode(&stored.bytes) else { return Ok(None) };
            past.reached = stored.seq;
            past.items.extend(RingItem::read_back(entry, &layout));
        }
        Ok(Some(past))
    }

    /// The position after which all events are at hand.
    pub(crate) async fn earliest(&self) -> Seq {
        let trimmed = self.commit.trimmed.lock().await.saturating_sub(1);
        self.ring.oldest.max(trimmed).min(self.ring.floor())
    }
}
