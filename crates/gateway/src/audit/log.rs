//! [`AuditLog`]: stores entries, those of actions at once and all others within a second.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::refusals::Refusals;
use crate::access::Principal;
use crate::http::budget::Caller;
use crate::http::problem::Code;
use diorama_core::dio::now;
use diorama_core::journal::{AuditAction, AuditEntry, AuditLimits, AuditQuery, AuditUse, Journal, JournalError};

/// Minimum time between two appends of entries that wait.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time after which a failed append is repeated.
const RETRY: Duration = Duration::from_secs(30);
/// Maximum number of entries that wait while the journal fails. Further ones are lost, and counted.
const MOST_WAITING: usize = 1_000;

/// Audit log of a server. Clones are the same log.
///
/// An action of an administrator is stored before it begins. Entries of other events wait for up to a second, so that a flood of them
/// costs at most one append a second. They are stored at the latest by [`AuditLog::close`]. A log that is dropped stores them as well.
#[derive(Clone, Debug)]
pub struct AuditLog(Arc<Handle>);

/// Owner of the writer.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

struct Shared {
    journal: Arc<dyn Journal>,
    limits: AuditLimits,
    waiting: Mutex<Waiting>,
    wake: Notify,
    closing: CancellationToken,
    lost: AtomicU64,
}

/// Entries that are not stored yet.
#[derive(Debug, Default)]
struct Waiting {
    entries: Vec<AuditEntry>,
    refusals: Refusals,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Opens the log of `journal`. Must be called within a tokio runtime, where its writer runs.
    pub fn new(journal: Arc<dyn Journal>, limits: AuditLimits) -> AuditLog {
        let shared = Arc::new(Shared {
            journal,
            limits,
            waiting: Mutex::default(),
            wake: Notify::new(),
            closing: CancellationToken::new(),
            lost: AtomicU64::new(0),
        });
        #[expect(clippy::disallowed_methods, reason = "the log owns its writer and joins it")]
        let writer = tokio::spawn(write(Arc::clone(&shared)));
        AuditLog(Arc::new(Handle { shared, writer: Mutex::new(Some(writer)) }))
    }

    /// Stores an entry, with those that wait. It is durable on return.
    ///
    /// # Errors
    /// [`JournalError`] if the entry may not be stored.
    pub async fn append(&self, entry: AuditEntry) -> Result<(), JournalError> {
        self.0.shared.append(Some(entry), false).await
    }

    /// Stores an entry within a second.
    pub fn note(&self, entry: AuditEntry) {
        self.0.shared.wait(vec![entry]);
    }

    /// Counts a refused request, if `code` is a refusal of its credentials or of its access.
    pub(crate) fn refused(
        &self,
        code: Code,
        principal: &Principal,
        caller: Caller,
        resource: Option<&str>,
        request: &str,
    ) {
        let action = match code {
            Code::Unauthenticated | Code::SignatureInvalid => AuditAction::RefusedAuthentication,
            Code::Forbidden | Code::OriginNotAllowed => AuditAction::RefusedAccess,
            _ => return,
        };
        let shared = &self.0.shared;
        let entry = || AuditEntry {
            resource: resource.map(str::to_string),
            outcome: code.as_str().to_string(),
            ..of_caller(action, principal, caller, request)
        };
        let mut waiting = shared.waiting.lock();
        let first = waiting.refusals.add((action, principal.name().cloned(), caller), entry, Instant::now());
        drop(waiting);
        if let Some(first) = first {
            shared.wait(vec![first]);
        }
    }

    /// Reads entries.
    ///
    /// # Errors
    /// [`JournalError`] if the journal cannot be read.
    pub async fn read(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, JournalError> {
        self.0.shared.journal.audit(query).await
    }

    /// Returns the size of the log.
    pub fn size(&self) -> AuditUse {
        self.0.shared.journal.audit_use()
    }

    /// Returns the number of entries that were lost because the journal failed for a long time.
    pub fn lost(&self) -> u64 {
        self.0.shared.lost.load(Ordering::Relaxed)
    }

    /// Stores that the server stops, and all entries that wait.
    pub async fn close(&self) {
        self.note(AuditEntry::new(AuditAction::ServerStopped, now()));
        self.0.shared.closing.cancel();
        let writer = self.0.writer.lock().take();
        if let Some(writer) = writer {
            // A writer that has panicked has nothing left to store.
            let _ = writer.await;
        }
    }
}

/// Creates the entry of an action of a caller.
pub(super) fn of_caller(action: AuditAction, principal: &Principal, caller: Caller, request: &str) -> AuditEntry {
    AuditEntry {
        principal: principal.name().map(|name| name.to_string()),
        role: Some(principal.role().to_string()),
        address: Some(caller.to_string()),
        request: Some(request.to_string()),
        ..AuditEntry::new(action, now())
    }
}

impl Shared {
    fn wait(&self, entries: Vec<AuditEntry>) {
        let mut waiting = self.waiting.lock();
        let room = MOST_WAITING.saturating_sub(waiting.entries.len());
        self.lost.fetch_add(entries.len().saturating_sub(room) as u64, Ordering::Relaxed);
        waiting.entries.extend(entries.into_iter().take(room));
        drop(waiting);
        self.wake.notify_one();
    }

