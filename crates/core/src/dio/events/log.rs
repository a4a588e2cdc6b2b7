//! [`EventLog`]: a Dio's events, from memory or from its journal.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::event::Position;
use super::ring::{Past, Ring};
use crate::dio::Dio;
use crate::dio::core::Core;
use crate::journal::Seq;
use crate::state::State;
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
    pub async fn past(&self, after: Seq, bytes: usize) -> Result<Option<Past>> {
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
