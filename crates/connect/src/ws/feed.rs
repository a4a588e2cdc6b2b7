//! A WebSocket that is listened to: connected for as long as the Dio lives, resumed where the sender can, followed by a reading
//! of the source where it cannot.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::header::{HeaderName, HeaderValue};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::frames::{self, FeedPosition};
use crate::feed::{Channel, FeedFormat, Intake, follow};
use diorama_core::dio::{Dio, Inbound};
use diorama_core::state::Origin;
use diorama_core::vista::{Error, Result};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket to listen to.
#[derive(Clone, Debug)]
pub struct WsFeed {
    /// `ws://` or `wss://`
    pub url: String,
    /// How its messages are understood.
    pub format: FeedFormat,
    /// Headers of the request, with secrets in them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Certificates of the authorities to trust instead of the public ones, as PEM.
    pub ca: Option<Vec<u8>>,
    /// What is sent first.
    pub subscribe: Option<String>,
    /// A connection that is silent for so long, pings and all, is given up (default: 60 s).
    pub idle: Duration,
    /// Bytes of one message, at most (default: 1 MiB).
    pub max_message: usize,
    /// Between two attempts to connect, at first and at most (default: 500 ms, 30 s).
    pub backoff: (Duration, Duration),
}

/// Messages that are applied together.
const BATCH: usize = 64;
/// How long a connection may take to be made.
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

    /// Listens for as long as `dio` lives; [`Dio::status`] tells how it is doing.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is none, or there are no certificates where there should be.
    pub fn start(self, dio: &Dio) -> Result<()> {
        let plain = self.url.split('?').next().unwrap_or_default().to_string();
        let wrong = |error: String| Error::Config(format!("{plain} cannot be listened to: {error}"));
        if !(plain.starts_with("ws://") || plain.starts_with("wss://")) {
            return Err(wrong("it begins with ws:// or wss://".into()));
        }
        self.request(None).map_err(|error| wrong(error.to_string()))?;
        let trust = self.ca.as_deref().map(trust).transpose().map_err(wrong)?;
        let intake = Intake::new(dio, plain, self.backoff);
        dio.listen(follow(Listener { feed: self, trust, place: None }, intake));
        Ok(())
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

/// Belief in servers with a certificate of the authorities in `pem`, and in no others.
fn trust(pem: &[u8]) -> std::result::Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("ca: {error}"))?;
        roots.add(certificate).map_err(|error| format!("ca: {error}"))?;
    }
    if roots.is_empty() {
        return Err("ca: there is no certificate in it: PEM begins with -----BEGIN CERTIFICATE-----".into());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A WebSocket that is listened to.
struct Listener {
    feed: WsFeed,
    /// Whose certificates are believed, if not the public ones.
    trust: Option<Arc<ClientConfig>>,
    /// Where the other's history was read to: its epoch and number.
    place: Option<(String, u64)>,
}

#[async_trait]
impl Channel for Listener {
    type Connection = Socket;

    async fn connect(&mut self, intake: &mut Intake) -> std::result::Result<Socket, String> {
        let since = self.place.as_ref().map(|(epoch, seq)| format!("{epoch}:{seq}"));
        let since = since.filter(|_| matches!(self.feed.format, FeedFormat::Diorama));
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
            // It cannot be asked what was sent meanwhile.
            intake.owe();
        }
        Ok(socket)
    }

    async fn listen(&mut self, mut socket: Socket, intake: &mut Intake) -> std::result::Result<(), String> {
        let (mut heard, mut pinged) = (Instant::now(), false);
        loop {
            let may_refresh = self.may_refresh();
            if may_refresh && !intake.begin_refresh() {
                return Ok(());
            }
            let quiet = if pinged { self.feed.idle } else { self.feed.idle / 2 };
            tokio::select! {
                message = socket.next() => {
                    (heard, pinged) = (Instant::now(), false);
                    let changes = self.gather(&mut socket, intake, message).await?;
                    if !changes.is_empty() && !intake.apply(changes).await {
                        return Ok(());
                    }
                }
                () = intake.refreshed(), if may_refresh => {}
                () = sleep_until(heard + quiet) => {
                    if pinged {
                        return Err(format!("nothing was heard for {} s", self.feed.idle.as_secs()));
                    }
                    pinged = true;
                    socket.send(Message::Ping(Vec::new().into())).await.map_err(|error| error.to_string())?;
                }
            }
        }
    }
}

impl Listener {
    /// Another Diorama says first where its events begin: what is read before that may be older.
    fn may_refresh(&self) -> bool {
        matches!(self.feed.format, FeedFormat::Inbound(_)) || self.place.is_some()
    }

    /// What `first` and the messages behind it that are here already say.
    async fn gather(
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
                // What came before it is applied first; the end is met again.
                Some(Err(_)) | None if !changes.is_empty() => return Ok(changes),
                Some(Err(error)) => {
                    if matches!(error, WsError::Capacity(_)) {
                        // It would be sent again and again.
                        self.place = None;
                        intake.owe();
                    }
                    return Err(error.to_string());
                }
                None => return Err("the connection has ended".into()),
            };
            match message {
                Message::Text(text) => self.read(text.as_bytes(), intake, &mut changes),
                Message::Binary(bytes) => self.read(&bytes, intake, &mut changes),
                Message::Close(frame) => {
                    let why = frame.map_or("it was closed".into(), |frame| {
                        format!("it was closed: {} {}", frame.code, frame.reason)
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
        intake.heard();
        let read = match &self.feed.format {
            FeedFormat::Diorama => read_frame(&mut self.place, message, changes),
            FeedFormat::Inbound(hook) => intake.read_body(hook, message, changes),
        };
        match read {
            Ok(true) => intake.owe(),
            Ok(false) => {}
            Err(error) => intake.undecodable(&error),
        }
    }
}

/// Reads a frame of another Diorama, whose history was read to `place`. Gives whether something may have been missed.
fn read_frame(
    place: &mut Option<(String, u64)>,
    frame: &[u8],
    changes: &mut Vec<Inbound>,
) -> std::result::Result<bool, String> {
    let heard = frames::read(frame)?;
    match (heard.place, &mut *place) {
        (Some(FeedPosition::Position(position)), place) => {
            let parts = position.rsplit_once(':');
            *place = parts.and_then(|(epoch, seq)| Some((epoch.to_string(), seq.parse().ok()?)));
        }
        (Some(FeedPosition::Seq(seq)), Some((_, known))) => *known = seq,
        _ => {}
    }
    changes.extend(heard.event.map(|event| Inbound { origin: Origin::Feed, ..Inbound::from(event) }));
    Ok(heard.gap)
}
