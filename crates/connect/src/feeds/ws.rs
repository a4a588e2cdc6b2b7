//! A WebSocket that is listened to: connected for as long as the Dio lives, resumed where the sender can, followed by a reading
//! of the source where it cannot.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use super::frames::{self, Place};
use diorama_core::dio::{Dio, FeedMeter, Inbound, Parcel, WeakDio};
use diorama_core::journal::{Changes, Delivery, DeliveryId, DeliveryState};
use diorama_core::state::Origin;
use diorama_core::vista::{Error, LogLimit, Result};
use diorama_inbound::{self as inbound, Request};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How the messages of a feed are understood.
#[derive(Clone, Debug)]
pub enum FeedFormat {
    /// As the events of another Diorama, which is asked for what was missed.
    Diorama,
    /// As the bodies of a webhook.
    Inbound(Box<inbound::Hook>),
}

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
/// Between two readings of the source that gaps ask for.
const REST: Duration = Duration::from_secs(2);
/// Attempts to apply messages, unless it is the journal that fails.
const ATTEMPTS: u32 = 5;

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
        let meter = FeedMeter::new(plain);
        dio.add_feed(Arc::clone(&meter));
        let listener = Listener {
            feed: self,
            trust,
            meter,
            dio: dio.downgrade(),
            place: None,
            owes: true,
            lines: LogLimit::default(),
        };
        dio.listen(listener.run());
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

/// A feed that is listened to.
struct Listener {
    feed: WsFeed,
    /// Whose certificates are believed, if not the public ones.
    trust: Option<Arc<ClientConfig>>,
    meter: Arc<FeedMeter>,
    /// Weak: a feed does not keep its Dio alive.
    dio: WeakDio,
    /// Where the other's history was read to: its epoch and number.
    place: Option<(String, u64)>,
    /// Whether the source is to be read again, because something may have been missed.
    owes: bool,
    /// Bounds the lines that the sender can cause.
    lines: LogLimit<&'static str>,
}

/// What became of messages.
enum Got {
    Changes(Vec<Inbound>),
    Nothing,
}

