//! Reports of what came to a webhook: counts, and lines in the log.

use axum::http::header::{self, HeaderMap, HeaderValue};

use super::hook::Hook;
use crate::http::problem::{ApiError, Code};
use crate::http::request_id::request_id;
use crate::metrics::Deliveries;
use crate::state::GatewayState;
use diorama_core::journal::{Delivery, DeliveryState};
use diorama_inbound::{Notice, Refusal, Reply};

/// Counts what came to a webhook, and says in the log what a person needs to know.
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

    /// Strangers can ask as well, so the lines that they cause are bounded.
    pub(super) fn asked(&self, reply: &Reply) {
        let Some(notice) = &reply.notice else { return };
        let by_stranger = *notice == Notice::UnknownSecret;
        if !by_stranger || self.hook.intake.lines.pass("unknown secret").is_some() {
            self.hook.note(notice);
        }
    }

    pub(super) fn taken(&self, delivery: &Delivery) {
        if let Some(topic) = self.headers.get("x-amz-sns-topic-arn").and_then(|topic| topic.to_str().ok()) {
            self.hook.is_subscribed(topic);
        }
        if let Some(counts) = self.counts() {
            counts.count(delivery);
        }
        if delivery.state == DeliveryState::Undecodable
            && let Some(left_out) = self.hook.intake.lines.pass("undecodable")
        {
            let (webhook, dio, id) = (&self.hook.name, &self.hook.dio, request_id(self.headers));
            let Delivery { id: delivery, detail, .. } = delivery;
            tracing::warn!(webhook, dio, request.id = id, %delivery, detail, left_out, "a delivery cannot be understood and is kept");
        }
    }

    /// Our own fault is in the log with the request.
    pub(super) fn refused(&self, error: &ApiError) {
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

/// Refuses a delivery without a proof. All refusals look the same from outside; the log has the reason.
pub(super) fn unproven(hook: &Hook, reason: Refusal) -> ApiError {
    let error = ApiError::new(Code::SignatureInvalid, "the delivery is not signed as this webhook needs it")
        .cause(reason.to_string());
    match hook.inbound.scheme().authenticate() {
        Some(asked) => error.header(header::WWW_AUTHENTICATE, HeaderValue::from_static(asked)),
        None => error,
    }
}
