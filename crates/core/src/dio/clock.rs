//! Wall clock and jitter.

use std::time::{SystemTime, UNIX_EPOCH};

/// Current time in Unix milliseconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Random bits for jitter.
pub(crate) fn fraction() -> u32 {
    (uuid::Uuid::new_v4().as_u128() >> 96) as u32
}
