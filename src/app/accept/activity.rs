//! Activity of a connection of HTTP/2: whether it has streams, and whether its client takes the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use diorama_gateway::Lease;

/// Activity of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Streams with a request in progress or an answer that is not sent yet.
    streams: AtomicUsize,
    /// Chunks of answers that were handed to the connection and are not sent yet.
    unsent: AtomicUsize,
    /// True if a stream was opened or ended since the last look.
    used: AtomicBool,
    /// True if the client took something since the last look.
    taken: AtomicBool,
}

impl Activity {
    /// Counts a chunk that the connection is to send.
    pub(super) fn hand_over(&self) {
        self.unsent.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the client took a part of a chunk.
    pub(super) fn take(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    /// Counts the end of a chunk.
    pub(super) fn settle(&self) {
        self.unsent.fetch_sub(1, Ordering::Relaxed);
        self.take();
    }

    /// Returns true if there were streams since the last look.
    fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed) || self.streams.load(Ordering::Relaxed) > 0
    }

    /// Returns true if there was nothing to take since the last look, or something was taken.
    fn was_read(&self) -> bool {
        self.taken.swap(false, Ordering::Relaxed) || self.unsent.load(Ordering::Relaxed) == 0
    }
}

/// Stream that is counted until its answer is sent or reset.
#[derive(Debug)]
pub(super) struct OpenStream {
    activity: Arc<Activity>,
    _place: Option<Lease>,
}

impl OpenStream {
    pub(super) fn new(activity: Arc<Activity>, place: Option<Lease>) -> OpenStream {
        activity.streams.fetch_add(1, Ordering::Relaxed);
        activity.used.store(true, Ordering::Relaxed);
        OpenStream { activity, _place: place }
    }

    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.activity.streams.fetch_sub(1, Ordering::Relaxed);
        self.activity.used.store(true, Ordering::Relaxed);
    }
}

/// Reason to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It had no stream for too long.
    Idle,
    /// Its client took nothing of its answers for too long.
    Stalled,
}

/// Watch of a connection's activity.
pub(super) struct Watch {
    activity: Arc<Activity>,
    idle_timeout: Duration,
    write_timeout: Duration,
    looks: Interval,
    used: Instant,
    read: Instant,
}

impl Watch {
    pub(super) fn new(activity: Arc<Activity>, idle_timeout: Duration, write_timeout: Duration) -> Watch {
        let mut looks = interval(idle_timeout.min(write_timeout) / 2);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        Watch { activity, idle_timeout, write_timeout, looks, used: now, read: now }
    }

    /// Gives a connection without streams its whole time again.
    pub(super) fn restart(&mut self) {
        self.used = Instant::now();
    }

    /// Waits for a reason to end the connection. Both times are exceeded by half of the shorter one at most.
    pub(super) async fn next(&mut self) -> Ending {
        loop {
            self.looks.tick().await;
            let now = Instant::now();
            if self.activity.was_used() {
                self.used = now;
            }
            if self.activity.was_read() {
                self.read = now;
            }
            if now - self.read >= self.write_timeout {
                return Ending::Stalled;
            }
            if now - self.used >= self.idle_timeout {
                return Ending::Idle;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_is_idle_or_not_read_and_not_before() {
        let (activity, second) = (Arc::new(Activity::default()), Duration::from_secs(1));
        let mut watch = Watch::new(Arc::clone(&activity), 4 * second, 2 * second);
        let started = Instant::now();
        assert_eq!(watch.next().await, Ending::Idle);
        assert!(started.elapsed() >= 4 * second && started.elapsed() <= 5 * second);

        let stream = Arc::new(OpenStream::new(Arc::clone(&activity), None));
        watch.restart();
        assert!(tokio::time::timeout(60 * second, watch.next()).await.is_err(), "a stream without chunks waits");
        activity.hand_over();
        for _ in 0..30 {
            activity.take();
            assert!(tokio::time::timeout(second, watch.next()).await.is_err(), "the client reads");
        }
        let started = Instant::now();
        assert_eq!(watch.next().await, Ending::Stalled);
        assert!(started.elapsed() >= second && started.elapsed() <= 3 * second);
        activity.settle();
        drop(stream);
        assert_eq!(watch.next().await, Ending::Idle);
    }
}
