//! Wall clock, deadlines and jitter.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Current time in Unix milliseconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Random bits for jitter.
pub(crate) fn fraction() -> u32 {
    (uuid::Uuid::new_v4().as_u128() >> 96) as u32
}

/// Waits until an instant; without one, for ever.
pub(super) async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
