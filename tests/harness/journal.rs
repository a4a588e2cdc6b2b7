//! A journal that can be held.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use diorama::journal::{
    AppendError, Delivery, DeliveryId, DeliveryQuery, InboxLimits, InboxUse, Journal, JournalError, LogBatch, LogEntry,
    LogId, LogState, MemoryJournal, OutboxLimits, OutboxUse, RawRequest, Rewrite, Seq,
};
use tokio::sync::watch;

use super::Gate;

/// A memory journal whose appends pass a gate before they are stored and another one after, and that cannot rewrite unless it
/// is told to.
#[derive(Default)]
pub struct GatedJournal {
    journal: Arc<MemoryJournal>,
    gate: Gate,
    stored: Gate,
    lasting: bool,
    rewrites: Option<AtomicUsize>,
}

impl GatedJournal {
    /// One that calls itself durable.
    pub fn lasting() -> GatedJournal {
        GatedJournal { lasting: true, ..GatedJournal::default() }
    }

    /// One on `journal` that can rewrite so many times, and fails from then on.
    pub fn rewriting(journal: Arc<MemoryJournal>, times: usize) -> GatedJournal {
        GatedJournal { journal, rewrites: Some(AtomicUsize::new(times)), ..GatedJournal::default() }
    }

    /// The gate that every append passes before it is stored.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The gate that every append passes once it is stored, before the committer knows.
    pub fn stored(&self) -> &Gate {
        &self.stored
    }
}

#[async_trait]
impl Journal for GatedJournal {
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError> {
        self.journal.open(log, shape).await
    }

    async fn new_epoch(&self, log: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, JournalError> {
        self.journal.new_epoch(log, at_least, keep, why).await
    }

    async fn shape(&self, log: &str) -> Result<Option<String>, JournalError> {
        self.journal.shape(log).await
    }

    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>> {
        self.gate.pass().await;
        let results = self.journal.append(batches).await;
        self.stored.pass().await;
        results
    }

    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError> {
        self.journal.read(log, after, max_bytes).await
    }

    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        self.journal.claim(key).await
    }

    async fn claim_room(&self) -> Result<bool, JournalError> {
        self.journal.claim_room().await
    }

    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        self.journal.mark(key).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError> {
        self.journal.deliveries(query).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, JournalError> {
        self.journal.delivery(id).await
    }

    fn inbox(&self) -> InboxUse {
        self.journal.inbox()
    }

    fn limit_inbox(&self, limits: InboxLimits) {
        self.journal.limit_inbox(limits);
    }

    fn outbox(&self) -> OutboxUse {
        self.journal.outbox()
    }

    fn limit_outbox(&self, limits: OutboxLimits) {
        self.journal.limit_outbox(limits);
    }

    fn heads(&self, log: &str) -> watch::Receiver<Seq> {
        self.journal.heads(log)
    }

    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError> {
        self.journal.trim(log, before, keep, now).await
    }

    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), JournalError> {
        let Some(left) = &self.rewrites else { return Err(JournalError::Unsupported { what: "rewrite entries" }) };
        let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match taken {
            Ok(_) => self.journal.rewrite(rewrite).await,
            Err(_) => Err(JournalError::Io { path: "(gated)".into(), detail: "told to fail".into() }),
        }
    }

    async fn reopen(&self) -> Result<(), JournalError> {
        self.journal.reopen().await
    }

    async fn logs(&self) -> Result<Vec<LogId>, JournalError> {
        self.journal.logs().await
    }

    async fn close(&self) {
        self.journal.close().await;
    }

    fn durable(&self) -> bool {
        self.lasting
    }
}
