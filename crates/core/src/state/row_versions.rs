//! Versions of a row that are known beside the row itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Versions;
use crate::record::{Body, CborValue, Seq};

/// A version as the sender of an upstream event states it.
#[derive(Clone, Debug, PartialEq)]
pub struct EventVersion {
    /// The clock that it is of: [`COLUMN_CLOCK`](super::COLUMN_CLOCK) for the Dio's own, else a name of the sender's.
    pub clock: Arc<str>,
    /// The row's version after the change.
    pub version: CborValue,
}

/// What is known of a row's versions beside the row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RowVersions {
    /// By the Dio's own clock.
    #[serde(rename = "w", default)]
    pub(super) own: OwnVersion,
    /// The newest that was taken by each other clock.
    #[serde(rename = "o", default)]
    pub(super) others: Versions,
    /// The clock among them by which the row came that is confirmed now; `None` if something else has changed it since.
    #[serde(rename = "l", default)]
    pub(super) latest: Option<Arc<str>>,
    /// Since when the row is gone.
    #[serde(rename = "g", default)]
    pub(super) gone: Option<Seq>,
}

/// A row's version by the Dio's own clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) enum OwnVersion {
    /// As the row says.
    #[default]
    #[serde(rename = "r")]
    InRow,
    /// Not known: the master took a write and did not say what it made of it, or the row was missing from a read. Only another
    /// read tells.
    #[serde(rename = "u")]
    Unknown,
    /// As it was told beside the row, or when the row went.
    #[serde(rename = "t")]
    Told(CborValue),
}

/// The version that a row carries in `column`.
pub(super) fn version_of(body: &Body, column: &str) -> Option<CborValue> {
    body.decode().ok()?.remove(column).filter(|version| !version.is_null())
}
