//! Bounds and policies of a resource, and the names that it can have.

use std::time::Duration;

use diorama_core::vista::{Error, Query, Result, Schema};

/// Bounds and policies of one resource.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Rows of a list without `limit` (default: 100).
    pub default_limit: u64,
    /// Largest `limit` of a list (default: 10,000).
    pub max_limit: u64,
    /// Largest number of rows that one write by filter may change (default: 1,000).
    pub max_affected: u64,
    /// Requires `If-Match` on changes of a row (default: no).
    pub require_if_match: bool,
    /// Moment at which a write is answered.
    pub ack: Ack,
    /// Largest number of different live queries at a time (default: 500).
    pub max_live: usize,
}

impl MountOptions {
    /// Returns the limit of a list without `limit`: the default, or more if the filter enumerates ids, so that all of them are
    /// answered.
    pub(crate) fn limit_of(&self, query: &Query, schema: &Schema) -> u64 {
        let ids = query.filter.most_by(schema.id_column()).unwrap_or(0);
        self.default_limit.max(ids.min(self.max_limit))
    }
}

impl Default for MountOptions {
    fn default() -> Self {
        MountOptions {
            default_limit: 100,
            max_limit: 10_000,
            max_affected: 1_000,
            require_if_match: false,
            ack: Ack::Journal,
            max_live: 500,
        }
    }
}

/// Moment at which a write is answered, unless the request sets another with `Prefer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Once the write is in the journal: 202.
    #[default]
    Journal,
    /// Once the master has confirmed the write, or after ten seconds.
    Applied,
}

impl Ack {
    pub(crate) fn patience(self) -> Duration {
        match self {
            Ack::Journal => Duration::ZERO,
            Ack::Applied => Duration::from_secs(10),
        }
    }
}

/// First path segments that the gateway's own routes use, and that resources therefore cannot have as names.
pub const RESERVED: [&str; 11] = [
    "events",
    "webhooks",
    "operations",
    "docs",
    "healthz",
    "readyz",
    "metrics",
    "openapi.json",
    "asyncapi.json",
    "problems",
    "static",
];

/// Checks that `name` can be the name of a resource.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if RESERVED.contains(&name) {
        return Err(Error::Config(format!("{name:?} is a route of the gateway and cannot be the name of a resource")));
    }
    if !first || !rest || name.len() > 64 {
        let detail = format!(
            "{name:?} is not a valid resource name: use 1 to 64 letters, digits, - and _, a letter or digit first"
        );
        return Err(Error::Config(detail));
    }
    Ok(())
}

/// True if a route of the gateway hides a row with this id.
pub(crate) fn is_reserved_id(id: &str) -> bool {
    id == "events" || id == "live" || id.starts_with('_')
}
