//! Route of writes to an exchange. A write is routed when the broker has confirmed its message and has not returned it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ErrorKind as ClientErrorKind, ExchangeKind};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::address::{AmqpAddress, PATIENCE};
use super::errors::Failure;
use super::feed::{KEY_HEADER, PERSISTENT};
use super::queue::{keeping, look_up, name};
use super::routing_key;
use crate::stream::{OutMessage, Publisher};
use diorama_core::vista::{Error, ErrorKind, Result};

/// Publisher of an exchange.
#[derive(Debug)]
pub(super) struct AmqpPublisher {
    address: AmqpAddress,
    /// The exchange; empty for the default one, whose routing keys are queues.
    exchange: String,
    /// The routing key, perhaps with `{id}`.
    routing_key: String,
    /// `None` before the first message and after a failure.
    connected: Mutex<Option<Arc<Connected>>>,
    /// Warnings about the target, as of the last connection.
    warnings: parking_lot::Mutex<Vec<String>>,
}

/// A connection with its channels. Each has one message under way, so that a message that comes back can be no other one: the broker
/// returns a message before it confirms it, but confirms others in between.
#[derive(Debug)]
struct Connected {
    connection: Connection,
    idle: parking_lot::Mutex<Vec<Channel>>,
}

impl Connected {
    async fn channel(&self) -> lapin::Result<Channel> {
        let idle = self.idle.lock().pop();
        if let Some(channel) = idle.filter(|channel| channel.status().connected()) {
            return Ok(channel);
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }
}

impl AmqpPublisher {
    pub(super) fn new(address: AmqpAddress, exchange: String, routing_key: String) -> AmqpPublisher {
        AmqpPublisher {
            address,
            exchange,
            routing_key,
            connected: Mutex::new(None),
            warnings: parking_lot::Mutex::default(),
        }
    }

    /// Returns what is unsafe about the target, for people.
    async fn inspect(&self, connection: &Connection) -> std::result::Result<Vec<String>, Failure> {
        let wrong = |error: lapin::Error| self.address.failure(&error);
        let channel = connection.create_channel().await.map_err(wrong)?;
        if !self.exchange.is_empty() {
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let (exchange, kind) = (name(&self.exchange)?, ExchangeKind::Topic);
            let declared = channel.exchange_declare(exchange, kind, passive, FieldTable::default());
            declared.await.map_err(wrong)?;
            return Ok(Vec::new());
        }
        let queue = name(&self.routing_key)?;
        look_up(&channel, &queue).await.map_err(wrong)?;
        let keeping = keeping(connection, &queue).await.map_err(wrong)?;
        Ok(keeping.warning(&self.address, &self.routing_key).into_iter().collect())
    }

    async fn connect(&self) -> std::result::Result<Connection, Failure> {
        let connection = self.address.connect().await?;
        let warnings = self.inspect(&connection).await?;
        let known = std::mem::replace(&mut *self.warnings.lock(), warnings.clone());
        for warning in warnings.iter().filter(|warning| !known.contains(warning)) {
            tracing::warn!("{warning}");
        }
        Ok(connection)
    }

    async fn connected(&self) -> std::result::Result<Arc<Connected>, Failure> {
        let mut connected = self.connected.lock().await;
        if let Some(connected) = &*connected
            && connected.connection.status().connected()
        {
            return Ok(Arc::clone(connected));
        }
        let connection = match timeout(2 * PATIENCE, self.connect()).await {
            Ok(connection) => connection.map_err(Failure::before_sending)?,
            Err(_) => return Err(self.no_answer(ErrorKind::Transient)),
        };
        let new = Arc::new(Connected { connection, idle: parking_lot::Mutex::default() });
        *connected = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Connects again before the next message.
    async fn forget(&self, failed: &Arc<Connected>) {
        let mut connected = self.connected.lock().await;
        if connected.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            *connected = None;
        }
    }

    fn no_answer(&self, kind: ErrorKind) -> Failure {
        Failure { kind, message: format!("{}: no answer within {} s", self.address, PATIENCE.as_secs()) }
    }

    async fn send(&self, connected: &Connected, message: OutMessage) -> std::result::Result<(), Failure> {
        let wrong = |error: &lapin::Error| self.address.failure(error);
        if connected.connection.status().blocked() {
            return Err(self
                .address
                .unreachable("the broker takes no messages: it has little memory or disk space left"));
        }
        let Ok(key) = ShortString::try_new(routing_key::of_row(&self.routing_key, &message.key)) else {
            let problem = format!("the routing key is longer than {} bytes with the id", routing_key::MAX_NAME);
            return Err(Failure { kind: ErrorKind::Permanent, ..self.address.unreachable(&problem) });
        };
        let exchange = name(&self.exchange)?;
        let channel = connected.channel().await.map_err(|error| wrong(&error).before_sending())?;
        let mandatory = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        // A message without a value is empty.
        let (properties, value) = (properties(&message), message.value.unwrap_or_default());
        let sent = channel.basic_publish(exchange, key.clone(), mandatory, &value, properties).await;
        let confirm = sent.map_err(|error| match error.kind() {
            ClientErrorKind::InvalidChannelState(..) | ClientErrorKind::InvalidConnectionState(_) => {
                wrong(&error).before_sending()
            }
            _ => wrong(&error),
        })?;
        let confirmed = confirm.await.map_err(|error| wrong(&error))?;
        connected.idle.lock().push(channel);
        match confirmed {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => {
                let exchange = if self.exchange.is_empty() { "the default exchange" } else { &self.exchange };
                let problem = format!(
                    "no queue takes the routing key {key} of {exchange}: bind one, or give it an alternate exchange"
                );
                Err(self.address.unreachable(&problem))
            }
            Confirmation::Nack(None) | Confirmation::NotRequested => Err(Failure {
                kind: ErrorKind::Unknown,
                ..self
                    .address
                    .unreachable("the broker has not stored the message: a queue is full, or has too few replicas")
            }),
        }
    }
}

#[async_trait]
impl Publisher for AmqpPublisher {
    async fn publish(&self, message: OutMessage) -> Result<()> {
        let connected = self.connected().await?;
        let sent = match timeout(PATIENCE, self.send(&connected, message)).await {
            Ok(sent) => sent,
            Err(_) => {
                self.forget(&connected).await;
                Err(self.no_answer(ErrorKind::Unknown))
            }
        };
        sent.map_err(Error::from)
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
}

fn properties(message: &OutMessage) -> BasicProperties {
    let mut headers = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(u64::try_from(Timestamp::now().as_second()).unwrap_or_default());
    for (name, value) in &message.headers {
        match (*name, name.strip_prefix("ce-")) {
            (_, Some(attribute)) => drop(headers.insert(format!("cloudEvents_{attribute}").into(), text(value))),
            ("content-type", None) => properties = properties.with_content_type(value.as_str().into()),
            (name, None) => drop(headers.insert(name.into(), text(value))),
        }
    }
    headers.insert(KEY_HEADER.into(), text(&message.key));
    if let Ok(operation) = ShortString::try_new(message.operation.as_str())
        && !message.operation.is_empty()
    {
        properties = properties.with_message_id(operation);
    }
    properties.with_headers(headers)
}
