//! Configuration `feed = { ws = "wss://HOST/PATH" }`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::feed::WsFeed;
use crate::connector::{Connector, Feed, FeedFormat, Key, Settings};
use diorama_core::Dio;
use diorama_core::vista::{Error, Result};

/// Connector for WebSockets.
#[derive(Clone, Copy, Debug)]
pub struct WsConnector;

impl Connector for WsConnector {
    fn name(&self) -> &'static str {
        "ws"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn feed_form(&self) -> Option<&'static str> {
        Some(r#"{ ws = "wss://HOST/PATH" }"#)
    }

    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        let url = settings.text("ws").filter(|url| url.starts_with("ws://") || url.starts_with("wss://"));
        if url.is_none() {
            settings.wrong("ws", r#"the feed requires ws = "wss://HOST/PATH""#.into());
        }
        let feed = WsSettings {
            headers: settings.secret_texts("headers"),
            ca: settings.path("ca"),
            subscribe: settings.text("subscribe"),
            idle: settings.duration("idle"),
            max_message: settings.size("max_message", 1 << 10..=64 << 20),
            url: url?,
        };
        Some(Arc::new(feed))
    }
}

/// Settings of a WebSocket.
struct WsSettings {
    url: String,
    /// Header values may contain secrets.
    headers: Vec<(String, String)>,
    ca: Option<PathBuf>,
    subscribe: Option<String>,
    idle: Option<Duration>,
    max_message: Option<usize>,
}

impl std::fmt::Debug for WsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("WsSettings")
            .field("url", &self.url.split('?').next().unwrap_or_default())
            .field("headers", &headers)
            .field("ca", &self.ca)
            .field("subscribe", &self.subscribe)
            .field("idle", &self.idle)
            .field("max_message", &self.max_message)
            .finish()
    }
}

impl WsSettings {
    fn feed(&self, format: FeedFormat) -> Result<WsFeed> {
        let mut feed = WsFeed::new(self.url.clone(), format);
        for (name, value) in &self.headers {
            let wrong = |what: &str| Error::Config(format!("feed.headers.{name}: {what}"));
            let mut value = HeaderValue::from_str(value).map_err(|_| wrong("the value is not a valid header value"))?;
            value.set_sensitive(true);
            let name: HeaderName = name.parse().map_err(|_| wrong("the name is not a valid header name"))?;
            feed.headers.push((name, value));
        }
        if let Some(path) = &self.ca {
            let pem = std::fs::read(path);
            feed.ca = Some(pem.map_err(|error| Error::Config(format!("feed.ca: {}: {error}", path.display())))?);
        }
        feed.subscribe.clone_from(&self.subscribe);
        feed.idle = self.idle.unwrap_or(feed.idle);
        feed.max_message = self.max_message.unwrap_or(feed.max_message);
        Ok(feed)
    }
}

impl Feed for WsSettings {
    fn check(&self) -> Result<()> {
        self.feed(FeedFormat::Diorama).map(drop)
    }

    fn reads_events(&self) -> bool {
        true
    }

    fn start(&self, dio: &Dio, format: FeedFormat) -> Result<()> {
        self.feed(format)?.start(dio)
    }
}

const KEYS: &[Key] = &[
    Key::new("feed.ws", "", "`ws://...` or `wss://...`"),
    Key::new("feed.headers", "{}", "Headers of the request: `{ authorization = \"Bearer env:TOKEN\" }`."),
    Key::new(
        "feed.ca",
        "public authorities",
        "A PEM file with the certificates of the authorities to trust instead of the public ones.",
    ),
    Key::new("feed.subscribe", "none", "A text to send after connecting."),
    Key::new("feed.idle", "\"60s\"", "Time without messages after which the connection is renewed."),
    Key::new("feed.max_message", "\"1MiB\"", "Maximum size of one message."),
];
