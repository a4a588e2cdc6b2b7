//! Progress of a feed as its source sees it: which of the source's reads and writes the feed has passed.
//!
//! A read or write ends with a message in the server's write-ahead log. When the feed has received it and applied all changes
//! before it, the Dio's rows are at least as new as the read, and include the write.
//!
//! A feed that is not connected will report older changes when it is back, over the rows of reads and writes that did not wait for
//! it. So they wait, for a minute at most; afterwards the feed does not continue where it has stopped, and the source is read again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use pgwire_replication::Lsn;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use diorama_core::vista::{Error, Result};

/// Maximum time for which a read or write waits for the connection of the feed before it begins.
const CONNECTION: Duration = Duration::from_secs(5);
/// Maximum time for which a read of a row or a write waits until the feed has passed it.
pub(super) const PASSING: Duration = Duration::from_secs(8);
/// Maximum time for which a list waits until the feed has passed it.
pub(super) const PASSING_OF_LIST: Duration = Duration::from_secs(60);

/// Maximum number of transactions that reads look for; older ones count as visible.
const MAX_APPLIED: usize = 4_096;

/// Progress of a feed.
#[derive(Debug)]
pub(super) struct Progress {
    /// Distinguishes the messages of this source from those of others.
    instance: String,
    state: Mutex<State>,
    /// Wakes those that wait for the connection of the feed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// True while the feed is connected.
    follows: bool,
    /// True while reads and writes wait for a feed that is not connected.
    holds: bool,
    /// True if the feed has a position, so that lists wait for it, too. The first copy comes before.
    has_position: bool,
    /// True if a read or write did not wait for the feed.
    strayed: bool,
    /// Snapshot of the last list that was read while the feed was not connected.
    listed: Option<Snapshot>,
    /// Transactions whose changes the feed has applied, and which no read has been seen to show yet.
    applied: VecDeque<(Lsn, u32)>,
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<bool>>,
}

