//! Metrics and log lines of the requests to a webhook.

use axum::http::header::{self, HeaderMap, HeaderValue};

use super::hook::Hook;
use crate::http::problem::{ApiError, Code};
use crate::http::request_id::request_id;
use crate::metrics::Deliveries;
use crate::state::GatewayState;
use diorama_core::journal::{Delivery, DeliveryState};
use diorama_inbound::{Notice, Refusal, Reply};

/// Counts the requests to a webhook and logs notices to the operator.
pub(super) struct Reporter<'a> {
    pub(super) gateway: &'a GatewayState,
    pub(super) at: usize,
    pub(super) hook: &'a Hook,
    pub(super) headers: &'a HeaderMap,
}

impl Reporter<'_> {
    fn counts(&self) -> Option<&Deliveries> {
        self.gateway.metrics.hooks.get(self.at)
    }

    /// Logs the notice of a handshake. Unverified senders can cause notices as well, so these are rate-limited.
    pub(super) fn record_reply(&self, reply: &Reply) {
        let Some(notice) = &reply.notice else { return };
        let by_stranger = *notice == Notice::UnknownSecret;
        if !by_stranger || self.hook.intake.lines.pass("unknown secret").is_some() {
            self.hook.note(notice);
        }
    }

    /// Counts an accepted delivery, and logs it if it could not be decoded.
    pub(super) fn record_delivery(&self, delivery: &Delivery) {
        if let Some(topic) = self.headers.get("x-amz-sns-topic-arn").and_then(|topic| topic.to_str().ok()) {
            self.hook.confirm(topic);
        }
        if let Some(counts) = self.counts() {
            counts.count(delivery);
        }
        if delivery.state == DeliveryState::Undecodable
            && let Some(left_out) = self.hook.intake.lines.pass("undecodable")
        {
            let (webhook, dio, id) = (&self.hook.name, &self.hook.dio, request_id(self.headers));
            let Delivery { id: delivery, detail, .. } = delivery;
            tracing::warn!(webhook, dio, request.id = id, %delivery, detail, left_out, "a delivery could not be decoded and is stored");
        }
    }

    /// Counts a refused delivery, and logs client errors. Server errors are logged with the request.
    pub(super) fn record_refusal(&self, error: &ApiError) {
        if let Some(counts) = self.counts() {
            counts.refuse(error);
        }
        if error.code().status().is_client_error()
            && let Some(left_out) = self.hook.intake.lines.pass(error.code().as_str())
        {
            let (webhook, dio, id) = (&self.hook.name, &self.hook.dio, request_id(self.headers));
            let (code, detail, cause) = (error.code().as_str(), error.detail(), error.because());
            tracing::warn!(webhook, dio, request.id = id, code, detail, cause, left_out, "a delivery was refused");
        }
    }
}

/// Error for a delivery that could not be verified. All these errors look the same to the sender; the log has the reason.
pub(super) fn unproven(hook: &Hook, reason: Refusal) -> ApiError {
    let error = ApiError::new(
        Code::SignatureInvalid,
        "the delivery does not have the signature or credentials that this webhook requires",
    )
    .cause(reason.to_string());
    match hook.inbound.scheme().authenticate() {
        Some(challenge) => error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
        None => error,
    }
}
