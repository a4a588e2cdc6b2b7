//! Steps of every request, in this order: request id, host, origin, limits on the head, authentication, limits of the caller, the handler
//! (whose panics are caught), content coding, and headers of the answer. Each request is counted, and logged at the level `debug`.
//!
//! This code exists because most layers of tower-http cost too much: they wrap the whole pipeline, move its future, and look the same
//! headers up again. One record needs 3 % more instructions with `SetResponseHeader`, 3 % with `SetSensitiveHeaders`, 9 % with the layers
//! for request ids, and 15 % with all of them. A few lines each replace them here, in `http/request_id.rs` and in `auth/credentials.rs`. Panics
//! are caught by tower-http's `CatchPanic`, which costs 2 %.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{self, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tower::{ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanic;

use crate::access::Principal;
use crate::auth::request::{authenticate, authenticate_later, refusal};
use crate::auth::{self, AuthError};
use crate::http::budget::Caller;
use crate::http::coding;
use crate::http::extract::segments;
use crate::http::negotiate;
use crate::http::origin;
use crate::http::problem::{ApiError, Code};
use crate::http::rates::Quota;
use crate::http::request_id::{REQUEST_ID, own_id, text};
use crate::http::route::Route;
use crate::metrics::RequestTimer;
use crate::router::dispatch;
use crate::state::GatewayState;

