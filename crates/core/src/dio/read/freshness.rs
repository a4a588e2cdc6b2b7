//! Age of the rows, as readers are told.

use std::time::Duration;

/// Age of the rows, and whether that is too much.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Freshness {
    /// Time since the last complete list.
    pub age: Option<Duration>,
    /// Whether that is longer than `cache_ttl`, or the last refresh failed.
    pub stale: bool,
    /// Whether the last refresh failed.
    pub refresh_failed: bool,
}
