//! Frames as they go over the wire: one JSON object of text each.
//!
//! The frame of an event is made once, by the first socket that sends it, and shared by all; a row's bytes are spliced in as
//! they are. Control frames are lower case, events bear their own names.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::dio::{DioEvent, Old, Position, RingItem};
use crate::hot::{Entry, Frame, Visible};
use crate::journal::Seq;
use crate::record::Body;

/// Rows larger than this are not sent with their event: whoever wants them reads them.
const MOST_RECORD: usize = 256 << 10;

/// Why a client must drop what it has and read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// Its position belongs to another history.
    Epoch,
    /// Events after its position are gone.
    Trimmed,
    /// Its position has not happened.
    Future,
    /// It was too slow.
    Overflow,
}

impl Reset {
    fn as_str(self) -> &'static str {
        match self {
            Reset::Epoch => "epoch",
            Reset::Trimmed => "trimmed",
            Reset::Future => "future",
            Reset::Overflow => "overflow",
        }
    }
}

/// The frame of an event, `None` for events that stay inside. With `records` it is the shared one.
pub(super) fn event(item: &RingItem, records: bool) -> Option<Bytes> {
    let (seq, entry) = (item.seq?, item.entry.as_ref()?);
    if !records {
        return Some(encode(item, seq, entry, false));
    }
    Some(item.frame.get_or_init(|| encode(item, seq, entry, true)).clone())
}

/// The row an event is about, `None` if it is about all.
pub(super) fn subject(item: &RingItem) -> Option<&str> {
    item.entry.as_ref()?.id.as_deref()
}

fn encode(item: &RingItem, seq: Seq, entry: &Entry, records: bool) -> Bytes {
    let mut frame = Object::new(kind(item, entry));
    frame.member("seq", &json!(seq));
    if let Some(id) = &entry.id {
        frame.member("id", &json!(&**id));
    }
    if let Frame::Inserted | Frame::Changed = entry.frame {
        row(&mut frame, item, records);
    }
    frame.member("origin", &json!(entry.cause.origin));
    if let Some(op) = entry.cause.op {
        frame.member("op", &json!(op.to_string()));
    }
    match &entry.frame {
        Frame::WriteFailed(error) => frame.member("error", &json!({ "code": error.code, "detail": error.detail })),
        Frame::Invalidated { covered } => frame.member("covered", &json!(covered)),
        Frame::Inserted | Frame::Changed | Frame::Removed | Frame::WriteCommitted | Frame::Silent => {}
    }
    frame.member("at", &json!(timestamp(entry.at)));
    frame.finish()
}

fn row(frame: &mut Object, item: &RingItem, records: bool) {
    let Some(body) = &item.new else { return };
    if records && body.json().len() <= MOST_RECORD {
        frame.raw("record", body.json());
    }
    if let (DioEvent::RecordChanged { .. }, Some(changed)) = (&item.event, item.changed()) {
        frame.member("changed", &json!(changed));
    }
    frame.member("etag", &json!(entity_tag(body)));
}

/// The row's ETag, as `If-Match` takes it.
fn entity_tag(body: &Body) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(body.hash().to_be_bytes()))
}

/// The name of an event. A change of a row that is not there is its removal.
fn kind(item: &RingItem, entry: &Entry) -> &'static str {
    match &entry.frame {
        Frame::Inserted => "RecordInserted",
        Frame::Changed if is_gone(item, entry) => "RecordRemoved",
        Frame::Changed => "RecordChanged",
        Frame::Removed => "RecordRemoved",
        Frame::WriteFailed(_) => "WriteFailed",
        Frame::WriteCommitted => "WriteCommitted",
        Frame::Invalidated { .. } | Frame::Silent => "Invalidated",
    }
}

/// An event read back from the journal knows no row but its own entry's.
fn is_gone(item: &RingItem, entry: &Entry) -> bool {
    match item.old {
        Old::Unknown => matches!(entry.visible, Visible::Gone),
        Old::Absent | Old::Known(_) => item.new.is_none(),
    }
}

/// The first frame: what is subscribed to. Everything after `position` follows; `missed` of it has happened already.
pub(super) fn hello(dio: &str, position: &Position, resumed: bool, missed: u64, heartbeat: u64) -> Bytes {
    let mut frame = Object::new("hello");
    frame.member("v", &json!(1));
    frame.member("dio", &json!(dio));
    frame.place(position);
    frame.member("resumed", &json!(resumed));
    frame.member("missed", &json!(missed));
    frame.member("heartbeat", &json!(heartbeat));
    frame.finish()
}

