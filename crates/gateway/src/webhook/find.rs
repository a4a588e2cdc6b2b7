//! The webhook that a path names.

use std::sync::Arc;

use super::hook::Hook;
use crate::http::problem::{ApiError, Code};
use crate::state::GatewayState;

/// The hook `name` and its number.
pub(super) fn find<'a>(gateway: &'a GatewayState, name: &str) -> Result<(usize, &'a Arc<Hook>), ApiError> {
    let unknown = || {
        let names: Vec<_> = gateway.hooks.keys().map(|name| &**name).collect();
        let error = ApiError::new(Code::NotFound, format!("there is no webhook {name:?}"));
        if names.is_empty() { error } else { error.hint(format!("webhooks are {}", names.join(", "))) }
    };
    gateway.hooks.get_full(name).map(|(at, _, hook)| (at, hook)).ok_or_else(unknown)
}
