//! Configuration `feed = { mqtt = "mqtt://HOST", topic = "TOPIC/+" }` and `write = { mqtt = "mqtt://HOST", topic = "TOPIC/{id}" }`.

use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::address::{MqttAddress, Session};
use super::feed::{EXPIRY, MqttBroker, MqttTopics};
use super::route::{CONCURRENCY, MqttPublisher};
use super::topic::{check_filter, check_route, is_per_row};
use crate::connector::{Connector, Feed, FeedFormat, Key, Route, Settings, SourceRequest};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};
use diorama_core::Dio;
use diorama_core::vista::{Result, Schema, Vista};

/// Connector for brokers of MQTT 5.
#[derive(Clone, Copy, Debug)]
pub struct MqttConnector;

/// Maximum number of messages that are not acknowledged, if the configuration does not say it.
pub(super) const PREFETCH: u16 = 100;

impl Connector for MqttConnector {
    fn name(&self) -> &'static str {
        "mqtt"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(r#"{ mqtt = "mqtt://HOST:PORT", topic = "TOPIC/{id}" }"#)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let format = settings.word("format", &WriteFormat::WORDS).map_or(WriteFormat::Native, WriteFormat::of);
        let retain = settings.flag("retain").unwrap_or(false);
        let topic = settings.text("topic");
        match topic.as_deref().map(check_route) {
            Some(Ok(())) => {}
            Some(Err(problem)) => settings.wrong("topic", problem),
            None => settings.wrong("topic", r#"an mqtt route requires topic = "TOPIC/{id}""#.into()),
        }
        if retain && (format != WriteFormat::Row || !topic.as_deref().is_some_and(is_per_row)) {
            let problem =
                r#"a message that is kept stands for its row: retain requires format = "row" and {id} in the topic"#;
            settings.wrong("retain", problem.into());
        }
        Some(Arc::new(MqttRoute { address: MqttAddress::read(settings)?, topic: topic?, retain, format }))
    }

    fn feed_form(&self) -> Option<&'static str> {
        Some(r#"{ mqtt = "mqtt://HOST:PORT", topic = "TOPIC/+" }"#)
    }

    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        let topic = settings.text("topic");
        match topic.as_deref().map(check_filter) {
            Some(Ok(())) => {}
            Some(Err(problem)) => settings.wrong("topic", problem),
            None => settings.wrong("topic", r#"an mqtt feed requires topic = "TOPIC/+""#.into()),
        }
        let prefetch = settings.count("prefetch", 1..=u64::from(u16::MAX)).and_then(|count| u16::try_from(count).ok());
        let client = settings.text("client_id");
        if client.as_deref().is_some_and(|client| client.is_empty() || client.len() > 128) {
            settings.wrong("client_id", "a client_id has 1 to 128 bytes".into());
        }
        let durable = settings.flag("durable").unwrap_or(false);
        let (address, prefetch) = (MqttAddress::read(settings)?, prefetch.unwrap_or(PREFETCH));
        Some(Arc::new(MqttFeed { address, topic: topic?, client, prefetch, durable }))
    }
}

/// Route to topics.
#[derive(Debug)]
struct MqttRoute {
    address: MqttAddress,
    topic: String,
    retain: bool,
    format: WriteFormat,
}

#[async_trait]
impl Route for MqttRoute {
    async fn open(&self, name: &str, schema: &Arc<Schema>) -> Result<Vista> {
        let publisher = MqttPublisher::new(self.address.clone(), self.topic.clone(), self.retain);
        Ok(StreamRoute::vista(publisher, self.format, name, Arc::clone(schema)))
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }
}

/// Feed of topics.
#[derive(Debug)]
struct MqttFeed {
    address: MqttAddress,
    topic: String,
    client: Option<String>,
    prefetch: u16,
    durable: bool,
}

impl MqttFeed {
    fn topics(&self, session: Session) -> MqttTopics {
        let (address, filter) = (self.address.clone(), self.topic.clone());
        MqttTopics { address, filter, session, durable: self.durable }
    }
}

#[async_trait]
impl Feed for MqttFeed {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Subscribes with a session of its own, which ends at once.
    async fn inspect(&self, _: &SourceRequest) -> Result<Option<String>> {
        let client = format!("diorama-{}", Uuid::now_v7().simple());
        let topics = self.topics(Session { client, expiry: None, prefetch: self.prefetch });
        let subscribed = topics.subscribe(&Arc::default()).await?;
        let warnings = subscribed.warnings();
        Ok((!warnings.is_empty()).then(|| warnings.join("; ")))
    }

    fn start(&self, dio: &Dio, format: FeedFormat) -> Result<()> {
        // Another topic has another session, because the broker keeps the subscriptions of a session.
        let own = || format!("diorama-{}-{:016x}", dio.name(), xxh3_64(self.topic.as_bytes()));
        let client = self.client.clone().unwrap_or_else(own);
        let topics = self.topics(Session { client, expiry: Some(EXPIRY), prefetch: self.prefetch });
        let (name, key) = (format!("{} {}", self.address, self.topic), format!("mqtt:{}", self.topic));
        StreamFeed::start(MqttBroker::new(topics), dio, name, &key, format)
    }
}

const KEYS: &[Key] = &[
    Key::new(
        "write.mqtt",
        "",
        "A broker of MQTT 5: `mqtt://HOST:PORT`, or `mqtts://` to encrypt, perhaps with `USER:PASSWORD@`, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new("write.topic", "required by `mqtt`", "The topic; `{id}` stands for the row's id."),
    Key::new("write.retain", "`false`", "`mqtt`: true lets the broker keep the last message of each topic: the row."),
    Key::new("write.ca", "public authorities", "`mqtt`: the same."),
    Key::new(
        "feed.mqtt",
        "",
        "A broker of MQTT 5: `mqtt://HOST:PORT`, or `mqtts://` to encrypt, perhaps with `USER:PASSWORD@`, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new(
        "feed.topic",
        "required by `mqtt`",
        "The topics to read, like `shop/products/+`; what the wildcards stand for is the key of a message.",
    ),
    Key::new(
        "feed.client_id",
        "of the resource and the topic",
        "`mqtt`: name of the session at the broker. Each instance needs one of its own.",
    ),
    Key::new(
        "feed.durable",
        "`false`",
        "`mqtt`: true if the broker loses nothing that it has acknowledged, also in a crash. Else the source is read again after each lost connection.",
    ),
    Key::new(
        "feed.prefetch",
        "100",
        "`mqtt`: the maximum number of messages that are held in memory and not acknowledged.",
    ),
];
