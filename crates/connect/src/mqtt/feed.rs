//! Feed of topics. A message is acknowledged when the changes in it are durable: the broker sends again what was not acknowledged, as long
//! as it has the session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, RetainForwardRule, SubscribeReasonCode};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

use super::address::{Connected, MqttAddress, PATIENCE, Session};
use super::errors::{Failure, reason, refused_subscription};
use super::topic;
use crate::feed::Message;
use crate::stream::{Broker, OPERATION_HEADER, Place, Subscription, attribute};

/// Property with the row's id, for topics that do not contain it.
pub(super) const KEY_PROPERTY: &str = "diorama-key";
/// Seconds for which the broker keeps the session of a feed that is away.
pub(super) const EXPIRY: u32 = 86_400;
/// Number of messages beyond those that wait for an acknowledgement: of senders that want none.
const BEYOND: usize = 1_000;

/// Topics as a feed reads them.
#[derive(Clone, Debug)]
pub(super) struct MqttTopics {
    pub(super) address: MqttAddress,
    /// Topic with or without wildcards.
    pub(super) filter: String,
    pub(super) session: Session,
    /// True if the broker loses nothing that it has acknowledged, also in a crash.
    pub(super) durable: bool,
}

impl MqttTopics {
    fn wrong(&self, problem: &str) -> Failure {
        Failure::unreachable(format!("{} topic {}: {problem}", self.address, self.filter))
    }

    /// Connects and subscribes.
    ///
    /// # Errors
    /// The reason, for people.
    pub(super) async fn subscribe(&self, losses: &Arc<Losses>) -> Result<Subscribed, Failure> {
        let prefetch = usize::from(self.session.prefetch);
        let Connected { client, events, answer } = self.address.connect(&self.session, prefetch + 1).await?;
        let expiry = answer.properties.and_then(|properties| properties.session_expiry_interval);
        let expiry = expiry.filter(|_| self.session.expiry.is_some());
        let filter = Filter {
            path: self.filter.clone(),
            qos: QoS::AtLeastOnce,
            // Those of a session that goes on were sent.
            retain_forward_rule: RetainForwardRule::OnNewSubscribe,
            ..Filter::default()
        };
        // The queue of requests has room, and nobody else writes to it.
        client.try_subscribe_many([filter]).map_err(|_| self.wrong("the broker does not accept this topic filter"))?;
        let (sender, messages) = mpsc::channel(prefetch + BEYOND);
        let (subscribed, answered) = oneshot::channel();
        let mut work = JoinSet::new();
        work.spawn(receive(events, sender, subscribed));
        let granted = match timeout(PATIENCE, answered).await {
            Ok(Ok(granted)) => granted.map_err(|problem| self.wrong(&problem))?,
            Ok(Err(_)) => return Err(self.wrong("the connection was lost")),
            Err(_) => return Err(self.wrong(&format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        let mut warnings = Vec::new();
        if granted == QoS::AtMostOnce {
            losses.missed.store(true, Ordering::Relaxed);
            let problem = "the broker does not repeat messages (QoS 0): those of a lost connection are missing";
            warnings.push(self.wrong(problem).message);
        }
        if let Some(expiry) = expiry.filter(|expiry| *expiry < EXPIRY) {
            let problem = format!("the broker keeps the session for {expiry} s only: longer outages cost a refresh");
            warnings.push(self.wrong(&problem).message);
        }
        let subscription = MqttSubscription {
            client,
            messages,
            _work: work,
            topics: self.clone(),
            losses: Arc::clone(losses),
            warnings,
            received: Vec::new(),
        };
        Ok(Subscribed { subscription, has_session: answer.session_present })
    }
}

/// A subscription that has begun.
pub(super) struct Subscribed {
    subscription: MqttSubscription,
    /// True if the broker has kept the session.
    has_session: bool,
}

impl Subscribed {
    /// Warnings about the subscription, for people.
    pub(super) fn warnings(&self) -> &[String] {
        &self.subscription.warnings
    }
}

/// Messages that may have been lost, over all connections of a feed.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// True if messages may have been lost.
    missed: AtomicBool,
    /// True once a message was received that nobody repeats.
    has_unacknowledged: AtomicBool,
}

/// Works for the connection until it is lost, which is an error unless it was told to end. Passes messages on, and the answer to the
/// subscription.
async fn receive(
    mut events: EventLoop,
    messages: mpsc::Sender<Result<Publish, String>>,
    subscribed: oneshot::Sender<Result<QoS, String>>,
) {
    let (mut subscribed, mut is_ending) = (Some(subscribed), false);
    loop {
        let message = match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => Ok(message),
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                let granted = match answer.return_codes.first() {
                    Some(SubscribeReasonCode::Success(granted)) => Ok(*granted),
                    Some(code) => Err(refused_subscription(*code).unwrap_or_default().to_string()),
                    None => Err("the broker has not answered".into()),
                };
                if let Some(subscribed) = subscribed.take() {
                    let _feed = subscribed.send(granted);
                }
                continue;
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                is_ending = true;
                continue;
            }
            Ok(_) => continue,
            Err(_) if is_ending => return,
            Err(error) => Err(reason(&error)),
        };
        let has_ended = message.is_err();
        if messages.send(message).await.is_err() || has_ended {
            return;
        }
    }
}

/// Topics of a broker as a feed reads them.
pub(super) struct MqttBroker {
    topics: MqttTopics,
    losses: Arc<Losses>,
    /// True once there was a connection.
    has_connected: bool,
}

