//! The URL table.

use std::sync::Arc;

use axum::http::Uri;
use axum::routing::{get, post};
use axum::{Router, middleware};

use super::problem::{ApiError, Code};
use super::state::Shared;
use super::{events, pipeline, webhook};

/// All routes, under the base path.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let routes =
        Router::new().route("/{dio}/events", get(events::subscribe)).route("/{dio}/{id}/events", get(events::subscribe_one)).route("/webhooks/{hook}", post(webhook::receive));
    let routes = match shared.base_path.as_str() {
        "" => routes,
        base => Router::new().nest(base, routes),
    };
    routes
        .fallback(nothing)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), pipeline::pipeline))
        .with_state(shared)
}

async fn nothing(uri: Uri) -> ApiError {
    ApiError::new(Code::NotFound, format!("there is nothing at {}", uri.path())).hint("GET / lists the resources")
}

async fn wrong_method() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "the method does not fit the path").hint("the header Allow says which do")
}
