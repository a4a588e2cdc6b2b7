//! Events as a response body: server-sent events, which continue, and long polls, which end after the first events.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, sleep_until};

use super::cursor::{CursorEnd, OutgoingFrame};
use super::frame::{self, Encoding};
use super::request::ConnectionOptions;
use super::session::{CloseReason, OTHER_RULES};
use super::sockets::SocketPermit;
use super::subscriptions::Subscriptions;
use crate::auth::validity::{self, Validity};
use crate::http::negotiate::Format;

/// Time after which a browser reconnects, in milliseconds.
const RETRY: u32 = 2_000;

/// Format of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// `text/event-stream`.
    Sse,
    /// JSON array of frames.
    Array,
    /// NDJSON: one frame a line.
    Lines,
}

/// Next part of the body.
#[derive(PartialEq, Eq)]
enum Phase {
    Head,
    Frames,
    Over,
}

/// Body of a response that follows events.
struct Stream {
    subs: Subscriptions,
    permit: SocketPermit,
    transport: Transport,
    phase: Phase,
    every: Duration,
    /// Time of the next heartbeat, or of the end of a long poll.
    due: Instant,
    /// True once a frame was sent that ends a long poll.
    has_events: bool,
    count: usize,
    /// Timer of the caller's credential.
    validity: Validity,
}

/// Builds the response; its body is generated while events occur.
pub(super) fn respond(
    subs: Subscriptions,
    connection: ConnectionOptions,
    transport: Transport,
    permit: SocketPermit,
) -> Response {
    let every = match transport {
        Transport::Sse => Duration::from_secs(connection.heartbeat),
        Transport::Array | Transport::Lines => connection.wait(),
    };
    let due = Instant::now() + every;
    let (phase, validity) = (Phase::Head, Validity::of(subs.principal()));
    let stream = Stream { subs, permit, transport, phase, every, due, has_events: false, count: 0, validity };
    let body = stream::unfold(stream, |mut stream| async {
        let piece = stream.piece().await?;
        Some((Ok::<_, Infallible>(piece), stream))
    });
    with_headers(Body::from_stream(body), transport)
}

/// Builds a stream of server-sent events that ends at once, so that the client reconnects.
pub(super) fn retry_later() -> Response {
    let body = format!("retry: {RETRY}\n: the first copy is still being read\n\n");
    with_headers(Body::from(body), Transport::Sse)
}

fn with_headers(body: Body, transport: Transport) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_TYPE,
        match transport {
            Transport::Sse => HeaderValue::from_static("text/event-stream"),
            Transport::Array => Format::Json.content_type(),
            Transport::Lines => Format::Ndjson.content_type(),
        },
    );
    if transport == Transport::Sse {
        headers.insert(header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    }
    response
}

impl Stream {
    /// Returns the next piece of the body; `None` after the last.
    async fn piece(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Over => return None,
            Phase::Frames => {}
            Phase::Head => {
                self.phase = Phase::Frames;
                match self.transport {
                    Transport::Sse => return Some(format!("retry: {RETRY}\n\n").into()),
                    Transport::Array => return Some(Bytes::from_static(b"[")),
                    Transport::Lines => {}
                }
            }
        }
        loop {
            if self.transport != Transport::Sse && self.has_events && !self.subs.is_ready() {
                return Some(self.end());
            }
            tokio::select! {
                biased;
                () = self.permit.stopping() => return Some(self.leave((1001, "the server is stopping"))),
                end = self.validity.ended() => return Some(self.leave((validity::CLOSE, end.as_str()))),
                () = self.subs.ready() => match self.subs.batch().await {
                    Ok(sent) if sent.is_empty() => {}
                    Ok(sent) => {
                        self.has_events |= sent.iter().any(|sent| sent.is_event);
                        return Some(self.render(&sent).into());
                    }
                    Err(CursorEnd::Rules) => return Some(self.leave(OTHER_RULES)),
                    Err(CursorEnd::Closed | CursorEnd::Slow) => return Some(self.end()),
                },
                () = sleep_until(self.due) => match self.transport {
                    _ if !self.subs.are_permitted() => return Some(self.leave(OTHER_RULES)),
                    Transport::Sse => return Some(self.beat()),
                    Transport::Array | Transport::Lines => return Some(self.end()),
                },
            }
        }
    }

    /// Builds a comment that keeps the connection alive, and the resume position, which a browser stores without an event.
    fn beat(&mut self) -> Bytes {
        self.due = Instant::now() + self.every;
        match self.subs.bookmark() {
            Some(bookmark) => format!(": heartbeat\nid: {bookmark}\n\n").into(),
            None => Bytes::from_static(b": heartbeat\n\n"),
        }
    }

    /// Builds the last piece, with a frame that has the reason of the end.
    fn leave(&mut self, (code, reason): CloseReason) -> Bytes {
        let bye = frame::bye(Encoding::Json, code, reason);
        let mut last = self.render(&[OutgoingFrame::control(bye, None)]);
        last.extend(self.end());
        last.into()
    }

    /// Builds the last piece. In a long poll it contains the resume positions.
    fn end(&mut self) -> Bytes {
        self.phase = Phase::Over;
        if self.transport == Transport::Sse {
            return Bytes::new();
        }
        let beats: Vec<_> = self.subs.heartbeats().map(|frame| OutgoingFrame::control(frame, None)).collect();
        let mut last = self.render(&beats);
        if self.transport == Transport::Array {
            last.extend_from_slice(b"]\n");
        }
        last.into()
    }

    fn render(&mut self, batch: &[OutgoingFrame]) -> Vec<u8> {
        let mut out = Vec::with_capacity(batch.iter().map(|sent| sent.frame.len() + 48).sum());
        let single = self.subs.epoch();
        let last = batch.iter().rposition(|sent| sent.seq.is_some());
        for (at, sent) in batch.iter().enumerate() {
            match self.transport {
                Transport::Array if self.count > 0 => out.extend_from_slice(b",\n"),
                Transport::Array | Transport::Lines => {}
                Transport::Sse => {
                    let bookmark = match (&single, sent.seq) {
                        (Some(epoch), Some(seq)) => Some(format!("{epoch}:{seq}")),
                        // A bookmark of several subscriptions is valid at the end of the batch only.
                        (None, Some(_)) if last == Some(at) => self.subs.bookmark(),
                        _ => None,
                    };
                    if let Some(bookmark) = bookmark {
                        out.extend_from_slice(b"id: ");
                        out.extend_from_slice(bookmark.as_bytes());
                        out.push(b'\n');
                    }
                    out.extend_from_slice(b"data: ");
                }
            }
            out.extend_from_slice(&sent.frame);
            match self.transport {
                Transport::Sse => out.extend_from_slice(b"\n\n"),
                Transport::Lines => out.push(b'\n'),
                Transport::Array => {}
            }
            self.count += 1;
        }
        out
    }
}
