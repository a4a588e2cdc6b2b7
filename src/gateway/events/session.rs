//! One subscriber: a cursor into the Dio's ring, and the socket it feeds.
//!
//! A session never holds events of its own, so a slow one costs nobody anything: it is told to read again and closed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::frame::{self, Reset};
use crate::dio::{At, Dio, Position, Ring, RingItem};

/// Bytes of a client's message, at most: they only send small commands.
pub(super) const MOST_MESSAGE: usize = 64 << 10;
/// Events in one batch, between two looks at what else happens.
const BATCH: usize = 512;
/// A socket that takes nothing for so long is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a socket gets to take its close frame.
const GOODBYE: Duration = Duration::from_secs(2);
/// Messages that are not understood, until the socket is closed.
const STRIKES: u32 = 3;

mod close {
    pub(super) const GOING_AWAY: u16 = 1001;
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const UNSUPPORTED: u16 = 1003;
    pub(super) const NOT_UTF8: u16 = 1007;
    pub(super) const TOO_BIG: u16 = 1009;
    pub(super) const NO_PONG: u16 = 4001;
    pub(super) const SLOW: u16 = 4008;
    pub(super) const BAD_MESSAGE: u16 = 4508;
}

/// What a subscriber asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) since: Since,
    /// Whether rows are sent with their events.
    pub(super) records: bool,
    /// Only these rows; `None` for all.
    pub(super) ids: Option<HashSet<String>>,
    /// Seconds between two heartbeats.
    pub(super) heartbeat: u64,
}

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Since {
    Now,
    Earliest,
    Position(Position),
}

