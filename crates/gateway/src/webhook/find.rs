//! Lookup of the webhook in a path.

use std::sync::Arc;

use super::hook::Hook;
use crate::http::problem::{ApiError, Code};
use crate::state::GatewayState;

/// Returns the webhook `name` and its index.
pub(super) fn find<'a>(gateway: &'a GatewayState, name: &str) -> Result<(usize, &'a Arc<Hook>), ApiError> {
    let unknown = || {
        let names: Vec<_> = gateway.hooks.keys().map(|name| &**name).collect();
        let error = ApiError::new(Code::NotFound, format!("webhook {name:?} was not found"));
        if names.is_empty() { error } else { error.hint(format!("the configured webhooks are {}", names.join(", "))) }
    };
    gateway.hooks.get_full(name).map(|(at, _, hook)| (at, hook)).ok_or_else(unknown)
}
