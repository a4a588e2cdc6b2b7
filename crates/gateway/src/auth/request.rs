//! Authentication of a request.

use axum::extract::{OriginalUri, Request};
use axum::http::{HeaderMap, header};
use axum::response::Response;

use super::sessions::{Https, set_cookie};
use super::{AuthError, tickets};
use crate::access::Principal;
use crate::http::client_certificate::ClientCertificate;
use crate::http::extract::prefix;
use crate::http::problem::ApiError;
use crate::state::GatewayState;

/// Authenticates a request, and removes a ticket from its URL.
///
/// # Errors
/// The request has no credential that counts, and is not admitted without one.
pub(crate) fn authenticate(gateway: &GatewayState, request: &mut Request) -> Result<Principal, AuthError> {
    let ticket = tickets::split(request.uri()).map(|(ticket, uri)| {
        *request.uri_mut() = uri;
        if let Some(OriginalUri(original)) = request.extensions_mut().get_mut::<OriginalUri>()
            && let Some((_, uri)) = tickets::split(original)
        {
            *original = uri;
        }
        ticket
    });
    let methods = gateway.auth.load();
    if !methods.is_required() {
        return Ok(Principal::anonymous());
    }
    if let Some(principal) = methods.check(request.headers())? {
        return Ok(principal);
    }
    if let Some(ticket) = ticket {
        return gateway.tickets.redeem(&ticket, request.method(), request.uri().path());
    }
    let https = request.extensions().get::<Https>().is_some();
    if let Some(principal) = gateway.sessions.find(request.headers(), request.method(), https)? {
        return Ok(principal);
    }
    match methods.check_certificate(request.extensions().get(), request.headers())? {
        Some(principal) => Ok(principal),
        None if methods.anonymous => Ok(Principal::anonymous()),
        None => Err(AuthError::Missing),
    }
}

/// Authenticates again after the keys of the issuer were fetched, for a request that was refused with `error`.
pub(crate) async fn authenticate_later(
    gateway: &GatewayState,
    headers: HeaderMap,
    error: AuthError,
) -> Result<Principal, AuthError> {
    gateway.auth.retry(&headers).await?.ok_or(error)
}

/// Returns the refusal of a request. The cookie of a session that has ended is removed from the browser.
pub(crate) fn refusal(request: &Request, error: AuthError) -> ApiError {
    let refusal = ApiError::from(error);
    if error != AuthError::Session {
        return refusal;
    }
    let https = request.extensions().get::<Https>().is_some();
    let original = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0);
    let prefix = prefix(original.path(), request.uri().path());
    refusal.header(header::SET_COOKIE, set_cookie(None, prefix, https))
}

/// Returns the caller of the page that is asked for with these headers, by a client with this certificate; `None` if the page has to ask for
/// a token.
pub(crate) fn known(
    gateway: &GatewayState,
    headers: &HeaderMap,
    certificate: Option<&ClientCertificate>,
) -> Option<Principal> {
    let methods = gateway.auth.load();
    let found = match methods.check(headers) {
        Ok(Some(principal)) => Some(principal),
        Ok(None) => {
            let session = gateway.sessions.find(headers, &axum::http::Method::GET, false).ok().flatten();
            session.or_else(|| methods.check_certificate(certificate, headers).ok().flatten())
        }
        Err(_) => None,
    };
    found.or_else(|| (methods.anonymous || !methods.is_required()).then(Principal::anonymous))
}

/// Answer of a route that must not be stored.
pub(super) fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    response
}
