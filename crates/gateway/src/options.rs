//! Bounds and policies of a resource, and the names that it can have.

use std::time::Duration;

use diorama_core::vista::{Error, Query, Result, Schema};

/// Bounds and policies of one resource.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// Rows of a list that does not say (default: 100).
    pub default_limit: u64,
    /// Rows of a list, at most (default: 10,000).
    pub max_limit: u64,
    /// Rows that one write by filter may touch, at most (default: 1,000).
    pub max_affected: u64,
    /// Whether changes to a row must say which version they were made for (default: no).
    pub require_if_match: bool,
    /// When a write is answered.
    pub ack: Ack,
    /// Different live queries that are followed at a time, at most (default: 500).
    pub max_live: usize,
}

impl MountOptions {
    /// The limit of a list that says none: the default, and more where ids are enumerated, so that all of them are answered.
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

/// When a write is answered, unless the request says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// As soon as it is in the journal: 202.
    #[default]
    Journal,
    /// When the master has it, or after ten seconds.
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

/// First path segments that are routes of the gateway: no resource can have one of these names.
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

/// Whether `name` can be a resource.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if RESERVED.contains(&name) {
        return Err(Error::Config(format!("{name:?} is a route of the gateway and cannot be a resource")));
    }
    if !first || !rest || name.len() > 64 {
        let detail =
            format!("{name:?} cannot be a resource: 1 to 64 letters, digits, - and _, a letter or digit first");
        return Err(Error::Config(detail));
    }
    Ok(())
}

/// Whether a row under this id would be hidden by a route.
pub(crate) fn is_reserved_id(id: &str) -> bool {
    id == "events" || id == "live" || id.starts_with('_')
}
