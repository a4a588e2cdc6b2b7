//! How the feeds of a Dio are doing: counted by them, shown by whoever asks the Dio.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What a feed counts.
#[derive(Debug)]
pub struct FeedMeter {
    name: String,
    connected: AtomicBool,
    connects: AtomicU64,
    messages: AtomicU64,
    undecodable: AtomicU64,
    heard: Mutex<Option<Instant>>,
    error: Mutex<Option<String>>,
}

/// How a feed is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FeedStatus {
    /// Where it comes from, without secrets.
    pub name: String,
    /// Whether it is connected.
    pub connected: bool,
    /// How often it was connected since the start.
    pub connects: u64,
    /// Messages that came.
    pub messages: u64,
    /// Of these, those that could not be understood.
    pub undecodable: u64,
    /// Time since the last of them.
    pub last_message: Option<Duration>,
    /// What went wrong last, if it is not connected.
    pub error: Option<String>,
}

impl FeedMeter {
    /// Starts at nothing received and no connection; `name` is what [`FeedStatus`] shows.
    pub fn new(name: String) -> Arc<FeedMeter> {
        Arc::new(FeedMeter {
            name,
            connected: AtomicBool::new(false),
            connects: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            heard: Mutex::new(None),
            error: Mutex::new(None),
        })
    }

    /// Notes a connection that was made.
    pub fn connected(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        *self.error.lock() = None;
        self.connected.store(true, Ordering::Release);
    }

    /// Notes the end of a connection, or an attempt that failed.
    pub fn lost(&self, error: String) {
        *self.error.lock() = Some(error);
        self.connected.store(false, Ordering::Release);
    }

    /// Counts a message.
    pub fn heard(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        *self.heard.lock() = Some(Instant::now());
    }

    /// Counts a message, or a row of one, that was not understood.
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
            last_message: self.heard.lock().map(|at| at.elapsed()),
            error: self.error.lock().clone(),
        }
    }
}