impl MqttBroker {
    pub(super) fn new(topics: MqttTopics) -> MqttBroker {
        // The source is read when a feed begins: nothing tells what happened before.
        let losses = Losses { missed: AtomicBool::new(true), ..Losses::default() };
        MqttBroker { topics, losses: Arc::new(losses), has_connected: false }
    }
}

#[async_trait]
impl Broker for MqttBroker {
    type Subscription = MqttSubscription;

    async fn subscribe(&mut self, _: Option<&Bytes>) -> Result<(MqttSubscription, Place), String> {
        let subscribed = self.topics.subscribe(&self.losses).await.map_err(|failure| failure.message)?;
        let Subscribed { mut subscription, has_session } = subscribed;
        if std::mem::replace(&mut self.has_connected, true) && !has_session {
            let problem =
                "the broker has lost the session and the messages in it; Mosquitto keeps them with persistence true";
            subscription.warnings.push(self.topics.wrong(problem).message);
        }
        let missed = self.losses.missed.swap(!self.topics.durable, Ordering::Relaxed) || !has_session;
        Ok((subscription, if missed { Place::Elsewhere } else { Place::Asked }))
    }
}

/// A subscription.
pub(super) struct MqttSubscription {
    client: AsyncClient,
    messages: mpsc::Receiver<Result<Publish, String>>,
    /// The task of the connection, which ends with this.
    _work: JoinSet<()>,
    topics: MqttTopics,
    losses: Arc<Losses>,
    /// Warnings about the connection, for people.
    warnings: Vec<String>,
    /// Messages that were received and are not acknowledged, without their content.
    received: Vec<Publish>,
}

impl MqttSubscription {
    fn take(&mut self, mut publish: Publish) -> Message {
        let payload = std::mem::take(&mut publish.payload);
        if publish.qos == QoS::AtMostOnce {
            if !publish.retain {
                self.losses.missed.store(true, Ordering::Relaxed);
                self.losses.has_unacknowledged.store(true, Ordering::Relaxed);
            }
            return message(&publish, payload, &self.topics.filter);
        }
        let message = message(&publish, payload, &self.topics.filter);
        (publish.properties, publish.topic) = (None, Bytes::new());
        self.received.push(publish);
        message
    }
}

#[async_trait]
impl Subscription for MqttSubscription {
    async fn receive(&mut self, most: usize) -> Result<Vec<Message>, String> {
        let mut next = self.messages.recv().await;
        let mut messages = Vec::new();
        loop {
            match next {
                Some(Ok(publish)) => messages.push(self.take(publish)),
                Some(Err(problem)) if messages.is_empty() => return Err(self.topics.wrong(&problem).message),
                // Messages before the end are applied first, but can no longer be acknowledged.
                Some(Err(_)) => return Ok(messages),
                None => return Err(self.topics.wrong("the connection was lost").message),
            }
            match (messages.len() < most).then(|| self.messages.try_recv()) {
                Some(Ok(publish)) => next = Some(publish),
                Some(Err(_)) | None => return Ok(messages),
            }
        }
    }

    fn position(&self) -> Option<Bytes> {
        None
    }

    async fn acknowledge(&mut self) -> Result<(), String> {
        for publish in self.received.drain(..) {
            match timeout(PATIENCE, self.client.ack(&publish)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(self.topics.wrong("the connection was lost").message),
            }
        }
        Ok(())
    }

    fn warnings(&self) -> Vec<String> {
        let unacknowledged = self.losses.has_unacknowledged.load(Ordering::Relaxed).then(|| {
            let problem = "a message was sent with QoS 0: it is lost with a connection; send messages with QoS 1. The source is read \
                           again when the connection was lost";
            self.topics.wrong(problem).message
        });
        self.warnings.iter().cloned().chain(unacknowledged).collect()
    }

    /// Disconnects. The broker ends the connection when it has taken this, and so the acknowledgements before.
    async fn end(mut self) -> Result<(), String> {
        let lost = |problem: &str| self.topics.wrong(problem).message;
        self.client.disconnect().await.map_err(|_| lost("the connection was lost"))?;
        loop {
            match self.messages.recv().await {
                // Of those that have arrived meanwhile, none is acknowledged.
                Some(Ok(_)) => {}
                Some(Err(problem)) => return Err(lost(&problem)),
                None => return Ok(()),
            }
        }
    }
}

/// Converts a message. `filter` is a topic with wildcards, which stand for the row's id. Attributes of CloudEvents are properties:
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/mqtt-protocol-binding.md>.
fn message(publish: &Publish, payload: Bytes, filter: &str) -> Message {
    let properties = publish.properties.clone().unwrap_or_default();
    let is_event = properties.user_properties.iter().any(|(name, _)| name == "specversion");
    let (mut headers, mut key, mut id) = (Vec::new(), None, None);
    for (name, value) in properties.user_properties {
        match name.as_str() {
            KEY_PROPERTY => key = Some(Bytes::from(value)),
            OPERATION_HEADER => id = Some(format!("{value}:{:016x}", xxh3_64(&payload))),
            _ if is_event => headers.push((format!("ce-{name}"), attribute::encode(value.as_bytes()).into())),
            _ => headers.push((name, value.into())),
        }
    }
    if let Some(kind) = properties.content_type {
        headers.push(("content-type".into(), kind.into()));
    }
    let topic = std::str::from_utf8(&publish.topic).unwrap_or_default();
    let key = key.or_else(|| topic::id_in(filter, topic).map(Bytes::from));
    // An event may be about a deleted row and have no data.
    let value = (is_event || !payload.is_empty()).then_some(payload);
    Message { key, value, headers, place: None, delivery: id }
}
