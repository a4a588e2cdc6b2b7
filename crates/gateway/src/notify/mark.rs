//! [`SendMark`]: how far a notification has come, as it is stored in the journal.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use diorama_core::journal::Seq;

/// Progress of a notification: every event up to a position is delivered, stored as a delivery, or of no concern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SendMark {
    /// Epoch of the positions.
    #[serde(rename = "e")]
    pub(super) epoch: Arc<str>,
    #[serde(rename = "p")]
    pub(super) seq: Seq,
    /// Events after the position of which that is true as well.
    #[serde(rename = "s", default)]
    pub(super) settled: Vec<Seq>,
    /// Present while nothing is sent, because the receiver has said that it is gone.
    #[serde(rename = "d", default)]
    pub(super) disabled: Option<Disabled>,
}

/// Reason why nothing is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Disabled {
    /// Unix milliseconds since which.
    pub(super) at: u64,
    pub(super) detail: String,
    /// URL that has answered so. Another one is tried.
    pub(super) url: String,
}

impl SendMark {
    /// Decodes a stored value; `None` if a newer program wrote it.
    pub(super) fn decode(value: &[u8]) -> Option<SendMark> {
        ciborium::from_reader(value).ok()
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut value = Vec::new();
        // Writing to a Vec does not fail.
        let _ = ciborium::into_writer(self, &mut value);
        value.into()
    }
}
