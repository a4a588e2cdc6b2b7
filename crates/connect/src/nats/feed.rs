//! Feed of a stream: its messages from a sequence number on, which is stored with the changes before it. The consumer on the server
//! keeps nothing.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Message as NatsMessage};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use tokio::time::{interval, timeout};

use super::address::{NatsAddress, PATIENCE, is_lost};
use super::subject;
use crate::feed::{LogPlace, Message};
use crate::stream::{Broker, Place, Subscription};
use diorama_core::dio::FeedLag;

/// Header with the row's id, percent-encoded, for subjects that do not contain it.
pub(super) const KEY_HEADER: &str = "diorama-key";
/// Time after which the server forgets a consumer that nobody reads.
const FORGET: Duration = Duration::from_secs(60);
/// Pause between two looks at the connection.
const LOOK: Duration = Duration::from_millis(500);
/// Maximum number of messages that the server sends ahead.
const AHEAD: usize = 2_000;

/// A stream as a feed reads it.
pub(super) struct NatsBroker {
    pub(super) address: NatsAddress,
    pub(super) stream: String,
    /// Subject of the messages to read, perhaps with wildcards; `None` for all.
    pub(super) filter: Option<String>,
}

/// Place in a stream, written `CREATED;SEQUENCE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Time, in nanoseconds, at which the stream was made.
    created: i128,
    /// Number of the last message that was read.
    sequence: u64,
}

