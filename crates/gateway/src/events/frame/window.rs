//! Frames of live queries.

use bytes::Bytes;
use serde_json::json;

use super::{Encoding, Object};
use diorama_core::dio::Position;
use diorama_core::journal::Seq;

/// Change of one row of a window.
pub(in crate::events) struct WindowOp<'a> {
    /// Name of the change: insert, update, move or remove.
    pub(in crate::events) op: &'static str,
    /// Index of the row.
    pub(in crate::events) index: usize,
    /// Previous index of the row, if it moves.
    pub(in crate::events) from: Option<usize>,
    pub(in crate::events) id: &'a str,
}

/// Builds a frame of a change of a window. `row` is the change of one row and its encoding, if rows are sent. The last frame of
/// a change has its `end`: the new total, if it has changed, and the position.
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

/// Builds the start of a window: the client discards its rows. `count` rows of `total` follow in order, as of `position`.
pub(in crate::events) fn window_begin(
    encoding: Encoding,
    position: &Position,
    count: usize,
    total: Option<u64>,
) -> Bytes {
    let mut frame = Object::new(encoding, "snapshot_begin");
    frame.position(position);
    frame.member("count", &json!(count));
    if let Some(total) = total {
        frame.member("total", &json!(total));
    }
    frame.finish()
}
