//! A journal in a redb file with two-phase commits. It is verified on open and never deleted.
//!
//! Tables: `entries` keyed by log number and sequence number, `claims` and `marks` by key, `deliveries` (`inbox.rs`), `audit`, `meta`
//! with `format` and one `log/<name>` per log. Every record is sealed with a checksum over itself and its key. The head of a
//! log is its last entry, or the head in its meta if that is higher, so an append writes only to `entries`.

pub(super) mod audit;
mod file;
pub(super) mod inbox;
pub(super) mod log;
pub(super) mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{ReadTransaction, ReadableDatabase};
use tokio::sync::watch;

use self::file::Inner;
use self::log::decode_log;
use self::tables::{LOGS_END, META, OPTIONS, journal_error};
use crate::journal::head::Head;
use crate::journal::memory::Heads;
use crate::journal::{
    AppendError, AuditEntry, AuditLimits, AuditQuery, AuditUse, Delivery, DeliveryId, DeliveryQuery, InboxLimits,
    InboxUse, Journal, JournalError, LogBatch, LogEntry, LogId, LogState, OutboxLimits, OutboxUse, RawRequest, Rewrite,
    Seq,
};
use crate::redb_file::{BackendFactory, Copy, Fault, Owner, RedbFile, blocking};

/// A journal in a redb file, for all Dios of a Lens in one process.
///
/// A clone is the same journal. After a failed append it returns [`AppendError::Io`] until [`Journal::reopen`]. Only
/// [`AppendError::Full`] leaves it usable, because then it has been reopened and nothing was stored.
#[derive(Clone, Debug)]
pub struct RedbJournal(Arc<Inner>);

impl RedbJournal {
    /// Opens or creates the journal in the file at `path`, readable only by its owner.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] if the file is damaged (it is not changed), [`JournalError::Newer`], [`JournalError::Locked`]
    /// if it is open elsewhere, [`JournalError::Io`] otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref();
        let head = Some(Mutex::new(Head::read(path)));
        Self::new(RedbFile::open(path, OPTIONS), &path.display().to_string(), head)
    }

    /// Opens or creates a journal on custom storage. `factory` is called again whenever it is reopened.
    ///
    /// # Errors
    /// As [`RedbJournal::open`].
    pub fn with_backend(factory: BackendFactory) -> Result<Self, JournalError> {
        Self::new(RedbFile::with_backend(factory, OPTIONS), "(custom storage)", None)
    }

    fn new(file: Result<RedbFile, Fault>, path: &str, head: Option<Mutex<Head>>) -> Result<Self, JournalError> {
        let of_path = |fault| journal_error(path, fault);
        let file = file.map_err(of_path)?;
        let inner = Inner {
            file,
            writer: Mutex::default(),
            logs: RwLock::default(),
            heads: Heads::default(),
            head,
            inbox: RwLock::default(),
            audit: RwLock::default(),
        };
        inner.load_logs().map_err(of_path)?;
        Ok(RedbJournal(Arc::new(inner)))
    }

    /// Returns a guard that marks the file as abandoned when it is dropped.
    pub(crate) fn owner(&self) -> Owner {
        self.0.file.owner()
    }

    /// Takes a snapshot, which can be copied while the journal stays in use.
    pub fn snapshot(&self) -> Result<JournalSnapshot, JournalError> {
        let begun = self.0.file.with(|database| Ok(database.begin_read()?));
        begun.map(JournalSnapshot).map_err(|fault| journal_error(&self.0.file.label(), fault))
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, JournalError> {
        let inner = Arc::clone(&self.0);
        blocking(move || job(&inner)).await.map_err(|fault| journal_error(&self.0.file.label(), fault))
    }
}

/// Snapshot of a journal.
#[derive(Debug)]
pub struct JournalSnapshot(ReadTransaction);

impl JournalSnapshot {
    /// Writes the snapshot to a new file at `path`, with a head file that marks it as a copy. Blocks the thread.
    ///
    /// # Errors
    /// [`JournalError`] if a file cannot be read or written.
    pub fn write(&self, path: &Path) -> Result<(), JournalError> {
        self.copy(path).map_err(|fault| journal_error(&path.display().to_string(), fault))
    }