    /// Appends the entries that wait, and `entry`. If that fails, the former wait again.
    async fn append(&self, entry: Option<AuditEntry>, stopping: bool) -> Result<(), JournalError> {
        let waiting = {
            let mut waiting = self.waiting.lock();
            let summaries = waiting.refusals.summaries(Instant::now(), stopping, now());
            let mut entries = std::mem::take(&mut waiting.entries);
            entries.extend(summaries);
            entries
        };
        let all: Vec<AuditEntry> = waiting.iter().cloned().chain(entry).collect();
        if all.is_empty() {
            return Ok(());
        }
        let appended = self.journal.append_audit(all, self.limits).await;
        if appended.is_err() && !waiting.is_empty() {
            self.wait(waiting);
        }
        appended.map(drop)
    }

    /// Waits until there is something to append.
    async fn due(&self) {
        loop {
            let end = {
                let waiting = self.waiting.lock();
                if !waiting.entries.is_empty() {
                    return;
                }
                waiting.refusals.end()
            };
            let end_of_period = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = end_of_period => return,
            }
        }
    }
}

/// Appends the entries that wait, at most once in [`INTERVAL`], until the log is closed.
async fn write(shared: Arc<Shared>) {
    loop {
        let stopping = tokio::select! {
            () = shared.closing.cancelled() => true,
            () = shared.due() => false,
        };
        let appended = shared.append(None, stopping).await;
        if let Err(error) = &appended {
            tracing::warn!(%error, "the audit log cannot be written; its entries wait");
        }
        if stopping {
            return;
        }
        let pause = if appended.is_ok() { INTERVAL } else { RETRY };
        tokio::select! {
            () = shared.closing.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_core::journal::MemoryJournal;
    use diorama_core::journal::faulty::FaultyJournal;

    fn everything() -> AuditQuery {
        AuditQuery { oldest_first: true, limit: 10_000, ..AuditQuery::default() }
    }

    fn refuse(log: &AuditLog, code: Code, address: u8) {
        let caller = Caller::new(std::net::IpAddr::from([10, 0, 0, address]));
        log.refused(code, &Principal::anonymous(), caller, Some("items"), "r");
    }

    async fn words(journal: &dyn Journal) -> Vec<(AuditAction, u64)> {
        journal.audit(&everything()).await.unwrap().iter().map(|entry| (entry.action, entry.count)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_stored_once_a_second_and_summed_up_by_the_minute() {
        let journal = Arc::new(FaultyJournal::new(Arc::new(MemoryJournal::new()), 1));
        let log = AuditLog::new(Arc::<FaultyJournal>::clone(&journal), AuditLimits::default());
        for _ in 0..1_000 {
            refuse(&log, Code::Unauthenticated, 1);
            refuse(&log, Code::Forbidden, 2);
            refuse(&log, Code::NotFound, 3);
            tokio::time::advance(Duration::from_millis(30)).await;
            tokio::task::yield_now().await;
        }
        let first = [(AuditAction::RefusedAuthentication, 1), (AuditAction::RefusedAccess, 1)];
        assert_eq!(words(&*journal).await, first);
        sleep(Duration::from_secs(60)).await;
        let mut all = words(&*journal).await;
        all[2..].sort_by_key(|(action, _)| action.as_str() != "refused-authentication");
        assert_eq!(
            all,
            [first, [(AuditAction::RefusedAuthentication, 999), (AuditAction::RefusedAccess, 999)]].concat()
        );
        log.close().await;
        assert_eq!(words(&*journal).await.last(), Some(&(AuditAction::ServerStopped, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn entries_wait_for_a_journal_that_fails_and_an_action_is_told() {
        let journal = Arc::new(FaultyJournal::new(Arc::new(MemoryJournal::new()), 1));
        let log = AuditLog::new(Arc::<FaultyJournal>::clone(&journal), AuditLimits::default());
        journal.fail_audits(2);
        assert!(log.append(AuditEntry::new(AuditAction::Purge, 1)).await.is_err());
        refuse(&log, Code::Unauthenticated, 1);
        sleep(Duration::from_secs(5)).await;
        assert_eq!(words(&*journal).await, []);
        sleep(RETRY).await;
        assert_eq!(words(&*journal).await, [(AuditAction::RefusedAuthentication, 1)]);
        journal.fail_audits(u32::MAX);
        for _ in 0..MOST_WAITING + 20 {
            log.note(AuditEntry::new(AuditAction::PolicyReloaded, 1));
        }
        assert_eq!(log.lost(), 20);
        journal.fail_audits(0);
        log.append(AuditEntry::new(AuditAction::Purge, 1)).await.unwrap();
        assert_eq!(words(&*journal).await.len(), 2 + MOST_WAITING);
    }

    #[tokio::test]
    async fn a_dropped_log_stores_what_waits() {
        let journal = Arc::new(MemoryJournal::new());
        let log = AuditLog::new(Arc::<MemoryJournal>::clone(&journal), AuditLimits::default());
        refuse(&log, Code::Unauthenticated, 1);
        let writer = log.0.writer.lock().take();
        drop(log);
        writer.unwrap().await.unwrap();
        assert_eq!(words(&*journal).await, [(AuditAction::RefusedAuthentication, 1)]);
    }
}
