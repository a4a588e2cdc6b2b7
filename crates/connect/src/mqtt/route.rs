//! Route of writes to topics. A write is routed when the broker has acknowledged its message (QoS 1).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::address::{MqttAddress, PATIENCE, Session};
use super::errors::{Failure, reason, refused_message};
use super::feed::KEY_PROPERTY;
use super::topic;
use crate::stream::{OutMessage, Publisher};
use diorama_core::vista::{Error, ErrorKind, Result};

/// Writes under way at a time.
pub(super) const CONCURRENCY: usize = 64;
/// Size of a packet beside topic, properties and content, in bytes.
const OVERHEAD: usize = 64;

/// Publisher of topics.
#[derive(Debug)]
pub(super) struct MqttPublisher {
    address: MqttAddress,
    /// The topic, perhaps with `{id}`.
    topic: String,
    /// True if the broker keeps the last message of each topic.
    retain: bool,
    /// `None` before the first message and after a failure.
    connected: tokio::sync::Mutex<Option<Arc<Connected>>>,
    /// Topic of the last message, if nobody has subscribed to it.
    unread: Mutex<Option<String>>,
    /// True once that was logged.
    is_told: AtomicBool,
}

/// A connection, and the messages that wait for an answer.
struct Connected {
    client: AsyncClient,
    waiting: Arc<Mutex<Waiting>>,
    /// Largest packet that the broker accepts.
    most: Option<u32>,
    /// The task of the connection, which ends with this.
    _work: JoinSet<()>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").finish_non_exhaustive()
    }
}

/// The broker's answer to a message, or what is known about one without.
type Outcome = std::result::Result<PubAckReason, (ErrorKind, String)>;
type Answer = oneshot::Sender<Outcome>;

/// Messages without an answer. The client sends them in order, and gives each a number when it does.
#[derive(Default)]
struct Waiting {
    queued: VecDeque<Answer>,
    sent: HashMap<u16, Answer>,
    /// Reason why the connection has ended.
    lost: Option<String>,
}

impl Waiting {
    fn end(&mut self, problem: &str) {
        self.lost = Some(problem.to_string());
        for answer in self.queued.drain(..) {
            let _gone = answer.send(Err((ErrorKind::Transient, problem.to_string())));
        }
        for (_, answer) in self.sent.drain() {
            let _gone = answer.send(Err((ErrorKind::Unknown, problem.to_string())));
        }
    }
}

/// Works for the connection until it is lost.
async fn work(mut events: EventLoop, waiting: Arc<Mutex<Waiting>>) {
    loop {
        match events.poll().await {
            Ok(event) => note(event, &waiting),
            Err(error) => {
                // Answers that have arrived together with the end of the connection are not lost with it.
                events.state.events.drain(..).for_each(|event| note(event, &waiting));
                waiting.lock().end(&reason(&error));
                return;
            }
        }
    }
}

/// Notes that a message was sent or answered.
fn note(event: Event, waiting: &Mutex<Waiting>) {
    let mut waiting = waiting.lock();
    match event {
        Event::Outgoing(Outgoing::Publish(number)) => {
            if let Some(answer) = waiting.queued.pop_front() {
                waiting.sent.insert(number, answer);
            }
        }
        Event::Incoming(Packet::PubAck(answer)) => {
            if let Some(waiting) = waiting.sent.remove(&answer.pkid) {
                let _gone = waiting.send(Ok(answer.reason));
            }
        }
        _ => {}
    }
}

impl MqttPublisher {
    pub(super) fn new(address: MqttAddress, topic: String, retain: bool) -> MqttPublisher {
        let connected = tokio::sync::Mutex::new(None);
        MqttPublisher { address, topic, retain, connected, unread: Mutex::default(), is_told: AtomicBool::new(false) }
    }

