//! Marks of feeds: the position that a feed has reached, stored in the append of the changes before it.
//!
//! A crash must not lose a change that a mark has passed. Confirmed rows are in the log, but rows in doubt are in memory only.
//! So the stored mark contains their ids, and [`Dio::resume_feed`](crate::dio::Dio::resume_feed) puts them in doubt again.
//! Beyond [`MOST_DOUBTS`] the mark says instead that a refresh is owed. It is never held back, which a steady stream of doubts
//! would do without end.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::journal::Mark;
use crate::record::Id;
use crate::state::State;

/// Maximum number of rows in doubt in a mark.
const MOST_DOUBTS: usize = 1_000;
/// Maximum size of their ids in bytes.
const MOST_BYTES: usize = 64 << 10;

/// Position of a feed at its sender, up to which all changes are applied or known to be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedMark {
    /// Name of the feed: unique within its Dio, and the same after a restart.
    pub feed: Arc<str>,
    /// Position, in the feed's own format. Changes after it are received again after a restart.
    pub position: Bytes,
    /// True if changes before the position may be missing until the source has been refreshed.
    pub owes_refresh: bool,
}

/// Content of a stored mark.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredMark {
    /// Epoch of the log at the time. Under another one, the copy may lack changes.
    #[serde(rename = "e")]
    pub(crate) epoch: Arc<str>,
    #[serde(rename = "p")]
    pub(crate) position: Bytes,
    #[serde(rename = "r")]
    pub(crate) owes_refresh: bool,
    /// Rows in doubt, in the order of their ids.
    #[serde(rename = "d")]
    pub(crate) doubts: Vec<Id>,
}

/// Key of a mark in the journal, which several Dios may share.
pub(crate) fn mark_key(dio: &str, feed: &str) -> String {
    format!("f/{dio}/{feed}")
}

impl FeedMark {
    /// The mark for the journal, with the rows that are in doubt in `state`.
    pub(super) fn on(&self, dio: &str, state: &State) -> Mark {
        let doubts = doubts(state);
        let stored = StoredMark {
            epoch: Arc::clone(state.epoch()),
            position: self.position.clone(),
            owes_refresh: self.owes_refresh || doubts.is_none(),
            doubts: doubts.unwrap_or_default(),
        };
        let mut value = Vec::new();
        let encoded = ciborium::into_writer(&stored, &mut value);
        debug_assert!(encoded.is_ok(), "writing to memory does not fail");
        Mark { key: mark_key(dio, &self.feed), value: value.into() }
    }
}

impl StoredMark {
    /// Decodes a stored value; `None` if a newer program wrote it.
    pub(crate) fn decode(value: &Bytes) -> Option<StoredMark> {
        ciborium::from_reader(&value[..]).ok()
    }
}

/// Ids of the rows in doubt, sorted; `None` if there are too many.
fn doubts(state: &State) -> Option<Vec<Id>> {
    if state.dirty_count() > MOST_DOUBTS || state.dirty().map(|id| id.len()).sum::<usize>() > MOST_BYTES {
        return None;
    }
    let mut ids: Vec<Id> = state.dirty().cloned().collect();
    ids.sort_unstable();
    Some(ids)
}
