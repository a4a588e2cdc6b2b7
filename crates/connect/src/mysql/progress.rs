//! Progress of a feed as its source sees it: which of the source's reads and writes the feed has passed.
//!
//! A read shows everything up to a place in the binary log, and nothing after it; a write is before the end of the log after its
//! commit. When the feed has applied all changes up to that place, the Dio's rows are at least as new as the read, and include the
//! write.
//!
//! A feed that is not connected will report older changes when it is back, over the rows of reads and writes that did not wait for
//! it. So they wait, for a minute at most; afterwards the feed does not continue where it has stopped, and the source is read again.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::position::Place;
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
    /// Place up to which the last list that was read without the feed shows everything.
    listed: Option<Place>,
    /// Every change up to this place is applied.
    reached: Option<Place>,
    /// True unless a refresh is owed, so that earlier changes may be missing.
    is_whole: bool,
    /// Begin of the last transaction whose changes are applied, as a whole or in part.
    begun: Option<Place>,
}

/// A read or write that waits for the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// A read must show everything up to a place behind this one.
    pub(super) behind: Option<Place>,
}

impl Turn {
    /// Returns true if a read that shows everything up to `place` shows everything that the feed has applied. The server sends a
    /// transaction a moment before other connections see it.
    pub(super) fn is_shown_at(&self, place: &Place) -> bool {
        self.behind.as_ref().is_none_or(|behind| place > behind)
    }
}

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
        if self.state.lock().is_first() { Ok(None) } else { self.turn().await }
    }

    /// Waits until the feed has applied every change up to `place`. Returns true if the Dio then has everything before it, false if
    /// a refresh is owed, and `None` if the feed takes longer than `patience`, or has given up its position.
    pub(super) async fn passed(&self, place: &Place, patience: Duration) -> Option<bool> {
        let passed = |state: &mut State| match &state.reached {
            Some(reached) if reached >= place => Some(Some(state.is_whole)),
            _ => (!state.follows && !state.holds).then_some(None),
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

    /// Returns true if the source has a feed, or will have one.
    pub(super) fn is_expected(&self) -> bool {
        let state = self.state.lock();
        state.follows || state.holds
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

    /// Notes that changes of the transaction that begins at `place` are about to be applied.
    pub(super) fn note_begun(&self, place: Place) {
        self.state.lock().begun = Some(place);
    }

    /// Forgets the applied transactions, which may be those of another server.
    pub(super) fn forget_begun(&self) {
        self.state.lock().begun = None;
    }

    /// Notes that every change up to `place` is applied; `is_whole` is false while a refresh is owed.
    pub(super) fn reach(&self, place: &Place, is_whole: bool) {
        self.change(|state| (state.reached, state.is_whole) = (Some(place.clone()), is_whole));
    }

    /// Notes that the feed is connected, or no longer is.
    pub(super) fn set_following(&self, follows: bool) {
        self.change(|state| state.follows = follows);
    }

    /// Notes up to where a list shows everything that was read without the feed. Returns false if the feed has begun meanwhile: the
    /// list must wait for it after all.
    pub(super) fn note_listed(&self, place: Option<&Place>) -> bool {
        let mut state = self.state.lock();
        let is_first = state.is_first();
        if is_first && place.is_some() {
            state.listed = place.cloned();
        }
        is_first
    }

    /// Takes the place of the last list that was read without the feed.
    pub(super) fn take_listed(&self) -> Option<Place> {
        self.state.lock().listed.take()
    }
}

impl State {
    /// Returns true if the feed has not begun.
    fn is_first(&self) -> bool {
        !self.follows && !self.has_position
    }
}

/// Returns `None` if the caller must wait for the feed.
fn try_turn(state: &mut State) -> Option<Option<Turn>> {
    if state.follows {
        return Some(Some(Turn { behind: state.begun.clone() }));
    }
    state.strayed |= !state.holds;
    (!state.holds).then_some(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64) -> Place {
        Place { file: "binlog.000001".into(), offset }
    }

    #[tokio::test]
    async fn a_read_waits_until_the_feed_has_reached_it() {
        let progress = Progress::default();
        assert!(progress.turn().await.unwrap().is_none(), "without a feed there is nothing to wait for");
        progress.set_following(true);
        progress.note_begun(place(10));
        let turn = progress.turn().await.unwrap().unwrap();
        assert!(!turn.is_shown_at(&place(10)), "the transaction that begins there is not shown");
        assert!(turn.is_shown_at(&place(20)));
        progress.reach(&place(15), true);
        let at = place(20);
        let passing = async {
            progress.reach(&place(19), true);
            tokio::task::yield_now().await;
            progress.reach(&place(20), false);
        };
        assert_eq!(tokio::join!(progress.passed(&at, PASSING), passing).0, Some(false));
        progress.reach(&place(20), true);
        assert_eq!(progress.passed(&at, PASSING).await, Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_a_feed_that_is_away() {
        let progress = Progress::default();
        progress.hold();
        assert!(progress.turn_of_list().await.unwrap().is_none(), "the first copy comes before the feed");
        assert!(progress.note_listed(Some(&place(5))));
        assert_eq!(progress.take_listed(), Some(place(5)));
        progress.hold_at_position();
        assert!(!progress.note_listed(None), "the feed has begun while the list was read");
        assert!(progress.turn_of_list().await.is_err());
        assert!(progress.turn().await.is_err());
        let (turn, ()) = tokio::join!(progress.turn(), async { progress.set_following(true) });
        assert!(turn.unwrap().is_some());
        assert!(!progress.take_strayed());
        assert_eq!(progress.passed(&place(9), PASSING).await, None, "the feed is too slow");
        progress.set_following(false);
        progress.release();
        assert_eq!(progress.passed(&place(9), PASSING).await, None);
        assert!(progress.turn().await.unwrap().is_none());
        assert!(progress.take_strayed(), "the feed must not continue where it has stopped");
    }
}
