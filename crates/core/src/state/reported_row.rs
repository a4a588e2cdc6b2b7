//! News of a row, and how they came.

use super::row_versions::EventVersion;
use crate::record::{Body, Id};
use crate::table::Ordinal;

/// What somebody says a row is.
pub(super) struct News<'a> {
    pub(super) id: &'a Id,
    /// The row, `None` if it is not there.
    pub(super) row: Option<&'a Body>,
    /// Its place in the master's order, if known.
    pub(super) ordinal: Option<Ordinal>,
    /// Its version, if told beside the row.
    pub(super) told: Option<&'a EventVersion>,
    /// What was said of it: the row, or the columns of a part.
    pub(super) sent: Option<&'a Body>,
    /// Whether the sender told some columns only, and the others are from what is known.
    pub(super) part: bool,
}

/// How the news came.
#[derive(Clone, Copy)]
pub(super) enum ReportSource {
    /// By a read of the master that began at `mark`.
    Read { mark: u64 },
    /// By itself.
    Push,
}

impl<'a> News<'a> {
    /// That a row is this, as a read says it.
    pub(super) fn of(id: &'a Id, row: Option<&'a Body>) -> News<'a> {
        News { id, row, ordinal: None, told: None, sent: row, part: false }
    }
}
