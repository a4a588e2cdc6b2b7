//! Receivers of SIGTERM and SIGINT, and of SIGHUP.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Period in which several signals count as one: `timeout` and shells signal the process and its group.
const TOGETHER: Duration = Duration::from_secs(1);

impl Signals {
    /// Waits for a second deliberate signal, at least a second after `first`.
    pub(super) async fn second(&mut self, first: Instant) {
        loop {
            self.next().await;
            if first.elapsed() > TOGETHER {
                return;
            }
        }
    }
}

/// Receiver of the signals that stop the process.
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

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Receiver of the signals that stop the process.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals)
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Receiver of the signal that reloads the configuration.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Hangups(Signal);

#[cfg(unix)]
impl Hangups {
    /// Creates the receiver; from then on the signal does not end the process.
    pub(super) fn new() -> io::Result<Hangups> {
        signal(SignalKind::hangup()).map(Hangups)
    }

    /// Waits for the next signal. Several that arrive before are one.
    pub(super) async fn next(&mut self) {
        // The runtime closes the stream only at its own end.
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Receiver of the signal that reloads the configuration, which other systems do not have.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    pub(super) fn new() -> io::Result<Hangups> {
        Ok(Hangups)
    }

    /// Never returns.
    pub(super) async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}
