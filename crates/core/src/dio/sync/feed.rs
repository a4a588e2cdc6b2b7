//! Status of the feeds of a Dio, as they report it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Counters and connection state of a feed.
#[derive(Debug)]
pub struct FeedMeter {
    name: String,
    connected: AtomicBool,
    connects: AtomicU64,
    messages: AtomicU64,
    undecodable: AtomicU64,
    last_message: Mutex<Option<Instant>>,
    lag: Mutex<Option<FeedLag>>,
    error: Mutex<Option<String>>,
    warnings: Mutex<Vec<String>>,
    /// True if it began where it had stopped; `None` before the first connection.
    resumed: watch::Sender<Option<bool>>,
}

/// How far a feed is behind its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedLag {
    /// Time between the last change at the sender and its arrival in the log of the Dio; zero if there is nothing to wait for.
    pub time: Duration,
    /// Size of what the sender has and the Dio has not, in bytes; `None` if the sender does not tell.
    pub bytes: Option<u64>,
    /// Number of messages that the sender has and the Dio has not; `None` if the sender does not tell.
    pub messages: Option<u64>,
}

/// Status of a feed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FeedStatus {
    /// Address of the feed, without secrets.
    pub name: String,
    /// True if it is connected.
    pub connected: bool,
    /// Number of connections since the start.
    pub connects: u64,
    /// Number of messages.
    pub messages: u64,
    /// Number of messages, or rows of them, that could not be decoded.
    pub undecodable: u64,
    /// Time since the last message.
    pub last_message: Option<Duration>,
    /// How far it is behind, if its sender tells.
    pub lag: Option<FeedLag>,
    /// Last error, if it is not connected.
    pub error: Option<String>,
    /// Warnings about its sender for people, for example that it may lose messages.
    pub warnings: Vec<String>,
}

impl FeedMeter {
    /// Meter without messages and connection. `name` is shown in [`FeedStatus`].
    pub fn new(name: String) -> Arc<FeedMeter> {
        Arc::new(FeedMeter {
            name,
            connected: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            last_message: Mutex::new(None),
            lag: Mutex::new(None),
            error: Mutex::new(None),
            warnings: Mutex::default(),
            resumed: watch::Sender::new(None),
        })
    }

    /// Notes a new connection.
    pub fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        *self.error.lock() = None;
        self.connected.store(true, Ordering::Release);
    }

    /// Notes whether the first connection continues where an earlier process has stopped, so that no change is missing. Later
    /// connections change nothing.
    pub fn began(&self, resumed: bool) {
        self.resumed.send_modify(|known| *known = known.or(Some(resumed)));
    }

    /// Waits for the first connection. Returns true if no change is missing before it.
    pub(crate) async fn resumed(&self) -> bool {
        let mut resumed = self.resumed.subscribe();
        // The sender is part of this value.
        resumed.wait_for(Option::is_some).await.is_ok_and(|resumed| *resumed == Some(true))
    }

    /// Notes the end of a connection, or a failed attempt.
    pub fn lost(&self, error: String) {
        *self.error.lock() = Some(error);
        self.connected.store(false, Ordering::Release);
    }

    /// Counts a message.
    pub fn heard(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        *self.last_message.lock() = Some(Instant::now());
    }

    /// Notes how far the feed is behind.
    pub fn set_lag(&self, lag: FeedLag) {
        *self.lag.lock() = Some(lag);
    }

    /// Replaces the warnings about the sender. Returns those of `warnings` that are new.
    pub fn set_warnings(&self, warnings: Vec<String>) -> Vec<String> {
        let mut known = self.warnings.lock();
        let new = warnings.iter().filter(|warning| !known.contains(warning)).cloned().collect();
        *known = warnings;
        new
    }

    /// Counts a message, or a row of one, that could not be decoded.
    pub fn undecodable(&self) {
        self.undecodable.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn status(&self) -> FeedStatus {
        FeedStatus {
            name: self.name.clone(),
            connected: self.connected.load(Ordering::Acquire),
            connects: self.connects.load(Ordering::Relaxed),
            messages: self.messages.load(Ordering::Relaxed),
            undecodable: self.undecodable.load(Ordering::Relaxed),
            lag: *self.lag.lock(),
            last_message: self.last_message.lock().map(|at| at.elapsed()),
            error: self.error.lock().clone(),
            warnings: self.warnings.lock().clone(),
        }
    }
}
