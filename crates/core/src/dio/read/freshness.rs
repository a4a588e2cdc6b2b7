//! [`Freshness`]: age of the rows.

use std::time::Duration;

/// Age of the rows, and whether they count as stale.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Freshness {
    /// Time since the last complete list, `None` if there was none since the start.
    pub age: Option<Duration>,
    /// True if the age exceeds `cache_ttl` or, without a `cache_ttl`, if the last refresh failed or there was none.
    pub stale: bool,
    /// True if the last refresh failed.
    pub refresh_failed: bool,
}
