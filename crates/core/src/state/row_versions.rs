//! Known versions of a row that are stored beside it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Versions;
use crate::record::{Body, CborValue, Seq};

/// Version stated by the sender of an upstream event.
#[derive(Clone, Debug, PartialEq)]
pub struct EventVersion {
    /// Clock of the version: [`COLUMN_CLOCK`](super::COLUMN_CLOCK) for the Dio's own, otherwise a name of the sender's.
    pub clock: Arc<str>,
    /// Version of the row after the change.
    pub version: CborValue,
}

/// Known versions of a row that are stored beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RowVersions {
    /// Version by the Dio's own clock.
    #[serde(rename = "w", default)]
    pub(super) own: OwnVersion,
    /// Newest accepted version by each other clock.
    #[serde(rename = "o", default)]
    pub(super) others: Versions,
    /// Clock of the event that set the confirmed row; `None` if something else has changed it since.
    #[serde(rename = "l", default)]
    pub(super) latest: Option<Arc<str>>,
    /// Position at which the row was deleted.
    #[serde(rename = "g", default)]
    pub(super) gone: Option<Seq>,
}

/// Version of a row by the Dio's own clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum OwnVersion {
    /// In the version column of the row.
    #[default]
    #[serde(rename = "r")]
    InRow,
    /// Unknown, because the master accepted a write without reporting the result, or the row was missing from a read. Only
    /// another read determines it.
    #[serde(rename = "u")]
    Unknown,
    /// Stated beside the row, or at its deletion.
    #[serde(rename = "t")]
    Stated(CborValue),
}

/// Returns the version in `column` of a row.
pub(super) fn version_of(body: &Body, column: &str) -> Option<CborValue> {
    body.decode().ok()?.remove(column).filter(|version| !version.is_null())
}
