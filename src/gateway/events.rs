//! `GET /{dio}/events`.

use std::sync::Arc;

use axum::extract::{Path, State};

use super::problem::{ApiError, Code};
use super::state::Shared;

/// Subscribes to a Dio's events.
pub(super) async fn subscribe(State(shared): State<Arc<Shared>>, Path(dio): Path<String>) -> ApiError {
    match shared.dio(&dio) {
        Ok(_) => ApiError::new(Code::NotFound, "events are not served yet"),
        Err(error) => error,
    }
}
