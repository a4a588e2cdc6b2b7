//! Durable storage of acknowledged writes: one ordered, conditional log per Dio.
//!
//! Entries are opaque to a journal: bytes with a sequence number. A journal guarantees order, durability, and that only one
//! batch takes a claim (an idempotency key or a delivery id). The contract does not mention redb, so that a shared engine can
//! implement it as well.

mod audit;
#[cfg(test)]
mod contract_tests;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
mod head;
mod inbox;
mod memory;
mod redb;
mod salvage;

pub use self::redb::RedbJournal;
#[cfg(any(test, feature = "testing"))]
pub use crate::redb_file::disk;
pub use audit::{AuditAction, AuditEntry, AuditLimits, AuditQuery, AuditUse};
pub use inbox::{
    Changes, Delivery, DeliveryId, DeliveryQuery, DeliveryState, InboxLimits, InboxUse, OutboxLimits, OutboxUse,
    Outgoing, RawRequest, StoredDelivery,
};
pub use memory::MemoryJournal;
#[cfg(any(test, feature = "testing"))]
pub use redb::inbox::decode_stored;
pub use salvage::{EntryExtent, SalvagedLog, salvage, salvage_audit, salvage_deliveries};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

pub use crate::record::Seq;

/// Name of a log in a journal: the name of its Dio.
pub type LogId = std::sync::Arc<str>;

/// State of a log when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Name of the log.
    pub log: LogId,
    /// Ten characters of Crockford base32 from 50 random bits. Changes when the log cannot be continued.
    pub epoch: String,
    /// Sequence number of the newest entry; 0 in an empty log.
    pub head: Seq,
    /// Sequence number of the oldest entry from which there are no gaps up to the head; `head + 1` if there is none.
    pub oldest: Seq,
    /// True if an append survives the process.
    pub durable: bool,
    /// Position at which the epoch began. Entries up to it were carried over from an earlier epoch.
    pub begun: Seq,
    /// Reason why acknowledged entries may be missing, as far as the journal itself can tell: its file was restored, replaced
    /// or copied. The log must then continue in a new epoch.
    pub doubt: Option<String>,
}

/// One stored entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Position of the entry.
    pub seq: Seq,
    /// Versioned bytes.
    pub bytes: Bytes,
}

/// A key that only one batch can take: an idempotency key or a delivery id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Key, unique across all logs of the journal.
    pub key: String,
    /// Value of the claim, returned to a later batch with the same key.
    pub value: Bytes,
    /// Unix milliseconds after which the claim may be removed.
    pub expires: u64,
}

/// Fencing token for appends, for engines that several processes share. [`Fence::LOCAL`] on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(pub u64);

impl Fence {
    /// Fence of a journal that only this process writes.
    pub const LOCAL: Fence = Fence(0);
}

/// Part of one append for one log, applied completely or not at all.
#[derive(Clone, Debug)]
pub struct LogBatch {
    /// Name of the log.
    pub log: LogId,
    /// Head on which the entries were decided.
    pub expect: Seq,
    /// Fencing token of the writer.
    pub fence: Fence,
    /// Consecutive entries, starting at `expect + 1`.
    pub entries: Vec<LogEntry>,
    /// Claims taken with the entries.
    pub claims: Vec<Claim>,
    /// Deliveries stored with the entries.
    pub deliveries: Vec<StoredDelivery>,
    /// Marks written with the entries.
    pub marks: Vec<Mark>,
}

/// A change of the stored content of one log, for the erasure of rows. Applied completely or not at all.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Name of the log.
    pub log: LogId,
    /// Replacements of stored entries, each at its old position. Positions that no longer hold an entry are ignored.
    pub entries: Vec<LogEntry>,
    /// Deliveries to drop, in any state.
    pub deliveries: Vec<DeliveryId>,
}

impl Rewrite {
    /// Creates a rewrite that changes nothing. Its result shows if a journal supports rewriting.
    pub fn nothing(log: &LogId) -> Rewrite {
        Rewrite { log: LogId::clone(log), entries: Vec::new(), deliveries: Vec::new() }
    }
}

/// A small value that each append may overwrite, for example the position of a feed at its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Key, unique across all logs of the journal.
    pub key: String,
    /// New value.
    pub value: Bytes,
}

/// Reason why a log's part of an append failed or may have failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The head differs from the expected one; these entries were appended in between.
    #[error("the log has moved on by {} entries", missed.len())]
    Moved {
        /// Entries to apply before deciding again.
        missed: Vec<LogEntry>,
    },
    /// A claim of the batch was already taken.
    #[error("claim {key:?} is taken")]
    Claimed {
        /// The key.
        key: String,
        /// The value of the existing claim.
        by: Bytes,
    },
    /// Another instance has the right to append.
    #[error("another instance holds the log")]
    Fenced,
    /// The batch may or may not be stored: reopen and read.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(String),
    /// The disk is full; nothing was stored.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Nothing was stored as far as the journal knows: reopen and read to be sure.
    #[error("journal I/O: {0}")]
    Io(String),
}

/// Error of opening or reading a journal.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("journal {path}: {detail}")]
    Io {
        /// Path of the file.
        path: String,
        /// Description of the failure.
        detail: String,
    },
    /// The stored bytes are damaged or not a journal. The program never deletes the file.
    #[error(
        "journal {path} is damaged: {detail}; it holds acknowledged writes: restore it, or run `diorama ops salvage`"
    )]
    Corrupt {
        /// Path of the file.
        path: String,
        /// Description of the damage.
        detail: String,
    },
    /// A newer program wrote the file.
    #[error("journal {path} has format {found}, this program reads up to {known}")]
    Newer {
        /// Path of the file.
        path: String,
        /// Format of the file.
        found: u32,
        /// Newest format that this program reads.
        known: u32,
    },
    /// The journal is open in another process, or in a Lens or Dio of this one.
    #[error("journal {path} is in use by another process, or by a Lens or Dio of this one")]
    Locked {
        /// Path of the file.
        path: String,
    },
    /// The journal has been closed.
    #[error("the journal is closed")]
    Closed,
    /// The journal does not support the operation; nothing was tried.
    #[error("this journal cannot {what}")]
    Unsupported {
        /// The operation, as a verb phrase.
        what: &'static str,
    },
}