/// Why a session ends: a close code and words.
type End = (u16, &'static str);

/// A subscription that was resolved against the ring.
pub(super) struct Session {
    dio: Arc<str>,
    ring: Arc<Ring>,
    head: watch::Receiver<u64>,
    wish: Wish,
    /// The next item to look at.
    next: u64,
    /// Everything up to here was sent or does not concern this subscriber.
    position: Position,
    /// What the client has to know at once.
    gap: Option<Reset>,
    resumed: bool,
}

impl Session {
    pub(super) fn new(dio: &Dio, wish: Wish) -> Session {
        let ring = Arc::clone(dio.ring());
        let head = ring.watch();
        let now = dio.position();
        let (next, position, gap) = match resolve(&ring, &now, &wish.since) {
            Ok((next, position)) => (next, position, None),
            // Readers see `now` already; an event of before that is still on its way to the ring does no harm.
            Err(gap) => (ring.after(now.seq).unwrap_or_else(|| ring.end()), now, gap),
        };
        let resumed = wish.since != Since::Now && gap.is_none();
        Session { dio: dio.name().into(), ring, head, wish, next, position, gap, resumed }
    }

    /// Serves the socket until one side closes it; gives the close code, `None` if the client went by itself.
    pub(super) async fn run<S, E>(mut self, mut socket: S, closing: CancellationToken) -> Option<u16>
    where
        S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
        E: std::fmt::Display,
    {
        let end = tokio::select! {
            end = self.serve(&mut socket) => end,
            () = closing.cancelled() => Some((close::GOING_AWAY, "the server is stopping")),
        };
        let goodbye = async {
            // Without a code the peer has closed or is gone.
            let Some((code, reason)) = end else { return socket.close().await };
            if code == close::GOING_AWAY {
                socket.feed(text(frame::bye(code, reason))).await?;
            }
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            socket.send(Message::Close(Some(frame))).await?;
            // The peer's own close frame ends the connection properly.
            while let Some(Ok(_)) = socket.next().await {}
            Ok(())
        };
        let _ = timeout(GOODBYE, goodbye).await;
        end.map(|(code, _)| code)
    }

    async fn serve<S, E>(&mut self, socket: &mut S) -> Option<End>
    where
        S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
        E: std::fmt::Display,
    {
        let every = Duration::from_secs(self.wish.heartbeat);
        let mut beat = interval(every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        let mut heard = Instant::now();
        let mut strikes = 0;
        if let Err(end) = self.greet(socket).await {
            return end;
        }
        loop {
            let step = tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    self.answer(socket, message, &mut strikes).await
                }
                () = waiting(&self.ring, &mut self.head, self.next) => self.batch(socket).await,
                _ = beat.tick() => {
                    if heard.elapsed() > 2 * every + PATIENCE {
                        return Some((close::NO_PONG, "no pong"));
                    }
                    put(socket, [text(frame::heartbeat(&self.position)), Message::Ping(Bytes::new())]).await
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn greet<S, E>(&self, socket: &mut S) -> Result<(), Option<End>>
    where
        S: Sink<Message, Error = E> + Unpin,
    {
        let hello = frame::hello(&self.dio, &self.position, self.resumed, self.missed(), self.wish.heartbeat);
        let reset = self.gap.map(|reason| frame::reset(reason, &self.position));
        put(socket, std::iter::once(hello).chain(reset).map(text)).await
    }

    /// How many events have happened that are still to be sent.
    fn missed(&self) -> u64 {
        let items = (self.next..self.ring.end()).filter(|at| match self.ring.at(*at) {
            At::Item(item) => item.seq.is_some_and(|seq| seq > self.position.seq) && self.concerns(&item),
            At::End | At::Gone { .. } | At::Closed => false,
        });
        items.count() as u64
    }

    fn concerns(&self, item: &RingItem) -> bool {
        match (&self.wish.ids, frame::subject(item)) {
            (Some(ids), Some(id)) => ids.contains(id),
            _ => true,
        }
    }

    /// Sends what waits, with one flush.
    async fn batch<S, E>(&mut self, socket: &mut S) -> Result<(), Option<End>>
    where
        S: Sink<Message, Error = E> + Unpin,
    {
        let epoch = self.ring.epoch();
        if epoch != self.position.epoch {
            return self.restart(socket, epoch).await;
        }
        for _ in 0..BATCH {
            match self.ring.at(self.next) {
                At::Item(item) => {
                    self.next += 1;
                    if self.concerns(&item)
                        && let Some(frame) = frame::event(&item, self.wish.records)
                    {
                        within(socket.feed(text(frame))).await?;
                    }
                    self.position.seq = item.seq.unwrap_or(0).max(self.position.seq);
                }
                At::End => break,
                At::Gone { .. } => {
                    put(socket, [text(frame::reset(Reset::Overflow, &self.position))]).await?;
                    return Err(Some((close::SLOW, "too slow: read again")));
                }
                At::Closed => {
                    within(socket.flush()).await?;
                    return Err(Some((close::GOING_AWAY, "the resource is closed")));
                }
            }
        }
        within(socket.flush()).await
    }

    /// The history was replaced: what was sent is not continued.
    async fn restart<S, E>(&mut self, socket: &mut S, epoch: Arc<str>) -> Result<(), Option<End>>
    where
        S: Sink<Message, Error = E> + Unpin,
    {
        let seq = self.ring.floor();
        self.next = self.ring.after(seq).unwrap_or_else(|| self.ring.end());
        self.position = Position { epoch, seq };
        put(socket, [text(frame::reset(Reset::Epoch, &self.position))]).await
    }

    async fn answer<S, E>(
        &self,
        socket: &mut S,
        message: Option<Result<Message, E>>,
        strikes: &mut u32,
    ) -> Result<(), Option<End>>
    where
        S: Sink<Message, Error = E> + Unpin,
        E: std::fmt::Display,
    {
        let said = match message {
            None | Some(Ok(Message::Close(_))) => return Err(None),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(()),
            Some(Ok(Message::Binary(_))) => return Err(Some((close::UNSUPPORTED, "text frames only"))),
            Some(Ok(Message::Text(said))) => said,
            Some(Err(error)) => return Err(failed(&error.to_string())),
        };
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        if said["type"] == "ping" {
            return put(socket, [text(frame::pong(&said["n"], &self.position))]).await;
        }
        *strikes += 1;
        put(socket, [text(frame::error("bad-message", r#"this socket understands {"type":"ping","n":1}"#))]).await?;
        if *strikes >= STRIKES { Err(Some((close::BAD_MESSAGE, "not understood"))) } else { Ok(()) }
    }
}

/// Where in the ring a subscription begins and which position that is; else why it cannot, `None` if it wants no past.
fn resolve(ring: &Ring, now: &Position, since: &Since) -> Result<(u64, Position), Option<Reset>> {
    let from = match since {
        Since::Now => return Err(None),
        Since::Earliest => Position { epoch: ring.epoch(), seq: ring.floor() },
        Since::Position(position) => position.clone(),
    };
    if from.epoch != now.epoch {
        return Err(Some(Reset::Epoch));
    }
    if from.seq > now.seq {
        return Err(Some(Reset::Future));
    }
    match ring.after(from.seq) {
        Some(next) => Ok((next, from)),
        None => Err(Some(Reset::Trimmed)),
    }
}

/// Returns when there is something at `next`.
async fn waiting(ring: &Ring, head: &mut watch::Receiver<u64>, next: u64) {
    loop {
        head.borrow_and_update();
        if !matches!(ring.at(next), At::End) || head.changed().await.is_err() {
            return;
        }
    }
}

/// Sends messages with one flush.
async fn put<S, E>(socket: &mut S, messages: impl IntoIterator<Item = Message>) -> Result<(), Option<End>>
where
    S: Sink<Message, Error = E> + Unpin,
{
    for message in messages {
        within(socket.feed(message)).await?;
    }
    within(socket.flush()).await
}

async fn within<E>(write: impl Future<Output = Result<(), E>>) -> Result<(), Option<End>> {
    match timeout(PATIENCE, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some((close::SLOW, "too slow: nothing was taken for 10 s"))),
    }
}

/// The library gives the reason of a failed read in words only.
fn failed(error: &str) -> Option<End> {
    match error {
        error if error.contains("UTF-8") => Some((close::NOT_UTF8, "text frames are UTF-8")),
        error if error.contains("too long") => Some((close::TOO_BIG, "messages are at most 64 KiB")),
        error if error.contains("protocol error") && !error.contains("without closing handshake") => {
            Some((close::PROTOCOL, "protocol error"))
        }
        _ => None,
    }
}

/// Frames are made of JSON text by this program.
fn text(frame: Bytes) -> Message {
    Message::Text(Utf8Bytes::try_from(frame).unwrap_or_default())
}

#[cfg(test)]
mod tests;
