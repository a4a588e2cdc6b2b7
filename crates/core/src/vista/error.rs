//! The error type of the library's public API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Error of the library. Cloneable, because one failed commit answers every write that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source (or its facade) does not support the operation; nothing was tried.
    #[error("{}", unsupported(.vista, .what))]
    Unsupported {
        /// Name of the Vista.
        vista: Arc<str>,
        /// The operation, as a verb phrase.
        what: &'static str,
    },
    /// The row does not exist.
    #[error("there is no row {id:?}")]
    NotFound {
        /// The requested id.
        id: String,
    },
    /// The write conflicts with the current state.
    #[error("row {id:?} {detail}")]
    Conflict {
        /// The id of the row.
        id: String,
        /// The conflict, as a verb phrase about the row.
        detail: String,
    },
    /// The row's version is not the one that the write requires.
    #[error("row {id:?} is not the version that the write was made for")]
    Precondition {
        /// The id of the row.
        id: String,
    },
    /// The writer may not change the row in this way.
    #[error("{detail}")]
    Forbidden {
        /// The reason, without facts about rows.
        detail: String,
    },
    /// The input is not valid.
    #[error("{detail}")]
    Invalid {
        /// The problem.
        detail: String,
        /// The problem of each column, if it is about columns.
        fields: BTreeMap<String, String>,
    },
    /// The same idempotency key or delivery was accepted before.
    #[error("this was accepted before, as operation {operation}")]
    Replayed {
        /// Id of the operation (or delivery) that was accepted.
        operation: String,
    },
    /// The idempotency key was used before with another body.
    #[error("idempotency key {key:?} was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The write queue is full; try again later. The library's own calls wait instead.
    #[error("the write queue is full")]
    QueueFull,
    /// The first copy of the master is not complete yet.
    #[error("the first copy of {dio} is still being read{}", last_attempt(.reason.as_deref()))]
    NotReady {
        /// Name of the Dio.
        dio: Arc<str>,
        /// Reason why the last attempt to read it failed, if it did.
        reason: Option<String>,
    },
    /// The Dio or the Lens is closing or closed.
    #[error("the Dio is closed")]
    Closed,
    /// A callback called a function that waits for that same callback.
    #[error("{what} was called from inside a callback that it would wait for")]
    Reentrant {
        /// The called function.
        what: &'static str,
    },
    /// The journal or the cache could not be read or written. Nothing was acknowledged.
    #[error("storage: {detail}")]
    Storage {
        /// The failure.
        detail: String,
        /// True if the disk (or a configured bound) is full.
        full: bool,
    },
    /// The journal did not report whether the write is on disk. The state of its operation shows it later.
    #[error("it is not known yet whether operation {operation} was stored")]
    OutcomeUnknown {
        /// Id of the operation to look up.
        operation: String,
    },
    /// The source failed.
    #[error("{message}")]
    Source {
        /// Message of the source.
        message: String,
        /// Kind of failure, by the effect of a retry.
        kind: ErrorKind,
        /// Time to wait before a retry, if the source named one.
        retry_after: Option<Duration>,
        /// The underlying error.
        #[source]
        cause: Option<Cause>,
    },
    /// A complete list has suspiciously fewer rows than the cache; it was not applied.
    #[error(
        "the master lists {listed} rows, but {cached} are cached; nothing was removed (set allow_shrink to accept the list)"
    )]
    Suspicious {
        /// Rows listed.
        listed: u64,
        /// Rows cached.
        cached: u64,
    },
    /// Too many queries over many rows are waiting; try again later.
    #[error("too many queries over many rows are waiting; try again later")]
    Busy,
    /// The store of idempotency keys and delivery ids is full; nothing was accepted. Entries that expire make room.
    #[error("the store of idempotency keys and delivery ids is full; try again later")]
    ClaimsFull,
    /// A query was cancelled because it exceeded its time limit.
    #[error("the query takes longer than {limit:?}")]
    QueryTime {
        /// The time limit.
        limit: Duration,
    },
    /// A query was cancelled because its groups or sort keys exceeded its memory limit.
    #[error("the query needs more than {limit} bytes for its groups and sort keys")]
    QueryMemory {
        /// The memory limit in bytes.
        limit: usize,
    },
    /// A setting is not valid.
    #[error("{0}")]
    Config(String),
}

/// Message of [`Error::Unsupported`]; the kinds of writes have a standard phrase.
fn unsupported(vista: &str, what: &str) -> String {
    match what {
        "insert" | "update" | "delete" => format!("resource {vista:?} does not support {what}s"),
        _ => format!("{vista} cannot {what}"),
    }
}

fn last_attempt(reason: Option<&str>) -> String {
    reason.map(|reason| format!("; the last attempt failed: {reason}")).unwrap_or_default()
}

/// Kind of failure, by the effect of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A retry may succeed: the source was busy, unreachable or slow, and did not act.
    Transient,
    /// A retry cannot succeed: the source understood the request and refused it.
    Permanent,
    /// The outcome is unknown: the request was sent and no answer was received.
    Unknown,
}

impl Error {
    /// A permanent refusal by the source.
    pub fn permanent(message: impl Into<String>) -> Error {
        Error::Source { message: message.into(), kind: ErrorKind::Permanent, retry_after: None, cause: None }
    }

    /// A transient failure of the source.
    pub fn transient(message: impl Into<String>) -> Error {
        Error::Source { message: message.into(), kind: ErrorKind::Transient, retry_after: None, cause: None }
    }

    /// A failure of the source with unknown outcome: the request may or may not have taken effect.
    pub fn unknown(message: impl Into<String>) -> Error {
        Error::Source { message: message.into(), kind: ErrorKind::Unknown, retry_after: None, cause: None }
    }

    /// A failure of `kind` with its underlying error.
    pub fn source(kind: ErrorKind, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Source { message: cause.to_string(), kind, retry_after: None, cause: Some(Arc::new(cause)) }
    }

    /// Invalid input that is not about particular columns.
    pub fn invalid(detail: impl Into<String>) -> Error {
        Error::Invalid { detail: detail.into(), fields: BTreeMap::new() }
    }

    /// Kind of the failure. This alone decides what the worker does with a failed delivery.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Source { kind, .. } => *kind,
            Error::QueueFull
            | Error::NotReady { .. }
            | Error::Storage { .. }
            | Error::Busy
            | Error::ClaimsFull
            | Error::QueryTime { .. } => ErrorKind::Transient,
            Error::OutcomeUnknown { .. } => ErrorKind::Unknown,
            Error::Unsupported { .. }
            | Error::Suspicious { .. }
            | Error::NotFound { .. }
            | Error::Conflict { .. }
            | Error::Precondition { .. }
            | Error::Forbidden { .. }
            | Error::Invalid { .. }
            | Error::Replayed { .. }
            | Error::KeyReused { .. }
            | Error::Closed
            | Error::Reentrant { .. }
            | Error::QueryMemory { .. }
            | Error::Config(_) => ErrorKind::Permanent,
        }
    }

    /// Time to wait before a retry, if the source named one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Source { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::source(ErrorKind::Transient, error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::source(ErrorKind::Permanent, error)
    }
}