impl Listener {
    /// Connects again and again; ends when the future is dropped, or the Dio is gone.
    async fn run(mut self) {
        let (first, most) = self.feed.backoff;
        let mut wait = first;
        // What comes before the first copy could not be judged.
        while self.dio.upgrade().is_some_and(|dio| !dio.is_ready()) {
            sleep(first).await;
        }
        loop {
            let error = match self.connect().await {
                Ok(socket) => {
                    self.meter.connected();
                    let began = Instant::now();
                    let ended = self.listen(socket).await;
                    if began.elapsed() > most {
                        wait = first;
                    }
                    match ended {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            tracing::warn!(feed = %self.feed.url.split('?').next().unwrap_or_default(), error, "a feed is not connected; trying again");
            self.meter.lost(error);
            // Between half and all of it, so that not all followers come back at once.
            let jitter = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
            sleep(wait.mul_f64(0.5 + 0.5 * jitter)).await;
            wait = (wait * 2).min(most);
        }
    }

    async fn connect(&mut self) -> std::result::Result<Socket, String> {
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
            self.owes = true;
        }
        Ok(socket)
    }

    /// Takes messages until the connection is lost; `Ok` if the Dio is gone.
    async fn listen(&mut self, mut socket: Socket) -> std::result::Result<(), String> {
        let mut refreshing: Option<futures_util::future::BoxFuture<'static, bool>> = None;
        let mut next_refresh = Instant::now();
        let (mut heard, mut pinged) = (Instant::now(), false);
        loop {
            if self.owes && refreshing.is_none() && Instant::now() >= next_refresh && self.may_refresh() {
                let Some(dio) = self.dio.upgrade() else { return Ok(()) };
                // What is missed while it runs is owed anew.
                self.owes = false;
                refreshing = Some(async move { dio.refresh_from_now().await.is_ok() }.boxed());
            }
            let quiet = if pinged { self.feed.idle } else { self.feed.idle / 2 };
            let waits_to_refresh = self.owes && refreshing.is_none();
            tokio::select! {
                message = socket.next() => {
                    (heard, pinged) = (Instant::now(), false);
                    let got = self.gather(&mut socket, message).await?;
                    if let Got::Changes(changes) = got
                        && !self.apply(changes).await
                    {
                        return Ok(());
                    }
                }
                done = async { match &mut refreshing { Some(running) => running.await, None => std::future::pending().await } } => {
                    refreshing = None;
                    next_refresh = Instant::now() + REST;
                    self.owes |= !done;
                }
                () = tokio::time::sleep_until(next_refresh), if waits_to_refresh => {}
                () = tokio::time::sleep_until(heard + quiet) => {
                    if pinged {
                        return Err(format!("nothing was heard for {} s", self.feed.idle.as_secs()));
                    }
                    pinged = true;
                    socket.send(Message::Ping(Vec::new().into())).await.map_err(|error| error.to_string())?;
                }
            }
        }
    }

    /// Another Diorama says first where its events begin: what is read before that may be older.
    fn may_refresh(&self) -> bool {
        matches!(self.feed.format, FeedFormat::Inbound(_)) || self.place.is_some()
    }

    /// What `first` and the messages behind it that are here already say.
    async fn gather(
        &mut self,
        socket: &mut Socket,
        first: Option<std::result::Result<Message, WsError>>,
    ) -> std::result::Result<Got, String> {
        let mut changes = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            let message = match message {
                Some(Ok(message)) => message,
                // What came before it is applied first; the end is met again.
                Some(Err(_)) | None if !changes.is_empty() => return Ok(Got::Changes(changes)),
                Some(Err(error)) => {
                    if matches!(error, WsError::Capacity(_)) {
                        // It would be sent again and again.
                        (self.place, self.owes) = (None, true);
                    }
                    return Err(error.to_string());
                }
                None => return Err("the connection has ended".into()),
            };
            match message {
                Message::Text(text) => self.read(text.as_bytes(), &mut changes),
                Message::Binary(bytes) => self.read(&bytes, &mut changes),
                Message::Close(frame) => {
                    let why = frame.map_or("it was closed".into(), |frame| {
                        format!("it was closed: {} {}", frame.code, frame.reason)
                    });
                    if changes.is_empty() {
                        return Err(why);
                    }
                    return Ok(Got::Changes(changes));
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
            next = if changes.len() < BATCH { socket.next().now_or_never() } else { None };
        }
        Ok(if changes.is_empty() { Got::Nothing } else { Got::Changes(changes) })
    }

    fn read(&mut self, message: &[u8], changes: &mut Vec<Inbound>) {
        self.meter.heard();
        let read = match &self.feed.format {
            FeedFormat::Diorama => self.read_frame(message, changes),
            FeedFormat::Inbound(hook) => read_body(hook, &self.dio, message, changes),
        };
        match read {
            Ok(gap) => self.owes |= gap,
            Err(error) => {
                // Whatever it was to say, the source knows it.
                self.owes = true;
                self.meter.undecodable();
                if let Some(left_out) = self.lines.pass("message") {
                    let feed = self.feed.url.split('?').next().unwrap_or_default();
                    tracing::warn!(
                        feed,
                        error,
                        left_out,
                        "a message of a feed cannot be understood; the source is read again"
                    );
                }
            }
        }
    }

    fn read_frame(&mut self, frame: &[u8], changes: &mut Vec<Inbound>) -> std::result::Result<bool, String> {
        let heard = frames::read(frame)?;
        match (heard.place, &mut self.place) {
            (Some(Place::Position(position)), place) => {
                let parts = position.rsplit_once(':');
                *place = parts.and_then(|(epoch, seq)| Some((epoch.to_string(), seq.parse().ok()?)));
            }
            (Some(Place::Seq(seq)), Some((_, known))) => *known = seq,
            _ => {}
        }
        changes.extend(heard.event.map(|event| Inbound { origin: Origin::Feed, ..Inbound::from(event) }));
        Ok(heard.gap)
    }

    /// Counts changes whose rows are not as the schema says. Their rows are read from the source, so nothing is owed.
    fn note_refused(&self, delivery: &Delivery) {
        let feed = self.feed.url.split('?').next().unwrap_or_default();
        for _ in 0..refused(delivery) {
            self.meter.undecodable();
            if let Some(left_out) = self.lines.pass("row") {
                let error = delivery.detail.as_deref().unwrap_or_default();
                tracing::warn!(
                    feed,
                    error,
                    left_out,
                    "a row of a feed is not as the schema says; it is read from the source"
                );
            }
        }
    }

    /// Applies changes, however often that takes; `false` if the Dio is gone.
    async fn apply(&mut self, changes: Vec<Inbound>) -> bool {
        let mut parcel = parcel(changes);
        let mut rest = self.feed.backoff.0;
        loop {
            let Some(dio) = self.dio.upgrade() else { return false };
            let error = match dio.deliver(&parcel).await {
                Ok(delivery) => {
                    self.note_refused(&delivery);
                    return true;
                }
                Err(Error::Closed) => return false,
                Err(error) => error,
            };
            parcel.delivery.attempts += 1;
            let stored = !matches!(error, Error::Storage { .. } | Error::OutcomeUnknown { .. });
            if stored && parcel.delivery.attempts >= ATTEMPTS {
                if let Some(left_out) = self.lines.pass("unapplied") {
                    tracing::warn!(%error, left_out, "messages of a feed could not be applied; the source is read again");
                }
                self.owes = true;
                return true;
            }
            // Meanwhile nothing more is read: the sender is held up, or gives up and is asked again.
            sleep(rest).await;
            rest = (rest * 2).min(self.feed.backoff.1);
        }
    }
}

/// Number of changes of a delivery that were refused.
fn refused(delivery: &Delivery) -> u64 {
    if delivery.state == DeliveryState::Undecodable {
        delivery.changes.skipped.max(1)
    } else {
        delivery.changes.skipped
    }
}

/// Changes as a delivery that nobody keeps: it cannot be sent again.
fn parcel(changes: Vec<Inbound>) -> Parcel {
    let delivery = Delivery {
        id: DeliveryId::new(),
        hook: "feed".into(),
        dio: "".into(),
        key: None,
        state: DeliveryState::Received,
        changes: Changes::default(),
        detail: None,
        attempts: 0,
        received: 0,
        updated: 0,
        size: 0,
    };
    Parcel { delivery, raw: None, changes, abort: false, again: false, same: None }
}

/// The clock of a feed's versions, unless it is set up to have another.
const FEED_CLOCK: &str = "feed";

/// A message understood as the body of a webhook. Says whether a part of it could not be.
fn read_body(
    hook: &inbound::Hook,
    dio: &WeakDio,
    body: &[u8],
    changes: &mut Vec<Inbound>,
) -> std::result::Result<bool, String> {
    let Some(dio) = dio.upgrade() else { return Ok(false) };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (path, now) = ("/", Timestamp::now());
    let request = Request { method: &Method::POST, path, query: None, headers: &headers, body, now };
    let decoded = hook.decode(&request, &dio.schema()).map_err(|error| error.to_string())?;
    let several = decoded.changes.len() > 1;
    let mut gap = false;
    for (at, change) in decoded.changes.into_iter().enumerate() {
        let Ok(change) = change else {
            gap = true;
            continue;
        };
        let all = decoded.delivery.as_ref().map(|key| if several { format!("{key}#{at}") } else { key.clone() });
        changes.push(Inbound {
            event: change.event,
            version: change.version,
            clock: Some(hook.clock().map_or_else(|| FEED_CLOCK.into(), Arc::clone)),
            partial: change.partial,
            delivery: change.delivery.or(all),
            origin: Origin::Feed,
            coercion: change.coercion,
        });
    }
    Ok(gap)
}
