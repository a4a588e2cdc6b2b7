//! WebSocket feed: connected for as long as the Dio lives, resumed if the sender supports it, also after a restart, and otherwise
//! followed by a refresh of the source.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::header::{HeaderName, HeaderValue};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use xxhash_rust::xxh3::xxh3_128;

use super::frames::{self, FeedPosition};
use crate::connector::FeedFormat;
use crate::feed::{Channel, Intake, Message as FeedMessage, follow};
use crate::tls::{self, Verification};
use diorama_core::dio::{Dio, Inbound};
use diorama_core::state::Origin;
use diorama_core::vista::{Error, Result};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket that sends changes.
#[derive(Clone, Debug)]
pub struct WsFeed {
    /// `ws://` or `wss://`
    pub url: String,
    /// Format of its messages.
    pub format: FeedFormat,
    /// Headers of the request, which may contain secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Certificates, as PEM, of the authorities to trust instead of the public ones.
    pub ca: Option<Vec<u8>>,
    /// Text to send after connecting.
    pub subscribe: Option<String>,
    /// Time without any frame, pongs included, after which the connection is closed (default: 60 s).
    pub idle: Duration,
    /// Maximum size of one message in bytes (default: 1 MiB).
    pub max_message: usize,
    /// Pause between two attempts to connect: initial and maximum (default: 500 ms, 30 s).
    pub backoff: (Duration, Duration),
}

/// Maximum number of messages that are applied together.
const BATCH: usize = 64;
/// Timeout for connecting.
const CONNECT: Duration = Duration::from_secs(10);

impl WsFeed {
    /// A feed with default settings.
    pub fn new(url: impl Into<String>, format: FeedFormat) -> WsFeed {
        WsFeed {
            url: url.into(),
            format,
            headers: Vec::new(),
            ca: None,
            subscribe: None,
            idle: Duration::from_secs(60),
            max_message: 1 << 20,
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
        }
    }

    /// Listens for as long as `dio` lives. [`Dio::status`] reports the state.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is not valid, or `ca` contains no certificate.
    pub fn start(self, dio: &Dio) -> Result<()> {
        let plain = self.url.split('?').next().unwrap_or_default().to_string();
        let wrong = |error: String| Error::Config(format!("{plain} cannot be listened to: {error}"));
        if !(plain.starts_with("ws://") || plain.starts_with("wss://")) {
            return Err(wrong("the URL must begin with ws:// or wss://".into()));
        }
        self.request(None).map_err(|error| wrong(error.to_string()))?;
        let trust =
            self.ca.as_deref().map(|pem| tls::client(&Verification::Authorities(pem))).transpose().map_err(wrong)?;
        let intake = Intake::new(dio, plain, &self.key(), self.backoff);
        dio.listen(follow(Listener { feed: self, trust, position: None }, intake));
        Ok(())
    }

    /// Name of the feed's mark. A feed of other events has another one. A hash, because the URL may contain a secret.
    fn key(&self) -> String {
        let subscribe = self.subscribe.as_deref().unwrap_or_default();
        format!("ws:{:032x}", xxh3_128(format!("{}\n{subscribe}", self.url).as_bytes()))
    }

    fn request(&self, since: Option<&str>) -> std::result::Result<http::Request<()>, WsError> {
        let url = match since {
            Some(since) => format!("{}{}since={since}", self.url, if self.url.contains('?') { '&' } else { '?' }),
            None => self.url.clone(),
        };
        let mut request = url.into_client_request()?;
        request.headers_mut().extend(self.headers.iter().cloned());
        Ok(request)
    }
}

/// Channel of a WebSocket.
struct Listener {
    feed: WsFeed,
    /// TLS configuration; `None` trusts the public authorities.
    trust: Option<Arc<ClientConfig>>,
    /// Position in the sender's history up to which events were read: epoch and sequence number.
    position: Option<(String, u64)>,
}

#[async_trait]
impl Channel for Listener {
    type Connection = Socket;

    fn resume(&mut self, position: &Bytes) -> bool {
        let position = std::str::from_utf8(position).ok().filter(|position| self.feed.request(Some(position)).is_ok());
        self.position = position.filter(|_| self.resends()).and_then(parse_position);
        self.position.is_some()
    }

