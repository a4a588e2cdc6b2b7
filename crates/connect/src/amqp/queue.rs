//! A queue: whether it is there, and what it keeps.

use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, Consumer, Queue};

use super::address::AmqpAddress;
use super::errors::{Failure, code, reply};

/// A queue that a feed reads.
#[derive(Clone, Debug)]
pub(super) struct AmqpQueue {
    pub(super) address: AmqpAddress,
    pub(super) queue: String,
    /// Exchange that the queue is bound to. Without one, the queue must exist.
    pub(super) exchange: Option<String>,
    /// Routing key of the binding, perhaps with wildcards.
    pub(super) routing_key: Option<String>,
    /// Maximum number of messages that are not acknowledged.
    pub(super) prefetch: u16,
}

/// Content that a queue keeps, as far as the broker tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Every message: a quorum queue.
    All,
    /// Persistent messages.
    Persistent,
    /// Nothing when the broker ends.
    UntilRestart,
    /// Nothing when its last consumer ends.
    UntilUnused,
    /// Every message, also those that were read: a stream.
    Stream,
    /// The user may not ask.
    Unknown,
}

impl Keeping {
    /// Returns the problem with a queue that loses messages, for people.
    pub(super) fn warning(self, address: &AmqpAddress, queue: &str) -> Option<String> {
        let problem = match self {
            Keeping::All | Keeping::Persistent => return None,
            Keeping::Stream => "is a stream, which keeps what was read: a feed needs a quorum queue or a classic one",
            Keeping::UntilRestart => {
                "is not durable: it ends with the broker, and its messages are lost; declare it as durable"
            }
            Keeping::UntilUnused => {
                "is deleted with its last consumer, and its messages are lost; declare it without auto_delete"
            }
            Keeping::Unknown => {
                "may not be declared by this user, so that the broker does not tell whether it is durable; give the user the right to \
                 configure it"
            }
        };
        Some(format!("{address}: queue {queue} {problem}"))
    }
}

/// Returns a name as the client takes it.
pub(super) fn name(text: &str) -> Result<ShortString, Failure> {
    ShortString::try_new(text).map_err(|error| Failure::unreachable(format!("{text}: {error}")))
}

/// True if the broker has closed the channel because there is no such queue. One whose node is away is there.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    matches!(reply(error), Some((code::NOT_FOUND, text)) if text.contains("no queue"))
}

/// Looks `queue` up without a change. An error closes the channel.
pub(super) async fn look_up(channel: &Channel, queue: &ShortString) -> lapin::Result<Queue> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), passive, FieldTable::default()).await
}

/// Error of a feed whose queue has another consumer.
pub(super) const SHARED: &str =
    "another consumer reads this queue; each message goes to one of them, so that a feed needs a queue of its own";

/// Asks what the queue keeps. It exists: a declaration with other properties changes nothing, and the refusal names the first one that
/// differs.
pub(super) async fn keeping(connection: &Connection, queue: &ShortString) -> lapin::Result<Keeping> {
    let channel = connection.create_channel().await?;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let Err(error) = channel.queue_declare(queue.clone(), durable, FieldTable::default()).await else {
        return Ok(Keeping::Persistent);
    };
    match reply(&error) {
        Some((code::PRECONDITION_FAILED, text)) => Ok(match text {
            text if text.contains("'durable'") => Keeping::UntilRestart,
            text if text.contains("'auto_delete'") => Keeping::UntilUnused,
            text if text.contains("'quorum'") => Keeping::All,
            text if text.contains("'stream'") => Keeping::Stream,
            _ => Keeping::Persistent,
        }),
        Some((code::ACCESS_REFUSED, _)) => Ok(Keeping::Unknown),
        _ => Err(error),
    }
}

/// A queue that is there.
pub(super) struct OpenQueue {
    pub(super) channel: Channel,
    pub(super) name: ShortString,
    /// True if it was declared now.
    pub(super) is_new: bool,
}

impl AmqpQueue {
    /// Looks the queue up, and declares and binds it if it has an exchange.
    ///
    /// # Errors
    /// The reason, for people, and true if there is no such queue.
    pub(super) async fn open(&self, connection: &Connection) -> Result<OpenQueue, (Failure, bool)> {
        let wrong = |error: lapin::Error| (self.address.failure(&error), is_missing(&error));
        let name = name(&self.queue).map_err(|failure| (failure, false))?;
        let mut channel = connection.create_channel().await.map_err(wrong)?;
        let is_new = match look_up(&channel, &name).await {
            Ok(_) => false,
            Err(error) if is_missing(&error) && self.exchange.is_some() => {
                channel = connection.create_channel().await.map_err(wrong)?;
                let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
                let mut arguments = FieldTable::default();
                arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("quorum")));
                channel.queue_declare(name.clone(), durable, arguments).await.map_err(wrong)?;
                true
            }
            Err(error) => return Err(wrong(error)),
        };
        if let Some(exchange) = &self.exchange {
            self.bind(&channel, &name, exchange).await.map_err(|failure| (failure, is_new))?;
        }
        Ok(OpenQueue { channel, name, is_new })
    }

    async fn bind(&self, channel: &Channel, queue: &ShortString, exchange: &str) -> Result<(), Failure> {
        let (exchange, key) = (name(exchange)?, name(self.routing_key.as_deref().unwrap_or("#"))?);
        let bound =
            channel.queue_bind(queue.clone(), exchange, key, QueueBindOptions::default(), FieldTable::default());
        bound.await.map_err(|error| self.address.failure(&error))
    }

    /// Begins to consume as the only consumer. So the messages of a connection that is lost come again before newer ones: those go to
    /// nobody before the broker has noticed the loss and put them back into their places.
    pub(super) async fn consume(&self, connection: &Connection, open: &mut OpenQueue) -> Result<Consumer, Failure> {
        let wrong = |error: lapin::Error| self.address.failure(&error);
        match self.try_consume(open, true).await? {
            Ok(consumer) => Ok(consumer),
            // A queue with a single active consumer refuses an exclusive one.
            Err(error) if matches!(reply(&error), Some((code::ACCESS_REFUSED, text)) if text.contains("exclusive")) => {
                open.channel = connection.create_channel().await.map_err(wrong)?;
                self.try_consume(open, false).await?.map_err(wrong)
            }
            Err(error) => Err(wrong(error)),
        }
    }

    /// Consumes unless somebody else does. A quorum queue accepts an exclusive consumer beside others.
    async fn try_consume(&self, open: &OpenQueue, exclusive: bool) -> Result<lapin::Result<Consumer>, Failure> {
        let wrong = |error: lapin::Error| self.address.failure(&error);
        if look_up(&open.channel, &open.name).await.map_err(wrong)?.consumer_count() > 0 {
            return Err(self.address.unreachable(&format!("queue {}: {SHARED}", self.queue)));
        }
        open.channel.basic_qos(self.prefetch, BasicQosOptions::default()).await.map_err(wrong)?;
        let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
        Ok(open.channel.basic_consume(open.name.clone(), "".into(), options, FieldTable::default()).await)
    }
}