impl Position {
    fn parse(position: &[u8]) -> Option<Position> {
        let (created, sequence) = std::str::from_utf8(position).ok()?.split_once(';')?;
        Some(Position { created: created.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

#[async_trait]
impl Broker for NatsBroker {
    type Subscription = NatsSubscription;

    async fn subscribe(&mut self, position: Option<&Bytes>) -> Result<(NatsSubscription, Place), String> {
        let subscribing = self.subscribe_from(position.and_then(|position| Position::parse(position)));
        match timeout(PATIENCE, subscribing).await {
            Ok(subscribed) => subscribed,
            Err(_) => Err(format!("{}: no answer within {} s", self.address, PATIENCE.as_secs())),
        }
    }
}

impl NatsBroker {
    fn wrong(&self, problem: &str) -> String {
        format!("{} stream {}: {problem}", self.address, self.stream)
    }

    /// Connects and looks the stream up. An error is text for people.
    pub(super) async fn stream(&self) -> Result<(Client, Stream), String> {
        let client = self.address.connect().await.map_err(|error| error.to_string())?;
        let found = jetstream::new(client.clone()).get_stream(&self.stream).await;
        let hint = "`nats stream add` makes a stream, `nats stream ls` lists them";
        Ok((client, found.map_err(|error| self.wrong(&format!("{error}: {hint}")))?))
    }

    async fn subscribe_from(&self, asked: Option<Position>) -> Result<(NatsSubscription, Place), String> {
        let wrong = |problem: String| self.wrong(&problem);
        let (client, stream) = self.stream().await?;
        let info = stream.cached_info();
        let created = info.created.unix_timestamp_nanos();
        let (first, last) = (info.state.first_sequence, info.state.last_sequence);
        // The first sequence of a stream without messages is the next one.
        let has = |asked: &Position| asked.created == created && asked.sequence + 1 >= first && asked.sequence <= last;
        let (sequence, place) = match asked.filter(has) {
            Some(asked) => (asked.sequence, Place::Asked),
            None => (last, Place::Elsewhere),
        };
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 },
            ack_policy: AckPolicy::None,
            filter_subject: self.filter.clone().unwrap_or_default(),
            inactive_threshold: FORGET,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| wrong(error.to_string()))?;
        let messages = consumer.stream().max_messages_per_batch(AHEAD).messages().await;
        let subscription = NatsSubscription {
            client,
            name: format!("{} stream {}", self.address, self.stream),
            filter: self.filter.clone().unwrap_or_default(),
            messages: messages.map_err(|error| wrong(error.to_string()))?,
            log: format!("nats:{created:x}").into(),
            position: Position { created, sequence },
            taken: 0,
            pending: 0,
            newest: None,
        };
        Ok((subscription, place))
    }
}

/// A subscription to a stream.
pub(super) struct NatsSubscription {
    client: Client,
    /// Address and stream, for people.
    name: String,
    filter: String,
    messages: pull::Stream,
    /// Name of the stream as a [log](LogPlace).
    log: Arc<str>,
    position: Position,
    /// Number of messages that the consumer has sent.
    taken: u64,
    /// Number of messages behind the last one that was received.
    pending: u64,
    /// Time at which the last received message was stored, in milliseconds.
    newest: Option<i64>,
}

impl NatsSubscription {
    fn take(&mut self, message: &NatsMessage) -> Result<Message, String> {
        let info = message.info().map_err(|error| format!("{}: {error}", self.name))?;
        // Nothing is sent again by itself: what a broken connection has swallowed is missing here.
        if info.consumer_sequence != self.taken + 1 {
            return Err(format!(
                "{}: messages after number {} were lost on the way",
                self.name, self.position.sequence
            ));
        }
        self.taken += 1;
        (self.position.sequence, self.pending) = (info.stream_sequence, info.pending);
        self.newest = i64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).ok();
        let number = i64::try_from(info.stream_sequence).unwrap_or(i64::MAX);
        let place = Some(LogPlace { log: Arc::clone(&self.log), number });
        let headers = message.headers.as_ref();
        let header = |name: &str| headers.and_then(|headers| headers.get(name)).map(ToString::to_string);
        let is_deleted =
            message.payload.is_empty() || matches!(header("KV-Operation").as_deref(), Some("DEL" | "PURGE"));
        let key = header(KEY_HEADER)
            .and_then(|key| subject::decoded(&key))
            .or_else(|| subject::id_in(&self.filter, message.subject.as_str()));
        let all = headers.into_iter().flat_map(|headers| headers.iter());
        let headers = all.filter_map(|(name, values)| {
            Some((name.to_string(), Bytes::copy_from_slice(values.first()?.as_str().as_bytes())))
        });
        let headers = headers.collect();
        // An event may be about a deleted row and have no data.
        let is_event = header("ce-specversion").is_some();
        let value = (is_event || !is_deleted).then(|| message.payload.clone());
        Ok(Message { key: key.map(Bytes::from), value, headers, place, delivery: None })
    }
}

#[async_trait]
impl Subscription for NatsSubscription {
    async fn receive(&mut self, most: usize) -> Result<Vec<Message>, String> {
        let mut looks = interval(LOOK);
        let mut next = loop {
            tokio::select! {
                next = self.messages.next() => break next,
                _ = looks.tick() => {
                    if is_lost(&self.client) {
                        return Err(format!("{}: the connection was lost", self.name));
                    }
                }
            }
        };
        let mut messages = Vec::new();
        while let Some(message) = next {
            let message = match message {
                Ok(message) => message,
                // Messages before the end are applied first; the end is reported again.
                Err(_) if !messages.is_empty() => break,
                Err(error) => return Err(format!("{}: {error}", self.name)),
            };
            messages.push(self.take(&message)?);
            next = if messages.len() < most { self.messages.next().now_or_never().flatten() } else { None };
        }
        match messages.is_empty() {
            true => Err(format!("{}: the server ended the subscription", self.name)),
            false => Ok(messages),
        }
    }

    fn position(&self) -> Option<Bytes> {
        Some(format!("{};{}", self.position.created, self.position.sequence).into())
    }

    fn lag(&self) -> Option<FeedLag> {
        let age = self.newest.map_or(0, |newest| Timestamp::now().as_millisecond() - newest);
        let age = if self.pending == 0 { 0 } else { age.max(0).unsigned_abs() };
        Some(FeedLag { time: Duration::from_millis(age), messages: Some(self.pending), ..FeedLag::default() })
    }
}
