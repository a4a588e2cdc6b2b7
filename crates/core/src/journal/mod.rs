//! What must never be lost: one ordered, conditional, durable log per Dio.
//!
//! Entries are opaque to a journal: bytes with a sequence number. What it promises is order, durability and that a claim (an
//! idempotency key, a delivery id) is taken by one batch only. The second implementation will be a shared engine, so nothing
//! of redb shows here.

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
pub use inbox::{
    Changes, Delivery, DeliveryId, DeliveryQuery, DeliveryState, InboxLimits, InboxUse, RawRequest, StoredDelivery,
};
pub use memory::MemoryJournal;
#[cfg(any(test, feature = "testing"))]
pub use redb::inbox::decode_stored;
pub use salvage::{EntryExtent, SalvagedLog, salvage, salvage_deliveries};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

pub use crate::record::Seq;

/// One log of a journal: a Dio's, by the Dio's name.
pub type LogId = std::sync::Arc<str>;

/// What a journal knows of a log when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The log.
    pub log: LogId,
    /// Ten characters of Crockford base32 from 50 random bits; changes when the log cannot be continued.
    pub epoch: String,
    /// Sequence number of the newest entry; 0 in an empty log.
    pub head: Seq,
    /// Sequence number of the oldest entry that is still there without gaps up to the head; `head + 1` if none.
    pub oldest: Seq,
    /// Whether an append survives the process.
    pub durable: bool,
    /// Position at which the epoch began: entries up to it were carried over from an earlier epoch.
    pub begun: Seq,
    /// Why entries may be missing that were acknowledged before, as far as the journal itself can tell: its file was restored,
    /// replaced or copied. The log is to go on in a new epoch.
    pub doubt: Option<String>,
}

/// One entry as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub seq: Seq,
    /// Versioned bytes.
    pub bytes: Bytes,
}

/// A key that only one batch may take: an idempotency key or a delivery id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key, unique over all logs of the journal.
    pub key: String,
    /// What it stands for: returned to whoever comes second.
    pub value: Bytes,
    /// Unix milliseconds after which it may be forgotten.
    pub expires: u64,
}

/// Proof of the right to append, for engines that several processes share. [`Fence::LOCAL`] on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence(pub u64);

impl Fence {
    /// The fence of a journal that only this process writes.
    pub const LOCAL: Fence = Fence(0);
}

/// What one log gets in one append: all of it or nothing.
#[derive(Clone, Debug)]
pub struct LogBatch {
    /// The log.
    pub log: LogId,
    /// The head that the entries were decided on.
    pub expect: Seq,
    /// The right to append.
    pub fence: Fence,
    /// Consecutive entries from `expect + 1`.
    pub entries: Vec<LogEntry>,
    /// Keys taken by them.
    pub claims: Vec<Claim>,
    /// Deliveries that are kept with them.
    pub deliveries: Vec<StoredDelivery>,
    /// Marks that are overwritten with them.
    pub marks: Vec<Mark>,
}

/// A change of what one log holds already, for the erasure of rows: all of it or nothing.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The log.
    pub log: LogId,
    /// Stored entries as they are from now on, each at its old position. Positions that hold no entry any more are left out.
    pub entries: Vec<LogEntry>,
    /// Deliveries that are dropped, whatever became of them.
    pub deliveries: Vec<DeliveryId>,
}

impl Rewrite {
    /// A rewrite that changes nothing: whether a journal takes it tells whether it can rewrite.
    pub fn nothing(log: &LogId) -> Rewrite {
        Rewrite { log: LogId::clone(log), entries: Vec::new(), deliveries: Vec::new() }
    }
}

/// A small value that each append may overwrite: the position that a feed has reached at its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The key, unique over all logs of the journal.
    pub key: String,
    /// What it holds from this append on.
    pub value: Bytes,
}

/// Why a log's part of an append did not happen (or may have).
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The head is elsewhere; these entries came in between.
    #[error("the log has moved on by {} entries", missed.len())]
    Moved {
        /// What to apply before deciding again.
        missed: Vec<LogEntry>,
    },
    /// A claim of the batch was taken before.
    #[error("claim {key:?} is taken")]
    Claimed {
        /// The key.
        key: String,
        /// The value it was taken with.
        by: Bytes,
    },
    /// The right to append has gone to somebody else.
    #[error("another instance holds the log")]
    Fenced,
    /// It may or may not be stored: reopen and read.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(String),
    /// The disk is full; nothing was stored.
    #[error("the disk is full: {0}")]
    Full(String),
    /// Nothing was stored, as far as the journal knows; reopen and read to be sure.
    #[error("journal I/O: {0}")]
    Io(String),
}

