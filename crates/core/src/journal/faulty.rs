//! Fault-injecting journal for testing code that appends.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    AppendError, AuditEntry, AuditLimits, AuditQuery, AuditUse, Delivery, DeliveryId, DeliveryQuery, Fence,
    InboxLimits, InboxUse, Journal, JournalError, LogBatch, LogEntry, LogId, LogState, OutboxLimits, OutboxUse,
    RawRequest, Rewrite, Seq,
};

/// Fault injected into one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another writer's entry is appended before the first batch that has entries; needs [`FaultyJournal::set_foreign`].
    Moved,
    /// Another writer takes the first claim of the call first, with the same value.
    Claimed,
    /// The call is stored but returns [`AppendError::Unknown`]; appends fail until reopened.
    UnknownStored,
    /// The call is not stored and returns [`AppendError::Unknown`]; appends fail until reopened.
    UnknownLost,
    /// Nothing is stored, and the call returns [`AppendError::Full`]; later appends work.
    Full,
    /// Nothing is stored, and the call returns [`AppendError::Io`]; appends fail until reopened.
    Io,
}

/// Rates of random faults, in appends per thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Rate of [`Fault::Moved`].
    pub moved: u16,
    /// Rate of [`Fault::Claimed`].
    pub claimed: u16,
    /// Rate of [`Fault::UnknownStored`].
    pub unknown_stored: u16,
    /// Rate of [`Fault::UnknownLost`].
    pub unknown_lost: u16,
    /// Rate of [`Fault::Full`].
    pub full: u16,
    /// Rate of [`Fault::Io`].
    pub io: u16,
}

type ForeignEntry = Box<dyn Fn(&str, Seq) -> Bytes + Send + Sync>;

/// A journal that wraps another one and injects the faults of a broken or shared one.
///
/// Without rates and pushed faults it behaves as the inner journal. Pushed faults come first, one per append; [`Fault::Moved`]
/// and [`Fault::Claimed`] wait for an append that they can affect. Every [`Journal::append`] waits while
/// [`FaultyJournal::hold`] is in effect.
pub struct FaultyJournal {
    inner: Arc<dyn Journal>,
    foreign: Mutex<Option<ForeignEntry>>,
    plan: Mutex<Plan>,
    held: watch::Sender<bool>,
    sizes: watch::Sender<Vec<usize>>,
}

/// Faults that are still to be injected.
struct Plan {
    random: u64,
    rates: FaultRates,
    pushed: VecDeque<Fault>,
    broken: bool,
    failing_reopens: u32,
    failing_audits: u32,
}

impl FaultyJournal {
    /// Wraps `inner` without any faults yet; `seed` determines the random faults.
    pub fn new(inner: Arc<dyn Journal>, seed: u64) -> Self {
        FaultyJournal {
            inner,
            foreign: Mutex::new(None),
            plan: Mutex::new(Plan {
                random: seed,
                rates: FaultRates::default(),
                pushed: VecDeque::new(),
                broken: false,
                failing_reopens: 0,
                failing_audits: 0,
            }),
            held: watch::Sender::new(false),
            sizes: watch::Sender::new(Vec::new()),
        }
    }

    /// Sets the rates of random faults.
    #[must_use]
    pub fn with_rates(self, rates: FaultRates) -> Self {
        self.set_rates(rates);
        self
    }

    /// Changes the rates of random faults.
    pub fn set_rates(&self, rates: FaultRates) {
        self.plan.lock().rates = rates;
    }

    /// Sets the bytes that another writer appends to a log at a position, which [`Fault::Moved`] needs.
    pub fn set_foreign(&self, entry: impl Fn(&str, Seq) -> Bytes + Send + Sync + 'static) {
        *self.foreign.lock() = Some(Box::new(entry));
    }

    /// Queues `fault` for the next append that it can affect.
    pub fn push_fault(&self, fault: Fault) {
        self.plan.lock().pushed.push_back(fault);
    }