/// A message that a read or write puts into the log, and the wait for the feed to pass it.
#[derive(Debug)]
pub(super) struct Checkpoint<'p> {
    progress: &'p Progress,
    number: u64,
    /// Text of the message: letters and digits.
    pub(super) text: String,
    passed: oneshot::Receiver<bool>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let instance = uuid::Uuid::new_v4().simple().to_string();
        Progress { instance, state: Mutex::default(), changed: Notify::new() }
    }

    /// Returns a checkpoint for a read or write that begins now; `None` if there is no feed to wait for.
    ///
    /// # Errors
    /// A transient error if the feed is not connected and stays so for some seconds.
    pub(super) async fn checkpoint(&self) -> Result<Option<Checkpoint<'_>>> {
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(checkpoint) = self.try_checkpoint() {
                    return checkpoint;
                }
                changed.await;
            }
        };
        let away =
            |_| Error::transient("the feed of the source's changes is not connected, and this would overtake it");
        timeout(CONNECTION, waiting).await.map_err(away)
    }

    /// As [`Progress::checkpoint`], for a list of all rows, which does not wait if it is the first copy.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn checkpoint_of_list(&self) -> Result<Option<Checkpoint<'_>>> {
        let is_first = {
            let state = self.state.lock();
            !state.follows && !state.has_position
        };
        if is_first { Ok(None) } else { self.checkpoint().await }
    }

    /// Returns `None` if the caller must wait for the feed.
    fn try_checkpoint(&self) -> Option<Option<Checkpoint<'_>>> {
        let mut state = self.state.lock();
        if !state.follows {
            state.strayed |= !state.holds;
            return (!state.holds).then_some(None);
        }
        state.next += 1;
        let (number, (sender, passed)) = (state.next, oneshot::channel());
        state.waiting.insert(number, sender);
        drop(state);
        Some(Some(Checkpoint { progress: self, number, text: format!("{}x{number}", self.instance), passed }))
    }

    /// Lets reads and writes wait for the feed, which is about to connect.
    pub(super) fn hold(&self) {
        self.state.lock().holds = true;
    }

    /// Lets reads and writes wait for a feed that has a position.
    pub(super) fn hold_at_position(&self) {
        let mut state = self.state.lock();
        (state.holds, state.has_position) = (true, true);
    }

    /// Lets reads and writes go on without the feed. It must not continue where it has stopped.
    pub(super) fn release(&self) {
        let mut state = self.state.lock();
        (state.holds, state.has_position) = (false, false);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Notes a read or write that the feed has not passed.
    pub(super) fn stray(&self) {
        self.state.lock().strayed = true;
    }

    /// Returns true if a read or write has not waited for the feed since this was last asked.
    pub(super) fn take_strayed(&self) -> bool {
        std::mem::take(&mut self.state.lock().strayed)
    }

    /// Notes transactions, by commit and number, whose changes the feed is about to apply.
    pub(super) fn note_applied(&self, transactions: impl Iterator<Item = (Lsn, u32)>) {
        let mut state = self.state.lock();
        state.applied.extend(transactions);
        let surplus = state.applied.len().saturating_sub(MAX_APPLIED);
        state.applied.drain(..surplus);
    }

    /// Returns the transactions that a read which begins now must show. The server sends a transaction when it is in the log, a
    /// moment before other connections see it: a read in between would show older rows than the feed.
    pub(super) fn applied(&self) -> Vec<(Lsn, u32)> {
        self.state.lock().applied.iter().copied().collect()
    }

    /// Notes that reads show these transactions.
    pub(super) fn note_visible(&self, transactions: &[(Lsn, u32)]) {
        let shown: HashSet<&(Lsn, u32)> = transactions.iter().collect();
        self.state.lock().applied.retain(|transaction| !shown.contains(transaction));
    }

    /// Forgets the applied transactions, which may be those of another server.
    pub(super) fn forget_applied(&self) {
        self.state.lock().applied.clear();
    }

    /// Notes that the feed has applied everything before the message with this text; `whole` is false while a refresh is owed, so
    /// that earlier changes may be missing.
    pub(super) fn pass(&self, text: &str, whole: bool) {
        let number = text.strip_prefix(&self.instance).and_then(|rest| rest.strip_prefix('x')?.parse().ok());
        if let Some(waiting) = number.and_then(|number: u64| self.state.lock().waiting.remove(&number)) {
            // A caller that has given up does not mind.
            let _ = waiting.send(whole);
        }
    }

    /// Notes that the feed is connected, or no longer is. Callers that wait are released without having been passed.
    pub(super) fn set_following(&self, follows: bool) {
        let mut state = self.state.lock();
        state.follows = follows;
        state.waiting.clear();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Notes the snapshot of a list that was read without the feed. Returns false if the feed has begun meanwhile: the list must
    /// wait for it after all.
    pub(super) fn note_listed(&self, snapshot: Option<Snapshot>) -> bool {
        let mut state = self.state.lock();
        let is_first = !state.follows && !state.has_position;
        if is_first && snapshot.is_some() {
            state.listed = snapshot;
        }
        is_first
    }

    /// Takes the snapshot of the last list that was read without the feed.
    pub(super) fn take_listed(&self) -> Option<Snapshot> {
        self.state.lock().listed.take()
    }
}

impl Checkpoint<'_> {
    /// Waits until the feed has passed the message. Returns true if the Dio then has everything before it, false if a refresh is
    /// owed, and `None` if the feed takes longer than `patience`, or has lost its connection.
    pub(super) async fn passed(mut self, patience: Duration) -> Option<bool> {
        timeout(patience, &mut self.passed).await.ok()?.ok()
    }
}

impl Drop for Checkpoint<'_> {
    fn drop(&mut self) {
        self.progress.state.lock().waiting.remove(&self.number);
    }
}

/// The transactions that a read sees, as `pg_current_snapshot()` tells them: `xmin:xmax:xip,...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// Transactions between the two that are not seen.
    running: Vec<u64>,
    /// Position in the log after the snapshot was taken: a transaction that commits later is not seen.
    until: Lsn,
}

impl Snapshot {
    /// Statement that returns the text of a snapshot, and of the position in the log, which a standby does not have.
    pub(super) const SQL: &str = "SELECT pg_current_snapshot()::text,
        CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn()::text END";