/// An ordered, conditional, durable log per Dio.
///
/// # Contract
/// `append` is atomic per log and durable on return. Logs of one call may share one transaction, but callers must not rely on
/// it. After [`AppendError::Unknown`] or [`AppendError::Io`] every later append fails until [`Journal::reopen`] succeeds.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Opens or creates a log. `shape` describes the dependencies of its entries (the id column): a shape that differs from the
    /// stored one begins a new epoch.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError>;

    /// Begins a new epoch. Entries are dropped, except those at `keep` (sorted). The head continues from at least `at_least`.
    /// `why` is logged for operators. Claims, marks and deliveries stay.
    ///
    /// # Errors
    /// [`JournalError`] if the new epoch cannot be stored.
    async fn new_epoch(&self, log: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, JournalError>;

    /// Returns the shape with which a log was last opened, if known.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    async fn shape(&self, log: &str) -> Result<Option<String>, JournalError> {
        let _ = log;
        Ok(None)
    }

    /// Appends to several logs. Returns one result per batch, in the same order.
    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>>;

    /// Reads entries after `after`, oldest first, up to about `max_bytes` but at least one if there is one. Includes kept
    /// entries below the oldest.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError>;

    /// Returns the value of a claim; `None` if it was never taken or has expired.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError>;

    /// Returns true if one more claim may be taken. A full journal first removes expired claims, some at a time. The bound is
    /// [`InboxLimits::claims`]. Appends do not check it, so callers must check before they claim.
    ///
    /// # Errors
    /// [`JournalError`] if expired claims cannot be removed.
    async fn claim_room(&self) -> Result<bool, JournalError>;

    /// Returns the value of a mark, if it was ever written.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError>;

    /// Returns the deliveries that match `query`, newest first, and the total number regardless of its `after` and `limit`.
    ///
    /// # Errors
    /// [`JournalError`] if the deliveries cannot be read.
    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError>;

    /// Returns one delivery with its raw request.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, JournalError>;

    /// Returns the usage of the inbox.
    fn inbox(&self) -> InboxUse;

    /// Sets the limits for received deliveries and claims.
    fn limit_inbox(&self, limits: InboxLimits);

    /// Returns the usage of the outbox.
    fn outbox(&self) -> OutboxUse;

    /// Sets the limits for deliveries to send.
    fn limit_outbox(&self, limits: OutboxLimits);

    /// Subscribes to the head of a log.
    fn heads(&self, log: &str) -> watch::Receiver<Seq>;

    /// Drops entries before `before`, except those at `keep` (sorted), and claims that have expired by `now` (Unix ms).
    ///
    /// # Errors
    /// [`JournalError`] if the change cannot be stored; then nothing is dropped.
    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError>;

    /// Replaces entries and drops deliveries, atomically and durable on return. Positions, heads and epoch stay the same.
    /// Journals without support keep this default.
    ///
    /// # Errors
    /// [`JournalError::Unsupported`] for every rewrite if the journal does not support rewriting; another if it cannot be
    /// stored.
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), JournalError> {
        let _ = rewrite;
        Err(JournalError::Unsupported { what: "rewrite entries" })
    }

    /// Appends to the audit log: gives the entries the next numbers, and drops the oldest ones beyond `limits`. Atomic, and durable on
    /// return as [`Journal::append`]. Returns the number of the newest entry. Journals without an audit log keep this default.
    ///
    /// # Errors
    /// [`JournalError::Unsupported`] if the journal has no audit log; another if the entries may not be stored. The logs are not
    /// affected, and a later append may succeed.
    async fn append_audit(&self, entries: Vec<AuditEntry>, limits: AuditLimits) -> Result<Seq, JournalError> {
        let _ = (entries, limits);
        Err(JournalError::Unsupported { what: "keep an audit log" })
    }

    /// Reads the audit log.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read, or the journal has none.
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, JournalError> {
        let _ = query;
        Err(JournalError::Unsupported { what: "keep an audit log" })
    }

    /// Returns the size of the audit log.
    fn audit_use(&self) -> AuditUse {
        AuditUse::default()
    }

    /// Acquires the right to append to a log.
    ///
    /// # Errors
    /// [`JournalError`] if another instance has it.
    async fn lease(&self, log: &str) -> Result<Fence, JournalError> {
        let _ = log;
        Ok(Fence::LOCAL)
    }

    /// Reopens the store after an error and keeps its content.
    ///
    /// # Errors
    /// [`JournalError`] if opening still fails.
    async fn reopen(&self) -> Result<(), JournalError>;

    /// Lists all logs in the journal, including those that no Dio has opened.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    async fn logs(&self) -> Result<Vec<LogId>, JournalError>;

    /// Flushes and closes. Later calls return [`JournalError::Closed`].
    async fn close(&self);

    /// True if an append survives the process.
    fn durable(&self) -> bool;
}

/// Generates an epoch: ten characters of Crockford base32 from 50 random bits.
pub fn new_epoch() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits = uuid::Uuid::new_v4().as_u128();
    (0..10).map(|at| ALPHABET[(bits >> (at * 5)) as usize & 31] as char).collect()
}
