//! The pipeline around a route: what axum's `from_fn` does, without the boxes that it makes for every request.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use tower::{Layer, Service};

use super::pipeline::pipeline;
use super::state::Shared;

/// Puts the pipeline around a route.
#[derive(Clone)]
pub(super) struct Around(pub(super) Arc<Shared>);

/// A route with the pipeline around it.
#[derive(Clone)]
pub(super) struct Piped<S> {
    shared: Arc<Shared>,
    route: S,
}

impl<S> Layer<S> for Around {
    type Service = Piped<S>;

    fn layer(&self, route: S) -> Piped<S> {
        Piped { shared: Arc::clone(&self.0), route }
    }
}

impl<S> Service<Request> for Piped<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that was found ready is the one to call.
        let next = self.route.clone();
        let ready = mem::replace(&mut self.route, next);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(pipeline(&shared, request, ready).await) })
    }
}
