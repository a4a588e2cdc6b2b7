//! The brokers: writes go to one topic, and changes come from another one.

use std::collections::HashMap;

use diorama_servers::{
    KafkaRecord, KafkaServer, MqttMessage, MqttRecord, MqttServer, NatsServer, RabbitMessage, RabbitServer, RedisServer,
};
use futures_util::future::join_all;
use tokio::runtime::Runtime;

pub(super) enum Broker {
    Kafka(KafkaServer),
    Nats(NatsServer),
    Redis(RedisServer),
    Rabbit(RabbitServer),
    Mqtt(MqttServer),
}

/// A write as a message.
pub(super) struct Message {
    pub(super) key: String,
    pub(super) operation: String,
    /// The row; `None` if it is deleted.
    pub(super) value: Option<String>,
    /// Partition that a change of the row goes to.
    pub(super) partition: i32,
}

impl Message {
    /// A write at a broker without partitions. A deleted row has no text, or an empty one.
    fn new(key: String, operation: String, text: Option<String>) -> Message {
        Message { key, operation, value: text.filter(|text| !text.is_empty()), partition: 0 }
    }
}

/// Number of messages that were read, by partition.
pub(super) type Read = HashMap<i32, u64>;

const PARTITIONS: i32 = 3;
/// Session of the application at a broker of MQTT.
const APPLICATION: &str = "application";

impl Broker {
    pub(super) fn kafka() -> Option<Broker> {
        let broker = KafkaServer::start_durable()?;
        Runtime::new().unwrap().block_on(async {
            broker.create_topic("writes", PARTITIONS).await;
            broker.create_topic("changes", PARTITIONS).await;
        });
        Some(Broker::Kafka(broker))
    }

    pub(super) fn nats() -> Option<Broker> {
        let broker = NatsServer::start()?;
        Runtime::new().unwrap().block_on(async {
            broker.create_stream("WRITES", &["writes.*"]).await;
            broker.create_stream("CHANGES", &["changes.*"]).await;
        });
        Some(Broker::Nats(broker))
    }

    pub(super) fn redis() -> Option<Broker> {
        RedisServer::start().map(Broker::Redis)
    }

    pub(super) fn rabbit() -> Option<Broker> {
        let broker = RabbitServer::start()?;
        Runtime::new().unwrap().block_on(async {
            for queue in ["writes", "changes"] {
                broker.declare_queue(queue, &[]).await;
            }
            broker.declare_exchange("products", &[("writes", "writes.*")]).await;
        });
        Some(Broker::Rabbit(broker))
    }

    pub(super) fn mqtt() -> Option<Broker> {
        let broker = MqttServer::start()?;
        Runtime::new().unwrap().block_on(broker.keep(APPLICATION, "writes/+"));
        Some(Broker::Mqtt(broker))
    }

    /// Settings of the resource.
    pub(super) fn configuration(&self) -> String {
        let (connection, write, feed) = match self {
            Broker::Kafka(broker) => {
                (format!("kafka = {:?}", broker.address()), "topic = \"writes\"", "topic = \"changes\"")
            }
            Broker::Nats(broker) => (
                format!("nats = {:?}", broker.url()),
                "subject = \"writes.{id}\"",
                "stream = \"CHANGES\", subject = \"changes.*\"",
            ),
            Broker::Redis(broker) => {
                (format!("redis = {:?}", broker.url()), "stream = \"writes\"", "stream = \"changes\"")
            }
            Broker::Rabbit(broker) => (
                format!("amqp = {:?}", broker.url()),
                "exchange = \"products\", routing_key = \"writes.{id}\"",
                "queue = \"changes\"",
            ),
            Broker::Mqtt(broker) => {
                (format!("mqtt = {:?}", broker.url()), "topic = \"writes/{id}\"", "topic = \"changes/+\"")
            }
        };
        format!(
            "write = {{ connection = \"broker\", {write}, format = \"row\" }}\n\
             feed = {{ connection = \"broker\", {feed}, format = \"debezium\", only = \"products\" }}\n\
             [connection.broker]\n{connection}\n"
        )
    }

