//! Requests to a gateway: path by the first byte, header by the second, then query, header's value and body with zero bytes
//! between them. Whatever comes, the answer is no fault of ours.
#![no_main]

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use diorama_fuzz::Bakery;
use futures_util::StreamExt as _;
use hyper::{Request, header};
use libfuzzer_sys::fuzz_target;
use tower::ServiceExt as _;

static BAKERY: LazyLock<Bakery> = LazyLock::new(Bakery::open);
static ROUND: AtomicU64 = AtomicU64::new(0);

const WAYS: [(&str, &str, &str); 19] = [
    ("GET", "/products", ""),
    ("GET", "/products/7", ""),
    ("GET", "/products/events", ""),
    ("GET", "/products/7/events", ""),
    ("GET", "/events", ""),
    ("GET", "/operations", ""),
    ("GET", "/webhooks/shop/deliveries", ""),
    ("GET", "/products/_aggregate", ""),
    ("QUERY", "/products", "application/json"),
    ("POST", "/products/_query", "application/json"),
    ("POST", "/products", "application/json"),
    ("POST", "/products", "application/x-ndjson"),
    ("POST", "/products", "application/cbor"),
    ("PUT", "/products/7", "application/json"),
    ("PATCH", "/products/7", "application/merge-patch+json"),
    ("PATCH", "/products", "application/json"),
    ("DELETE", "/products", ""),
    ("POST", "/webhooks/shop", "application/json"),
    ("POST", "/webhooks/shop", "application/x-ndjson"),
];

const NAMES: [&str; 9] = [
    "accept",
    "last-event-id",
    "prefer",
    "if-match",
    "if-none-match",
    "idempotency-key",
    "accept-encoding",
    "range",
    "content-type",
];

fn request(data: &[u8]) -> Option<Request<Body>> {
    let [way, name, rest @ ..] = data else { return None };
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let (query, value, body) = (parts.next()?, parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (method, path, kind) = WAYS[usize::from(*way) % WAYS.len()];
    let uri = match std::str::from_utf8(query).ok()? {
        "" => path.to_string(),
        query => format!("{path}?{query}"),
    };
    let mut request = Request::builder().method(method).uri(uri);
    if !kind.is_empty() {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    if !value.is_empty() {
        request = request.header(NAMES[usize::from(*name) % NAMES.len()], value);
    }
    request.body(Body::from(body.to_vec())).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some(request) = request(data) else { return };
    let bakery = &*BAKERY;
    bakery.runtime.block_on(async {
        let told = format!("{} {}", request.method(), request.uri());
        let answer = bakery.router.clone().oneshot(request).await.expect("it always answers");
        assert!(answer.status() != 500, "{told}: {answer:?}");
        // Some bodies never end.
        let body = answer.into_body().into_data_stream().take(16).for_each(|_| async {});
        let _ = tokio::time::timeout(Duration::from_secs(1), body).await;
        if ROUND.fetch_add(1, Ordering::Relaxed).is_multiple_of(512) {
            let all = Request::delete("/products?all=true").body(Body::empty()).expect("a request");
            let _ = bakery.router.clone().oneshot(all).await;
        }
    });
});
