//! Frames on the wire: one object each, as JSON text or as CBOR.
//!
//! Types of control frames are lower case; events have the names of their types. Encoded rows are copied into frames.

mod window;

pub(super) use window::{WindowOp, window, window_begin};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::http::negotiate::Format;
use crate::rows::format::cbor_head;
use diorama_core::dio::{Position, RingItem};
use diorama_core::journal::Seq;
use diorama_core::record::{CborValue, value_to_json};
use diorama_core::state::{Entry, Frame};

/// Encoding of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    /// JSON text.
    Json,
    /// CBOR, RFC 8949, with the tags of the rows.
    Cbor,
}

impl Encoding {
    /// Returns the format of rows in frames.
    pub(super) fn of_rows(self) -> Format {
        match self {
            Encoding::Json => Format::Json,
            Encoding::Cbor => Format::Cbor,
        }
    }
}

/// Reason why a client must discard its rows and read them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The position belongs to another epoch.
    Epoch,
    /// Events after the position were trimmed.
    Trimmed,
    /// The position is in the future.
    Future,
    /// The client was too slow.
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

/// Kind of an event, as one subscriber sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Inserted,
    /// The row matches now, but did not before.
    Entered,
    Changed,
    Removed,
    /// The row no longer matches.
    Left,
    Failed,
    Committed,
    Invalidated,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Inserted | Kind::Entered => "RecordInserted",
            Kind::Changed => "RecordChanged",
            Kind::Removed | Kind::Left => "RecordRemoved",
            Kind::Failed => "WriteFailed",
            Kind::Committed => "WriteCommitted",
            Kind::Invalidated => "Invalidated",
        }
    }

    fn flag(self) -> Option<&'static str> {
        match self {
            Kind::Entered => Some("entered"),
            Kind::Left => Some("left"),
            _ => None,
        }
    }
}

/// Parts of an event that depend on the visible columns.
#[derive(Default)]
pub(super) struct VisiblePart {
    /// Encoded row, if rows are sent.
    pub(super) row: Option<Vec<u8>>,
    /// Version of the row.
    pub(super) version: u128,
    /// Columns that differ.
    pub(super) changed: Option<Vec<String>>,
    /// Text in place of the detail of a failed write.
    pub(super) detail: Option<&'static str>,
}

/// Builds the frame of an event of the log.
pub(super) fn event(encoding: Encoding, kind: Kind, item: &RingItem, entry: &Entry, part: &VisiblePart) -> Bytes {
    let mut frame = Object::new(encoding, kind.name());
    frame.member("seq", &json!(entry.seq));
    if let Some(id) = &entry.id {
        frame.member("id", &json!(&**id));
    }
    if let Some(flag) = kind.flag() {
        frame.member(flag, &json!(true));
    }
    if let (Kind::Inserted | Kind::Entered | Kind::Changed, Some(_)) = (kind, &item.new) {
        if let Some(row) = &part.row {
            frame.raw("record", row);
        }
        if let Some(changed) = &part.changed {
            frame.member("changed", &json!(changed));
        }
        frame.member("etag", &json!(entity_tag(part.version)));
    }
    frame.member("origin", &json!(entry.cause.origin));
    if let Some(op) = entry.cause.op {
        frame.member("op", &json!(op.to_string()));
    }
    match &entry.frame {
        Frame::WriteFailed(error) => {
            let detail = part.detail.unwrap_or(&error.detail);
            frame.member("error", &json!({ "code": error.code, "detail": detail }));
        }
        Frame::Invalidated { covered } => frame.member("covered", &json!(covered)),
        Frame::Inserted | Frame::Changed | Frame::Removed | Frame::WriteCommitted | Frame::Silent => {}
    }
    frame.member("at", &json!(timestamp(entry.at)));
    frame.finish()
}

/// Builds the frame of a row's newest state, in place of its events. `row` is the version of the row and its encoding, if rows are
/// sent; it is `None` if the row does not exist or does not match.
pub(super) fn newest(encoding: Encoding, kind: Kind, id: &str, seq: Seq, row: Option<(u128, Option<&[u8]>)>) -> Bytes {
    let mut frame = Object::new(encoding, kind.name());
    frame.member("seq", &json!(seq));
    frame.member("id", &json!(id));
    if let Some(flag) = kind.flag() {
        frame.member(flag, &json!(true));
    }
    frame.member("conflated", &json!(true));
    if let Some((version, shown)) = row {
        if let Some(shown) = shown {
            frame.raw("record", shown);
        }
        frame.member("etag", &json!(entity_tag(version)));
    }
    frame.finish()
}

