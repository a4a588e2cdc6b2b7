//! What is kept of deliveries.

use utoipa::openapi::path::HttpMethod;

use super::fixed::WEBHOOKS;
use super::shapes::{array, count, named, text};
use super::{Api, answers, parameters};
use crate::webhook::Hook;
use crate::webhook::deliveries::{self, DeliveryBody, DeliveryFilter, DeliverySent};
use crate::webhook::receive::Received;

/// The deliveries of one webhook; under the server's tokens, not the hook's.
pub(super) fn add(api: &mut Api, hook: &Hook) {
    shapes(api);
    let path = format!("/webhooks/{}/deliveries", hook.name);
    let list = api.operation(format!("list_{}", hook.name), WEBHOOKS, "Deliveries, newest first", &HttpMethod::Get);
    let list = list.parameters(Some(DeliveryFilter::parameters()));
    let found = answers::json("The deliveries, without what was sent.", array(named("Delivery")));
    let found = answers::header(found, "X-Total-Count", "Deliveries that fit, on all pages.", count());
    let found = answers::header(found, "Link", "The next page, where there is one (RFC 8288).", text());
    let list = list.response("200", found.build());
    api.add(&path, HttpMethod::Get, answers::refusals(list, &[400, 503]));

    let id = || parameters::path("id", "The delivery's id.", deliveries::id());
    let one =
        api.operation(format!("delivery_{}", hook.name), WEBHOOKS, "One delivery as it was sent", &HttpMethod::Get);
    let found = answers::json("The delivery; secrets and signatures are left out.", named("DeliverySent"));
    let one = one.parameter(id()).response("200", found.build());
    api.add(&format!("{path}/{{id}}"), HttpMethod::Get, answers::refusals(one, &[400, 404, 503]));

    let again = api.operation(format!("replay_{}", hook.name), WEBHOOKS, "Apply a delivery again", &HttpMethod::Post);
    let done = answers::json("What that did, whether it had been applied before or not.", named("Delivery"));
    let again = again.parameter(id()).response("200", done.build());
    let again = answers::refusals(again, &[400, 404, 409, 500, 502, 503, 504, 507]);
    api.add(&format!("{path}/{{id}}/replay"), HttpMethod::Post, again);
}

fn shapes(api: &mut Api) {
    api.derived::<Received>();
    api.derived::<DeliveryBody>();
    api.derived::<DeliverySent>();
}