    /// Returns the writes that were not read.
    pub(super) async fn writes(&self, read: &mut Read) -> Vec<Message> {
        match self {
            Broker::Kafka(broker) => {
                let mut messages = Vec::new();
                let next = |partition| read.get(&partition).copied().unwrap_or_default();
                let reads = (0..PARTITIONS).map(|partition| broker.messages_from("writes", partition, next(partition)));
                for (partition, found) in (0..PARTITIONS).zip(join_all(reads).await) {
                    *read.entry(partition).or_default() += found.len() as u64;
                    messages.extend(found.into_iter().map(|message| Message {
                        operation: message.headers["diorama-operation"].clone(),
                        partition,
                        key: message.key,
                        value: message.value,
                    }));
                }
                messages
            }
            Broker::Nats(broker) => {
                let next = read.entry(0).or_default();
                let found = broker.messages_from("WRITES", *next).await;
                *next += found.len() as u64;
                let message = |(subject, headers, text): (String, HashMap<String, String>, String)| {
                    let key = subject.strip_prefix("writes.").unwrap().to_string();
                    Message::new(key, headers["diorama-operation"].clone(), Some(text))
                };
                found.into_iter().map(message).collect()
            }
            Broker::Redis(broker) => {
                let next = read.entry(0).or_default();
                let found = broker.entries("writes").split_off(usize::try_from(*next).unwrap());
                *next += found.len() as u64;
                let message = |(_, fields): (String, Vec<(String, String)>)| {
                    let mut fields: HashMap<String, String> = fields.into_iter().collect();
                    let mut take = |name: &str| fields.remove(name);
                    Message::new(take("key").unwrap(), take("diorama-operation").unwrap(), take("value"))
                };
                found.into_iter().map(message).collect()
            }
            Broker::Rabbit(broker) => {
                let message = |message: RabbitMessage| {
                    let key = message.routing_key.strip_prefix("writes.").unwrap().to_string();
                    Message::new(key, message.headers["diorama-operation"].clone(), Some(message.value))
                };
                broker.take_messages("writes").await.into_iter().map(message).collect()
            }
            Broker::Mqtt(broker) => {
                let message = |message: MqttMessage| {
                    let key = message.topic.strip_prefix("writes/").unwrap().to_string();
                    let properties: HashMap<String, String> = message.properties.into_iter().collect();
                    Message::new(key, properties["diorama-operation"].clone(), Some(message.value))
                };
                broker.take_messages(APPLICATION).await.into_iter().map(message).collect()
            }
        }
    }

    /// Sends a change of the row `key`.
    pub(super) async fn change(&self, key: &str, partition: i32, change: &str) {
        match self {
            Broker::Kafka(broker) => {
                let record = KafkaRecord { key, value: Some(change), headers: &[] };
                broker.produce("changes", partition, &[record]).await;
            }
            Broker::Nats(broker) => broker.publish(&format!("changes.{key}"), &[], change).await,
            Broker::Redis(broker) => drop(broker.add("changes", &[("key", key), ("value", change)])),
            Broker::Rabbit(broker) => broker.publish("", &[("changes", "", change)]).await,
            Broker::Mqtt(broker) => {
                let topic = format!("changes/{key}");
                let message =
                    MqttRecord { topic: &topic, properties: &[], value: change, acknowledged: true, retained: false };
                broker.publish(&[message]).await;
            }
        }
    }

    /// True if the broker loses nothing that it has acknowledged when it is killed. Mosquitto acknowledges before it stores.
    pub(super) fn is_durable(&self) -> bool {
        !matches!(self, Broker::Mqtt(_))
    }

    pub(super) fn kill(&mut self) {
        match self {
            Broker::Kafka(broker) => broker.kill(),
            Broker::Nats(broker) => broker.kill(),
            Broker::Redis(broker) => broker.kill(),
            Broker::Rabbit(broker) => broker.kill(),
            Broker::Mqtt(broker) => broker.kill(),
        }
    }

    pub(super) fn restart(&mut self) {
        match self {
            Broker::Kafka(broker) => broker.restart(),
            Broker::Nats(broker) => broker.restart(),
            Broker::Redis(broker) => broker.restart(),
            Broker::Rabbit(broker) => broker.restart(),
            Broker::Mqtt(broker) => broker.restart(),
        }
    }
}
