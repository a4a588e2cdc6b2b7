//! SIGTERM and SIGINT, as many as come.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that come together are one: `timeout` and shells send theirs to the process and to its group.
const TOGETHER: Duration = Duration::from_secs(1);

impl Signals {
    /// Returns at the next one that somebody sent on purpose after `first`.
    pub(super) async fn again(&mut self, first: Instant) {
        loop {
            self.next().await;
            if first.elapsed() > TOGETHER {
                return;
            }
        }
    }
}

/// Receives what asks the process to stop.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Returns at the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Receives what asks the process to stop.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals)
    }

    /// Returns at the next one.
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
