//! A row reported by the master or a sender, and the source of the report.

use super::row_versions::EventVersion;
use crate::record::{Body, Id};
use crate::table::Ordinal;

/// A reported row.
pub(super) struct ReportedRow<'a> {
    pub(super) id: &'a Id,
    /// The row; `None` if it does not exist.
    pub(super) row: Option<&'a Body>,
    /// Ordinal in the master's order, if known.
    pub(super) ordinal: Option<Ordinal>,
    /// Version, if reported beside the row.
    pub(super) version: Option<&'a EventVersion>,
    /// Reported data: the row, or the columns of a partial row.
    pub(super) sent: Option<&'a Body>,
    /// True if the sender reported only some columns and the others are the known values.
    pub(super) part: bool,
}

/// Source of a reported row.
#[derive(Clone, Copy)]
pub(super) enum ReportSource {
    /// A read of the master that began at `mark`.
    Read { mark: u64 },
    /// An event from a sender.
    Push,
}

impl<'a> ReportedRow<'a> {
    /// Creates a reported row as from a read.
    pub(super) fn of(id: &'a Id, row: Option<&'a Body>) -> ReportedRow<'a> {
        ReportedRow { id, row, ordinal: None, version: None, sent: row, part: false }
    }
}
