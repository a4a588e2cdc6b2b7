//! The gateway as a service and as an axum router.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any_service;
use tower::Service;

use crate::access::{Allow, Policy};
use crate::auth::{Auth, JwksSource};
use crate::http::budget::Budgets;
use crate::http::failures::Failures;
use crate::http::route::Route;
use crate::metrics::Metrics;
use crate::pipeline::pipeline;
use crate::state::GatewayState;
use crate::{notify, webhook};

/// Gateway as a service without a router, for a server that serves nothing else. Cheap to clone.
#[derive(Clone, Debug)]
pub struct GatewayService {
    root: Entry,
    /// Router that matches the base path; `None` without a base path.
    nested: Option<Router>,
}

impl GatewayService {
    pub(crate) fn new(mut gateway: GatewayState) -> GatewayService {
        gateway.metrics = Metrics::new(gateway.dios.len(), gateway.hooks.len());
        let delivery = gateway.hooks.values().map(|hook| hook.inbound.most_bytes()).max().unwrap_or(0);
        gateway.budgets = Arc::new(Budgets::new(&gateway.limits, &gateway.rate_limits, delivery));
        gateway.failures = Failures::new(gateway.limits.auth_failures);
        let gateway = Arc::new(gateway);
        webhook::recover(&gateway);
        notify::start(&gateway);
        let entry = |outside| Entry { gateway: Arc::clone(&gateway), outside };
        let nested = match gateway.base_path.as_str() {
            "" => None,
            base => Some(Router::new().nest_service(base, entry(false)).fallback_service(entry(true))),
        };
        GatewayService { root: entry(false), nested }
    }

    /// Returns a router with a route for each template, so that an application around it can read
    /// [`MatchedPath`](axum::extract::MatchedPath). All routes lead to the same service, which matches the path itself. With a base path,
    /// the router has the gateway nested as one service.
    pub fn into_router(self) -> Router {
        if let Some(nested) = self.nested {
            return nested;
        }
        let mut routes = Router::new();
        for route in Route::ALL.into_iter().filter(|route| *route != Route::None) {
            // Files below `/static` may be in folders.
            let template = route.template().replace("{file}", "{*file}");
            routes = routes.route(&template, any_service(self.root.clone()));
        }
        routes.fallback_service(self.root)
    }

    /// Replaces the authentication. Open sockets and streams stay, unless their key or issuer is gone or has changed: then they end.
    pub fn reload_auth(&self, auth: &Auth) {
        self.root.gateway.auth.replace(auth);
    }

    /// Compiles access rules, for [`GatewayService::reload_rules`].
    ///
    /// # Errors
    /// Every mistake, with the number of its rule, from 1.
    pub fn compile_rules(&self, rules: &[Allow]) -> Result<Policy, Vec<(usize, String)>> {
        self.root.gateway.compile(rules)
    }

    /// Replaces the access rules. Sockets and streams that the old ones have admitted end, and their clients connect again.
    pub fn reload_rules(&self, policy: Policy) {
        self.root.gateway.replace_policy(policy);
    }

    /// Returns true if the access rules are those of `rules`.
    pub fn has_rules(&self, rules: &[Allow]) -> bool {
        self.root.gateway.policy.load().is_of(rules)
    }

    /// Fetches and refreshes the key sets of issuers by `source`. Never returns. Without it, tokens of issuers with a URL are refused.
    pub async fn refresh_keys(&self, source: &dyn JwksSource) {
        self.root.gateway.auth.refresh(source).await;
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

/// Service for all paths within the gateway.
#[derive(Clone, Debug)]
struct Entry {
    gateway: Arc<GatewayState>,
    /// True if paths are outside of the base path, where no route matches.
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::MatchedPath;
    use axum::http::StatusCode;
    use axum::middleware::{Next, from_fn};
    use axum::response::IntoResponse as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::Gateway;
    use crate::events::testing::{record, small_dio};

    /// Answers with the template that matched, in place of the handler's body.
    async fn matched(request: Request, next: Next) -> Response {
        let template = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
        let status = next.run(request).await.status();
        (status, template.unwrap_or_default()).into_response()
    }

    #[tokio::test]
    async fn a_nested_router_reports_the_matched_route() {
        let dio = small_dio().await;
        dio.patched("a", record("A", 1)).await.unwrap();
        let inner = Gateway::new().mount(dio).into_router().route_layer(from_fn(matched));
        let app = Router::new().nest("/api", inner);
        for (path, status, template) in [
            ("/api/products", StatusCode::OK, "/api/{dio}"),
            ("/api/products/a", StatusCode::OK, "/api/{dio}/{id}"),
            ("/api/products/_schema", StatusCode::OK, "/api/{dio}/_schema"),
            ("/api/products/b", StatusCode::NOT_FOUND, "/api/{dio}/{id}"),
            ("/api/healthz", StatusCode::OK, "/api/healthz"),
            ("/api/static/explorer.js", StatusCode::OK, "/api/static/{*file}"),
            ("/api/operations/x", StatusCode::NOT_FOUND, "/api/operations/{id}"),
        ] {
            let answer = app.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
            let matched = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
            assert_eq!(matched, template, "{path}");
        }
        let nothing = app.oneshot(Request::get("/api/products/a/b/c").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
    }
}
