//! Failure of the journal of a Lens, for operators and for load balancers.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::journal::AppendError;
use crate::vista::Error;

/// Error of the last failed append, until an append succeeds again. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct JournalFailure(Arc<Mutex<Option<String>>>);

impl JournalFailure {
    /// Notes that the journal failed. Logs it once, not for every write that is refused meanwhile.
    pub(crate) fn begin(&self, why: &str) {
        if self.0.lock().replace(why.to_string()).is_none() {
            tracing::error!(
                error = why,
                "the journal cannot be written: writes are refused until it can be, reads are still answered"
            );
        }
    }

    /// Notes that an append succeeded.
    pub(crate) fn end(&self) {
        if self.0.lock().take().is_some() {
            tracing::info!("the journal can be written again");
        }
    }

    /// The present error, if there is one.
    pub(crate) fn now(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// Error of a write that the journal could not store.
pub(super) fn storage(detail: &str, full: bool) -> Error {
    Error::Storage { detail: detail.to_string(), full }
}

/// Result of an append that the journal did not answer.
pub(super) fn no_answer() -> std::result::Result<(), AppendError> {
    Err(AppendError::Io("the journal did not answer for every log".into()))
}
