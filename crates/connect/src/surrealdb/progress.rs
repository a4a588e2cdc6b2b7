//! Progress of a feed as its source sees it: which of the source's reads and writes the feed has passed.
//!
//! The feed asks the server for changes in rounds. A round that begins after a read or write has ended includes everything that it
//! shows or has written; when that round is applied, the Dio's rows are at least as new.
//!
//! A feed that is not connected will report older changes when it is back, over the rows of reads and writes that did not wait for
//! it. So they wait, for a minute at most; afterwards the feed does not continue where it has stopped, and the source is read again.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use diorama_core::vista::{Error, Result};

/// Maximum time for which a read or write waits for the connection of the feed before it begins.
const CONNECTION: Duration = Duration::from_secs(5);
/// Maximum time for which a read of a row or a write waits until the feed has passed it.
pub(super) const PASSING: Duration = Duration::from_secs(8);
/// Maximum time for which a list waits until the feed has passed it.
pub(super) const PASSING_OF_LIST: Duration = Duration::from_secs(60);

/// Progress of a feed.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    /// Wakes those that wait.
    changed: Notify,
    /// Wakes the feed for a round.
    asked: Notify,
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
    /// Number of rounds that have begun.
    begun: u64,
    /// Number of the last round whose changes are applied, with all before it.
    applied: u64,
    /// True unless a refresh is owed, so that earlier changes may be missing.
    is_whole: bool,
}

/// A read or write that waits for the feed.
#[derive(Debug)]
pub(super) struct Turn;

impl Progress {
    /// Returns the turn of a read or write that begins now; `None` if there is no feed to wait for.
    ///
    /// # Errors
    /// A transient error if the feed is not connected and stays so for some seconds.
    pub(super) async fn turn(&self) -> Result<Option<Turn>> {
        let away =
            |_| Error::transient("the feed of the source's changes is not connected, and this would overtake it");
        timeout(CONNECTION, self.wait(try_turn)).await.map_err(away)
    }

    /// As [`Progress::turn`], for a list of all rows, which does not wait if it is the first copy.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn turn_of_list(&self) -> Result<Option<Turn>> {
        let is_first = {
            let mut state = self.state.lock();
            let is_first = !state.follows && !state.has_position;
            state.strayed |= is_first;
            is_first
        };
        if is_first { Ok(None) } else { self.turn().await }
    }

    /// Waits until the feed has applied every change before now. Returns true if the Dio then has everything before it, false if
    /// a refresh is owed, and `None` if the feed takes longer than `patience`, or has given up its position.
    pub(super) async fn passed(&self, patience: Duration) -> Option<bool> {
        let round = self.state.lock().begun + 1;
        self.asked.notify_one();
        let passed = |state: &mut State| match state.applied >= round {
            true => Some(Some(state.is_whole)),
            false => (!state.follows && !state.holds).then_some(None),
        };
        timeout(patience, self.wait(passed)).await.ok()?
    }

    async fn wait<T>(&self, done: impl Fn(&mut State) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let result = done(&mut self.state.lock());
            if let Some(result) = result {
                return result;
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_waiters();
    }

    /// Waits until somebody waits for a round.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Notes the begin of a round, and returns its number.
    pub(super) fn begin_round(&self) -> u64 {
        let mut state = self.state.lock();
        state.begun += 1;
        state.begun
    }

    /// Notes that the changes of a round, and of all before it, are applied; `is_whole` is false while a refresh is owed.
    pub(super) fn end_round(&self, round: u64, is_whole: bool) {
        self.change(|state| (state.applied, state.is_whole) = (round, is_whole));
    }

    /// Lets reads and writes wait for the feed, which is about to connect.
    pub(super) fn hold(&self) {
        self.change(|state| state.holds = true);
    }

    /// Lets reads and writes wait for a feed that has a position.
    pub(super) fn hold_at_position(&self) {
        self.change(|state| (state.holds, state.has_position) = (true, true));
    }

    /// Lets reads and writes go on without the feed. It must not continue where it has stopped.
    pub(super) fn release(&self) {
        self.change(|state| (state.holds, state.has_position) = (false, false));
    }

    /// Notes a read or write that the feed has not passed.
    pub(super) fn stray(&self) {
        self.state.lock().strayed = true;
    }

    /// Returns true if a read or write has not waited for the feed since this was last asked.
    pub(super) fn take_strayed(&self) -> bool {
        std::mem::take(&mut self.state.lock().strayed)
    }

    /// Notes that the feed is connected, or no longer is.
    pub(super) fn set_following(&self, follows: bool) {
        self.change(|state| state.follows = follows);
    }
}

/// Returns `None` if the caller must wait for the feed.
fn try_turn(state: &mut State) -> Option<Option<Turn>> {
    if state.follows {
        return Some(Some(Turn));
    }
    state.strayed |= !state.holds;
    (!state.holds).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_waits_for_a_round_that_begins_after_it() {
        let progress = Progress::default();
        assert!(progress.turn().await.unwrap().is_none(), "without a feed there is nothing to wait for");
        progress.set_following(true);
        assert!(progress.turn().await.unwrap().is_some());
        let early = progress.begin_round();
        let rounds = async {
            progress.asked().await;
            progress.end_round(early, true);
            tokio::task::yield_now().await;
            let late = progress.begin_round();
            progress.end_round(late, false);
        };
        let (passed, ()) = tokio::join!(progress.passed(PASSING), rounds);
        assert_eq!(passed, Some(false), "the round that had begun before is not enough");
        assert_eq!(progress.passed(PASSING).await, None, "no round comes");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_a_feed_that_is_away() {
        let progress = Progress::default();
        progress.hold();
        assert!(progress.turn_of_list().await.unwrap().is_none(), "the first copy comes before the feed");
        assert!(progress.take_strayed(), "a feed that has stopped earlier must not continue over it");
        progress.hold_at_position();
        assert!(progress.turn_of_list().await.is_err());
        assert!(progress.turn().await.is_err());
        let (turn, ()) = tokio::join!(progress.turn(), async { progress.set_following(true) });
        assert!(turn.unwrap().is_some());
        assert!(!progress.take_strayed());
        progress.set_following(false);
        progress.release();
        assert_eq!(progress.passed(PASSING).await, None);
        assert!(progress.turn().await.unwrap().is_none());
        assert!(progress.take_strayed(), "the feed must not continue where it has stopped");
    }
}
