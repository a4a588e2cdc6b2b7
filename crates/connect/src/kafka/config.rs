//! Configuration `feed = { kafka = "HOST:PORT", topic = "TOPIC" }`, and `write` likewise.

use std::sync::Arc;

use async_trait::async_trait;

use super::address::KafkaTopic;
use super::feed::KafkaBroker;
use super::route::KafkaPublisher;
use crate::connector::FeedFormat;
use crate::connector::{Connector, Feed, Key, Route, Settings, SourceRequest};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};
use diorama_core::Dio;
use diorama_core::vista::{Error, Result, Schema, Vista};

/// Connector for Apache Kafka and brokers of the same protocol.
#[derive(Clone, Copy, Debug)]
pub struct KafkaConnector;

const FORM: &str = r#"{ kafka = "HOST:PORT", topic = "TOPIC" }"#;

/// Writes under way at a time. Those of one partition go together.
const CONCURRENCY: usize = 256;

impl Connector for KafkaConnector {
    fn name(&self) -> &'static str {
        "kafka"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let format = settings.word("format", &WriteFormat::WORDS).map_or(WriteFormat::Native, WriteFormat::of);
        Some(Arc::new(KafkaRoute { topic: KafkaTopic::read(settings)?, format }))
    }

    fn feed_form(&self) -> Option<&'static str> {
        Some(FORM)
    }

    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        Some(Arc::new(KafkaFeed { topic: KafkaTopic::read(settings)? }))
    }
}

/// Route to a topic.
#[derive(Debug)]
struct KafkaRoute {
    topic: KafkaTopic,
    format: WriteFormat,
}

#[async_trait]
impl Route for KafkaRoute {
    async fn open(&self, name: &str, schema: &Arc<Schema>) -> Result<Vista> {
        Ok(StreamRoute::vista(KafkaPublisher::new(self.topic.clone()), self.format, name, Arc::clone(schema)))
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }
}

/// Feed of a topic.
#[derive(Debug)]
struct KafkaFeed {
    topic: KafkaTopic,
}

#[async_trait]
impl Feed for KafkaFeed {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn inspect(&self, _: &SourceRequest) -> Result<Option<String>> {
        let partitions = self.topic.connect().await.map_err(Error::from)?.len();
        Ok(Some(format!("{} has {partitions} partitions", self.topic)))
    }

    fn start(&self, dio: &Dio, format: FeedFormat) -> Result<()> {
        let name = self.topic.to_string();
        // Brokers come and go; the topic is the same.
        let key = format!("kafka:{}", self.topic.topic);
        StreamFeed::start(KafkaBroker(self.topic.clone()), dio, name, &key, format)
    }
}

const KEYS: &[Key] = &[
    Key::new("write.kafka", "", "Brokers of a Kafka cluster: `HOST:PORT`, or several with commas."),
    Key::new("write.topic", "required by `kafka`", "The topic."),
    Key::new(
        "write.format",
        "\"native\"",
        "Messages for writes: `native` (as webhooks receive them), `row` (the row, and no value for a delete), `debezium` or `cloudevents`.",
    ),
    Key::new("write.tls", "\"off\" without `ca`", "`kafka`: `require` or `off`."),
    Key::new("write.ca", "public authorities", "`kafka`: the same."),
    Key::new("write.user", "", "The user to log in as. Requires `password`."),
    Key::new("write.password", "", "The password, or `env:NAME`, or `file:PATH`."),
    Key::new("write.sasl", "\"plain\"", "`kafka`: the way to log in: `plain`, `scram-sha-256` or `scram-sha-512`."),
    Key::new("feed.kafka", "", "Brokers of a Kafka cluster: `HOST:PORT`, or several with commas."),
    Key::new("feed.topic", "required by `kafka`", "The topic."),
    Key::new("feed.tls", "\"off\" without `ca`", "`kafka`: `require` or `off`."),
    Key::new("feed.user", "", "The user to log in as. Requires `password`."),
    Key::new("feed.password", "", "The password, or `env:NAME`, or `file:PATH`."),
    Key::new("feed.sasl", "\"plain\"", "`kafka`: the way to log in: `plain`, `scram-sha-256` or `scram-sha-512`."),
];