/// Answers one request.
pub(crate) async fn pipeline(gateway: Arc<GatewayState>, route: Route, mut request: Request) -> Response {
    let id = own_id(&request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    auth::hide(request.headers_mut());
    let caller = Caller::of(request.extensions());
    let host = gateway.origins.settle_host(&mut request);
    // Events must not wait in the buffer of an encoder.
    let compress = gateway.compression && !matches!(route, Route::Events | Route::RowEvents | Route::ManyEvents);
    let accepted = compress.then(|| coding::AcceptedCodings::of(request.headers_mut()));
    let method = request.method().clone();
    let dio = route.is_of_dio().then(|| gateway.dios.get_index_of(segments(request.uri().path()).0)).flatten();
    let running = gateway.metrics.http.begin(&method, route, dio);
    let page = match (host, route) {
        (Err(error), _) => Err(ApiError::from(error)),
        (Ok(()), Route::Hook) => Ok(None),
        (Ok(()), _) => {
            let page = gateway.origins.check_origin(&method, request.headers());
            page.map(|page| page.cloned()).map_err(ApiError::from)
        }
    };
    let (mut quota, mut actor) = (None, Principal::anonymous());
    let mut response = match &page {
        Err(error) => error.clone().into_response(),
        Ok(Some(_)) if origin::is_preflight(&method, request.headers()) => {
            (StatusCode::NO_CONTENT, origin::preflight()).into_response()
        }
        Ok(_) => {
            let mut admitted = admit(&gateway, route, &mut request);
            if let Err(Denial::Caller(error)) = admitted
                && error.may_pass_later()
            {
                let later = authenticate_later(&gateway, request.headers().clone(), error);
                admitted = Box::pin(later).await.map_err(Denial::Caller);
            }
            match admitted {
                Ok(principal) => {
                    let principal = given(&gateway, &request).unwrap_or(principal);
                    if gateway.audit.is_some() {
                        actor = principal.clone();
                    }
                    quota = gateway.budgets.rates.admit(&principal, request.extensions(), route, &method);
                    match quota.as_mut().map_or(Ok(()), Quota::verdict) {
                        Ok(()) => run(request, route, &gateway, principal).await,
                        Err(error) => error.into_response(),
                    }
                }
                Err(Denial::Caller(error)) => refusal(&request, error).into_response(),
                Err(Denial::Request(error)) => error.into_response(),
            }
        }
    };
    let refusal = response.extensions_mut().remove::<ApiError>();
    if let Some((log, error)) = gateway.audit.as_ref().zip(refusal.as_ref()) {
        let resource = dio.and_then(|at| gateway.dios.get_index(at)).map(|(name, _)| &**name);
        log.refused(error.code(), &actor, caller, resource, text(&id));
    }
    let refusal = refusal.map(|error| gateway.failures.limit(caller, error));
    if let Some(error) = &refusal {
        response = problem(error, &method, &response, &id);
    }
    if let Some(quota) = quota {
        quota.write(response.headers_mut());
    }
    if let Some(accepted) = accepted {
        response = accepted.apply(response).await;
    }
    log(&gateway, &running, &response, refusal.as_ref(), &id);
    finish(&mut response, id, page.ok().flatten().as_ref());
    if gateway.policy.load().has_rules() {
        // Answers depend on the caller, who may be known by a session too.
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Authorization, Cookie"));
    }
    if method == Method::HEAD { bare(response) } else { response }
}

/// Returns the answer to `HEAD`: that to `GET` without the body.
fn bare(mut response: Response) -> Response {
    let length = response.body().size_hint().exact();
    let headers = response.headers_mut();
    if let (Some(length), header::Entry::Vacant(entry)) = (length, headers.entry(header::CONTENT_LENGTH)) {
        entry.insert(HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
    response
}

/// Returns the principal that a surrounding app has set, which a gateway without authentication of its own keeps.
fn given(gateway: &GatewayState, request: &Request) -> Option<Principal> {
    request.extensions().get::<Principal>().filter(|_| !gateway.auth.is_required()).cloned()
}

/// Reason why a request does not reach its handler.
enum Denial {
    Request(ApiError),
    Caller(AuthError),
}

/// Checks whether the request may reach its handler, and returns its principal.
fn admit(gateway: &GatewayState, route: Route, request: &mut Request) -> Result<Principal, Denial> {
    let head = gateway.limits.check_head(request.uri(), request.headers());
    head.map_err(|error| Denial::Request(error.into()))?;
    gateway.origins.check_host(request.headers()).map_err(|error| Denial::Request(error.into()))?;
    check_caller(gateway, route, request).map_err(Denial::Caller)
}

/// Authenticates the caller, where the route requires it.
fn check_caller(gateway: &GatewayState, route: Route, request: &mut Request) -> Result<Principal, AuthError> {
    match route {
        Route::Hook | Route::Live | Route::Asset => Ok(Principal::anonymous()),
        // The pages themselves report that a token is required, and ask for one.
        Route::Index | Route::Docs if gateway.has_page(route) && negotiate::prefers_html(request.headers()) => {
            Ok(Principal::anonymous())
        }
        _ => authenticate(gateway, request),
    }
}

/// Runs the handler for `principal`.
async fn run(mut request: Request, route: Route, gateway: &Arc<GatewayState>, principal: Principal) -> Response {
    if route != Route::Hook
        && let Err(error) = coding::check_request(request.method(), request.headers())
    {
        return ApiError::from(error).into_response();
    }
    request.extensions_mut().insert(principal);
    let handler = service_fn(|request| dispatch(route, request, Arc::clone(gateway)).map(Ok::<_, Infallible>));
    let Ok(response) = CatchPanic::custom(handler, panicked).oneshot(request).await;
    response.map(Body::new)
}

/// Returns the answer to a request whose handler panicked. The panic is logged with the request, and other requests continue.
#[expect(clippy::needless_pass_by_value, reason = "tower-http hands the panic over")]
fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    let error = ApiError::new(Code::Internal, "internal server error; the log has the cause");
    error.cause(format!("a panic: {message}")).into_response()
}

/// Returns the answer for a refusal. An `OPTIONS` without a handler is answered 204 with `Allow`.
fn problem(error: &ApiError, method: &Method, bare: &Response, id: &HeaderValue) -> Response {
    // The refusal's own `Allow` is more precise than that of the table of routes.
    let allow = error.own_header(&header::ALLOW).or(bare.headers().get(header::ALLOW)).cloned();
    let asks = *method == Method::OPTIONS && error.code() == Code::MethodNotAllowed;
    let mut response = match asks {
        true => StatusCode::NO_CONTENT.into_response(),
        false => error.render(text(id)),
    };
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// Counts the request and logs it with its id. Of requests with the same error, only the first in five seconds is logged as a failure.
/// Path and query are never logged, because they may contain private data.
fn log(
    gateway: &GatewayState,
    running: &RequestTimer<'_>,
    response: &Response,
    refusal: Option<&ApiError>,
    id: &HeaderValue,
) {
    let (status, id) = (response.status(), text(id));
    let took = running.end(status);
    let (method, route) = (running.method(), running.route());
    let dio = || running.dio.and_then(|at| gateway.dios.get_index(at)).map(|(name, _)| &**name);
    if let Some(error) = refusal.filter(|error| error.code().status().is_server_error())
        && let Some(left_out) = gateway.lines.pass((error.code().as_str(), running.dio))
    {
        let (code, detail, cause) = (error.code().as_str(), error.detail(), error.because());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    request.id = id,
                    method,
                    route,
                    dio = dio(),
                    code,
                    detail,
                    cause,
                    left_out,
                    "a request failed"
                )
            };
        }
        match error.code() {
            Code::Internal => line!(error),
            _ => line!(warn),
        }
    }
    tracing::debug!(
        request.id = id,
        method,
        route,
        dio = dio(),
        status = status.as_u16(),
        code = refusal.map(|error| error.code().as_str()),
        duration_ms = took.as_secs_f64() * 1e3,
        "answered"
    );
}

fn finish(response: &mut Response, id: HeaderValue, page: Option<&HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if !headers.contains_key(header::X_CONTENT_TYPE_OPTIONS) {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    if let Some(page) = page {
        origin::allow(page, headers);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}