    /// Makes the next `times` calls of [`Journal::reopen`] fail.
    pub fn fail_reopens(&self, times: u32) {
        self.plan.lock().failing_reopens = times;
    }

    /// Makes the next `times` calls of [`Journal::append_audit`] fail.
    pub fn fail_audits(&self, times: u32) {
        self.plan.lock().failing_audits = times;
    }

    /// Blocks appends before they do anything, until [`FaultyJournal::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// Unblocks waiting appends.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Number of appends that have arrived, blocked ones included.
    pub fn appends(&self) -> usize {
        self.sizes.borrow().len()
    }

    /// Number of entries of each append, in order of arrival.
    pub fn sizes(&self) -> Vec<usize> {
        self.sizes.borrow().clone()
    }

    /// Waits until `count` appends have arrived.
    pub async fn wait_for_appends(&self, count: usize) {
        // The sender lives in `self`, so the channel cannot close meanwhile.
        let _ = self.sizes.subscribe().wait_for(|sizes| sizes.len() >= count).await;
    }

    async fn pass_gate(&self) {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
    }

    fn can_move(&self, batches: &[LogBatch]) -> bool {
        self.foreign.lock().is_some() && batches.iter().any(|batch| !batch.entries.is_empty())
    }

    /// Appends another writer's entry before the first batch that has entries.
    async fn append_foreign_entry(&self, batches: &[LogBatch]) {
        let Some(batch) = batches.iter().find(|batch| !batch.entries.is_empty()) else { return };
        let seq = batch.expect + 1;
        let Some(bytes) = self.foreign.lock().as_ref().map(|entry| entry(&batch.log, seq)) else { return };
        let entries = vec![LogEntry { seq, bytes }];
        self.append_foreign(LogBatch {
            entries,
            claims: Vec::new(),
            deliveries: Vec::new(),
            marks: Vec::new(),
            ..batch.clone()
        })
        .await;
    }

    /// Takes the first claim of the call for another writer.
    async fn take_foreign_claim(&self, batches: &[LogBatch]) {
        let Some(batch) = batches.iter().find(|batch| !batch.claims.is_empty()) else { return };
        let claims = batch.claims[..1].to_vec();
        self.append_foreign(LogBatch {
            entries: Vec::new(),
            claims,
            deliveries: Vec::new(),
            marks: Vec::new(),
            ..batch.clone()
        })
        .await;
    }

    async fn append_foreign(&self, batch: LogBatch) {
        // If the inner journal rejects it, it rejects the caller's batch for the same reason.
        let _ = self.inner.append(vec![LogBatch { fence: Fence::LOCAL, ..batch }]).await;
    }
}

impl Plan {
    /// The fault for the next append, if any.
    fn next(&mut self, can_move: bool, can_claim: bool) -> Option<Fault> {
        let possible = |fault: Fault| match fault {
            Fault::Moved => can_move,
            Fault::Claimed => can_claim,
            _ => true,
        };
        if let Some(fault) = self.pushed.front().copied() {
            return possible(fault).then(|| self.pushed.pop_front()).flatten();
        }
        let mut roll = u16::try_from(self.random() % 1000).unwrap_or_default();
        let FaultRates { moved, claimed, unknown_stored, unknown_lost, full, io } = self.rates;
        let rates = [
            (moved, Fault::Moved),
            (claimed, Fault::Claimed),
            (unknown_stored, Fault::UnknownStored),
            (unknown_lost, Fault::UnknownLost),
            (full, Fault::Full),
            (io, Fault::Io),
        ];
        for (rate, fault) in rates {
            if roll < rate {
                return possible(fault).then_some(fault);
            }
            roll -= rate;
        }
        None
    }

    /// splitmix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[async_trait]
impl Journal for FaultyJournal {
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError> {
        self.inner.open(log, shape).await
    }

