//! Progress of a feed as its source sees it: which of the source's reads and writes the feed has passed.
//!
//! A read or write ends with a message in the server's write-ahead log. When the feed has received it and applied all changes
//! before it, the Dio's rows are at least as new as the read, and include the write.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use pgwire_replication::Lsn;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Maximum time for which a read or write waits for the feed. Afterwards it counts as one without a feed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Progress of a feed.
#[derive(Debug)]
pub(super) struct Progress {
    /// Distinguishes the messages of this source from those of others.
    instance: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// True while the feed is connected.
    follows: bool,
    /// Snapshot of the last list that was read while the feed was not connected.
    listed: Option<Snapshot>,
    next: u64,
    waiting: HashMap<u64, oneshot::Sender<()>>,
}

/// A message that a read or write puts into the log, and the wait for the feed to pass it.
#[derive(Debug)]
pub(super) struct Checkpoint<'p> {
    progress: &'p Progress,
    number: u64,
    /// Text of the message: letters and digits.
    pub(super) text: String,
    passed: oneshot::Receiver<()>,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress { instance: uuid::Uuid::new_v4().simple().to_string(), state: Mutex::default() }
    }

    /// Returns a checkpoint for a read or write that begins now; `None` if there is no feed to wait for.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint<'_>> {
        let mut state = self.state.lock();
        if !state.follows {
            return None;
        }
        state.next += 1;
        let (number, (sender, passed)) = (state.next, oneshot::channel());
        state.waiting.insert(number, sender);
        drop(state);
        Some(Checkpoint { progress: self, number, text: format!("{}x{number}", self.instance), passed })
    }

    /// Notes that the feed has applied everything before the message with this text.
    pub(super) fn pass(&self, text: &str) {
        let number = text.strip_prefix(&self.instance).and_then(|rest| rest.strip_prefix('x')?.parse().ok());
        if let Some(waiting) = number.and_then(|number: u64| self.state.lock().waiting.remove(&number)) {
            // A caller that has given up does not mind.
            let _ = waiting.send(());
        }
    }

    /// Notes that the feed is connected, or no longer is. Callers that wait are released without having been passed.
    pub(super) fn set_following(&self, follows: bool) {
        let mut state = self.state.lock();
        state.follows = follows;
        state.waiting.clear();
    }

    /// Notes the snapshot of a list that was read without the feed.
    pub(super) fn note_listed(&self, snapshot: Snapshot) {
        let mut state = self.state.lock();
        if !state.follows {
            state.listed = Some(snapshot);
        }
    }

    /// Takes the snapshot of the last list that was read without the feed.
    pub(super) fn take_listed(&self) -> Option<Snapshot> {
        self.state.lock().listed.take()
    }
}

impl Checkpoint<'_> {
    /// Waits until the feed has passed the message. Returns false if it is too slow or has lost its connection.
    pub(super) async fn passed(mut self) -> bool {
        matches!(timeout(PATIENCE, &mut self.passed).await, Ok(Ok(())))
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

    #[tokio::test]
    async fn a_checkpoint_waits_for_the_feed() {
        let progress = Progress::new();
        assert!(progress.checkpoint().is_none(), "without a feed there is nothing to wait for");
        progress.set_following(true);
        let checkpoint = progress.checkpoint().unwrap();
        progress.pass("something else");
        progress.pass(&checkpoint.text.clone());
        assert!(checkpoint.passed().await);
        let lost = progress.checkpoint().unwrap();
        progress.set_following(false);
        assert!(!lost.passed().await, "the feed has lost its connection");
    }
}
