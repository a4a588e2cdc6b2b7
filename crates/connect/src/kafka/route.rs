//! Route of writes to a topic. A write is routed when all replicas in sync have its message (`acks = all`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, PartitionClient};
use rskafka::record::Record;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::address::KafkaTopic;
use super::batches::Batches;
use super::partitioner::partition;
use crate::stream::{OutMessage, Publisher};
use diorama_core::vista::{Error, ErrorKind, Result};

/// Maximum number of messages in one request.
const BATCH: usize = 500;
/// Time after which the partitions of the topic are asked for again.
const PARTITIONS: Duration = Duration::from_secs(300);

/// The partitions of a topic.
#[derive(Debug)]
struct Connected {
    partitions: Vec<Outlet>,
    since: Instant,
}

#[derive(Debug)]
struct Outlet {
    client: Arc<PartitionClient>,
    batches: Batches<Record>,
}

/// Producer of a topic.
#[derive(Debug)]
pub(super) struct KafkaPublisher {
    topic: KafkaTopic,
    /// `None` before the first message and after a failure.
    connected: Mutex<Option<Arc<Connected>>>,
}

impl KafkaPublisher {
    pub(super) fn new(topic: KafkaTopic) -> KafkaPublisher {
        KafkaPublisher { topic, connected: Mutex::new(None) }
    }

    async fn connected(&self) -> Result<Arc<Connected>> {
        let mut connected = self.connected.lock().await;
        if let Some(connected) = &*connected
            && connected.since.elapsed() < PARTITIONS
        {
            return Ok(Arc::clone(connected));
        }
        let partitions = self.topic.connect().await?;
        let partitions = partitions.into_iter().map(|(_, client)| Outlet { client, batches: Batches::default() });
        let new = Arc::new(Connected { partitions: partitions.collect(), since: Instant::now() });
        *connected = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Connects again before the next message, because a connection has failed.
    async fn forget(&self, failed: &Arc<Connected>) {
        let mut connected = self.connected.lock().await;
        if connected.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            *connected = None;
        }
    }
}

#[async_trait]
impl Publisher for KafkaPublisher {
    async fn publish(&self, message: OutMessage) -> Result<()> {
        let connected = self.connected().await?;
        let number = partition(message.key.as_bytes(), connected.partitions.len());
        let Some(outlet) = connected.partitions.get(number) else {
            return Err(Error::transient(format!("{}: the topic has no partition", self.topic)));
        };
        let send = |records: Vec<Record>| async {
            let sent = outlet.client.produce(records, Compression::NoCompression).await;
            sent.map(drop).map_err(|error| Error::from(self.topic.failure(&error)))
        };
        let sent = outlet.batches.add(record(message), BATCH, send).await;
        if let Err(error) = &sent
            && error.kind() != ErrorKind::Permanent
        {
            self.forget(&connected).await;
        }
        sent
    }
}

/// Attributes of CloudEvents are headers `ce_NAME`:
/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>.
fn record(message: OutMessage) -> Record {
    let name = |name: &str| name.strip_prefix("ce-").map_or_else(|| name.to_string(), |name| format!("ce_{name}"));
    Record {
        key: Some(message.key.into_bytes()),
        value: message.value.map(Vec::from),
        headers: message.headers.into_iter().map(|(own, value)| (name(own), value.into_bytes())).collect(),
        timestamp: DateTime::from_timestamp_millis(Timestamp::now().as_millisecond()).unwrap_or_default(),
    }
}