    async fn new_epoch(&self, log: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, JournalError> {
        self.inner.new_epoch(log, at_least, keep, why).await
    }

    async fn shape(&self, log: &str) -> Result<Option<String>, JournalError> {
        self.inner.shape(log).await
    }

    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>> {
        let entries = batches.iter().map(|batch| batch.entries.len()).sum();
        self.sizes.send_modify(|sizes| sizes.push(entries));
        self.pass_gate().await;
        let count = batches.len();
        let all = |error: AppendError| vec![Err(error); count];
        let (can_move, can_claim) = (self.can_move(&batches), batches.iter().any(|batch| !batch.claims.is_empty()));
        let fault = {
            let mut plan = self.plan.lock();
            if plan.broken {
                return all(AppendError::Io("double: reopen first".into()));
            }
            let fault = plan.next(can_move, can_claim);
            plan.broken = matches!(fault, Some(Fault::UnknownStored | Fault::UnknownLost | Fault::Io));
            fault
        };
        match fault {
            None => self.inner.append(batches).await,
            Some(Fault::Moved) => {
                self.append_foreign_entry(&batches).await;
                self.inner.append(batches).await
            }
            Some(Fault::Claimed) => {
                self.take_foreign_claim(&batches).await;
                self.inner.append(batches).await
            }
            Some(Fault::UnknownStored) => {
                self.inner.append(batches).await;
                all(AppendError::Unknown("double: stored".into()))
            }
            Some(Fault::UnknownLost) => all(AppendError::Unknown("double: not stored".into())),
            Some(Fault::Full) => all(AppendError::Full("double".into())),
            Some(Fault::Io) => all(AppendError::Io("double".into())),
        }
    }

    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError> {
        self.inner.read(log, after, max_bytes).await
    }

    async fn claim_room(&self) -> Result<bool, JournalError> {
        self.inner.claim_room().await
    }

    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        self.inner.mark(key).await
    }

    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        self.inner.claim(key).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError> {
        self.inner.deliveries(query).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>, JournalError> {
        self.inner.delivery(id).await
    }

    fn inbox(&self) -> InboxUse {
        self.inner.inbox()
    }

    fn limit_inbox(&self, limits: InboxLimits) {
        self.inner.limit_inbox(limits);
    }

    fn outbox(&self) -> OutboxUse {
        self.inner.outbox()
    }

    fn limit_outbox(&self, limits: OutboxLimits) {
        self.inner.limit_outbox(limits);
    }

    fn heads(&self, log: &str) -> watch::Receiver<Seq> {
        self.inner.heads(log)
    }

    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError> {
        self.inner.trim(log, before, keep, now).await
    }

    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), JournalError> {
        if self.plan.lock().broken {
            return Err(JournalError::Io { path: "(double)".into(), detail: "reopen first".into() });
        }
        self.inner.rewrite(rewrite).await
    }

