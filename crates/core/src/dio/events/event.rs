//! What a Dio tells its subscribers.

use std::sync::Arc;

use crate::journal::Seq;
use crate::record::Record;
use crate::state::{Frame, OpError, OpId, Origin};

/// Something happened in a Dio. Carries ids, not rows: whoever wants the row reads it, and sees it, because an event is
/// published only after readers can see its row.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DioEvent {
    /// A row is different (or somebody says so).
    RecordChanged {
        /// The row.
        id: String,
    },
    /// A row is new.
    RecordInserted {
        /// The row.
        id: String,
    },
    /// A row is gone.
    RecordRemoved {
        /// The row.
        id: String,
    },
    /// Anything may be different: read again.
    Invalidated,
    /// A write had no effect at the master and was rolled back.
    WriteFailed {
        /// The row.
        id: String,
        /// The operation.
        op: String,
        /// Why.
        error: String,
    },
    /// A write reached the master (or was taken by the write route).
    WriteCommitted {
        /// The operation.
        op: String,
    },
    /// A refresh has begun.
    Refreshing,
    /// A refresh failed; the rows are as they were.
    RefreshFailed {
        /// Why.
        error: String,
    },
    /// Rows of a range were loaded from the master.
    Loaded {
        /// The first row.
        start: u64,
        /// The row after the last.
        end: u64,
    },
    /// This receiver was too slow: so many events are gone; read again.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// A position in a Dio's history: `epoch:seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The log's epoch; positions of different epochs cannot be compared.
    pub epoch: Arc<str>,
    /// The number of the change.
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
        let wrong = || crate::vista::Error::invalid(format!("{text:?} is no position: it looks like K3V9Q2M7XA:1042"));
        let (epoch, seq) = text.split_once(':').ok_or_else(wrong)?;
        if epoch.is_empty() || !epoch.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(wrong());
        }
        Ok(Position { epoch: epoch.into(), seq: seq.parse().map_err(|_| wrong())? })
    }
}

/// An event with all that the log knows of it; see [`EventReceiver::recv_entry`](crate::dio::EventReceiver::recv_entry).
#[derive(Clone, Debug, PartialEq)]
pub struct EventEntry {
    /// Its position, `None` for events that are not in the log (`Refreshing`, `RefreshFailed`, `Loaded`, `Lagged`).
    pub position: Option<Position>,
    /// The event.
    pub event: DioEvent,
    /// The row as it was right after the change, if there is one.
    pub record: Option<Record>,
    /// The columns whose values differ, when the row before is known.
    pub changed: Option<Vec<String>>,
    /// Where it came from.
    pub origin: Option<Origin>,
    /// The operation behind it.
    pub op: Option<OpId>,
    /// For `Invalidated`: whether all differences were told as row events before.
    pub covered: bool,
}

/// The event of a frame, `None` for silent ones.
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
