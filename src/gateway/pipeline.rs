//! What every request passes, in this order: an id, bounds on the URL, host, origin, authentication, the handler (whose panics
//! are caught), and the last word on the answer's headers.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tower::Service;

use super::origin;
use super::problem::{ApiError, Code};
use super::state::Shared;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Runs one request.
pub(super) async fn pipeline<S>(shared: &Shared, request: Request, route: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let id = request_id(&request);
    let method = request.method().clone();
    let path = request.uri().path();
    let hook = shared.within(path).starts_with("/webhooks/");
    let page = match hook {
        true => Ok(None),
        false => shared.origins.check_origin(&method, request.headers()).map(|page| page.cloned()),
    };
    let mut response = match &page {
        Err(error) => error.clone().into_response(),
        Ok(Some(_)) if origin::is_preflight(&method, request.headers()) => {
            (StatusCode::NO_CONTENT, origin::preflight()).into_response()
        }
        Ok(_) => match admit(shared, &request, hook) {
            Ok(()) => run(request, route).await,
            Err(error) => error.into_response(),
        },
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = problem(&error, &method, &response, &id);
    }
    finish(&mut response, id, page.ok().flatten().as_ref());
    response
}

/// Whether the request may reach a handler.
fn admit(shared: &Shared, request: &Request, hook: bool) -> Result<(), ApiError> {
    let uri = request.uri();
    let length = uri.path_and_query().map_or(0, |text| text.as_str().len());
    if length > shared.limits.uri {
        return Err(ApiError::new(Code::UriTooLong, format!("the URL is longer than {} bytes", shared.limits.uri))
            .hint("QUERY {resource} and POST {resource}/_query take the query as a body"));
    }
    shared.origins.check_host(request.headers(), uri)?;
    if hook || shared.within(uri.path()) == "/healthz" {
        return Ok(());
    }
    shared.auth.check(request.headers())
}

/// The handler. A panic is a bug: it is logged where it happened, and costs this request only.
async fn run<S>(request: Request, mut route: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    match AssertUnwindSafe(route.call(request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(_) => ApiError::new(Code::Internal, "something is wrong inside").into_response(),
    }
}

/// A refusal with its body. `OPTIONS` asks what is allowed, and that is no refusal.
fn problem(error: &ApiError, method: &Method, bare: &Response, id: &HeaderValue) -> Response {
    let allow = bare.headers().get(header::ALLOW).cloned();
    let asks = *method == Method::OPTIONS && error.code() == Code::MethodNotAllowed;
    let mut response = match asks {
        true => StatusCode::NO_CONTENT.into_response(),
        false => error.render(id.to_str().unwrap_or_default()),
    };
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn finish(response: &mut Response, id: HeaderValue, page: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(page) = page {
        origin::allow(page, headers);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// The request's own id if it is fit to be logged, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| (uuid::Uuid::new_v4().as_u128() >> 64) as u64);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let fit = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    match request.headers().get(REQUEST_ID) {
        Some(id) if (1..=64).contains(&id.len()) && id.as_bytes().iter().all(fit) => id.clone(),
        _ => {
            let number = PROCESS.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let digit = |at: usize| b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize];
            HeaderValue::from_bytes(&std::array::from_fn::<u8, 16, _>(digit)).unwrap_or(HeaderValue::from_static("-"))
        }
    }
}
