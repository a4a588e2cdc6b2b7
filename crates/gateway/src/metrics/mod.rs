//! `GET /metrics`: metrics of the gateway and its Dios, for Prometheus.
//!
//! The gateway itself counts requests (`http.rs`), deliveries of webhooks and ends of event sockets. All other metrics are read
//! from the Dios at each scrape (`admin/scrape.rs`). Labels come from fixed sets (templates of routes, names of resources and
//! webhooks, codes), never from a client, so the number of series is bounded.

mod http;
pub(crate) mod text;

pub(crate) use http::{Http, RequestTimer};

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::SystemTime;

use crate::http::problem::{ApiError, Code};
use diorama_core::journal::{Changes, Delivery, DeliveryState};

/// Counts of the gateway.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) http: Http,
    /// Counts of deliveries, in the order of the webhooks.
    pub(crate) hooks: Vec<Deliveries>,
    pub(crate) started: SystemTime,
}

impl Default for Metrics {
    /// Creates counts of requests only.
    fn default() -> Metrics {
        Metrics::new(0, 0)
    }
}

impl Metrics {
    /// Creates counts for the given numbers of Dios and webhooks.
    pub(crate) fn new(dios: usize, hooks: usize) -> Metrics {
        Metrics {
            http: Http::new(dios),
            hooks: std::iter::repeat_with(Deliveries::default).take(hooks).collect(),
            started: SystemTime::now(),
        }
    }
}

/// Returns the number of changes with each result.
pub(crate) fn results(changes: &Changes) -> [(&'static str, u64); 7] {
    [
        ("applied", changes.applied),
        ("unchanged", changes.unchanged),
        ("deferred", changes.deferred),
        ("stale", changes.stale),
        ("duplicate", changes.duplicates),
        ("ignored", changes.ignored),
        ("skipped", changes.skipped),
    ]
}

/// Counts of the deliveries of one webhook.
#[derive(Debug)]
pub(crate) struct Deliveries {
    /// Accepted deliveries.
    pub(crate) taken: AtomicU64,
    /// Deliveries by state, in the order of [`DeliveryState::RECEIVED`].
    pub(crate) states: [AtomicU64; DeliveryState::RECEIVED.len()],
    /// Changes by result, in the order of [`results`].
    pub(crate) changes: [AtomicU64; 7],
    /// Refused deliveries by [`Code`].
    pub(crate) refused: [AtomicU64; Code::ALL.len()],
}

impl Default for Deliveries {
    fn default() -> Deliveries {
        Deliveries {
            taken: AtomicU64::new(0),
            states: Default::default(),
            changes: Default::default(),
            refused: [const { AtomicU64::new(0) }; Code::ALL.len()],
        }
    }
}

impl Deliveries {
    /// Counts a delivery and the results of its changes.
    pub(crate) fn count(&self, delivery: &Delivery) {
        for (total, (_, new)) in self.changes.iter().zip(results(&delivery.changes)) {
            total.fetch_add(new, Ordering::Relaxed);
        }
        let state = DeliveryState::RECEIVED.iter().zip(&self.states).find(|(state, _)| **state == delivery.state);
        if let Some((_, count)) = state {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a delivery that was refused.
    pub(crate) fn refuse(&self, error: &ApiError) {
        self.refused[error.code() as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts of the event sockets and streams of one Dio.
#[derive(Debug, Default)]
pub struct SocketCounts {
    pub(crate) open: AtomicI64,
    /// Closes by index in [`CLOSES`]; the last is for all other codes.
    pub(crate) closes: [AtomicU64; CLOSES.len() + 1],
}

/// Close codes that the gateway sends; 0 is used for a client that closed or disconnected.
pub(crate) const CLOSES: [u16; 10] = [0, 1001, 1002, 1003, 1007, 1009, 4001, 4008, 4429, 4508];

impl SocketCounts {
    /// Counts an open socket until the returned guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> OpenSocket {
        self.open.fetch_add(1, Ordering::Relaxed);
        OpenSocket(Arc::clone(self))
    }
}

/// Guard of an open socket.
#[derive(Debug)]
pub(crate) struct OpenSocket(Arc<SocketCounts>);

impl OpenSocket {
    /// Counts the end of the socket with this code; `None` if the client closed or disconnected.
    pub(crate) fn closed(self, code: Option<u16>) {
        let code = code.unwrap_or(0);
        let at = CLOSES.iter().position(|known| *known == code).unwrap_or(CLOSES.len());
        self.0.closes[at].fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