/// Drop what you have and read again; everything after `position` follows.
pub(super) fn reset(reason: Reset, position: &Position) -> Bytes {
    let mut frame = Object::new("reset");
    frame.member("reason", &json!(reason.as_str()));
    frame.place(position);
    frame.finish()
}

/// A bookmark: everything up to `position` was sent.
pub(super) fn heartbeat(position: &Position) -> Bytes {
    let mut frame = Object::new("heartbeat");
    frame.place(position);
    frame.member("at", &json!(format!("{:.3}", jiff::Timestamp::now())));
    frame.finish()
}

/// The answer to a client's `ping`.
pub(super) fn pong(n: &Value, position: &Position) -> Bytes {
    let mut frame = Object::new("pong");
    frame.member("n", n);
    frame.place(position);
    frame.finish()
}

/// A client's message was not understood.
pub(super) fn error(code: &str, detail: &str) -> Bytes {
    let mut frame = Object::new("error");
    frame.member("code", &json!(code));
    frame.member("detail", &json!(detail));
    frame.finish()
}

/// The last frame before the server closes.
pub(super) fn bye(code: u16, reason: &str) -> Bytes {
    let mut frame = Object::new("bye");
    frame.member("code", &json!(code));
    frame.member("reason", &json!(reason));
    frame.finish()
}

fn timestamp(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", at.unwrap_or_default())
}

/// An object under construction; its type comes first, members keep their order.
struct Object(Vec<u8>);

impl Object {
    fn new(kind: &str) -> Object {
        Object(format!(r#"{{"type":"{kind}""#).into_bytes())
    }

    fn place(&mut self, position: &Position) {
        self.member("position", &json!(position.to_string()));
        self.member("epoch", &json!(&*position.epoch));
        self.member("seq", &json!(position.seq));
    }

    fn member(&mut self, name: &str, value: &Value) {
        self.raw(name, value.to_string().as_bytes());
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.0.extend_from_slice(json);
    }

    fn finish(mut self) -> Bytes {
        self.0.push(b'}');
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dio;
    use crate::gateway::events::testing::{record, small_dio};

    async fn next(dio: &Dio, at: &mut u64) -> Value {
        loop {
            match dio.ring().at(*at) {
                crate::dio::At::Item(item) => {
                    *at += 1;
                    if let Some(frame) = event(&item, true) {
                        return serde_json::from_slice(&frame).unwrap();
                    }
                }
                _ => dio.ring().watch().changed().await.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn events_carry_the_row_what_changed_and_why() {
        let dio = small_dio().await;
        let mut at = dio.ring().end();
        dio.vista().insert("muffin", &record("Muffin", 1)).await.unwrap();
        let inserted = next(&dio, &mut at).await;
        assert_eq!(inserted["type"], "RecordInserted");
        assert_eq!(inserted["record"], json!({"id": "muffin", "name": "Muffin", "price": 1}));
        assert_eq!(inserted["origin"], "write");
        assert!(inserted["op"].as_str().unwrap().starts_with("op_"));
        assert!(inserted["at"].as_str().unwrap().ends_with('Z'));
        assert_eq!(next(&dio, &mut at).await["type"], "WriteCommitted");
        dio.patched("muffin", record("Muffin", 2)).await.unwrap();
        let changed = next(&dio, &mut at).await;
        assert_eq!((&changed["type"], &changed["changed"]), (&json!("RecordChanged"), &json!(["price"])));
        assert_eq!(changed["origin"], "program");
        assert!(changed["etag"].as_str().unwrap().starts_with('"'));
    }

    #[tokio::test]
    async fn a_change_of_a_row_that_is_gone_is_its_removal() {
        let dio = small_dio().await;
        let mut at = dio.ring().end();
        dio.invalidate_record("nobody");
        let frame = next(&dio, &mut at).await;
        assert_eq!((&frame["type"], &frame["id"]), (&json!("RecordRemoved"), &json!("nobody")));
        assert_eq!(frame.get("record"), None);
    }

    #[tokio::test]
    async fn a_frame_is_made_once() {
        let dio = small_dio().await;
        let at = dio.ring().end();
        dio.patched("a", record("A", 1)).await.unwrap();
        let crate::dio::At::Item(item) = dio.ring().at(at) else { panic!("no event") };
        let (one, two) = (event(&item, true).unwrap(), event(&item, true).unwrap());
        assert_eq!(one.as_ptr(), two.as_ptr());
        assert!(!String::from_utf8_lossy(&event(&item, false).unwrap()).contains("\"record\""));
    }
}
