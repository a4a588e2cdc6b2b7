//! Messages: an event in the envelope of Standard Webhooks, and its signed headers.

use bytes::Bytes;
use serde_json::json;

use crate::events::frame::Kind;
use diorama_core::record::Id;
use diorama_inbound::signature::Signer;

/// Kind of message that a notification can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyEvent {
    /// A row was inserted, or matches the filter now.
    Inserted,
    /// A row has changed.
    Changed,
    /// A row was removed, or does not match the filter any more.
    Removed,
    /// Rows may have changed without events.
    Invalidated,
    /// A write has reached the source.
    WriteCommitted,
    /// A write was refused by the source.
    WriteFailed,
}

impl NotifyEvent {
    /// All events.
    pub const ALL: [NotifyEvent; 6] = [
        NotifyEvent::Inserted,
        NotifyEvent::Changed,
        NotifyEvent::Removed,
        NotifyEvent::Invalidated,
        NotifyEvent::WriteCommitted,
        NotifyEvent::WriteFailed,
    ];
    /// Events that are sent by default: those of rows.
    pub const USUAL: [NotifyEvent; 4] =
        [NotifyEvent::Inserted, NotifyEvent::Changed, NotifyEvent::Removed, NotifyEvent::Invalidated];

    /// Word of the event, as in the configuration and after the resource's name in `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            NotifyEvent::Inserted => "inserted",
            NotifyEvent::Changed => "changed",
            NotifyEvent::Removed => "removed",
            NotifyEvent::Invalidated => "invalidated",
            NotifyEvent::WriteCommitted => "write_committed",
            NotifyEvent::WriteFailed => "write_failed",
        }
    }

    pub(super) fn of(kind: Kind) -> NotifyEvent {
        match kind {
            Kind::Inserted | Kind::Entered => NotifyEvent::Inserted,
            Kind::Changed => NotifyEvent::Changed,
            Kind::Removed | Kind::Left => NotifyEvent::Removed,
            Kind::Invalidated => NotifyEvent::Invalidated,
            Kind::Committed => NotifyEvent::WriteCommitted,
            Kind::Failed => NotifyEvent::WriteFailed,
        }
    }
}

/// Message before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Value of `webhook-id`.
    pub(super) key: String,
    /// Row that it is about.
    pub(super) row: Option<Id>,
    /// Unix milliseconds of the event.
    pub(super) at: u64,
    pub(super) body: Bytes,
}

/// Builds the envelope `{"type":"orders.changed","timestamp":…,"data":…}`. `data` is JSON: the frame that subscribers of `/events` get.
pub(super) fn envelope(dio: &str, word: &str, at: u64, data: &[u8]) -> Bytes {
    let head = format!("{{\"type\":{},\"timestamp\":", json!(format!("{dio}.{word}")));
    let timestamp = json!(crate::http::response::moment(at)).to_string();
    [head.as_bytes(), timestamp.as_bytes(), b",\"data\":", data, b"}"].concat().into()
}

/// Returns the headers of an attempt at `now` (Unix seconds).
pub(super) fn headers(signer: &Signer, key: &str, now: u64, body: &[u8]) -> Vec<(&'static str, String)> {
    vec![
        ("webhook-id", key.to_string()),
        ("webhook-timestamp", now.to_string()),
        ("webhook-signature", signer.sign(key, now, body)),
    ]
}
