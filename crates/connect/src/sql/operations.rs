//! Bounds of the table of operations that have taken effect in a database: their ids, each stored in the transaction of its change.

use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
use diorama_core::vista::{Error, Result, Written};

/// Name of the table. Other programs may read it but should not change it.
pub(crate) const TABLE: &str = "_diorama_ops";

/// Number of the newest operations that are kept regardless of age, because the program may have been stopped.
pub(crate) const KEEP_NEWEST: u32 = 10_000;

/// Maximum number of operations.
pub(crate) const MAX_OPERATIONS: u32 = 1_000_000;

/// Age in milliseconds after which the operations in between are deleted: twice the default retry period of an operation.
pub(crate) const MAX_AGE: i64 = 48 * 3_600 * 1_000;

/// Number of writes between two cleanups.
pub(crate) const TIDY_EVERY: u64 = 4_096;

/// Returns the present time in milliseconds since 1970.
pub(crate) fn now_millis() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Marks written rows that the feed of the source's changes has passed, as [`Written::reported`]: true if the Dio then has everything
/// before them, false if a refresh is owed, `None` if the feed has not passed them in time. Then the writes are to be repeated, which
/// does not write them again.
#[cfg(any(feature = "mysql", feature = "postgres", feature = "surrealdb"))]
pub(crate) fn settle_reported(results: &mut Vec<Result<Written>>, passed: Option<bool>) {
    let Some(first) = results.iter().position(Result::is_ok) else { return };
    match passed {
        Some(true) => results.iter_mut().flatten().for_each(|written| written.reported = true),
        // The rows of this answer may be newer than what the feed reports next: what was written is enough until the refresh.
        Some(false) => results.iter_mut().flatten().for_each(|written| written.record = None),
        None => {
            results.truncate(first);
            let error = "the write was sent, but the feed of the source's changes has not reported it yet";
            results.push(Err(Error::unknown(error)));
        }
    }
}
