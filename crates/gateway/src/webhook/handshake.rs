//! Handshakes of senders: `GET` and `OPTIONS` of `/webhooks/{hook}`, and what a person is to know of those by `POST`.

use std::sync::Arc;

use axum::extract::{OriginalUri, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;

use super::find::find;
use super::hook::Hook;
use super::report::{Reporter, unproven};
use crate::http::extract::Segment;
use crate::http::problem::{ApiError, Code};
use crate::state::GatewayState;
use diorama_inbound::{self as inbound, Notice, Reply};

/// Subscriptions that wait for a person, at most.
const MOST_CONFIRMATIONS: usize = 16;

/// Answers a challenge of senders that ask by `GET`.
pub(crate) async fn challenge(
    State(gateway): State<Arc<GatewayState>>,
    Segment(name): Segment<1>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (at, hook) = find(&gateway, &name)?;
    let (path, query, now) = (uri.path(), uri.query(), Timestamp::now());
    let request = inbound::Request { method: &Method::GET, path, query, headers: &headers, body: &[], now };
    match hook.inbound.challenge(&request) {
        Some(Ok(reply)) => Ok(plain(reply)),
        Some(Err(reason)) => {
            let error = unproven(hook, reason);
            let reporter = Reporter { gateway: &gateway, at, hook, headers: &headers };
            reporter.refused(&error);
            Err(error)
        }
        None => Err(ApiError::new(Code::MethodNotAllowed, "deliveries are made by POST")
            .hint("the header Allow says which methods do")
            .header(header::ALLOW, allowed(hook))),
    }
}

/// Says how deliveries are made.
pub(crate) async fn options(
    State(gateway): State<Arc<GatewayState>>,
    Segment(name): Segment<1>,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (_, hook) = find(&gateway, &name)?;
    let (path, query, now) = (uri.path(), uri.query(), Timestamp::now());
    let request = inbound::Request { method: &method, path, query, headers: &headers, body: &[], now };
    if let Some(reply) = hook.inbound.handshake(&request) {
        return Ok(plain(reply));
    }
    let accept =
        (HeaderName::from_static("accept-post"), HeaderValue::from_static("application/json, application/x-ndjson"));
    Ok((StatusCode::NO_CONTENT, [(header::ALLOW, allowed(hook)), accept]).into_response())
}

fn allowed(hook: &Hook) -> HeaderValue {
    HeaderValue::from_static(match hook.inbound.has_challenge() {
        true => "GET, HEAD, POST, OPTIONS",
        false => "POST, OPTIONS",
    })
}

/// The response with what `reply` says.
pub(super) fn plain(reply: Reply) -> Response {
    let mut response = (reply.status, reply.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Hook {
    /// Addresses that a person is to open so that subscriptions begin, as Amazon SNS sent them.
    pub(crate) fn confirmations(&self) -> Vec<String> {
        self.intake.confirmations.lock().iter().map(|(_, url)| url.clone()).collect()
    }

    /// A delivery of `topic` came: its subscription is confirmed.
    pub(super) fn is_subscribed(&self, topic: &str) {
        self.intake.confirmations.lock().retain(|(own, _)| own != topic);
    }

    /// Says in the log what a person is to know, and keeps the address of a subscription for `GET /`.
    pub(super) fn note(&self, notice: &Notice) {
        let webhook = &self.name;
        match notice {
            Notice::UnknownSecret => tracing::warn!(
                webhook,
                "Asana's handshake was answered; its secret is not among auth.secrets, so its events will be refused: put the \
                 X-Hook-Secret of Asana's answer to the creation of the webhook there"
            ),
            Notice::Confirm { topic, url } => {
                tracing::warn!(
                    webhook,
                    topic,
                    url,
                    "Amazon SNS sends nothing of this topic until somebody opens the url"
                );
                self.await_confirmation(topic, url);
            }
            Notice::Unsubscribed { topic } => {
                tracing::warn!(webhook, topic, "Amazon SNS sends nothing of this topic any more");
            }
            Notice::Revoked { subscription, reason } => {
                tracing::warn!(webhook, subscription, reason, "Twitch has revoked a subscription");
            }
        }
    }

    fn await_confirmation(&self, topic: &str, url: &str) {
        let mut waiting = self.intake.confirmations.lock();
        waiting.retain(|(own, _)| own != topic);
        if waiting.len() == MOST_CONFIRMATIONS {
            waiting.remove(0);
        }
        waiting.push((topic.to_string(), url.to_string()));
    }
}