    async fn connected(&self) -> std::result::Result<Arc<Connected>, Failure> {
        let mut connected = self.connected.lock().await;
        if let Some(connected) = &*connected
            && connected.waiting.lock().lost.is_none()
        {
            return Ok(Arc::clone(connected));
        }
        let session = Session { client: format!("diorama-{}", Uuid::now_v7().simple()), expiry: None, prefetch: 1 };
        let opened = self.address.connect(&session, CONCURRENCY).await?;
        let (max_qos, retain_available, most) = match &opened.answer.properties {
            Some(properties) => (properties.max_qos, properties.retain_available, properties.max_packet_size),
            None => (None, None, None),
        };
        if max_qos == Some(0) {
            return Err(self.address.unreachable("the broker acknowledges no messages (it has QoS 0 only)"));
        }
        if self.retain && retain_available == Some(0) {
            return Err(self.address.unreachable("the broker keeps no messages: remove retain = true"));
        }
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let mut task = JoinSet::new();
        task.spawn(work(opened.events, Arc::clone(&waiting)));
        let new = Arc::new(Connected { client: opened.client, waiting, most, _work: task });
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

    /// Warning about a topic without a subscriber, for people.
    fn nobody(&self, topic: &str) -> String {
        format!("{} topic {topic}: nobody has subscribed to it: the last write is lost", self.address)
    }

    fn permanent(&self, problem: &str) -> Failure {
        Failure { kind: ErrorKind::Permanent, ..self.address.unreachable(problem) }
    }

    /// Hands a message to the connection. Returns its answer to come.
    fn send(
        &self,
        connected: &Connected,
        topic: &str,
        message: OutMessage,
    ) -> std::result::Result<oneshot::Receiver<Outcome>, Failure> {
        if topic.len() > topic::MAX_TOPIC {
            return Err(self.permanent(&format!("the topic is longer than {} bytes with the id", topic::MAX_TOPIC)));
        }
        let properties = properties(&message);
        let value = message.value.unwrap_or_default();
        let texts: usize = properties.user_properties.iter().map(|(name, value)| name.len() + value.len() + 5).sum();
        let size = topic.len() + texts + value.len() + OVERHEAD;
        if connected.most.is_some_and(|most| size > usize::try_from(most).unwrap_or(usize::MAX)) {
            return Err(self.permanent(&format!("the broker accepts no message of {size} bytes")));
        }
        let (sender, answer) = oneshot::channel();
        let mut waiting = connected.waiting.lock();
        if let Some(problem) = &waiting.lost {
            return Err(self.address.unreachable(problem));
        }
        // Under the lock, so that answers wait in the order of the messages.
        let sent =
            connected.client.try_publish_with_properties(topic, QoS::AtLeastOnce, self.retain, value, properties);
        sent.map_err(|_| self.address.unreachable("too many messages wait"))?;
        waiting.queued.push_back(sender);
        Ok(answer)
    }
}

#[async_trait]
impl Publisher for MqttPublisher {
    async fn publish(&self, message: OutMessage) -> Result<()> {
        let connected = self.connected().await?;
        let topic = topic::of_row(&self.topic, &message.key);
        let wrong = |kind, problem: &str| {
            let failure = self.address.unreachable(&format!("topic {topic}: {problem}"));
            Err(Error::from(Failure { kind, ..failure }))
        };
        match timeout(PATIENCE, self.send(&connected, &topic, message)?).await {
            Ok(Ok(Ok(answer))) => {
                if let Some((kind, problem)) = refused_message(answer) {
                    return wrong(kind, problem);
                }
                let is_lost = answer == PubAckReason::NoMatchingSubscribers && !self.retain;
                if is_lost && !self.is_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!("{}", self.nobody(&topic));
                }
                *self.unread.lock() = is_lost.then_some(topic);
                Ok(())
            }
            Ok(Ok(Err((kind, problem)))) => wrong(kind, &problem),
            Ok(Err(_)) => wrong(ErrorKind::Unknown, "the connection was lost"),
            Err(_) => {
                self.forget(&connected).await;
                wrong(ErrorKind::Unknown, &format!("no answer within {} s", PATIENCE.as_secs()))
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.unread.lock().iter().map(|topic| self.nobody(topic)).collect()
    }
}

/// Attributes of CloudEvents have no prefix.
fn properties(message: &OutMessage) -> PublishProperties {
    let mut properties = PublishProperties::default();
    for (name, value) in &message.headers {
        match *name {
            "content-type" => properties.content_type = Some(value.clone()),
            name => {
                let name = name.strip_prefix("ce-").unwrap_or(name);
                properties.user_properties.push((name.to_string(), value.clone()));
            }
        }
    }
    properties.user_properties.push((KEY_PROPERTY.to_string(), message.key.clone()));
    properties
}
