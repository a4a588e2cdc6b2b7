//! Reader of `[audit]`.

use std::time::Duration;

use super::value::Reader;
use super::{CacheAt, LensSpec};
use diorama_core::journal::AuditLimits;

/// Settings of `[audit]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditSpec {
    /// True to keep an audit log. By default it is kept if the journal is a file.
    pub enabled: bool,
    /// Bounds of the log.
    pub limits: AuditLimits,
}

impl Default for AuditSpec {
    fn default() -> AuditSpec {
        AuditSpec { enabled: true, limits: AuditLimits::default() }
    }
}

/// Permitted times for which entries are kept.
const KEEP: std::ops::RangeInclusive<Duration> = Duration::from_secs(3_600)..=Duration::from_secs(20 * 366 * 86_400);

impl AuditSpec {
    pub(super) fn read(reader: Reader<'_>, lens: &LensSpec) -> AuditSpec {
        let mut spec = AuditSpec::default();
        let enabled = reader.flag("enabled");
        if enabled == Some(true) && lens.journal.is_none() && lens.cache == CacheAt::Memory {
            let at = reader.position("enabled").unwrap_or(reader.at);
            reader.problem(at, "audit.enabled requires a journal on disk: set lens.journal, or lens.cache to a file");
        }
        spec.enabled = enabled.unwrap_or(true);
        if let Some(keep) = reader.duration("keep") {
            spec.limits.keep = keep;
            if !KEEP.contains(&keep) {
                let at = reader.position("keep").unwrap_or(reader.at);
                reader.problem(at, "audit.keep must be a time from \"1h\" to 20 years");
            }
        }
        if let Some(bytes) = reader.size("keep_bytes", 1 << 20..=1 << 36) {
            spec.limits.bytes = bytes as u64;
        }
        reader.finish();
        spec
    }
}
