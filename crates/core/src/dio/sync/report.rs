//! Report of a refresh, and progress of `on_start`.

use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};

use crate::dio::events::event::Position;
use crate::state::Outcome;
use crate::vista::Result;

/// A refresh under way, joined by all who ask meanwhile.
pub(crate) type RefreshFuture = Shared<BoxFuture<'static, Result<RefreshReport>>>;

/// What a refresh did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RefreshReport {
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that are different.
    pub changed: u64,
    /// Rows that are gone.
    pub removed: u64,
    /// Rows of the last whole list that could not be decoded; what was known of them is kept, and none was removed.
    pub undecodable: u64,
    /// How long it took.
    pub took: Duration,
    /// Where the Dio stands after it.
    pub position: Option<Position>,
}

/// A report of what was done, without the time it took.
pub(crate) fn report(outcome: &Outcome) -> RefreshReport {
    match *outcome {
        Outcome::Applied { inserted, changed, removed } => {
            RefreshReport { inserted, changed, removed, ..RefreshReport::default() }
        }
        _ => RefreshReport::default(),
    }
}

/// How it stands with `on_start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// It has succeeded, or there is none.
    Done,
    /// It runs for the first time.
    Running,
    /// It failed.
    Failed {
        /// Whether it is tried again without being asked.
        again: bool,
    },
}
