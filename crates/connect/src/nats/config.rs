//! Configuration `feed = { nats = "nats://HOST", stream = "STREAM" }` and `write = { nats = "nats://HOST", subject = "SUBJECT" }`.

use std::sync::Arc;

use async_trait::async_trait;

use super::address::NatsAddress;
use super::feed::NatsBroker;
use super::route::NatsPublisher;
use super::subject;
use crate::connector::{Connector, Feed, FeedFormat, Key, Route, Settings, SourceRequest};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};
use diorama_core::Dio;
use diorama_core::vista::{Error, Result, Schema, Vista};

/// Connector for NATS JetStream.
#[derive(Clone, Copy, Debug)]
pub struct NatsConnector;

/// Writes under way at a time.
const CONCURRENCY: usize = 256;

impl Connector for NatsConnector {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(r#"{ nats = "nats://HOST:PORT", subject = "SUBJECT" }"#)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let format = settings.word("format", &WriteFormat::WORDS).map_or(WriteFormat::Native, WriteFormat::of);
        let subject = settings.text("subject");
        match subject.as_deref().map(subject::check_route) {
            Some(Ok(())) => {}
            Some(Err(problem)) => settings.wrong("subject", problem),
            None => settings.wrong("subject", r#"a nats route requires subject = "WORDS.{id}""#.into()),
        }
        Some(Arc::new(NatsRoute { address: NatsAddress::read(settings)?, subject: subject?, format }))
    }

    fn feed_form(&self) -> Option<&'static str> {
        Some(r#"{ nats = "nats://HOST:PORT", stream = "STREAM" }"#)
    }

    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        let stream = settings.text("stream");
        if stream.is_none() {
            settings.wrong("stream", r#"a nats feed requires stream = "STREAM""#.into());
        }
        let filter = settings.text("subject");
        if let Some(Err(problem)) = filter.as_deref().map(subject::check_filter) {
            settings.wrong("subject", problem);
        }
        Some(Arc::new(NatsFeed { address: NatsAddress::read(settings)?, stream: stream?, filter }))
    }
}

/// Route to a subject.
#[derive(Debug)]
struct NatsRoute {
    address: NatsAddress,
    subject: String,
    format: WriteFormat,
}

#[async_trait]
impl Route for NatsRoute {
    async fn open(&self, name: &str, schema: &Arc<Schema>) -> Result<Vista> {
        let publisher = NatsPublisher::new(self.address.clone(), self.subject.clone());
        Ok(StreamRoute::vista(publisher, self.format, name, Arc::clone(schema)))
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }
}

/// Feed of a stream.
#[derive(Debug)]
struct NatsFeed {
    address: NatsAddress,
    stream: String,
    filter: Option<String>,
}

impl NatsFeed {
    fn broker(&self) -> NatsBroker {
        NatsBroker { address: self.address.clone(), stream: self.stream.clone(), filter: self.filter.clone() }
    }
}

#[async_trait]
impl Feed for NatsFeed {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn inspect(&self, _: &SourceRequest) -> Result<Option<String>> {
        self.broker().stream().await.map(|_| None).map_err(Error::transient)
    }

    fn start(&self, dio: &Dio, format: FeedFormat) -> Result<()> {
        let filter = self.filter.as_deref().unwrap_or_default();
        let (name, key) = (format!("{}/{}", self.address, self.stream), format!("nats:{}:{filter}", self.stream));
        StreamFeed::start(self.broker(), dio, name, &key, format)
    }
}

const KEYS: &[Key] = &[
    Key::new("write.nats", "", "Servers of NATS: `nats://HOST:PORT` or `tls://HOST:PORT`, or several with commas."),
    Key::new(
        "write.subject",
        "required by `nats`",
        "The subject, which a stream takes; `{id}` stands for the row's id.",
    ),
    Key::new("write.ca", "public authorities", "`nats`: the same."),
    Key::new("write.token", "", "`nats`: a token to log in with, or `env:NAME`, or `file:PATH`."),
    Key::new("write.credentials", "", "`nats`: a `.creds` file to log in with."),
    Key::new("feed.nats", "", "Servers of NATS: `nats://HOST:PORT` or `tls://HOST:PORT`, or several with commas."),
    Key::new("feed.stream", "required by `nats`", "The stream."),
    Key::new(
        "feed.subject",
        "all of the stream",
        "`nats`: the subject of the messages to read, like `shop.products.*`; what the wildcards stand for is the key.",
    ),
    Key::new("feed.token", "", "`nats`: a token to log in with, or `env:NAME`, or `file:PATH`."),
    Key::new("feed.credentials", "", "`nats`: a `.creds` file to log in with."),
];
