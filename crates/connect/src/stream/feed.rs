//! Feed of the messages of a topic.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::timeout;

use crate::connector::FeedFormat;
use crate::feed::{Channel, Intake, Message, follow};
use diorama_core::dio::{Dio, FeedLag};
use diorama_core::vista::{Error, Result};
use diorama_inbound::Hook;

/// Maximum number of messages that are applied together.
const BATCH: usize = 1_000;
/// Pause between two attempts to connect: initial and maximum.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Time within which the broker confirms the last acknowledgements when a feed closes. After it, messages that are stored come again
/// at the next start.
const END: Duration = Duration::from_secs(5);

/// Beginning of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the position that was asked for: no message is missing.
    Asked,
    /// Elsewhere: there may have been messages before that will not come.
    Elsewhere,
}

/// A topic of a broker, as a feed reads it.
#[async_trait]
pub(crate) trait Broker: Send + 'static {
    /// A subscription to the topic.
    type Subscription: Subscription;

    /// Subscribes behind `position`, which a subscription returned before, also of an earlier process. Begins with the next message
    /// that arrives if it is `None` or the broker no longer has the messages behind it. An error is text for people.
    async fn subscribe(&mut self, position: Option<&Bytes>) -> Result<(Self::Subscription, Place), String>;
}

/// A subscription to a topic.
#[async_trait]
pub(crate) trait Subscription: Send {
    /// Waits for messages. Returns those that have arrived, in order, at most `most` if the broker has more. An error is the end of the
    /// subscription.
    ///
    /// # Cancel safety
    /// Dropping the future loses no message.
    async fn receive(&mut self, most: usize) -> Result<Vec<Message>, String>;

    /// Position behind all received messages; `None` if the broker has none, and keeps what is not [acknowledged](Self::acknowledge).
    fn position(&self) -> Option<Bytes>;

    /// Notes that a message could not be decoded: the one with this number among those of the last [`Subscription::receive`]. The
    /// broker may set it aside when the others are acknowledged.
    fn refuse(&mut self, number: usize) {
        let _ = number;
    }

    /// Tells the broker that all received messages are stored.
    async fn acknowledge(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Ends the subscription. Waits until the broker has all [acknowledgements](Self::acknowledge), so that it does not repeat their
    /// messages. An error is text for people: messages may come again.
    async fn end(self) -> Result<(), String>
    where
        Self: Sized,
    {
        Ok(())
    }

    /// Returns true if the broker has removed messages before they could be received, since this was called last.
    fn take_gap(&mut self) -> bool {
        false
    }

    /// Warnings about the broker for people, for example that it may lose messages.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// How far the subscription is behind the topic, if the broker tells.
    fn lag(&self) -> Option<FeedLag> {
        None
    }
}

/// Feed of a topic.
pub(crate) struct StreamFeed<B> {
    broker: B,
    hook: Box<Hook>,
    position: Option<Bytes>,
}

impl<B: Broker> StreamFeed<B> {
    /// Follows the topic of `broker` in a task of `dio`. `name` is for people; `key` is the [name of the mark](Intake::new).
    ///
    /// # Errors
    /// [`Error::Config`] for the format of another Diorama, which brokers do not send.
    pub(crate) fn start(broker: B, dio: &Dio, name: String, key: &str, format: FeedFormat) -> Result<()> {
        let FeedFormat::Inbound(hook) = format else {
            return Err(Error::Config(format!("{name}: the messages of a topic are not events of another Diorama")));
        };
        let intake = Intake::new(dio, name, key, BACKOFF);
        drop(dio.run(follow(StreamFeed { broker, hook, position: None }, intake)));
        Ok(())
    }
}

#[async_trait]
impl<B: Broker> Channel for StreamFeed<B> {
    type Connection = B::Subscription;

    fn resume(&mut self, position: &Bytes) -> bool {
        self.position = Some(position.clone());
        true
    }

    async fn connect(&mut self, intake: &mut Intake) -> Result<B::Subscription, String> {
        let (subscription, place) = self.broker.subscribe(self.position.as_ref()).await?;
        if place == Place::Elsewhere {
            intake.note_gap();
        }
        self.position = subscription.position();
        intake.set_warnings(subscription.warnings());
        Ok(subscription)
    }

    async fn listen(&mut self, mut subscription: B::Subscription, intake: &mut Intake) -> Result<(), String> {
        self.receive(&mut subscription, intake).await?;
        let ended = timeout(END, subscription.end()).await;
        if let Err(error) = ended.unwrap_or_else(|_| Err(format!("no answer within {} s", END.as_secs()))) {
            intake.note_repeats(&error);
        }
        Ok(())
    }
}

impl<B: Broker> StreamFeed<B> {
    /// Receives messages until the connection is lost, which is an error, or the Dio closes. Messages that are being applied then are
    /// acknowledged, too.
    async fn receive(&mut self, subscription: &mut B::Subscription, intake: &mut Intake) -> Result<(), String> {
        // Without messages, the position is stored some time later.
        intake.apply(Vec::new(), subscription.position()).await;
        let dio = intake.dio();
        while intake.begin_refresh() {
            tokio::select! {
                () = dio.closing() => return Ok(()),
                messages = subscription.receive(BATCH) => {
                    let messages = messages?;
                    if subscription.take_gap() {
                        intake.note_gap();
                    }
                    if !self.take(&messages, subscription, intake).await {
                        return Ok(());
                    }
                    if let Some(lag) = subscription.lag() {
                        intake.set_lag(lag);
                    }
                    intake.set_warnings(subscription.warnings());
                    subscription.acknowledge().await?;
                }
                () = intake.refreshed() => {}
            }
        }
        Ok(())
    }

    /// Applies messages with the position behind them; returns false if the Dio has closed.
    async fn take(&mut self, messages: &[Message], subscription: &mut B::Subscription, intake: &mut Intake) -> bool {
        let mut changes = Vec::with_capacity(messages.len());
        for (number, message) in messages.iter().enumerate() {
            intake.count_message();
            match intake.read_message(&self.hook, message, &mut changes) {
                Ok(true) => intake.note_gap(),
                Ok(false) => {}
                Err(error) => {
                    intake.undecodable(&error);
                    subscription.refuse(number);
                }
            }
        }
        let position = subscription.position();
        self.position.clone_from(&position);
        intake.apply(changes, position).await
    }
}

#[cfg(test)]
mod tests;
