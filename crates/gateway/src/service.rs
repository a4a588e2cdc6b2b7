//! The gateway as a service of its own, and as an axum router around it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use tower::Service;

use crate::http::budget::Budgets;
use crate::http::failures::Failures;
use crate::http::route::Route;
use crate::metrics::Metrics;
use crate::pipeline::pipeline;
use crate::state::GatewayState;
use crate::webhook;

/// A gateway that answers requests without a router around it, for a server that serves nothing else. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayService {
    root: Entry,
    /// Finds the base path, if there is one.
    nested: Option<Router>,
}

impl GatewayService {
    pub(crate) fn new(mut gateway: GatewayState) -> GatewayService {
        gateway.metrics = Metrics::new(gateway.dios.len(), gateway.hooks.len());
        let delivery = gateway.hooks.values().map(|hook| hook.inbound.most_bytes()).max().unwrap_or(0);
        gateway.budgets = Arc::new(Budgets::new(&gateway.limits, delivery));
        gateway.failures = Failures::new(gateway.limits.auth_failures);
        let gateway = Arc::new(gateway);
        webhook::recover(&gateway);
        let entry = |outside| Entry { gateway: Arc::clone(&gateway), outside };
        let nested = match gateway.base_path.as_str() {
            "" => None,
            base => Some(Router::new().nest_service(base, entry(false)).fallback_service(entry(true))),
        };
        GatewayService { root: entry(false), nested }
    }

    pub(crate) fn into_router(self) -> Router {
        self.nested.unwrap_or_else(|| Router::new().fallback_service(self.root))
    }

    /// Answers one request.
    pub async fn answer(self, request: Request) -> Response {
        match self.nested {
            None => self.root.answer(request).await,
            Some(mut router) => match router.call(request).await {
                Ok(answer) => answer,
                Err(never) => match never {},
            },
        }
    }
}

/// Answers every request for a path within the gateway.
#[derive(Clone, Debug)]
struct Entry {
    gateway: Arc<GatewayState>,
    /// Whether paths begin outside of the base path: nothing is there.
    outside: bool,
}

impl Entry {
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send + use<> {
        let gateway = Arc::clone(&self.gateway);
        let route = if self.outside { Route::None } else { Route::of(request.uri().path()) };
        pipeline(gateway, route, request)
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
        let answer = self.answer(request);
        Box::pin(async move { Ok(answer.await) })
    }
}
