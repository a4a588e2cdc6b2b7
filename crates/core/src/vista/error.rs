//! The one error of the library's public face.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why something was not done. Cloneable: one failed commit answers every write that waited for it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source (or its facade) cannot do that; nothing was tried.
    #[error("{vista} cannot {what}")]
    Unsupported {
        /// Name of the Vista.
        vista: Arc<str>,
        /// What was asked, as a verb phrase.
        what: &'static str,
    },
    /// There is no such row.
    #[error("there is no row {id:?}")]
    NotFound {
        /// The id asked for.
        id: String,
    },
    /// The write contradicts what is there.
    #[error("row {id:?} {detail}")]
    Conflict {
        /// The id of the row.
        id: String,
        /// What is in the way.
        detail: String,
    },
    /// A condition on the row's version did not hold.
    #[error("row {id:?} is not the version that the write was made for")]
    Precondition {
        /// The id of the row.
        id: String,
    },
    /// The input itself is wrong.
    #[error("{detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
        /// What is wrong per column, if it is about columns.
        fields: BTreeMap<String, String>,
    },
    /// The same key or delivery was accepted before.
    #[error("this was accepted before, as operation {operation}")]
    Replayed {
        /// The operation (or delivery) it became then.
        operation: String,
    },
    /// The same idempotency key came with another body.
    #[error("idempotency key {key:?} was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// Too much waits already; try again later. The library's own calls wait instead.
    #[error("the write queue is full")]
    QueueFull,
    /// The first copy is not complete yet.
    #[error("the first copy of {dio} is still being read{}", last_attempt(.reason.as_deref()))]
    NotReady {
        /// Name of the Dio.
        dio: Arc<str>,
        /// Why the last attempt to make it failed, if it did.
        reason: Option<String>,
    },
    /// The Dio or the Lens is closing or closed.
    #[error("the Dio is closed")]
    Closed,
    /// A hook called something that waits for that same hook.
    #[error("{what} was called from inside a hook that it would wait for")]
    Reentrant {
        /// What was called.
        what: &'static str,
    },
    /// The journal or the cache could not be read or written. Nothing was acknowledged.
    #[error("storage: {detail}")]
    Storage {
        /// What happened.
        detail: String,
        /// Whether the disk (or a configured bound) is full.
        full: bool,
    },
    /// The journal did not say whether the write is on disk; its operation tells later.
    #[error("it is not known yet whether operation {operation} was stored")]
    OutcomeUnknown {
        /// The operation to ask for.
        operation: String,
    },
    /// The source failed.
    #[error("{message}")]
    Source {
        /// What it said.
        message: String,
        /// Whether trying again can help.
        kind: ErrorKind,
        /// How long the source asked to be left alone.
        retry_after: Option<Duration>,
        /// The error beneath.
        #[source]
        cause: Option<Cause>,
    },
    /// A complete list that is suspiciously smaller than what is cached; it was not applied.
    #[error(
        "the master lists {listed} rows where {cached} are cached; nothing was removed (allow_shrink lets it through)"
    )]
    Suspicious {
        /// Rows listed.
        listed: u64,
        /// Rows cached.
        cached: u64,
    },
    /// More queries over many rows are asked than can be answered now; try again later.
    #[error("too many queries over many rows wait for their turn")]
    Busy,
    /// More idempotency keys and ids of deliveries are remembered than may be; nothing was accepted. Expired ones make room.
    #[error("no more idempotency keys and ids of deliveries can be remembered now")]
    ClaimsFull,
    /// A query was given up because it takes longer than it may.
    #[error("the query takes longer than {limit:?}")]
    QueryTime {
        /// The time that it may take.
        limit: Duration,
    },
    /// A query was given up because it holds more than it may, for its groups or for what it sorts by.
    #[error("the query needs more than {limit} bytes for its groups and for what it sorts by")]
    QueryMemory {
        /// The bytes that it may hold.
        limit: usize,
    },
    /// A setting cannot work.
    #[error("{0}")]
    Config(String),
}

fn last_attempt(reason: Option<&str>) -> String {
    reason.map(|reason| format!("; the last attempt failed: {reason}")).unwrap_or_default()
}

/// What trying again would bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again: the source was busy, away or slow, and did not act.
    Transient,
    /// Do not try again: the source understood and refused.
    Permanent,
    /// The request went out and no answer came back.
    Unknown,
}

impl Error {
    /// A refusal for good.
    pub fn permanent(message: impl Into<String>) -> Error {
        Error::Source { message: message.into(), kind: ErrorKind::Permanent, retry_after: None, cause: None }
    }

    /// A failure that may pass.
    pub fn transient(message: impl Into<String>) -> Error {
        Error::Source { message: message.into(), kind: ErrorKind::Transient, retry_after: None, cause: None }
    }

    /// No answer: it may or may not have happened.
    pub fn unknown(message: impl Into<String>) -> Error {
        Error::Source { message: message.into(), kind: ErrorKind::Unknown, retry_after: None, cause: None }
    }

    /// A failure of `kind` with the error beneath it.
    pub fn source(kind: ErrorKind, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::Source { message: cause.to_string(), kind, retry_after: None, cause: Some(Arc::new(cause)) }
    }

    /// Wrong input, about no column in particular.
    pub fn invalid(detail: impl Into<String>) -> Error {
        Error::Invalid { detail: detail.into(), fields: BTreeMap::new() }
    }

    /// What the worker does with a failed delivery is decided here and nowhere else.
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
            | Error::Invalid { .. }
            | Error::Replayed { .. }
            | Error::KeyReused { .. }
            | Error::Closed
            | Error::Reentrant { .. }
            | Error::QueryMemory { .. }
            | Error::Config(_) => ErrorKind::Permanent,
        }
    }

    /// How long the source asked to be left alone.
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