    async fn connect(&mut self, intake: &mut Intake) -> std::result::Result<Socket, String> {
        let since = self.sender_position();
        let request = self.feed.request(since.as_deref()).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(self.feed.max_message))
            .max_frame_size(Some(self.feed.max_message));
        let connector = self.trust.clone().map(Connector::Rustls);
        let connecting = connect_async_tls_with_config(request, Some(config), true, connector);
        let (mut socket, _) = match timeout(CONNECT, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("no connection within {} s", CONNECT.as_secs())),
        };
        if let Some(subscribe) = &self.feed.subscribe {
            socket.send(Message::text(subscribe.clone())).await.map_err(|error| error.to_string())?;
        }
        if let FeedFormat::Inbound(_) = self.feed.format {
            // The sender cannot resend messages that were missed.
            intake.note_gap();
        }
        Ok(socket)
    }

    async fn listen(&mut self, mut socket: Socket, intake: &mut Intake) -> std::result::Result<(), String> {
        let (mut last_frame, mut pinged) = (Instant::now(), false);
        loop {
            let may_refresh = self.may_refresh();
            if may_refresh && !intake.begin_refresh() {
                return Ok(());
            }
            let quiet = if pinged { self.feed.idle } else { self.feed.idle / 2 };
            tokio::select! {
                message = socket.next() => {
                    (last_frame, pinged) = (Instant::now(), false);
                    let changes = self.receive(&mut socket, intake, message).await?;
                    if !intake.apply(changes, self.sender_position().map(Bytes::from)).await {
                        return Ok(());
                    }
                }
                () = intake.refreshed(), if may_refresh => {}
                () = sleep_until(last_frame + quiet) => {
                    if pinged {
                        return Err(format!("nothing was received for {} s", self.feed.idle.as_secs()));
                    }
                    pinged = true;
                    socket.send(Message::Ping(Vec::new().into())).await.map_err(|error| error.to_string())?;
                }
            }
        }
    }
}

impl Listener {
    /// Returns true if the source may be refreshed. Another Diorama first sends the position at which its events begin; rows read
    /// before that may be older.
    fn may_refresh(&self) -> bool {
        !self.resends() || self.position.is_some()
    }

    /// Returns true if the sender can resend events.
    fn resends(&self) -> bool {
        matches!(self.feed.format, FeedFormat::Diorama)
    }

    /// Position from which the sender can resend events, as it writes it.
    fn sender_position(&self) -> Option<String> {
        self.position.as_ref().filter(|_| self.resends()).map(|(epoch, seq)| format!("{epoch}:{seq}"))
    }

    /// Decodes `first` and the messages after it that have already arrived.
    async fn receive(
        &mut self,
        socket: &mut Socket,
        intake: &mut Intake,
        first: Option<std::result::Result<Message, WsError>>,
    ) -> std::result::Result<Vec<Inbound>, String> {
        let mut changes = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            let message = match message {
                Some(Ok(message)) => message,
                // Messages before the end are applied first; the end is reported again.
                Some(Err(_)) | None if !changes.is_empty() => return Ok(changes),
                Some(Err(error)) => {
                    if matches!(error, WsError::Capacity(_)) {
                        // Resuming would receive the same message again and again.
                        self.position = None;
                        intake.note_gap();
                    }
                    return Err(error.to_string());
                }
                None => return Err("the connection was closed".into()),
            };
            match message {
                Message::Text(text) => self.read(text.as_bytes(), intake, &mut changes),
                Message::Binary(bytes) => self.read(&bytes, intake, &mut changes),
                Message::Close(frame) => {
                    let why = frame.map_or("the sender closed the connection".into(), |frame| {
                        format!("the sender closed the connection: {} {}", frame.code, frame.reason)
                    });
                    return if changes.is_empty() { Err(why) } else { Ok(changes) };
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
            next = if changes.len() < BATCH { socket.next().now_or_never() } else { None };
        }
        Ok(changes)
    }

    fn read(&mut self, message: &[u8], intake: &mut Intake, changes: &mut Vec<Inbound>) {
        intake.count_message();
        let read = match &self.feed.format {
            FeedFormat::Diorama => read_frame(&mut self.position, message, changes),
            FeedFormat::Inbound(hook) => intake.read_message(hook, &FeedMessage::of_value(message), changes),
        };
        match read {
            Ok(true) => intake.note_gap(),
            Ok(false) => {}
            Err(error) => intake.undecodable(&error),
        }
    }
}

/// Parses `epoch:seq`.
fn parse_position(text: &str) -> Option<(String, u64)> {
    let (epoch, seq) = text.rsplit_once(':')?;
    Some((epoch.to_string(), seq.parse().ok()?))
}

/// Reads a frame of another Diorama and updates `position`. Returns true if events may have been missed.
fn read_frame(
    position: &mut Option<(String, u64)>,
    frame: &[u8],
    changes: &mut Vec<Inbound>,
) -> std::result::Result<bool, String> {
    let content = frames::read(frame)?;
    match (content.position, &mut *position) {
        (Some(FeedPosition::Position(next)), position) => {
            *position = parse_position(&next);
        }
        (Some(FeedPosition::Seq(seq)), Some((_, known))) => *known = seq,
        _ => {}
    }
    changes.extend(content.event.map(|event| Inbound { origin: Origin::Feed, ..Inbound::from(event) }));
    Ok(content.gap)
}
