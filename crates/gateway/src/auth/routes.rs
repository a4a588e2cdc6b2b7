//! Routes of tickets and sessions: `POST /_ticket`, `POST /_session` and `DELETE /_session`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::uncached;
use super::sessions::{Https, set_cookie};
use super::{AuthError, tickets};
use crate::access::Principal;
use crate::http::extract::Prefix;
use crate::http::problem::{ApiError, Code};
use crate::http::response;
use crate::state::GatewayState;

/// Request for a ticket.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TicketRequest {
    /// Path of the URL in which the ticket will be used, without its query.
    #[schema(pattern = "^/[^?#]*$")]
    path: String,
}

/// Ticket, which is added to a URL as the parameter `ticket`.
#[derive(Serialize, ToSchema)]
pub(crate) struct IssuedTicket {
    ticket: String,
    /// Seconds for which the ticket can be used.
    expires_in: u64,
}

/// Issues a ticket for a path.
pub(crate) async fn ticket(State(gateway): State<Arc<GatewayState>>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let principal = Principal::of(&parts.extensions);
    let Prefix(prefix) = Prefix::from_request_parts(&mut parts, &()).await?;
    let body = gateway.body(&parts, body).await?;
    let request: TicketRequest = serde_json::from_slice(&body).map_err(|error| {
        ApiError::new(Code::MalformedBody, format!(r#"the body must be like {{"path": "/orders/events"}}: {error}"#))
    })?;
    let path = request.path.strip_prefix(&prefix).unwrap_or(&request.path);
    if !path.starts_with('/') || path.contains(['?', '#']) {
        return Err(ApiError::new(Code::MalformedBody, "path must begin with a slash and have no query"));
    }
    let ticket = match (principal.identity(), gateway.auth.is_required()) {
        (None, true) => return Err(AuthError::Missing.into()),
        _ => gateway.tickets.issue(&principal, path)?,
    };
    Ok(uncached(response::json(&IssuedTicket { ticket, expires_in: tickets::LIFETIME.as_secs() })))
}

/// Begins a session of the caller, whose token is in the header `Authorization`.
pub(crate) async fn begin_session(
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    request: Request,
) -> Result<Response, ApiError> {
    // A session must not prolong itself.
    if !request.headers().contains_key(header::AUTHORIZATION) {
        return Err(AuthError::Missing.into());
    }
    let (secret, duration) = gateway.sessions.begin(&Principal::of(request.extensions()))?;
    // A browser has one session.
    gateway.sessions.end(request.headers());
    let https = request.extensions().get::<Https>().is_some();
    Ok(with_cookie(set_cookie(Some((&secret, duration)), &prefix, https)))
}

/// Ends the session of the browser.
pub(crate) async fn end_session(
    State(gateway): State<Arc<GatewayState>>,
    Prefix(prefix): Prefix,
    request: Request<Body>,
) -> Response {
    let headers: &HeaderMap = request.headers();
    gateway.sessions.end(headers);
    with_cookie(set_cookie(None, &prefix, request.extensions().get::<Https>().is_some()))
}

fn with_cookie(cookie: axum::http::HeaderValue) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    uncached(response)
}
