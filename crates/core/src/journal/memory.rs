//! In-memory journal with the rules of a durable one. Nothing survives the process.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::audit::MemoryAudit;
use super::inbox::Index;
use super::{
    AppendError, AuditEntry, AuditLimits, AuditQuery, AuditUse, Delivery, DeliveryId, DeliveryQuery, Fence,
    InboxLimits, InboxUse, Journal, JournalError, LogBatch, LogEntry, LogId, LogState, OutboxLimits, OutboxUse,
    RawRequest, Rewrite, Seq, new_epoch,
};

/// In-memory journal.
///
/// The content lives as long as the value: a Lens rebuilt on the same journal finds its logs as after a restart, because
/// [`Journal::open`] and [`Journal::reopen`] also open a closed memory journal.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    store: Mutex<Store>,
    heads: Heads,
}

/// Content of a journal.
#[derive(Debug, Default)]
struct Store {
    logs: HashMap<LogId, Log>,
    claims: HashMap<String, (u64, Bytes)>,
    marks: HashMap<String, Bytes>,
    deliveries: HashMap<DeliveryId, (Delivery, RawRequest)>,
    index: Index,
    audit: MemoryAudit,
    closed: bool,
}

/// Content of one log.
#[derive(Debug)]
struct Log {
    pub(super) epoch: String,
    pub(super) shape: String,
    head: Seq,
    oldest: Seq,
    pub(super) begun: Seq,
    entries: BTreeMap<Seq, Bytes>,
}

impl MemoryJournal {
    /// Creates an empty journal.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Log {
    fn new(shape: &str) -> Log {
        Log { epoch: new_epoch(), shape: shape.into(), head: 0, oldest: 1, begun: 0, entries: BTreeMap::new() }
    }

    fn begin_epoch(&mut self, at_least: Seq, keep: &[Seq]) {
        self.epoch = new_epoch();
        self.head = self.head.max(at_least);
        self.oldest = self.head + 1;
        self.begun = self.head;
        self.entries.retain(|seq, _| keep.binary_search(seq).is_ok());
    }

    fn state(&self, log: &str) -> LogState {
        let (epoch, begun) = (self.epoch.clone(), self.begun);
        LogState { log: log.into(), epoch, head: self.head, oldest: self.oldest, durable: false, begun, doubt: None }
    }

    fn after(&self, after: Seq) -> impl Iterator<Item = LogEntry> {
        let first = after.saturating_add(1);
        self.entries.range(first..).map(|(seq, bytes)| LogEntry { seq: *seq, bytes: bytes.clone() })
    }
}

impl Store {
    fn open(&self) -> Result<(), JournalError> {
        if self.closed { Err(JournalError::Closed) } else { Ok(()) }
    }

    fn log(&mut self, log: &str) -> Result<&mut Log, JournalError> {
        self.open()?;
        self.logs.get_mut(log).ok_or_else(|| not_open("(memory)", log))
    }

    fn sweep_claims(&mut self, now: u64) {
        self.claims.retain(|_, (expires, _)| *expires >= now);
        self.index.claims = self.claims.len();
    }