/// Why a journal could not be opened or read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("journal {path}: {detail}")]
    Io {
        /// The file.
        path: String,
        /// What happened.
        detail: String,
    },
    /// The stored bytes are not a journal, or damaged. It is never deleted by the program.
    #[error(
        "journal {path} is damaged: {detail}; it holds acknowledged writes: restore it, or run `diorama ops salvage`"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// What was found.
        detail: String,
    },
    /// A newer program wrote it.
    #[error("journal {path} has format {found}, this program reads up to {known}")]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Another process has it open, or a Lens or Dio of this one.
    #[error("journal {path} is in use by another process, or by a Lens or Dio of this one")]
    Locked {
        /// The file.
        path: String,
    },
    /// It was closed.
    #[error("the journal is closed")]
    Closed,
    /// The journal cannot do that; nothing was tried.
    #[error("this journal cannot {what}")]
    Unsupported {
        /// What was asked, as a verb phrase.
        what: &'static str,
    },
}

/// An ordered, conditional, durable log per Dio.
///
/// # Contract
/// `append` is all or nothing per log and durable on return. Logs of one call may share one transaction, which nobody may rely
/// on. After [`AppendError::Unknown`] or [`AppendError::Io`] every later append fails until [`Journal::reopen`] succeeds.
#[async_trait]
pub trait Journal: Send + Sync + 'static {
    /// Opens or creates a log. `shape` says what its entries depend on (the id column): another shape than stored begins a
    /// new epoch.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError>;

    /// Begins a new epoch: entries are dropped, except those at `keep` (sorted); `head` goes on from `at_least`; `why` is kept
    /// for people. Claims, marks and deliveries stay.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be stored.
    async fn new_epoch(&self, log: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, JournalError>;

    /// The shape that a log was last opened with, if it is known.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    async fn shape(&self, log: &str) -> Result<Option<String>, JournalError> {
        let _ = log;
        Ok(None)
    }

    /// Appends to several logs; one result per batch, in their order.
    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>>;

    /// Entries after `after`, oldest first, up to about `max_bytes` but at least one if there is one. Includes kept entries
    /// below the oldest.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError>;

    /// What a claim was taken with, if it was and has not expired.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError>;

    /// Whether one more claim may be taken. A full journal first forgets expired ones, some at a time. The bound is
    /// [`InboxLimits::claims`]; appends do not look at it, so whoever is about to claim asks before.
    ///
    /// # Errors
    /// [`JournalError`] if expired claims cannot be removed.
    async fn claim_room(&self) -> Result<bool, JournalError>;

    /// What a mark holds, if it was ever written.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError>;

    /// The deliveries that are asked for, newest first, and how many there are whatever `after` and `limit` say.
    ///
    /// # Errors
    /// [`JournalError`] if they cannot be read.
    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError>;

    /// One delivery with what was sent.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, JournalError>;

    /// How full the inbox is.
    fn inbox(&self) -> InboxUse;

    /// How many deliveries and claims are kept from now on.
    fn limit_inbox(&self, limits: InboxLimits);

    /// Follows a log's head.
    fn heads(&self, log: &str) -> watch::Receiver<Seq>;

    /// Drops entries before `before`, except those at `keep` (sorted), and claims that have expired by `now` (Unix ms).
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be stored; nothing is dropped then.
    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError>;

    /// Replaces entries and drops deliveries: durable on return, all of it or nothing. Positions, heads and epoch stay as they
    /// are. Journals that cannot do it keep this default.
    ///
    /// # Errors
    /// [`JournalError::Unsupported`] if it cannot rewrite, whatever is asked; another if it cannot be stored.
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), JournalError> {
        let _ = rewrite;
        Err(JournalError::Unsupported { what: "rewrite entries" })
    }

    /// The right to append to a log.
    ///
    /// # Errors
    /// [`JournalError`] if somebody else has it.
    async fn lease(&self, log: &str) -> Result<Fence, JournalError> {
        let _ = log;
        Ok(Fence::LOCAL)
    }

    /// Opens the store again after an error, keeping what it holds.
    ///
    /// # Errors
    /// [`JournalError`] if it still fails.
    async fn reopen(&self) -> Result<(), JournalError>;

    /// Names of all logs it holds, also those no Dio has opened.
    ///
    /// # Errors
    /// [`JournalError`] if it cannot be read.
    async fn logs(&self) -> Result<Vec<LogId>, JournalError>;

    /// Flushes and closes. Calls after this are [`JournalError::Closed`].
    async fn close(&self);

    /// Whether an append survives the process.
    fn durable(&self) -> bool;
}

/// A fresh epoch: ten characters of Crockford base32 from 50 random bits.
pub fn new_epoch() -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits = uuid::Uuid::new_v4().as_u128();
    (0..10).map(|at| ALPHABET[(bits >> (at * 5)) as usize & 31] as char).collect()
}
