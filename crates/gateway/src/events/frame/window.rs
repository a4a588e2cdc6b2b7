//! Frames of live queries.

use bytes::Bytes;
use serde_json::json;

use super::{Encoding, Object};
use diorama_core::dio::Position;
use diorama_core::journal::Seq;

/// What happens to one row of a window.
pub(in crate::events) struct WindowOp<'a> {
    /// insert, update, move or remove.
    pub(in crate::events) op: &'static str,
    /// Its place.
    pub(in crate::events) index: usize,
    /// Where it was, if it moves.
    pub(in crate::events) from: Option<usize>,
    pub(in crate::events) id: &'a str,
}

/// A change of a window, or a part of one: what happens to a row, what is shown of that, and at the `end` of the change the
/// new total, if it is another, and the position.
pub(in crate::events) fn window(
    encoding: Encoding,
    row: Option<(WindowOp<'_>, Option<&[u8]>)>,
    end: Option<(Option<u64>, Seq)>,
) -> Bytes {
    let mut frame = Object::new(encoding, "window");
    if let Some((op, record)) = row {
        frame.member("op", &json!(op.op));
        if let Some(from) = op.from {
            frame.member("from", &json!(from));
        }
        frame.member("index", &json!(op.index));
        frame.member("id", &json!(op.id));
        if let Some(record) = record {
            frame.raw("record", record);
        }
    }
    if let Some((total, seq)) = end {
        if let Some(total) = total {
            frame.member("total", &json!(total));
        }
        frame.member("seq", &json!(seq));
    }
    frame.finish()
}

/// Drop what you have: `count` rows follow in their order, of `total`, as they are at `position`.
pub(in crate::events) fn window_begin(
    encoding: Encoding,
    position: &Position,
    count: usize,
    total: Option<u64>,
) -> Bytes {
    let mut frame = Object::new(encoding, "snapshot_begin");
    frame.place(position);
    frame.member("count", &json!(count));
    if let Some(total) = total {
        frame.member("total", &json!(total));
    }
    frame.finish()
}
