//! Schemas of the frames of events and live queries: the OpenAPI and the AsyncAPI document have them from here. That they are what
//! is sent, a test says (`tests/gateway/asyncapi.rs`).

use utoipa::openapi::Ref;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};

use super::Api;
use super::shapes::{self, Shape, any, array, count, flag, moment, named, object, of, text, word};

/// Frames of events, beside those that carry a row.
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

/// What an event socket sends and takes, one JSON object per text message. A Dio's row events are its own (`rows.rs`).
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
    api.schema("HelloFrame", place(hello).description(Some("The first frame; everything after its position follows.")));
    let reasons = word(&["epoch", "trimmed", "future", "overflow"]);
    let reset = place(object([kind("reset"), ("reason", reasons.into())]));
    api.schema("ResetFrame", reset.description(Some("Drop what you have and read again.")));
    let total = || count().description(Some("Of a live query: how many there are in all, in the window or not."));
    let begin = place(object([kind("snapshot_begin")])).property("count", count()).property("total", total());
    api.schema("SnapshotBeginFrame", begin.description(Some("Drop what you have: rows follow.")));
    let rows = object([kind("rows"), ("rows", array(array(any())).into())]);
    api.schema(
        "RowsFrame",
        rows.description(Some("Rows of a snapshot, each an id and, where rows are sent, the row.")),
    );
    window(api, total());
    let end = place(object([kind("snapshot_end")]));
    api.schema("SnapshotEndFrame", end.description(Some("That were all rows; everything after the position follows.")));
    api.schema("HeartbeatFrame", place(object([kind("heartbeat"), ("at", moment().into())])));
    api.schema("PongFrame", {
        let pong = object([kind("pong"), ("n", any().into())]).property("position", text());
        pong.property("epoch", text()).property("seq", count())
    });
    let error = object([kind("error"), ("code", text().into()), ("detail", text().into())]).property("hint", text());
    api.schema("ErrorFrame", error);
    api.schema("ByeFrame", object([kind("bye"), ("code", count().into()), ("reason", text().into())]));
    api.schema("PingFrame", object([kind("ping")]).property("n", any()).description(Some("What a client may send.")));
    let origin = || -> Shape { text().description(Some("What caused it.")).into() };
    let event =
        |name: &str| object([kind(name), ("seq", count().into()), ("origin", origin()), ("at", moment().into())]);
    let removed = object([kind("RecordRemoved"), ("seq", count().into()), ("id", text().into())]);
    let removed = removed.property("origin", origin()).property("at", moment()).property("op", text());
    let left = flag().description(Some("The row is there, and ceases to match."));
    api.schema("RecordRemovedFrame", removed.property("left", left).property("conflated", flag()));
    api.schema("WriteCommittedFrame", event("WriteCommitted").property("id", text()).property("op", text()));
    let error = object([("code", text().into()), ("detail", text().into())]);
    let failed = event("WriteFailed").property("id", text()).property("op", text()).property("error", error);
    api.schema("WriteFailedFrame", failed.required("error"));
    let covered = flag().description(Some("Whether every difference was told by an event; if not, read again."));
    api.schema("InvalidatedFrame", event("Invalidated").property("covered", covered));
}

/// What changes the rows of a live query.
fn window(api: &mut Api, total: ObjectBuilder) {
    let place = |about: &str| count().description(Some(about));
    let op = word(&["insert", "update", "move", "remove"]);
    let op = op
        .description(Some("`move` takes the row out at `from` and puts it in at `index`. None: no row of the window."));
    let record = shapes::object([]).description(Some("Not of `remove`, nor of a `move` that leaves the row as it is."));
    let seq = place("The position that the list is of now; frames of one change before the last have none.");
    let window = object([("type", word(&["window"]).into())]).property("op", op);
    let window = window.property("index", place("Where, in the list as the frames before have left it."));
    let window = window.property("from", place("Where a row is that moves.")).property("id", text());
    let window = window.property("record", record).property("total", total).property("seq", seq);
    api.schema("WindowFrame", window.description(Some("A change of the rows of a live query, or a part of one.")));
    api.schema("LiveFrame", OF_LIVE.iter().fold(OneOfBuilder::new(), |frames, name| frames.item(named(*name))));
}

/// A frame of one of several subscriptions, and what clients may send there.
pub(super) fn tagged(api: &mut Api) -> Ref {
    let sub = || -> Shape { text().description(Some("The subscription.")).into() };
    let kind = |name: &str| -> (&'static str, Shape) { ("type", word(&[name]).into()) };
    let frame = object([("type", text().into())]).property("sub", sub());
    api.schema("TaggedFrame", frame.description(Some("A frame of a resource's events, and whose it is.")));
    let subscribe = object([kind("subscribe"), ("dio", text().into())]).property("sub", sub());
    let subscribe = subscribe.property("since", text()).property("snapshot", word(&["none", "full", "auto"]));
    let subscribe =
        subscribe.property("ids", array(text())).property("ops", array(word(&["insert", "update", "delete"])));
    let subscribe = subscribe.property("records", flag()).property("where", ObjectBuilder::new());
    let subscribe = subscribe.property("select", array(text())).property("q", text());
    let live =
        flag().description(Some("A live query: with `order`, `limit` and `offset`; without snapshot, ids and ops."));
    let subscribe = subscribe.property("live", live).property("order", any());
    let subscribe = subscribe.property("limit", count()).property("offset", count());
    api.schema("SubscribeFrame", subscribe.description(Some("The answer is a hello or an error.")));
    api.schema("UnsubscribeFrame", object([kind("unsubscribe"), ("sub", sub())]));
    api.schema("AuthFrame", object([kind("auth"), ("token", text().into())]));
    api.schema("UnsubscribedFrame", object([kind("unsubscribed"), ("sub", sub())]));
    api.schema("AuthenticatedFrame", object([kind("authenticated")]));
    named("TaggedFrame")
}

fn word_number(number: i64) -> ObjectBuilder {
    of(Type::Integer).enum_values(Some([number]))
}

/// The frames of one Dio's socket, of which `own` carry its rows.
pub(super) fn frame_of(own: [&str; 2]) -> OneOfBuilder {
    own.into_iter().chain(OF_EVENTS).fold(OneOfBuilder::new(), |frames, name| frames.item(named(name)))
}