    fn append(&mut self, batch: LogBatch) -> Result<(), AppendError> {
        check_batch(&batch)?;
        let unopened = |error: JournalError| AppendError::Io(error.to_string());
        let log = self.log(&batch.log).map_err(unopened)?;
        if log.head != batch.expect {
            return Err(AppendError::Moved { missed: log.after(batch.expect).collect() });
        }
        let now = unix_ms();
        for claim in &batch.claims {
            if let Some((expires, by)) = self.claims.get(&claim.key)
                && *expires >= now
            {
                return Err(AppendError::Claimed { key: claim.key.clone(), by: by.clone() });
            }
        }
        for claim in batch.claims {
            self.claims.insert(claim.key, (claim.expires, claim.value));
        }
        self.index.claims = self.claims.len();
        self.marks.extend(batch.marks.into_iter().map(|mark| (mark.key, mark.value)));
        let log = self.log(&batch.log).map_err(unopened)?;
        for entry in batch.entries {
            log.head = entry.seq;
            log.entries.insert(entry.seq, entry.bytes);
        }
        for id in self.index.victims(&batch.deliveries.iter().map(|kept| &kept.delivery), now) {
            self.deliveries.remove(&DeliveryId::from_u128(id));
            self.index.drop_one(id);
        }
        for kept in batch.deliveries {
            if !self.index.takes(&kept.delivery) {
                continue;
            }
            let id = kept.delivery.id;
            let raw = kept.raw.or_else(|| self.deliveries.remove(&id).map(|(_, raw)| raw));
            // A delivery that was dropped meanwhile stays dropped.
            let Some(raw) = raw else { continue };
            self.index.put(&kept.delivery);
            self.deliveries.insert(id, (kept.delivery, raw));
        }
        Ok(())
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError> {
        let mut store = self.store.lock();
        store.closed = false;
        let stored = store.logs.entry(log.into()).or_insert_with(|| Log::new(shape));
        if stored.shape != shape {
            stored.shape = shape.into();
            stored.begin_epoch(0, &[]);
        }
        self.heads.set(log, stored.head);
        Ok(stored.state(log))
    }

    async fn new_epoch(&self, log: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, JournalError> {
        tracing::info!(log, why, "new epoch");
        let mut store = self.store.lock();
        let stored = store.log(log)?;
        stored.begin_epoch(at_least, keep);
        self.heads.set(log, stored.head);
        Ok(stored.state(log))
    }

    async fn shape(&self, log: &str) -> Result<Option<String>, JournalError> {
        Ok(self.store.lock().logs.get(log).map(|log| log.shape.clone()))
    }

    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>> {
        let mut store = self.store.lock();
        let heads = &self.heads;
        let mut append_one = |batch: LogBatch| {
            let (log, head) = (LogId::clone(&batch.log), batch.expect + batch.entries.len() as Seq);
            store.append(batch)?;
            heads.set(&log, head);
            Ok(())
        };
        batches.into_iter().map(&mut append_one).collect()
    }

    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError> {
        let store = self.store.lock();
        store.open()?;
        let mut budget = Budget::new(max_bytes);
        let Some(log) = store.logs.get(log) else { return Ok(Vec::new()) };
        Ok(log.after(after).take_while(|entry| budget.admits(entry.bytes.len())).collect())
    }

    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        let store = self.store.lock();
        store.open()?;
        Ok(store.claims.get(key).filter(|(expires, _)| *expires >= unix_ms()).map(|(_, value)| value.clone()))
    }

    async fn claim_room(&self) -> Result<bool, JournalError> {
        let mut store = self.store.lock();
        store.open()?;
        if !store.index.claim_room() && store.index.may_sweep() {
            store.sweep_claims(unix_ms());
        }
        Ok(store.index.claim_room())
    }

    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        let store = self.store.lock();
        store.open()?;
        Ok(store.marks.get(key).cloned())
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError> {
        let store = self.store.lock();
        store.open()?;
        let (ids, total) = store.index.find(query);
        Ok((ids.iter().filter_map(|id| Some(store.deliveries.get(id)?.0.clone())).collect(), total))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, JournalError> {
        let store = self.store.lock();
        store.open()?;
        Ok(store.deliveries.get(&id).cloned())
    }

    fn inbox(&self) -> InboxUse {
        self.store.lock().index.usage()
    }

    fn limit_inbox(&self, limits: InboxLimits) {
        self.store.lock().index.limit_inbox(limits);
    }

    fn outbox(&self) -> OutboxUse {
        self.store.lock().index.outbox_usage()
    }

    fn limit_outbox(&self, limits: OutboxLimits) {
        self.store.lock().index.limit_outbox(limits);
    }

    fn heads(&self, log: &str) -> watch::Receiver<Seq> {
        self.heads.follow(log)
    }

    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError> {
        let mut store = self.store.lock();
        let stored = store.log(log)?;
        stored.entries.retain(|seq, _| *seq >= before || keep.binary_search(seq).is_ok());
        stored.oldest = stored.oldest.max(before.min(stored.head + 1));
        store.sweep_claims(now);
        Ok(())
    }

    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), JournalError> {
        let mut store = self.store.lock();
        let log = store.log(&rewrite.log)?;
        for entry in rewrite.entries {
            log.entries.entry(entry.seq).and_modify(|bytes| *bytes = entry.bytes);
        }
        for id in rewrite.deliveries {
            store.deliveries.remove(&id);
            store.index.remove(id.as_u128());
        }
        Ok(())
    }

    async fn append_audit(&self, entries: Vec<AuditEntry>, limits: AuditLimits) -> Result<Seq, JournalError> {
        let mut store = self.store.lock();
        store.open()?;
        Ok(store.audit.append(entries, limits, unix_ms()))
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, JournalError> {
        let store = self.store.lock();
        store.open()?;
        Ok(store.audit.read(query))
    }

    fn audit_use(&self) -> AuditUse {
        self.store.lock().audit.size()
    }

    async fn reopen(&self) -> Result<(), JournalError> {
        self.store.lock().closed = false;
        Ok(())
    }

    async fn logs(&self) -> Result<Vec<LogId>, JournalError> {
        let store = self.store.lock();
        store.open()?;
        let mut logs: Vec<LogId> = store.logs.keys().cloned().collect();
        logs.sort();
        Ok(logs)
    }

    async fn close(&self) {
        self.store.lock().closed = true;
    }

    fn durable(&self) -> bool {
        false
    }
}

/// Subscribable heads of all logs.
#[derive(Debug, Default)]
pub(super) struct Heads(Mutex<HashMap<LogId, watch::Sender<Seq>>>);

impl Heads {
    pub(super) fn set(&self, log: &str, head: Seq) {
        let mut heads = self.0.lock();
        match heads.get(log) {
            Some(sender) => drop(sender.send_replace(head)),
            None => drop(heads.insert(log.into(), watch::Sender::new(head))),
        }
    }

    pub(super) fn follow(&self, log: &str) -> watch::Receiver<Seq> {
        self.0.lock().entry(log.into()).or_default().subscribe()
    }
}

/// Byte budget for a read. Always admits the first entry.
pub(super) struct Budget {
    left: usize,
    first: bool,
}

impl Budget {
    pub(super) fn new(max_bytes: usize) -> Budget {
        Budget { left: max_bytes, first: true }
    }

    pub(super) fn admits(&mut self, bytes: usize) -> bool {
        let admitted = std::mem::take(&mut self.first) || bytes <= self.left;
        self.left = self.left.saturating_sub(bytes);
        admitted
    }
}

/// Rejects batches with a foreign fence or with gaps between entries.
pub(super) fn check_batch(batch: &LogBatch) -> Result<(), AppendError> {
    if batch.fence != Fence::LOCAL {
        return Err(AppendError::Fenced);
    }
    let consecutive = batch.entries.iter().zip(batch.expect + 1..).all(|(entry, seq)| entry.seq == seq);
    if consecutive { Ok(()) } else { Err(AppendError::Io(format!("entries of {:?} are not consecutive", batch.log))) }
}

pub(super) fn not_open(path: &str, log: &str) -> JournalError {
    JournalError::Io { path: path.into(), detail: format!("log {log:?} is not open: open it first") }
}

pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
