//! Schemas of the frames of events and live queries, for the OpenAPI and the AsyncAPI document. A test compares them with the frames that
//! are sent (`tests/gateway/asyncapi.rs`).

use utoipa::openapi::Ref;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};

use super::Api;
use super::shapes::{self, Shape, any, array, count, flag, moment, named, object, of, text, word};

/// Frames of events, except those that carry a row.
pub(super) const OF_EVENTS: [&str; 13] = [
    "HelloFrame",
    "RecordRemovedFrame",
    "WriteCommittedFrame",
    "WriteFailedFrame",
    "InvalidatedFrame",
    "ResetFrame",
    "SnapshotBeginFrame",
    "RowsFrame",
    "SnapshotEndFrame",
    "HeartbeatFrame",
    "PongFrame",
    "ErrorFrame",
    "ByeFrame",
];

/// Frames of live queries.
pub(super) const OF_LIVE: [&str; 10] = [
    "HelloFrame",
    "SnapshotBeginFrame",
    "RowsFrame",
    "SnapshotEndFrame",
    "WindowFrame",
    "ResetFrame",
    "HeartbeatFrame",
    "PongFrame",
    "ErrorFrame",
    "ByeFrame",
];

/// Adds the frames that an event socket sends and receives. The frames with rows of a Dio are in `rows.rs`.
pub(super) fn add(api: &mut Api) {
    let kind = |name: &str| -> (&'static str, Shape) { ("type", word(&[name]).into()) };
    let place = |frame: ObjectBuilder| {
        let frame = frame.property("position", text()).required("position");
        frame.property("epoch", text()).required("epoch").property("seq", count()).required("seq")
    };
    let hello = object([
        kind("hello"),
        ("v", word_number(1).into()),
        ("dio", text().into()),
        ("resumed", flag().into()),
        ("missed", count().into()),
        ("heartbeat", count().into()),
        ("snapshot", flag().into()),
    ]);
    api.schema(
        "HelloFrame",
        place(hello).description(Some("First frame of a subscription. The events after its position follow.")),
    );
    let reasons = word(&["epoch", "trimmed", "future", "overflow"]);
    let reset = place(object([kind("reset"), ("reason", reasons.into())]));
    api.schema(
        "ResetFrame",
        reset.description(Some(
            "The stream cannot be continued from the client's position. Drop the rows and read them again.",
        )),
    );
    let total = || count().description(Some("In a live query: number of matching rows, in the window or not."));
    let begin = place(object([kind("snapshot_begin")])).property("count", count()).property("total", total());
    api.schema("SnapshotBeginFrame", begin.description(Some("Start of a snapshot. Drop the rows: new ones follow.")));
    let rows = object([kind("rows"), ("rows", array(array(any())).into())]);
    api.schema(
        "RowsFrame",
        rows.description(Some(
            "Part of a snapshot. Each element is an array of the id and, unless `records=false`, the row.",
        )),
    );
    window(api, total());
    let end = place(object([kind("snapshot_end")]));
    api.schema("SnapshotEndFrame", end.description(Some("End of a snapshot. The events after its position follow.")));
    let heartbeat = place(object([kind("heartbeat"), ("at", moment().into())]));
    api.schema("HeartbeatFrame", heartbeat.description(Some("All events up to this position have been sent.")));
    api.schema("PongFrame", {
        let pong = object([kind("pong"), ("n", any().into())]).property("position", text());
        pong.property("epoch", text()).property("seq", count())
    });
    let error = object([kind("error"), ("code", text().into()), ("detail", text().into())]).property("hint", text());
    api.schema("ErrorFrame", error);
    api.schema("ByeFrame", object([kind("bye"), ("code", count().into()), ("reason", text().into())]));
    api.schema(
        "PingFrame",
        object([kind("ping")])
            .property("n", any())
            .description(Some("Request for a `pong`. Clients may send it at any time.")),
    );
    let origin = || -> Shape { text().description(Some("Cause of the event.")).into() };
    let event =
        |name: &str| object([kind(name), ("seq", count().into()), ("origin", origin()), ("at", moment().into())]);
    let removed = object([kind("RecordRemoved"), ("seq", count().into()), ("id", text().into())]);
    let removed = removed.property("origin", origin()).property("at", moment()).property("op", text());
    let left = flag().description(Some("True if the row still exists and no longer matches the filter."));
    api.schema("RecordRemovedFrame", removed.property("left", left).property("conflated", flag()));
    api.schema("WriteCommittedFrame", event("WriteCommitted").property("id", text()).property("op", text()));
    let error = object([("code", text().into()), ("detail", text().into())]);
    let failed = event("WriteFailed").property("id", text()).property("op", text()).property("error", error);
    api.schema("WriteFailedFrame", failed.required("error"));
    let covered =
        flag().description(Some("True if events have reported all differences. If false, read the rows again."));
    api.schema("InvalidatedFrame", event("Invalidated").property("covered", covered));
}

/// Adds the frames that change the rows of a live query.
fn window(api: &mut Api, total: ObjectBuilder) {
    let place = |about: &str| count().description(Some(about));
    let op = word(&["insert", "update", "move", "remove"]);
    let op = op.description(Some(
        "`move` removes the row at `from` and inserts it at `index`. Absent if no row of the window changes.",
    ));
    let record = shapes::object([])
        .description(Some("The row. Absent for `remove`, and for a `move` that does not change the row."));
    let seq = place("Number of the position that the list now has. Absent in all frames of one change but the last.");
    let window = object([("type", word(&["window"]).into())]).property("op", op);
    let window = window.property("index", place("Index in the list after the previous frames."));
    let window = window.property("from", place("Index of a row that is moved.")).property("id", text());
    let window = window.property("record", record).property("total", total).property("seq", seq);
    api.schema("WindowFrame", window.description(Some("Change of the rows of a live query, or a part of a change.")));
    api.schema("LiveFrame", OF_LIVE.iter().fold(OneOfBuilder::new(), |frames, name| frames.item(named(*name))));
}

/// Adds the frames of a connection with several subscriptions, and the messages that clients may send on it.
pub(super) fn tagged(api: &mut Api) -> Ref {
    let sub = || -> Shape { text().description(Some("Name of the subscription.")).into() };
    let kind = |name: &str| -> (&'static str, Shape) { ("type", word(&[name]).into()) };
    let frame = object([("type", text().into())]).property("sub", sub());
    api.schema("TaggedFrame", frame.description(Some("Frame of one subscription, with the name of the subscription.")));
    let subscribe = object([kind("subscribe"), ("dio", text().into())]).property("sub", sub());
    let subscribe = subscribe.property("since", text()).property("snapshot", word(&["none", "full", "auto"]));
    let subscribe =
        subscribe.property("ids", array(text())).property("ops", array(word(&["insert", "update", "delete"])));
    let subscribe = subscribe.property("records", flag()).property("where", ObjectBuilder::new());
    let subscribe = subscribe.property("select", array(text())).property("q", text());
    let live = flag().description(Some(
        "True for a live query, which takes `order`, `limit` and `offset`, and not `snapshot`, `ids` and `ops`.",
    ));
    let subscribe = subscribe.property("live", live).property("order", any());
    let subscribe = subscribe.property("limit", count()).property("offset", count());
    api.schema(
        "SubscribeFrame",
        subscribe.description(Some("Opens a subscription. The answer is a `hello` or an `error`.")),
    );
    api.schema("UnsubscribeFrame", object([kind("unsubscribe"), ("sub", sub())]));
    api.schema("AuthFrame", object([kind("auth"), ("token", text().into())]));
    api.schema("UnsubscribedFrame", object([kind("unsubscribed"), ("sub", sub())]));
    api.schema("AuthenticatedFrame", object([kind("authenticated")]));
    named("TaggedFrame")
}

fn word_number(number: i64) -> ObjectBuilder {
    of(Type::Integer).enum_values(Some([number]))
}

/// Returns the schema of the frames of one Dio; those in `own` carry its rows.
pub(super) fn frame_of(own: [&str; 2]) -> OneOfBuilder {
    own.into_iter().chain(OF_EVENTS).fold(OneOfBuilder::new(), |frames, name| frames.item(named(name)))
}
