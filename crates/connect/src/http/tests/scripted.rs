//! An API of a few lines: a function from requests to answers.

use std::collections::HashMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query as UrlQuery, Request};
use axum::http::{HeaderMap, Method};
use axum::response::Response;

/// A request.
pub(super) struct Received {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: HashMap<String, String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Received {
    /// The parameter as a number; 0 without.
    pub(super) fn number(&self, name: &str) -> usize {
        self.query.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Runs `test` with the URL of an API that answers with `answer`.
pub(super) async fn with_api(
    answer: impl Fn(Received) -> Response + Clone + Send + Sync + 'static,
    test: impl AsyncFnOnce(&str),
) {
    let router = Router::new().fallback(move |UrlQuery(query): UrlQuery<HashMap<String, String>>, request: Request| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let (method, path) = (parts.method, parts.uri.path().to_string());
            answer(Received { method, path, query, headers: parts.headers, body })
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::select! {
        ended = axum::serve(listener, router) => panic!("the API ended: {ended:?}"),
        () = test(&url) => {}
    }
}