    async fn append_audit(&self, entries: Vec<AuditEntry>, limits: AuditLimits) -> Result<Seq, JournalError> {
        {
            let mut plan = self.plan.lock();
            if plan.failing_audits > 0 {
                plan.failing_audits -= 1;
                return Err(JournalError::Io { path: "(double)".into(), detail: "the audit log fails".into() });
            }
        }
        self.inner.append_audit(entries, limits).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, JournalError> {
        self.inner.audit(query).await
    }

    fn audit_use(&self) -> AuditUse {
        self.inner.audit_use()
    }

    async fn lease(&self, log: &str) -> Result<Fence, JournalError> {
        self.inner.lease(log).await
    }

    async fn reopen(&self) -> Result<(), JournalError> {
        {
            let mut plan = self.plan.lock();
            if plan.failing_reopens > 0 {
                plan.failing_reopens -= 1;
                return Err(JournalError::Io { path: "(double)".into(), detail: "still broken".into() });
            }
            plan.broken = false;
        }
        self.inner.reopen().await
    }

    async fn logs(&self) -> Result<Vec<LogId>, JournalError> {
        self.inner.logs().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn durable(&self) -> bool {
        self.inner.durable()
    }
}

impl fmt::Debug for FaultyJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyJournal").field("appends", &self.appends()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Claim, MemoryJournal};
    use super::*;

    fn batch(expect: Seq, bytes: &'static str, claim: Option<&str>) -> LogBatch {
        LogBatch {
            log: "d".into(),
            expect,
            fence: Fence::LOCAL,
            entries: vec![LogEntry { seq: expect + 1, bytes: bytes.into() }],
            deliveries: Vec::new(),
            marks: Vec::new(),
            claims: claim
                .map(|key| Claim { key: key.into(), value: "v".into(), expires: u64::MAX })
                .into_iter()
                .collect(),
        }
    }

    async fn faulty() -> FaultyJournal {
        let journal = FaultyJournal::new(Arc::new(MemoryJournal::new()), 7);
        journal.set_foreign(|_, _| "foreign".into());
        journal.open("d", "").await.unwrap();
        journal
    }

    async fn append_one(journal: &FaultyJournal, batch: LogBatch) -> Result<(), AppendError> {
        journal.append(vec![batch]).await.remove(0)
    }

    #[tokio::test]
    async fn a_pushed_move_returns_an_entry_that_is_stored() {
        let journal = faulty().await;
        journal.push_fault(Fault::Moved);
        let Err(AppendError::Moved { missed }) = append_one(&journal, batch(0, "mine", None)).await else {
            panic!("not moved")
        };
        assert_eq!(missed, journal.read("d", 0, 1000).await.unwrap());
        append_one(&journal, batch(1, "mine", None)).await.unwrap();
    }

    #[tokio::test]
    async fn a_pushed_claim_waits_for_a_batch_with_one() {
        let journal = faulty().await;
        journal.push_fault(Fault::Claimed);
        append_one(&journal, batch(0, "a", None)).await.unwrap();
        let answer = append_one(&journal, batch(1, "b", Some("k"))).await;
        assert!(matches!(answer, Err(AppendError::Claimed { .. })), "{answer:?}");
        assert!(journal.claim("k").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn an_unknown_append_is_stored_or_not_and_breaks_appends_until_reopened() {
        for (fault, stored) in [(Fault::UnknownStored, 1), (Fault::UnknownLost, 0), (Fault::Io, 0)] {
            let journal = faulty().await;
            journal.push_fault(fault);
            journal.fail_reopens(1);
            append_one(&journal, batch(0, "a", None)).await.unwrap_err();
            assert!(matches!(append_one(&journal, batch(0, "a", None)).await, Err(AppendError::Io(_))));
            assert!(journal.reopen().await.is_err());
            journal.reopen().await.unwrap();
            assert_eq!(journal.read("d", 0, 1000).await.unwrap().len(), stored, "{fault:?}");
            append_one(&journal, batch(stored as Seq, "b", None)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_blocked_append_has_arrived_but_stored_nothing() {
        let journal = Arc::new(faulty().await);
        journal.hold();
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        let append = tokio::spawn({
            let journal = Arc::clone(&journal);
            async move { append_one(&journal, batch(0, "a", None)).await }
        });
        journal.wait_for_appends(1).await;
        assert!(journal.read("d", 0, 1000).await.unwrap().is_empty());
        journal.release();
        append.await.unwrap().unwrap();
        assert_eq!(journal.sizes(), [1]);
    }

    #[tokio::test]
    async fn random_faults_are_the_same_for_the_same_seed() {
        async fn run(seed: u64) -> Vec<bool> {
            let rates = FaultRates { full: 300, ..FaultRates::default() };
            let journal = FaultyJournal::new(Arc::new(MemoryJournal::new()), seed).with_rates(rates);
            let head = journal.open("d", "").await.unwrap().head;
            let mut answers = Vec::new();
            for _ in 0..50 {
                let empty = LogBatch { entries: Vec::new(), ..batch(head, "", None) };
                answers.push(append_one(&journal, empty).await.is_ok());
            }
            answers
        }
        assert_eq!(run(1).await, run(1).await);
        assert!(run(1).await.contains(&true) && run(1).await.contains(&false));
    }
}
