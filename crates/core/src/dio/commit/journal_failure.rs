//! Why the journal of a Lens cannot be written, for people and for whoever decides where requests go.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::journal::AppendError;
use crate::vista::Error;

/// What the journal said when it failed, until something was stored again. A clone is the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct JournalFailure(Arc<Mutex<Option<String>>>);

impl JournalFailure {
    /// The journal failed. Said once, however many writes are refused meanwhile.
    pub(crate) fn begin(&self, why: &str) {
        if self.0.lock().replace(why.to_string()).is_none() {
            tracing::error!(error = why, "the journal cannot be written: writes are refused until it can, reads go on");
        }
    }

    /// Something was stored.
    pub(crate) fn end(&self) {
        if self.0.lock().take().is_some() {
            tracing::info!("the journal can be written again");
        }
    }

    /// What is wrong now.
    pub(crate) fn now(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

/// The error of a write that the journal did not take.
pub(super) fn storage(detail: &str, full: bool) -> Error {
    Error::Storage { detail: detail.to_string(), full }
}

/// The result of an append of which the journal said nothing.
pub(super) fn lost() -> std::result::Result<(), AppendError> {
    Err(AppendError::Io("the journal did not answer for every log".into()))
}
