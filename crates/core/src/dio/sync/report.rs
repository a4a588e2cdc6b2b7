//! Report of a refresh, and progress of `on_start`.

use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};

use crate::dio::events::event::Position;
use crate::state::Outcome;
use crate::vista::Result;

/// Result of a refresh, shared by the callers that join it.
pub(crate) type RefreshFuture = Shared<BoxFuture<'static, Result<RefreshReport>>>;

/// Refresh under way.
#[derive(Clone)]
pub(crate) struct RefreshUnderWay {
    pub(super) refresh: RefreshFuture,
    /// True if it reads the whole list.
    pub(super) whole: bool,
}

/// Demands of a caller on a refresh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefreshDemands {
    /// True to allow a list that is much smaller than the cache.
    pub(crate) allow_shrink: bool,
    /// True for the whole list also of a master that can tell what has changed.
    pub(crate) whole: bool,
}

/// Report of a refresh.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefreshReport {
    /// Number of new rows.
    pub inserted: u64,
    /// Number of changed rows.
    pub changed: u64,
    /// Number of removed rows.
    pub removed: u64,
    /// Number of rows of the last whole list that could not be decoded. Their known values are kept, and no rows are
    /// removed then.
    pub undecodable: u64,
    /// Duration of the refresh.
    pub took: Duration,
    /// Position of the Dio after the refresh.
    pub position: Option<Position>,
}

/// Report of an outcome, without its duration.
pub(crate) fn report(outcome: &Outcome) -> RefreshReport {
    match *outcome {
        Outcome::Applied { inserted, changed, removed } => {
            RefreshReport { inserted, changed, removed, ..RefreshReport::default() }
        }
        _ => RefreshReport::default(),
    }
}

/// Progress of `on_start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It has succeeded, or there is none.
    Done,
    /// It runs for the first time.
    Running,
    /// It failed.
    Failed {
        /// True if it is retried automatically.
        again: bool,
    },
}
