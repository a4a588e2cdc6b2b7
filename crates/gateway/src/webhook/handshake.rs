//! Handshakes of senders: `GET` and `OPTIONS` of `/webhooks/{hook}`, and notices to the operator about those by `POST`.

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

/// Maximum number of subscriptions that wait for a manual confirmation.
const MOST_CONFIRMATIONS: usize = 16;

/// Answers the challenge of a sender that verifies the URL by `GET`.
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
            reporter.record_refusal(&error);
            Err(error)
        }
        None => Err(ApiError::new(Code::MethodNotAllowed, "deliveries are sent by POST")
            .hint("the header Allow lists the methods of this webhook")
            .header(header::ALLOW, allowed(hook))),
    }
}

/// Returns the methods and media types of deliveries, or answers a sender's handshake.
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

/// Converts `reply` to a response.
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
    /// Confirmation URLs from Amazon SNS that have to be opened manually before a subscription begins.
    pub(crate) fn confirmations(&self) -> Vec<String> {
        self.intake.confirmations.lock().iter().map(|(_, url)| url.clone()).collect()
    }

    /// Removes the confirmation URL of `topic`: its first delivery shows that the subscription is confirmed.
    pub(super) fn confirm(&self, topic: &str) {
        self.intake.confirmations.lock().retain(|(own, _)| own != topic);
    }

    /// Logs a notice to the operator, and keeps the confirmation URL of a subscription for `GET /`.
    pub(super) fn note(&self, notice: &Notice) {
        let webhook = &self.name;
        match notice {
            Notice::UnknownSecret => tracing::warn!(
                webhook,
                "Asana's handshake was answered, but its secret is not in auth.secrets, so its events will be refused: add the \
                 X-Hook-Secret of Asana's response to the creation of the webhook"
            ),
            Notice::Confirm { topic, url } => {
                tracing::warn!(
                    webhook,
                    topic,
                    url,
                    "open the url to confirm the subscription: Amazon SNS sends nothing of this topic before"
                );
                self.await_confirmation(topic, url);
            }
            Notice::Unsubscribed { topic } => {
                tracing::warn!(webhook, topic, "the subscription to this topic of Amazon SNS has ended");
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
