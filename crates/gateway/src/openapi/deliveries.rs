//! What is kept of deliveries.

use utoipa::openapi::RefOr;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use super::fixed::WEBHOOKS;
use super::shapes::{array, count, flag, named, object, text, word};
use super::{Api, answers, parameters};
use crate::webhook::Hook;
use diorama_core::journal::DeliveryState;

/// The form of a delivery's id.
const ID: &str = "^dlv_[0-9a-f]{32}$";

/// The deliveries of one webhook; under the server's tokens, not the hook's.
pub(super) fn add(api: &mut Api, hook: &Hook) {
    shapes(api);
    let path = format!("/webhooks/{}/deliveries", hook.name);
    let states: Vec<_> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
    let list = api.operation(format!("list_{}", hook.name), WEBHOOKS, "Deliveries, newest first", &HttpMethod::Get);
    let list = list.parameters(Some(parameters::deliveries(&states, ID)));
    let found = answers::json("The deliveries, without what was sent.", array(named("Delivery")));
    let found = answers::header(found, "X-Total-Count", "Deliveries that fit, on all pages.", count());
    let found = answers::header(found, "Link", "The next page, where there is one (RFC 8288).", text());
    let list = list.response("200", found.build());
    api.add(&path, HttpMethod::Get, answers::refusals(list, &[400, 503]));

    let id = || parameters::path("id", "The delivery's id.", text().pattern(Some(ID)));
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
    if api.schemas.contains_key("Delivery") {
        return;
    }
    let results = ["received", "applied", "unchanged", "deferred", "stale", "duplicates", "ignored", "skipped"];
    let states: Vec<_> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
    let delivery = |name| [(name, text().pattern(Some(ID)).into()), ("state", word(&states).into())];
    let received = results.into_iter().chain(["queued"]).map(|name| (name, count().into()));
    let received = delivery("delivery").into_iter().chain([("duplicate", flag().into())]).chain(received);
    api.schema("Received", shape(received).property("detail", maybe()));
    let counts = object(results.map(|name| (name, RefOr::<Schema>::from(count()))));
    let links = object(["self", "replay"].map(|name| (name, text().into())));
    let known = delivery("id").into_iter().chain([
        ("hook", text().into()),
        ("dio", text().into()),
        ("key", maybe().into()),
        ("changes", counts.into()),
        ("detail", maybe().into()),
        ("attempts", count().into()),
        ("received", text().into()),
        ("updated", text().into()),
        ("size", count().into()),
        ("links", links.into()),
    ]);
    let known: Vec<(&str, RefOr<Schema>)> = known.collect();
    api.schema("Delivery", shape(known.iter().cloned()));
    let header = object([("name", text().into()), ("value", text().into())]);
    let sent = [("uri", text().into()), ("headers", array(header).into())];
    let sent = shape(known.into_iter().chain(sent));
    let sent = sent.property("body", maybe()).property("body_base64", maybe());
    api.schema("DeliverySent", sent);
}

fn shape(members: impl IntoIterator<Item = (&'static str, RefOr<Schema>)>) -> ObjectBuilder {
    members
        .into_iter()
        .fold(ObjectBuilder::new().schema_type(SchemaType::new(Type::Object)), |shape, (name, schema)| {
            shape.property(name, schema).required(name)
        })
}

/// A text, or null.
fn maybe() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]))
}