    /// Parses the text of a snapshot, and of the position in the log after it was taken.
    pub(super) fn parse(text: &str, until: &str) -> Option<Snapshot> {
        let mut parts = text.split(':');
        let (xmin, xmax) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let running = parts.next()?.split(',').filter(|id| !id.is_empty());
        Some(Snapshot {
            xmin,
            xmax,
            running: running.map(|id| id.parse().ok()).collect::<Option<_>>()?,
            until: Lsn::parse(until).ok()?,
        })
    }

    /// Returns true if every transaction that the read sees commits before `position`.
    pub(super) fn is_before(&self, position: Lsn) -> bool {
        self.until <= position
    }

    /// Returns true if the read sees the transaction with this commit, whose id has these lower 32 bits. The id is taken for the
    /// one closest to the snapshot.
    pub(super) fn sees(&self, commit: Lsn, id: u32) -> bool {
        if commit >= self.until {
            return false;
        }
        let distance = id.wrapping_sub(self.xmax as u32) as i32;
        let Some(id) = self.xmax.checked_add_signed(distance.into()) else { return true };
        id < self.xmin || id < self.xmax && !self.running.contains(&id)
    }
}

impl std::fmt::Display for Snapshot {
    /// Writes `xmin:xmax:xip,...@until`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let running: Vec<String> = self.running.iter().map(u64::to_string).collect();
        write!(f, "{}:{}:{}@{}", self.xmin, self.xmax, running.join(","), self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_had_committed() {
        let snapshot = Snapshot::parse("10:20:12,15", "0/9").unwrap();
        let seen: Vec<u32> = (8..22).filter(|id| snapshot.sees(Lsn(8), *id)).collect();
        assert_eq!(seen, [8, 9, 10, 11, 13, 14, 16, 17, 18, 19]);
        assert!(!snapshot.sees(Lsn(9), 8), "it commits after the snapshot");
        assert_eq!(Snapshot::parse("10", "0/9"), None);
        // After the counter of 32 bits has wrapped.
        let later = Snapshot::parse("4294967300:4294967310:", "0/9").unwrap();
        let sees = |id| later.sees(Lsn(1), id);
        assert!(sees(5) && sees(u32::MAX) && !sees(14), "5 is 4294967301");
    }

    #[test]
    fn transactions_are_looked_for_until_a_read_shows_them() {
        let progress = Progress::new();
        progress.note_applied([(Lsn(1), 7), (Lsn(2), 8)].into_iter());
        let seen = progress.applied();
        progress.note_applied([(Lsn(3), 9)].into_iter());
        progress.note_visible(&seen);
        assert_eq!(progress.applied(), [(Lsn(3), 9)]);
        progress.note_applied((0..10_000).map(|xid| (Lsn(4), xid)));
        assert_eq!((progress.applied().len(), progress.applied()[0]), (MAX_APPLIED, (Lsn(4), 10_000 - 4_096)));
    }

    #[tokio::test]
    async fn a_checkpoint_waits_for_the_feed() {
        let progress = Progress::new();
        assert!(progress.checkpoint().await.unwrap().is_none(), "without a feed there is nothing to wait for");
        progress.set_following(true);
        let checkpoint = progress.checkpoint().await.unwrap().unwrap();
        progress.pass("something else", true);
        progress.pass(&checkpoint.text.clone(), true);
        assert_eq!(checkpoint.passed(PASSING).await, Some(true));
        let lost = progress.checkpoint().await.unwrap().unwrap();
        progress.set_following(false);
        assert_eq!(lost.passed(PASSING).await, None, "the feed has lost its connection");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_a_feed_that_is_away() {
        let progress = Progress::new();
        progress.hold();
        assert!(progress.checkpoint_of_list().await.unwrap().is_none(), "the first copy comes before the feed");
        assert!(progress.note_listed(None));
        progress.hold_at_position();
        assert!(!progress.note_listed(None), "the feed has begun while the list was read");
        assert!(progress.checkpoint_of_list().await.is_err());
        assert!(progress.checkpoint().await.is_err());
        let (checkpoint, ()) = tokio::join!(progress.checkpoint(), async { progress.set_following(true) });
        assert!(checkpoint.unwrap().is_some());
        assert!(!progress.take_strayed());
        progress.set_following(false);
        progress.release();
        assert!(progress.checkpoint().await.unwrap().is_none());
        assert!(progress.take_strayed(), "the feed must not continue where it has stopped");
    }
}
