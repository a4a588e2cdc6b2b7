//! Paths of the deliveries that webhooks have received.

use utoipa::openapi::path::HttpMethod;

use super::fixed::WEBHOOKS;
use super::shapes::{array, count, named, text};
use super::{Api, answers, parameters};
use crate::webhook::Hook;
use crate::webhook::deliveries::{self, DeliveryBody, DeliveryFilter, DeliverySent};
use crate::webhook::receive::Received;
use diorama_core::journal::DeliveryState;

/// Adds the deliveries of one webhook. They require a token of the server, not the secret of the webhook.
pub(super) fn add(api: &mut Api, hook: &Hook) {
    shapes(api);
    let path = format!("/webhooks/{}/deliveries", hook.name);
    let list =
        api.operation(format!("list_{}", hook.name), WEBHOOKS, "List deliveries, newest first", &HttpMethod::Get);
    let list = list.parameters(Some(DeliveryFilter::parameters(DeliveryState::RECEIVED)));
    let response = answers::json("The deliveries, without their bodies.", array(named("Delivery")));
    let response = answers::header(response, "X-Total-Count", "Number of matching deliveries on all pages.", count());
    let response = answers::header(response, "Link", "URL of the next page, if there is one (RFC 8288).", text());
    let list = list.response("200", response.build());
    api.add(&path, HttpMethod::Get, answers::refusals(list, &[400, 503]));

    let id = || parameters::path("id", "Id of the delivery.", deliveries::id());
    let one =
        api.operation(format!("delivery_{}", hook.name), WEBHOOKS, "Get a delivery with its body", &HttpMethod::Get);
    let response = answers::json("The delivery, without secrets and signatures.", named("DeliverySent"));
    let one = one.parameter(id()).response("200", response.build());
    api.add(&format!("{path}/{{id}}"), HttpMethod::Get, answers::refusals(one, &[400, 404, 503]));

    let replay = api.operation(format!("replay_{}", hook.name), WEBHOOKS, "Apply a delivery again", &HttpMethod::Post);
    let outcome = answers::json("The outcome, whether or not the delivery had been applied before.", named("Delivery"));
    let replay = replay.parameter(id()).response("200", outcome.build());
    let replay = answers::refusals(replay, &[400, 404, 409, 500, 502, 503, 504, 507]);
    api.add(&format!("{path}/{{id}}/replay"), HttpMethod::Post, replay);
}

fn shapes(api: &mut Api) {
    api.derived::<Received>();
    api.derived::<DeliveryBody>();
    api.derived::<DeliverySent>();
}
