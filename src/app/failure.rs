//! Failures of the command, with their exit codes.

use std::fmt;

use diorama_core::cache::CacheError;
use diorama_core::journal::JournalError;

/// Reason why a server did not start or did not stop cleanly.
#[derive(Debug)]
pub struct Failure {
    /// The process' exit code.
    pub code: u8,
    /// The message for the operator.
    pub message: String,
}

/// Exit code for an unusable configuration, journal or source.
pub(super) const CONFIG: u8 = 78;
/// Exit code for a file locked by another process; a later attempt may succeed.
pub(super) const LOCKED: u8 = 75;
/// Exit code for other failures.
pub(super) const OTHER: u8 = 1;
/// Exit code for an immediate stop by a second signal.
pub(super) const INTERRUPTED: u8 = 130;

impl Failure {
    /// Creates the failure for a mistake in the configuration.
    pub fn config(message: impl fmt::Display) -> Failure {
        Failure { code: CONFIG, message: message.to_string() }
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Failure {
        let code = if matches!(error, CacheError::Locked { .. }) { LOCKED } else { CONFIG };
        Failure { code, message: error.to_string() }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Failure {
        let code = if matches!(error, JournalError::Locked { .. }) { LOCKED } else { CONFIG };
        Failure { code, message: error.to_string() }
    }
}

/// Creates a failure without an exit code of its own.
pub(super) fn other(message: String) -> Failure {
    Failure { code: OTHER, message }
}
