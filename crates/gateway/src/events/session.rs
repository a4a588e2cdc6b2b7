//! WebSocket session: sends the frames of its subscriptions and executes commands of the client.

use std::pin::pin;
use std::sync::Weak;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes};
use bytes::Bytes;
use futures_util::future::poll_immediate;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::command;
use super::cursor::CursorEnd;
use super::frame::{self, Encoding};
use super::request::ConnectionOptions;
use super::sockets::SocketPermit;
use super::subscriptions::Subscriptions;
use crate::auth::validity::Validity;
use crate::state::GatewayState;

/// Maximum size of a client's message, in bytes. Clients send small commands only.
pub(super) const MOST_MESSAGE: usize = 64 << 10;
/// Time after which a socket that accepts no data is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for a socket to receive its close frame.
const GOODBYE: Duration = Duration::from_secs(2);
/// Number of invalid messages at which the socket is closed.
const STRIKES: u32 = 3;
/// Rate limiter of a client's messages: size of the bucket.
const BURST: f64 = 40.0;
/// Rate limiter of a client's messages: tokens per second.
const RATE: f64 = 20.0;

mod close {
    pub(super) const GOING_AWAY: u16 = 1001;
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const UNSUPPORTED: u16 = 1003;
    pub(super) const NOT_UTF8: u16 = 1007;
    pub(super) const TOO_BIG: u16 = 1009;
    pub(super) use crate::auth::validity::CLOSE as CREDENTIAL;

    pub(super) const NO_PONG: u16 = 4001;
    pub(super) const SLOW: u16 = 4008;
    pub(super) const FORBIDDEN: u16 = 4403;
    pub(super) const TOO_MANY: u16 = 4429;
    pub(super) const BAD_MESSAGE: u16 = 4508;
}

