//! Paths of notifications and their deliveries.

use utoipa::openapi::path::HttpMethod;

use super::shapes::{array, count, named, text};
use super::{Api, answers, parameters};
use crate::notify::routes::{NoticeBody, NoticeSent, NotificationBody};
use crate::webhook::deliveries::{self, DeliveryFilter};
use diorama_core::journal::DeliveryState;

/// Tag of the operations.
const NOTIFICATIONS: &str = "notifications";

/// Adds all paths. They are the same for every configuration.
pub(super) fn add(api: &mut Api) {
    api.derived::<NotificationBody>();
    api.derived::<NoticeBody>();
    api.derived::<NoticeSent>();
    let list =
        api.operation("listNotifications", NOTIFICATIONS, "List the notifications with their states", &HttpMethod::Get);
    let response = answers::json("The notifications that the caller may see.", array(named("Notification")));
    api.add("/_notify", HttpMethod::Get, answers::refusals(list.response("200", response.build()), &[]));

    let name = || parameters::path("notification", "Name of the notification.", text());
    let own = "/_notify/{notification}";
    let one = api.operation("getNotification", NOTIFICATIONS, "Get a notification with its state", &HttpMethod::Get);
    let one = one.parameter(name()).response("200", answers::json("The notification.", named("Notification")).build());
    api.add(own, HttpMethod::Get, answers::refusals(one, &[400, 404]));

    let enable = "Send again after the receiver was gone (410), or try a receiver that rests at once";
    let enable = api.operation("enableNotification", NOTIFICATIONS, enable, &HttpMethod::Post);
    let enable =
        enable.parameter(name()).response("200", answers::json("The notification.", named("Notification")).build());
    api.add(&format!("{own}/enable"), HttpMethod::Post, answers::refusals(enable, &[400, 404, 503]));

    let path = format!("{own}/deliveries");
    let list = api.operation("listNotices", NOTIFICATIONS, "List deliveries, newest first", &HttpMethod::Get);
    let list = list.parameter(name()).parameters(Some(DeliveryFilter::parameters(DeliveryState::SENT)));
    let response = answers::json("The deliveries, without their messages.", array(named("Notice")));
    let response = answers::header(response, "X-Total-Count", "Number of matching deliveries on all pages.", count());
    let response = answers::header(response, "Link", "URL of the next page, if there is one (RFC 8288).", text());
    api.add(&path, HttpMethod::Get, answers::refusals(list.response("200", response.build()), &[400, 404, 503]));

    let id = || parameters::path("id", "Id of the delivery.", deliveries::id());
    let one = api.operation("getNotice", NOTIFICATIONS, "Get a delivery with its message", &HttpMethod::Get);
    let one = one.parameter(name()).parameter(id());
    let one = one.response("200", answers::json("The delivery.", named("NoticeSent")).build());
    api.add(&format!("{path}/{{id}}"), HttpMethod::Get, answers::refusals(one, &[400, 404, 503]));

    let replay = api.operation("replayNotice", NOTIFICATIONS, "Send a delivery again", &HttpMethod::Post);
    let replay = replay.parameter(name()).parameter(id());
    let replay = replay.response("200", answers::json("The delivery, which is pending now.", named("Notice")).build());
    api.add(&format!("{path}/{{id}}/replay"), HttpMethod::Post, answers::refusals(replay, &[400, 404, 503]));
}
