//! Feed of a queue. A message is acknowledged when the changes in it are durable: the broker sends again what was not acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::types::{AMQPValue, ShortString};
use lapin::{Channel, Connection, Consumer};
use tokio::time::{Instant, sleep_until, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::address::PATIENCE;
use super::errors::Failure;
use super::queue::{AmqpQueue, Keeping, SHARED, keeping, look_up};
use super::routing_key;
use crate::feed::Message;
use crate::stream::{Broker, Place, Subscription, attribute};
use diorama_core::dio::FeedLag;

/// Header with the row's id, for routing keys that do not contain it.
pub(super) const KEY_HEADER: &str = "diorama-key";
/// Delivery mode of a message that the broker writes to the disk.
pub(super) const PERSISTENT: u8 = 2;
/// Pause between two looks at the length of the queue, which also find a connection that is lost.
const LOOK: Duration = Duration::from_secs(2);
/// Prefixes of the headers of CloudEvents: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md>.
const EVENT: [&str; 3] = ["cloudEvents_", "cloudEvents:", "ce-"];

/// A queue as a feed reads it.
pub(super) struct AmqpBroker {
    queue: AmqpQueue,
    /// `None` before the first connection, and after the queue was missing.
    keeping: Option<Keeping>,
    /// True if messages may have been lost.
    missed: Arc<AtomicBool>,
    /// True once a message was received that the broker forgets when it ends.
    has_transient: Arc<AtomicBool>,
}

impl AmqpBroker {
    pub(super) fn new(queue: AmqpQueue) -> AmqpBroker {
        // The source is read when a feed begins: nothing tells what happened before.
        AmqpBroker { queue, keeping: None, missed: Arc::new(AtomicBool::new(true)), has_transient: Arc::default() }
    }

    /// Returns what is unsafe about the queue, for people.
    pub(super) async fn warnings(&self, connection: &Connection) -> Result<Vec<String>, Failure> {
        let AmqpQueue { address, queue, .. } = &self.queue;
        let keeping =
            keeping(connection, &super::queue::name(queue)?).await.map_err(|error| address.failure(&error))?;
        Ok(keeping.warning(address, queue).into_iter().collect())
    }

    async fn consume(&mut self) -> Result<(AmqpSubscription, Place), Failure> {
        let AmqpQueue { address, queue, .. } = &self.queue;
        let connection = address.connect().await?;
        let mut open = self.queue.open(&connection).await.map_err(|(failure, is_missing)| {
            if is_missing {
                self.missed.store(true, Ordering::Relaxed);
                self.keeping = None;
            }
            failure
        })?;
        let keeping = match self.keeping {
            Some(keeping) => keeping,
            None => keeping(&connection, &open.name).await.map_err(|error| address.failure(&error))?,
        };
        let warning = keeping.warning(address, queue);
        if let Some(warning) = warning.as_ref().filter(|_| keeping == Keeping::Stream) {
            return Err(Failure::unreachable(warning.clone()));
        }
        self.keeping = Some(keeping);
        let consumer = self.queue.consume(&connection, &mut open).await?;
        let keeps = matches!(keeping, Keeping::All | Keeping::Persistent);
        let missed = self.missed.swap(!keeps, Ordering::Relaxed) || open.is_new;
        let subscription = AmqpSubscription {
            connection,
            channel: open.channel,
            consumer,
            about: format!("{address} queue {queue}"),
            queue: open.name,
            pattern: self.queue.routing_key.clone().unwrap_or_default(),
            keeping,
            warning,
            missed: Arc::clone(&self.missed),
            has_transient: Arc::clone(&self.has_transient),
            received: Vec::new(),
            refused: Vec::new(),
            waiting: 0,
            newest: None,
            next_look: Instant::now(),
        };
        Ok((subscription, if missed { Place::Elsewhere } else { Place::Asked }))
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    type Subscription = AmqpSubscription;

    async fn subscribe(&mut self, _: Option<&Bytes>) -> Result<(AmqpSubscription, Place), String> {
        let about = self.queue.address.to_string();
        match timeout(2 * PATIENCE, self.consume()).await {
            Ok(subscribed) => subscribed.map_err(|failure| failure.message),
            Err(_) => Err(format!("{about}: no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

/// The consumer of a queue.
pub(super) struct AmqpSubscription {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    queue: ShortString,
    /// Address and queue, for people.
    about: String,
    /// Routing key with wildcards, which stand for the row's id.
    pattern: String,
    keeping: Keeping,
    /// Problem with the queue, for people.
    warning: Option<String>,
    missed: Arc<AtomicBool>,
    has_transient: Arc<AtomicBool>,
    /// Tags of the messages that were received and are not acknowledged.
    received: Vec<u64>,
    /// Numbers of those that could not be decoded.
    refused: Vec<usize>,
    /// Number of messages in the queue at the last look.
    waiting: u32,
    /// Time at which the last received message was sent, in seconds, if its sender tells.
    newest: Option<u64>,
    next_look: Instant,
}

impl AmqpSubscription {
    fn wrong(&self, error: &lapin::Error) -> String {
        Failure::of(&self.about, error).message
    }

    /// Waits for an answer to a request.
    async fn answered<T>(&self, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, String> {
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| self.wrong(&error)),
            Err(_) => Err(format!("{}: no answer within {} s", self.about, PATIENCE.as_secs())),
        }
    }

    /// Asks for the state of the queue, on the channel of the messages.
    pub(super) async fn look(&mut self) -> Result<(), String> {
        let queue = self.answered(look_up(&self.channel, &self.queue)).await?;
        if queue.consumer_count() > 1 {
            // It may have taken messages.
            self.missed.store(true, Ordering::Relaxed);
            return Err(format!("{}: {SHARED}", self.about));
        }
        self.waiting = queue.message_count();
        self.next_look = Instant::now() + LOOK;
        Ok(())
    }

    fn take(&mut self, delivery: Delivery) -> Message {
        self.received.push(delivery.delivery_tag);
        self.newest = *delivery.properties.timestamp();
        let is_persistent = *delivery.properties.delivery_mode() == Some(PERSISTENT);
        if !is_persistent && self.keeping == Keeping::Persistent {
            self.missed.store(true, Ordering::Relaxed);
            self.has_transient.store(true, Ordering::Relaxed);
        }
        message(delivery, &self.pattern)
    }
}

#[async_trait]
impl Subscription for AmqpSubscription {
    async fn receive(&mut self, most: usize) -> Result<Vec<Message>, String> {
        let mut next = tokio::select! {
            biased;
            () = sleep_until(self.next_look) => {
                self.look().await?;
                return Ok(Vec::new());
            }
            next = self.consumer.next() => next,
        };
        let mut messages = Vec::new();
        while let Some(delivery) = next {
            match delivery {
                Ok(delivery) => messages.push(self.take(delivery)),
                // Messages before the end are applied first; the end is reported again.
                Err(_) if !messages.is_empty() => break,
                Err(error) => return Err(self.wrong(&error)),
            }
            next = if messages.len() < most { self.consumer.next().now_or_never().flatten() } else { None };
        }
        if messages.is_empty() {
            self.missed.store(true, Ordering::Relaxed);
            return Err(format!("{}: the broker has ended the subscription: the queue was deleted", self.about));
        }
        Ok(messages)
    }

    fn position(&self) -> Option<Bytes> {
        None
    }

    fn refuse(&mut self, number: usize) {
        self.refused.push(number);
    }

    /// Rejects what could not be decoded, which goes to the dead letter exchange of the queue if it has one.
    async fn acknowledge(&mut self) -> Result<(), String> {
        let (received, refused) = (std::mem::take(&mut self.received), std::mem::take(&mut self.refused));
        let mut last = None;
        for (number, tag) in received.into_iter().enumerate() {
            if refused.contains(&number) {
                let rejected = self.channel.basic_reject(tag, BasicRejectOptions { requeue: false });
                self.answered(rejected).await?;
            } else {
                last = Some(tag);
            }
        }
        match last {
            Some(last) => self.answered(self.channel.basic_ack(last, BasicAckOptions { multiple: true })).await,
            None => Ok(()),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let again = "the source is read again whenever the connection was lost";
        let queue = self.warning.as_ref().map(|warning| format!("{warning}; {again}"));
        let transient = self.has_transient.load(Ordering::Relaxed).then(|| {
            let about = &self.about;
            format!(
                "{about}: a message was not persistent: the broker forgets it when it ends; send messages with delivery mode 2; {again}"
            )
        });
        queue.into_iter().chain(transient).collect()
    }

    /// Closes the channel: the broker answers this after it has taken the acknowledgements before.
    async fn end(self) -> Result<(), String> {
        self.answered(self.channel.close(REPLY_SUCCESS, "OK".into())).await?;
        self.answered(self.connection.close(REPLY_SUCCESS, "OK".into())).await
    }

    fn lag(&self) -> Option<FeedLag> {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
        let age = self.newest.filter(|_| self.waiting > 0).map_or(0, |newest| now.saturating_sub(newest));
        let (time, messages) = (Duration::from_secs(age), Some(self.waiting.into()));
        Some(FeedLag { time, messages, ..FeedLag::default() })
    }
}

/// Converts a message. `pattern` is a routing key with wildcards, which stand for the row's id.
fn message(delivery: Delivery, pattern: &str) -> Message {
    let properties = &delivery.properties;
    let mut headers: Vec<(String, Bytes)> = Vec::new();
    let mut key = None;
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        let Some(value) = text(value) else { continue };
        match EVENT.iter().find_map(|prefix| name.as_str().strip_prefix(prefix)) {
            Some(attribute) => headers.push((format!("ce-{attribute}"), attribute::encode(&value).into())),
            None if name.as_str() == KEY_HEADER => key = Some(value),
            None => headers.push((name.to_string(), value.into())),
        }
    }
    if let Some(kind) = properties.content_type() {
        headers.push(("content-type".into(), kind.to_string().into()));
    }
    let key = key.or_else(|| routing_key::id_in(pattern, delivery.routing_key.as_str()).map(String::into_bytes));
    // Some senders use the same id for different messages: their content is a part of it.
    let id = properties.message_id().as_ref().filter(|id| !id.as_str().is_empty());
    let id = id.map(|id| format!("{id}:{:016x}", xxh3_64(&delivery.data)));
    // An event may be about a deleted row and have no data.
    let is_event = headers.iter().any(|(name, _)| name == "ce-specversion");
    let value = (is_event || !delivery.data.is_empty()).then(|| Bytes::from(delivery.data));
    Message { key: key.map(Bytes::from), value, headers, place: None, delivery: id }
}

/// Returns a value of a header as text; `None` for one without a text of its own.
fn text(value: &AMQPValue) -> Option<Vec<u8>> {
    Some(match value {
        AMQPValue::LongString(text) => text.as_bytes().to_vec(),
        AMQPValue::ShortString(text) => text.to_string().into_bytes(),
        AMQPValue::ByteArray(bytes) => bytes.as_slice().to_vec(),
        AMQPValue::Boolean(value) => value.to_string().into_bytes(),
        AMQPValue::ShortShortInt(value) => value.to_string().into_bytes(),
        AMQPValue::ShortShortUInt(value) => value.to_string().into_bytes(),
        AMQPValue::ShortInt(value) => value.to_string().into_bytes(),
        AMQPValue::ShortUInt(value) => value.to_string().into_bytes(),
        AMQPValue::LongInt(value) => value.to_string().into_bytes(),
        AMQPValue::LongUInt(value) => value.to_string().into_bytes(),
        AMQPValue::LongLongInt(value) => value.to_string().into_bytes(),
        _ => return None,
    })
}