/// Close code and reason of a session's end.
pub(super) type CloseReason = (u16, &'static str);

/// End of a connection that was opened under other access rules.
pub(super) const OTHER_RULES: CloseReason = (close::FORBIDDEN, "the access rules have changed: connect again");

/// Session of one socket.
pub(super) struct Session {
    subs: Subscriptions,
    connection: ConnectionOptions,
    /// Gateway, for further subscriptions; `None` if the path names the resource. The reference is weak, so that a socket does
    /// not keep a Dio from closing.
    gateway: Option<Weak<GatewayState>>,
    /// Number of messages that the client may send now.
    allowance: f64,
    last_message: Instant,
    strikes: u32,
    /// Timer of the caller's credential.
    validity: Validity,
}

impl Session {
    pub(super) fn new(
        subs: Subscriptions,
        connection: ConnectionOptions,
        gateway: Option<Weak<GatewayState>>,
    ) -> Session {
        let validity = Validity::of(subs.principal());
        Session { subs, connection, gateway, allowance: BURST, last_message: Instant::now(), strikes: 0, validity }
    }

    /// Serves the socket until one side closes it. Returns the close code; `None` if the client closed.
    pub(super) async fn run<S, E>(mut self, mut socket: S, permit: &SocketPermit) -> Option<u16>
    where
        S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
        E: std::fmt::Display,
    {
        let end = tokio::select! {
            end = self.serve(&mut socket) => end,
            () = permit.closing() => Some((close::GOING_AWAY, "the server is stopping")),
        };
        let (encoding, code) = (self.subs.encoding, end.map(|(code, _)| code));
        // The subscriptions end here, so that the Dios do not wait for the close handshake.
        self.subs.closed(code);
        let goodbye = async {
            // Without a code, the peer has closed or disconnected.
            let Some((code, reason)) = end else { return socket.close().await };
            // Otherwise a pong that the library has queued would follow the close frame.
            socket.flush().await?;
            if code == close::GOING_AWAY {
                socket.feed(message(encoding, frame::bye(encoding, code, reason))).await?;
            }
            let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
            socket.send(Message::Close(Some(frame))).await?;
            // The peer's close frame completes the close handshake.
            while let Some(Ok(_)) = socket.next().await {}
            Ok(())
        };
        let _ = timeout(GOODBYE, goodbye).await;
        code
    }

    async fn serve<S, E>(&mut self, socket: &mut S) -> Option<CloseReason>
    where
        S: Stream<Item = Result<Message, E>> + Sink<Message, Error = E> + Unpin,
        E: std::fmt::Display,
    {
        let every = Duration::from_secs(self.connection.heartbeat);
        let mut beat = interval(every);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset();
        self.last_message = Instant::now();
        // Each hello is sent before any reply to a message that has already arrived.
        for _ in 0..self.subs.len() {
            if let Err(end) = self.send(socket).await {
                return end;
            }
        }
        loop {
            let step = tokio::select! {
                message = socket.next() => self.answer(socket, message).await,
                () = self.subs.ready() => self.send(socket).await,
                end = self.validity.ended() => return Some((close::CREDENTIAL, end.as_str())),
                _ = beat.tick() => {
                    if self.last_message.elapsed() > 2 * every + PATIENCE {
                        return Some((close::NO_PONG, "no pong"));
                    }
                    if !self.subs.are_permitted() {
                        return Some(OTHER_RULES);
                    }
                    let encoding = self.subs.encoding;
                    let beats: Vec<_> = self.subs.heartbeats().map(|beat| message(encoding, beat)).collect();
                    put(socket, beats.into_iter().chain([Message::Ping(Bytes::new())])).await
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Sends the next batch, with one flush.
    async fn send<S, E>(&mut self, socket: &mut S) -> Result<(), Option<CloseReason>>
    where
        S: Sink<Message, Error = E> + Unpin,
        E: std::fmt::Display,
    {
        match self.subs.batch().await {
            Ok(sent) => {
                let encoding = self.subs.encoding;
                put(socket, sent.into_iter().map(|sent| message(encoding, sent.frame))).await
            }
            Err(CursorEnd::Closed) => Err(Some((close::GOING_AWAY, "the resource is closed"))),
            Err(CursorEnd::Slow) => Err(Some((close::SLOW, "too slow: read again"))),
            Err(CursorEnd::Rules) => Err(Some(OTHER_RULES)),
        }
    }

    async fn answer<S, E>(
        &mut self,
        socket: &mut S,
        incoming: Option<Result<Message, E>>,
    ) -> Result<(), Option<CloseReason>>
    where
        S: Sink<Message, Error = E> + Unpin,
        E: std::fmt::Display,
    {
        let now = Instant::now();
        let passed = now.duration_since(std::mem::replace(&mut self.last_message, now));
        self.allowance = (self.allowance + passed.as_secs_f64() * RATE).min(BURST) - 1.0;
        if self.allowance < 0.0 {
            return Err(Some((close::TOO_MANY, "too many messages: at most 20 a second")));
        }
        let payload = match (incoming, self.subs.encoding) {
            (None | Some(Ok(Message::Close(_))), _) => return Err(None),
            (Some(Ok(Message::Ping(_) | Message::Pong(_))), _) => return Ok(()),
            (Some(Ok(Message::Text(text))), Encoding::Json) => Bytes::from(text),
            (Some(Ok(Message::Binary(bytes))), Encoding::Cbor) => bytes,
            (Some(Ok(Message::Binary(_))), Encoding::Json) => {
                return Err(Some((close::UNSUPPORTED, "text frames only")));
            }
            (Some(Ok(Message::Text(_))), Encoding::Cbor) => {
                return Err(Some((close::UNSUPPORTED, "binary frames only")));
            }
            (Some(Err(error)), _) => return Err(close_reason(&error.to_string())),
        };
        let answer = match command::read(self.subs.encoding, &payload) {
            // Boxed because it is rare: the future of a socket that only listens stays small.
            Some(command) => Box::pin(command::execute(command, &mut self.subs, self.gateway.as_ref())).await,
            None => None,
        };
        self.validity.renew(self.subs.principal());
        let encoding = self.subs.encoding;
        if let Some(answer) = answer {
            return put(socket, answer.map(|answer| message(encoding, answer))).await;
        }
        self.strikes += 1;
        let error = frame::error(encoding, "bad-message", command::usage(self.gateway.is_some()), None);
        put(socket, [message(encoding, error)]).await?;
        if self.strikes >= STRIKES { Err(Some((close::BAD_MESSAGE, "not understood"))) } else { Ok(()) }
    }
}

/// Sends messages with one flush.
async fn put<S, E>(socket: &mut S, messages: impl IntoIterator<Item = Message>) -> Result<(), Option<CloseReason>>
where
    S: Sink<Message, Error = E> + Unpin,
    E: std::fmt::Display,
{
    for message in messages {
        within(socket.feed(message)).await?;
    }
    within(socket.flush()).await
}

async fn within<E: std::fmt::Display>(write: impl Future<Output = Result<(), E>>) -> Result<(), Option<CloseReason>> {
    const STALLED: Option<CloseReason> = Some((close::SLOW, "too slow: nothing was taken for 10 s"));
    let mut write = pin!(write);
    // Most writes complete at once, and reading the clock takes longer than they do.
    let done = match poll_immediate(&mut write).await {
        Some(done) => Ok(done),
        None => timeout(PATIENCE, write).await,
    };
    match done {
        Ok(Ok(())) => Ok(()),
        // The timeout of the HTTP server may have fired first.
        Ok(Err(error)) if error.to_string().contains("timed out") => Err(STALLED),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(STALLED),
    }
}

/// Maps the error of a failed read to a close code. The library gives the reason as text only.
fn close_reason(error: &str) -> Option<CloseReason> {
    match error {
        error if error.contains("UTF-8") => Some((close::NOT_UTF8, "text frames are UTF-8")),
        error if error.contains("too long") => Some((close::TOO_BIG, "messages are at most 64 KiB")),
        error if error.contains("protocol error") && !error.contains("without closing handshake") => {
            Some((close::PROTOCOL, "protocol error"))
        }
        _ => None,
    }
}

/// Wraps a frame in a message. JSON frames are always valid UTF-8, because this program built them.
fn message(encoding: Encoding, frame: Bytes) -> Message {
    match encoding {
        Encoding::Json => Message::Text(Utf8Bytes::try_from(frame).unwrap_or_default()),
        Encoding::Cbor => Message::Binary(frame),
    }
}

#[cfg(test)]
mod tests;
