//! Events of a Dio and their positions.

use std::sync::Arc;

use crate::journal::Seq;
use crate::record::Record;
use crate::state::{Frame, OpError, OpId, Origin};

/// Event of a Dio.
///
/// It has the id of a row and not the row. A read after the event sees the row, because an event is published only after
/// readers can see its row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DioEvent {
    /// A row has changed, or was invalidated.
    RecordChanged {
        /// Id of the row.
        id: String,
    },
    /// A row was inserted.
    RecordInserted {
        /// Id of the row.
        id: String,
    },
    /// A row was removed.
    RecordRemoved {
        /// Id of the row.
        id: String,
    },
    /// Any row may have changed: read everything again.
    Invalidated,
    /// A write had no effect at the master and was rolled back.
    WriteFailed {
        /// Id of the row.
        id: String,
        /// Id of the operation.
        op: String,
        /// Error of the delivery.
        error: String,
    },
    /// A write reached the master, or was accepted by the write route.
    WriteCommitted {
        /// Id of the operation.
        op: String,
    },
    /// A refresh has begun.
    Refreshing,
    /// A refresh failed; the rows are unchanged.
    RefreshFailed {
        /// Error of the refresh.
        error: String,
    },
    /// Rows of a range were loaded from the master.
    Loaded {
        /// Position of the first row.
        start: u64,
        /// Position after the last row.
        end: u64,
    },
    /// This receiver was too slow and has missed events: read everything again.
    Lagged {
        /// Number of missed events.
        missed: u64,
    },
}

/// Position in a Dio's history, written `epoch:seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Epoch of the log. Positions of different epochs cannot be compared.
    pub epoch: Arc<str>,
    /// Number of the change in its epoch.
    pub seq: Seq,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

impl std::str::FromStr for Position {
    type Err = crate::vista::Error;

    fn from_str(text: &str) -> Result<Position, Self::Err> {
        let error = || {
            crate::vista::Error::invalid(format!(
                "{text:?} is not a valid position: write EPOCH:NUMBER, as in K3V9Q2M7XA:1042"
            ))
        };
        let (epoch, seq) = text.split_once(':').ok_or_else(error)?;
        if epoch.is_empty() || !epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(error());
        }
        Ok(Position { epoch: epoch.into(), seq: seq.parse().map_err(|_| error())? })
    }
}

/// Event with its data in the log; see [`EventReceiver::recv_entry`](crate::dio::EventReceiver::recv_entry).
#[derive(Clone, Debug, PartialEq)]
pub struct EventEntry {
    /// Position of the event, `None` for events that are not in the log (`Refreshing`, `RefreshFailed`, `Loaded`, `Lagged`).
    pub position: Option<Position>,
    /// The event.
    pub event: DioEvent,
    /// The row right after the change, if there is one.
    pub record: Option<Record>,
    /// Columns whose values differ, if the row before the change is known.
    pub changed: Option<Vec<String>>,
    /// Origin of the change.
    pub origin: Option<Origin>,
    /// Id of the operation that made the change.
    pub op: Option<OpId>,
    /// For `Invalidated`: true if all differences were published as row events before.
    pub covered: bool,
}

/// Event of a frame, `None` for silent frames.
pub(crate) fn event_of(frame: &Frame, id: Option<&str>, op: Option<OpId>) -> Option<DioEvent> {
    let id = id.unwrap_or_default().to_string();
    let op = op.map(|op| op.to_string()).unwrap_or_default();
    Some(match frame {
        Frame::Silent => return None,
        Frame::Inserted => DioEvent::RecordInserted { id },
        Frame::Changed => DioEvent::RecordChanged { id },
        Frame::Removed => DioEvent::RecordRemoved { id },
        Frame::WriteFailed(OpError { detail, .. }) => DioEvent::WriteFailed { id, op, error: detail.clone() },
        Frame::WriteCommitted => DioEvent::WriteCommitted { op },
        Frame::Invalidated { .. } => DioEvent::Invalidated,
    })
}
