//! The gateway as one tower service, and as an axum router around it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tower::Service;

use super::metrics::Metrics;
use super::pipeline::pipeline;
use super::router::Route;
use super::state::Shared;
use super::webhook;

/// Answers every request for a path within the gateway.
#[derive(Clone)]
struct Entry {
    shared: Arc<Shared>,
    /// Whether paths begin outside of the base path: nothing is there.
    outside: bool,
}

/// The gateway under its base path.
pub(super) fn router(mut shared: Shared) -> Router {
    shared.metrics = Metrics::new(shared.dios.len(), shared.hooks.len());
    let shared = Arc::new(shared);
    webhook::recover(&shared);
    let entry = |outside| Entry { shared: Arc::clone(&shared), outside };
    match shared.base_path.as_str() {
        "" => Router::new().fallback_service(entry(false)),
        base => Router::new().nest_service(base, entry(false)).fallback_service(entry(true)),
    }
}

impl Service<Request> for Entry {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let route = if self.outside { Route::None } else { Route::of(request.uri().path()) };
        Box::pin(async move { Ok(pipeline(shared, route, request).await) })
    }
}
