//! Configuration `feed = { amqp = "amqp://HOST", queue = "QUEUE" }` and `write = { amqp = "amqp://HOST", exchange = "EXCHANGE" }`.

use std::sync::Arc;

use async_trait::async_trait;

use super::address::AmqpAddress;
use super::feed::AmqpBroker;
use super::queue::AmqpQueue;
use super::route::AmqpPublisher;
use super::routing_key::{check_length, check_route};
use crate::connector::{Connector, Feed, FeedFormat, Key, Route, Settings, SourceRequest};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};
use diorama_core::Dio;
use diorama_core::vista::{Result, Schema, Vista};

/// Connector for RabbitMQ and other brokers of AMQP 0-9-1.
#[derive(Clone, Copy, Debug)]
pub struct AmqpConnector;

/// Writes under way at a time. Each has a channel.
const CONCURRENCY: usize = 64;
/// Maximum number of messages that are not acknowledged, if the configuration does not say it.
pub(super) const PREFETCH: u16 = 500;

impl Connector for AmqpConnector {
    fn name(&self) -> &'static str {
        "amqp"
    }

    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn route_form(&self) -> Option<&'static str> {
        Some(r#"{ amqp = "amqp://HOST", exchange = "EXCHANGE", routing_key = "KEY" }"#)
    }

    fn route(&self, settings: &dyn Settings) -> Option<Arc<dyn Route>> {
        let format = settings.word("format", &WriteFormat::WORDS).map_or(WriteFormat::Native, WriteFormat::of);
        let [exchange, key, queue] = ["exchange", "routing_key", "queue"].map(|key| name(settings, key));
        let target = match (exchange, queue) {
            (Some(exchange), None) => {
                let key = key.unwrap_or_default();
                match check_route(&key) {
                    Ok(()) => Some((exchange, key)),
                    Err(problem) => {
                        settings.wrong("routing_key", problem);
                        None
                    }
                }
            }
            (None, Some(queue)) => Some((String::new(), queue)),
            _ => {
                let problem = r#"an amqp route requires exchange = "EXCHANGE", or queue = "QUEUE" for a single queue"#;
                settings.wrong("exchange", problem.into());
                None
            }
        };
        Some(Arc::new(AmqpRoute { address: AmqpAddress::read(settings)?, target: target?, format }))
    }

    fn feed_form(&self) -> Option<&'static str> {
        Some(r#"{ amqp = "amqp://HOST", queue = "QUEUE" }"#)
    }

    fn feed(&self, settings: &dyn Settings) -> Option<Arc<dyn Feed>> {
        let [queue, exchange, routing_key] = ["queue", "exchange", "routing_key"].map(|key| name(settings, key));
        if queue.is_none() {
            settings.wrong("queue", r#"an amqp feed requires queue = "QUEUE""#.into());
        }
        let prefetch = settings.count("prefetch", 1..=u64::from(u16::MAX)).and_then(|count| u16::try_from(count).ok());
        let (address, prefetch) = (AmqpAddress::read(settings)?, prefetch.unwrap_or(PREFETCH));
        Some(Arc::new(AmqpFeed(AmqpQueue { address, queue: queue?, exchange, routing_key, prefetch })))
    }
}

/// Reads the name of a queue or an exchange, or a routing key.
fn name(settings: &dyn Settings, key: &'static str) -> Option<String> {
    let name = settings.text(key)?;
    match check_length(&name) {
        Ok(()) => Some(name),
        Err(problem) => {
            settings.wrong(key, problem);
            None
        }
    }
}

/// Route to an exchange.
#[derive(Debug)]
struct AmqpRoute {
    address: AmqpAddress,
    /// Exchange and routing key.
    target: (String, String),
    format: WriteFormat,
}

#[async_trait]
impl Route for AmqpRoute {
    async fn open(&self, name: &str, schema: &Arc<Schema>) -> Result<Vista> {
        let (exchange, key) = self.target.clone();
        let publisher = AmqpPublisher::new(self.address.clone(), exchange, key);
        Ok(StreamRoute::vista(publisher, self.format, name, Arc::clone(schema)))
    }

    fn concurrency(&self) -> usize {
        CONCURRENCY
    }
}

/// Feed of a queue.
#[derive(Debug)]
struct AmqpFeed(AmqpQueue);

#[async_trait]
impl Feed for AmqpFeed {
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Looks the queue up. One that the feed would declare may be missing.
    async fn inspect(&self, _: &SourceRequest) -> Result<Option<String>> {
        let connection = self.0.address.connect().await?;
        let lookup = AmqpQueue { exchange: None, ..self.0.clone() };
        match lookup.open(&connection).await {
            Ok(_) => {
                let warnings = AmqpBroker::new(lookup).warnings(&connection).await?;
                Ok((!warnings.is_empty()).then(|| warnings.join("; ")))
            }
            Err((_, true)) if self.0.exchange.is_some() => {
                Ok(Some(format!("{} has no queue {} yet: it will be declared", self.0.address, self.0.queue)))
            }
            Err((failure, _)) => Err(failure.into()),
        }
    }

    fn start(&self, dio: &Dio, format: FeedFormat) -> Result<()> {
        let (name, key) = (format!("{} {}", self.0.address, self.0.queue), format!("amqp:{}", self.0.queue));
        StreamFeed::start(AmqpBroker::new(self.0.clone()), dio, name, &key, format)
    }
}

const KEYS: &[Key] = &[
    Key::new(
        "write.amqp",
        "",
        "A broker of AMQP 0-9-1, like RabbitMQ: `amqp://HOST:PORT/VHOST`, or `amqps://` to encrypt, perhaps with `USER:PASSWORD@`, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new("write.exchange", "required by `amqp` without `queue`", "The exchange, which has to exist."),
    Key::new("write.routing_key", "\"\"", "`amqp`: the routing key; `{id}` stands for the row's id."),
    Key::new("write.queue", "", "`amqp`: a queue, in place of `exchange` and `routing_key`."),
    Key::new("write.ca", "public authorities", "`amqp`: the same."),
    Key::new(
        "feed.amqp",
        "",
        "A broker of AMQP 0-9-1, like RabbitMQ: `amqp://HOST:PORT/VHOST`, or `amqps://` to encrypt, perhaps with `USER:PASSWORD@`, or `env:NAME`, or `file:PATH`.",
    ),
    Key::new("feed.queue", "required by `amqp`", "The queue, of which the feed is the only consumer."),
    Key::new(
        "feed.exchange",
        "",
        "`amqp`: the exchange whose messages the queue is to have. The queue is bound to it, and declared if there is none.",
    ),
    Key::new(
        "feed.routing_key",
        "\"#\"",
        "`amqp`: the routing key of the binding; what its wildcards stand for is the key of a message.",
    ),
    Key::new(
        "feed.prefetch",
        "500",
        "`amqp`: the maximum number of messages that are held in memory and not acknowledged.",
    ),
];