/// Returns the row's ETag, as in `If-Match`.
fn entity_tag(version: u128) -> String {
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(version.to_be_bytes()))
}

/// Contents of the first frame.
pub(super) struct Hello<'a> {
    pub(super) dio: &'a str,
    pub(super) position: &'a Position,
    pub(super) resumed: bool,
    /// Number of events since the position, which follow.
    pub(super) missed: u64,
    pub(super) heartbeat: u64,
    /// True if a snapshot follows.
    pub(super) snapshot: bool,
}

/// Builds the first frame of a subscription. All events after its position follow.
pub(super) fn hello(encoding: Encoding, hello: &Hello<'_>) -> Bytes {
    let mut frame = Object::new(encoding, "hello");
    frame.member("v", &json!(1));
    frame.member("dio", &json!(hello.dio));
    frame.position(hello.position);
    frame.member("resumed", &json!(hello.resumed));
    frame.member("missed", &json!(hello.missed));
    frame.member("snapshot", &json!(hello.snapshot));
    frame.member("heartbeat", &json!(hello.heartbeat));
    frame.finish()
}

/// Builds a `reset`: the client discards its rows and reads again. All events after `position` follow.
pub(crate) fn reset(encoding: Encoding, reason: Reset, position: &Position) -> Bytes {
    let mut frame = Object::new(encoding, "reset");
    frame.member("reason", &json!(reason.as_str()));
    frame.position(position);
    frame.finish()
}

/// Builds the start of a snapshot: the client discards its rows. Rows of about `position` follow, `count` of them if known.
pub(super) fn snapshot_begin(encoding: Encoding, position: &Position, count: Option<usize>) -> Bytes {
    let mut frame = Object::new(encoding, "snapshot_begin");
    frame.position(position);
    if let Some(count) = count {
        frame.member("count", &json!(count));
    }
    frame.finish()
}

/// Builds the end of a snapshot. All events after `position` follow.
pub(super) fn snapshot_end(encoding: Encoding, position: &Position) -> Bytes {
    let mut frame = Object::new(encoding, "snapshot_end");
    frame.position(position);
    frame.finish()
}

/// Builder of a frame with rows of a snapshot, each with its id.
pub(super) struct Rows {
    encoding: Encoding,
    count: u64,
    rows: Vec<u8>,
}

impl Rows {
    pub(super) fn new(encoding: Encoding) -> Rows {
        Rows { encoding, count: 0, rows: Vec::new() }
    }

    /// Adds a row: its id, and its encoding if rows are sent.
    pub(super) fn push(&mut self, id: &str, row: Option<&[u8]>) {
        let id = json!(id);
        match self.encoding {
            Encoding::Json => {
                self.rows.extend_from_slice(if self.count == 0 { b"[" } else { b",[" });
                self.rows.extend_from_slice(id.to_string().as_bytes());
                if let Some(row) = row {
                    self.rows.push(b',');
                    self.rows.extend_from_slice(row);
                }
                self.rows.push(b']');
            }
            Encoding::Cbor => {
                cbor_head(0x80, 1 + u64::from(row.is_some()), &mut self.rows);
                write_cbor(&id, &mut self.rows);
                self.rows.extend_from_slice(row.unwrap_or_default());
            }
        }
        self.count += 1;
    }