    fn copy(&self, path: &Path) -> Result<(), Fault> {
        let copy = Copy::begin(path, OPTIONS)?;
        copy.all(&self.0)?;
        copy.end()?;
        let mut logs = Vec::new();
        for stored in self.0.open_table(META)?.range("log/"..LOGS_END)? {
            let (key, value) = stored?;
            let log = decode_log(key.value(), value.value())?;
            logs.push((key.value()["log/".len()..].to_string(), log.as_head()));
        }
        Ok(Head::write_copy(path, logs.into_iter())?)
    }
}

#[async_trait]
impl Journal for RedbJournal {
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError> {
        let (log, shape) = (log.to_string(), shape.to_string());
        self.run(move |inner| inner.open_log(&log, &shape)).await
    }

    async fn new_epoch(&self, log: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, JournalError> {
        let (log, keep, why) = (log.to_string(), keep.to_vec(), why.to_string());
        self.run(move |inner| inner.begin_epoch(&log, at_least, &keep, &why)).await
    }

    async fn shape(&self, log: &str) -> Result<Option<String>, JournalError> {
        Ok(self.0.logs.read().get(log).map(|log| log.shape.clone()))
    }

    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>> {
        let count = batches.len();
        let answers = self.run(move |inner| Ok(inner.append(&batches))).await;
        // Only a runtime that is shutting down prevents an answer; the job may have run.
        answers.unwrap_or_else(|error| vec![Err(AppendError::Unknown(error.to_string())); count])
    }

    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError> {
        let log = log.to_string();
        self.run(move |inner| inner.read(&log, after, max_bytes)).await
    }

    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        let key = key.to_string();
        self.run(move |inner| inner.claim(&key)).await
    }

    async fn claim_room(&self) -> Result<bool, JournalError> {
        if self.0.inbox.read().claim_room() {
            return Ok(true);
        }
        self.run(Inner::claim_room).await
    }

    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        let key = key.to_string();
        self.run(move |inner| inner.mark(&key)).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError> {
        let (ids, total) = self.0.inbox.read().find(query);
        let found = self.run(move |inner| inner.file.with(|database| inbox::read_states(database, &ids))).await?;
        Ok((found, total))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, JournalError> {
        self.run(move |inner| inner.file.with(|database| inbox::read_delivery(database, id))).await
    }

    fn inbox(&self) -> InboxUse {
        self.0.inbox.read().usage()
    }

    fn limit_inbox(&self, limits: InboxLimits) {
        self.0.inbox.write().limit_inbox(limits);
    }

    fn outbox(&self) -> OutboxUse {
        self.0.inbox.read().outbox_usage()
    }

    fn limit_outbox(&self, limits: OutboxLimits) {
        self.0.inbox.write().limit_outbox(limits);
    }

    fn heads(&self, log: &str) -> watch::Receiver<Seq> {
        self.0.heads.follow(log)
    }

    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError> {
        let (log, keep) = (log.to_string(), keep.to_vec());
        self.run(move |inner| inner.trim(&log, before, &keep, now)).await
    }

    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), JournalError> {
        self.run(move |inner| inner.rewrite(&rewrite)).await
    }

    async fn append_audit(&self, entries: Vec<AuditEntry>, limits: AuditLimits) -> Result<Seq, JournalError> {
        self.run(move |inner| inner.append_audit(entries, limits)).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, JournalError> {
        let query = query.clone();
        self.run(move |inner| inner.read_audit(&query)).await
    }

    fn audit_use(&self) -> AuditUse {
        *self.0.audit.read()
    }

    async fn reopen(&self) -> Result<(), JournalError> {
        self.run(|inner| inner.reopen_with(&mut inner.writer.lock())).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, JournalError> {
        self.run(|inner| {
            inner.file.with(|_| Ok(()))?;
            let mut logs: Vec<LogId> = inner.logs.read().keys().cloned().collect();
            logs.sort();
            Ok(logs)
        })
        .await
    }

    async fn close(&self) {
        let closed = self.run(|inner| {
            let _writer = inner.writer.lock();
            inner.file.close();
            Ok(())
        });
        // Closing itself cannot fail. A runtime that is shutting down drops the file instead.
        let _ = closed.await;
    }

    fn durable(&self) -> bool {
        true
    }
}
