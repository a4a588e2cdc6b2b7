//! Lookup of the webhook in a path.

use std::sync::Arc;

use super::hook::Hook;
use crate::access::{Principal, Verb};
use crate::http::problem::{ApiError, Code};
use crate::scope::Scope;
use crate::state::GatewayState;

/// Returns the webhook `name` and its index.
pub(super) fn find<'a>(gateway: &'a GatewayState, name: &str) -> Result<(usize, &'a Arc<Hook>), ApiError> {
    let unknown = || {
        let names: Vec<_> = gateway.hooks.keys().map(|name| &**name).collect();
        let error = ApiError::new(Code::NotFound, format!("webhook {name:?} was not found"));
        // With rules, names of webhooks are for those who may see their deliveries.
        if names.is_empty() || gateway.policy.load().has_rules() {
            error
        } else {
            error.hint(format!("the configured webhooks are {}", names.join(", ")))
        }
    };
    gateway.hooks.get_full(name).map(|(at, _, hook)| (at, hook)).ok_or_else(unknown)
}

/// Returns the webhook `name` if the caller may see its deliveries.
///
/// # Errors
/// 404 for a webhook that does not exist or whose resource the caller does not see, 403 if it may not see deliveries.
pub(super) fn find_visible<'a>(
    gateway: &'a GatewayState,
    principal: &Principal,
    name: &str,
) -> Result<&'a Arc<Hook>, ApiError> {
    let unknown = || ApiError::new(Code::NotFound, format!("webhook {name:?} was not found"));
    if !gateway.policy.load().has_rules() {
        return find(gateway, name).map(|(_, hook)| hook);
    }
    let hook = gateway.hooks.get(name).ok_or_else(unknown)?;
    match Scope::of(gateway, &hook.dio, principal, Verb::Webhooks) {
        Ok(_) => Ok(hook),
        Err(error) if error.code() == Code::DioNotFound => Err(unknown()),
        Err(error) => Err(error),
    }
}
