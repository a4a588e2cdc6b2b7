//! `POST /webhooks/{hook}`.

use std::sync::Arc;

use axum::extract::{Path, State};

use super::problem::{ApiError, Code};
use super::state::Shared;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name, as in `/webhooks/{name}`.
    pub name: String,
    /// The Dio it feeds.
    pub dio: String,
}

/// Takes a delivery.
pub(super) async fn receive(State(shared): State<Arc<Shared>>, Path(hook): Path<String>) -> ApiError {
    match shared.hooks.get(hook.as_str()) {
        Some(hook) => ApiError::new(Code::NotFound, format!("the webhook {:?} takes nothing yet", hook.name)),
        None => ApiError::new(Code::NotFound, format!("there is no webhook {hook:?}")),
    }
}