    pub(super) fn len(&self) -> u64 {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn finish(self) -> Bytes {
        let mut all = Vec::with_capacity(self.rows.len() + 16);
        match self.encoding {
            Encoding::Json => all.push(b'['),
            Encoding::Cbor => cbor_head(0x80, self.count, &mut all),
        }
        all.extend_from_slice(&self.rows);
        if self.encoding == Encoding::Json {
            all.push(b']');
        }
        let mut frame = Object::new(self.encoding, "rows");
        frame.raw("rows", &all);
        frame.finish()
    }
}

/// Builds a bookmark: all events up to `position` were sent.
pub(super) fn heartbeat(encoding: Encoding, position: &Position) -> Bytes {
    let mut frame = Object::new(encoding, "heartbeat");
    frame.position(position);
    frame.member("at", &json!(format!("{:.3}", jiff::Timestamp::now())));
    frame.finish()
}

/// Builds the reply to a client's `ping`, with the position if the socket has a single subscription.
pub(super) fn pong(encoding: Encoding, n: Option<&CborValue>, position: Option<&Position>) -> Bytes {
    let mut frame = Object::new(encoding, "pong");
    frame.value("n", n.unwrap_or(&CborValue::Null));
    if let Some(position) = position {
        frame.position(position);
    }
    frame.finish()
}

/// Builds the error frame for a client's message that is invalid or failed.
pub(super) fn error(encoding: Encoding, code: &str, detail: &str, hint: Option<&str>) -> Bytes {
    let mut frame = Object::new(encoding, "error");
    frame.member("code", &json!(code));
    frame.member("detail", &json!(detail));
    if let Some(hint) = hint {
        frame.member("hint", &json!(hint));
    }
    frame.finish()
}

/// Builds a frame without members other than its type.
pub(super) fn type_only(encoding: Encoding, kind: &str) -> Bytes {
    Object::new(encoding, kind).finish()
}

/// Builds the last frame before the server ends the stream.
pub(super) fn bye(encoding: Encoding, code: u16, reason: &str) -> Bytes {
    let mut frame = Object::new(encoding, "bye");
    frame.member("code", &json!(code));
    frame.member("reason", &json!(reason));
    frame.finish()
}

/// Adds the name of the subscription `sub` to `frame`.
pub(super) fn tagged(encoding: Encoding, sub: &str, frame: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(frame.len() + sub.len() + 16);
    let sub = json!(sub);
    let Some((first, rest)) = frame.split_first() else { return Bytes::new() };
    match encoding {
        Encoding::Json => {
            out.extend_from_slice(b"{\"sub\":");
            out.extend_from_slice(sub.to_string().as_bytes());
            out.push(b',');
        }
        Encoding::Cbor => {
            // Frames have fewer than 23 members: the head of the map is one byte.
            out.push(first + 1);
            write_cbor(&json!("sub"), &mut out);
            write_cbor(&sub, &mut out);
        }
    }
    out.extend_from_slice(rest);
    out.into()
}

fn timestamp(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", at.unwrap_or_default())
}

fn write_cbor(value: &Value, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = ciborium::into_writer(value, out);
}

/// Builder of an object. The type is the first member; members keep their order.
struct Object {
    encoding: Encoding,
    members: u8,
    bytes: Vec<u8>,
}

impl Object {
    fn new(encoding: Encoding, kind: &str) -> Object {
        let mut object = Object { encoding, members: 0, bytes: vec![b'{'] };
        object.member("type", &json!(kind));
        object
    }

    fn position(&mut self, position: &Position) {
        self.member("position", &json!(position.to_string()));
        self.member("epoch", &json!(&*position.epoch));
        self.member("seq", &json!(position.seq));
    }

    fn member(&mut self, name: &str, value: &Value) {
        match self.encoding {
            Encoding::Json => self.raw(name, value.to_string().as_bytes()),
            Encoding::Cbor => {
                let mut cbor = Vec::new();
                write_cbor(value, &mut cbor);
                self.raw(name, &cbor);
            }
        }
    }

    fn value(&mut self, name: &str, value: &CborValue) {
        match self.encoding {
            Encoding::Json => self.raw(name, &value_to_json(value)),
            Encoding::Cbor => {
                let mut cbor = Vec::new();
                // Writing to a Vec does not fail.
                let _ = ciborium::into_writer(value, &mut cbor);
                self.raw(name, &cbor);
            }
        }
    }

    /// Adds a member whose value is already encoded.
    fn raw(&mut self, name: &str, value: &[u8]) {
        match self.encoding {
            Encoding::Json => {
                self.bytes.extend_from_slice(if self.members == 0 { b"\"" } else { b",\"" });
                self.bytes.extend_from_slice(name.as_bytes());
                self.bytes.extend_from_slice(b"\":");
            }
            Encoding::Cbor => write_cbor(&json!(name), &mut self.bytes),
        }
        self.bytes.extend_from_slice(value);
        self.members += 1;
    }

    fn finish(mut self) -> Bytes {
        match self.encoding {
            Encoding::Json => self.bytes.push(b'}'),
            Encoding::Cbor => self.bytes[0] = 0xA0 | self.members,
        }
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests;
