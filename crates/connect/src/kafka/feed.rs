//! Feed of a topic: all partitions, each from an offset of its own. Offsets are stored with the changes before them, not in a
//! consumer group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{BoxStream, SelectAll, unfold};
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use rskafka::client::error::{Error as ClientError, ProtocolError};
use rskafka::client::partition::{OffsetAt, PartitionClient};
use rskafka::record::RecordAndOffset;
use tokio::time::{Instant, sleep_until};

use super::address::{KafkaTopic, Partitions};
use super::errors::Failure;
use crate::feed::{LogPlace, Message};
use crate::stream::{Broker, Place, Subscription, attribute};
use diorama_core::dio::FeedLag;

/// Time for which a broker holds a request for messages of a partition that has none.
const WAIT_MS: i32 = 500;
/// Maximum size of one answer in bytes, unless a single batch is larger.
const ANSWER: i32 = 1 << 20;
/// Time after which the partitions of the topic are asked for again.
const PARTITIONS: Duration = Duration::from_secs(60);

/// Offsets of the next message of each partition.
type Offsets = BTreeMap<i32, i64>;

/// Place in all partitions, written `EPOCH;PARTITION:OFFSET,..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Position {
    /// Time, in milliseconds, at which the feed began without a position. Offsets of different epochs cannot be compared, because
    /// the topic may have been made anew.
    epoch: i64,
    offsets: Offsets,
}

/// A topic as a feed reads it.
pub(super) struct KafkaBroker(pub(super) KafkaTopic);

#[async_trait]
impl Broker for KafkaBroker {
    type Subscription = KafkaSubscription;

    async fn subscribe(&mut self, position: Option<&Bytes>) -> Result<(KafkaSubscription, Place), String> {
        let partitions = self.0.connect().await.map_err(|failure| failure.message)?;
        let asked = position.and_then(|position| Position::parse(position));
        let begins = partitions.iter().map(|(number, client)| self.begin(*number, client, asked.as_ref()));
        let begins = try_join_all(begins).await.map_err(|failure| failure.message)?;
        let offsets = partitions.iter().zip(&begins).map(|((number, _), (offset, _))| (*number, *offset)).collect();
        let (epoch, place) = match asked {
            Some(asked) if begins.iter().all(|(_, place)| *place == Place::Asked) => (asked.epoch, Place::Asked),
            _ => (Timestamp::now().as_millisecond(), Place::Elsewhere),
        };
        Ok((KafkaSubscription::new(self.0.clone(), partitions, Position { epoch, offsets }), place))
    }
}

impl KafkaBroker {
    /// Offset from which a partition is read. A partition that the position does not know is new, and read from its first message.
    async fn begin(
        &self,
        number: i32,
        client: &PartitionClient,
        asked: Option<&Position>,
    ) -> Result<(i64, Place), Failure> {
        let at = |place: OffsetAt| self.0.answer(client.get_offset(place));
        let (earliest, latest) = (at(OffsetAt::Earliest).await?, at(OffsetAt::Latest).await?);
        let offset = asked.map(|asked| asked.offsets.get(&number).copied().unwrap_or(0));
        match offset.filter(|offset| *offset >= earliest) {
            Some(offset) if offset <= latest || self.has(client, offset).await? => Ok((offset, Place::Asked)),
            _ => Ok((latest, Place::Elsewhere)),
        }
    }

    /// True if a partition has messages before `offset`, also if it tells an earlier end. Beyond its end is a position in another
    /// topic of the same name.
    async fn has(&self, client: &PartitionClient, offset: i64) -> Result<bool, Failure> {
        let fetched = async {
            match client.fetch_records(offset, 1..ANSWER, WAIT_MS).await {
                Ok((_, end)) => Ok(offset <= end),
                Err(ClientError::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.0.answer(fetched).await
    }
}

impl Position {
    fn parse(position: &[u8]) -> Option<Position> {
        let part = |part: &str| {
            let (number, offset) = part.split_once(':')?;
            Some((number.parse().ok()?, offset.parse().ok()?))
        };
        let (epoch, offsets) = std::str::from_utf8(position).ok()?.split_once(';')?;
        Some(Position { epoch: epoch.parse().ok()?, offsets: offsets.split(',').map(part).collect::<Option<_>>()? })
    }

    fn write(&self) -> String {
        let parts: Vec<String> = self.offsets.iter().map(|(number, offset)| format!("{number}:{offset}")).collect();
        format!("{};{}", self.epoch, parts.join(","))
    }
}

/// Messages of one partition, and the offset behind them.
struct Part {
    number: i32,
    records: Vec<RecordAndOffset>,
    next: i64,
    /// Offset behind the newest message of the partition.
    end: i64,
}

/// A subscription to all partitions.
pub(super) struct KafkaSubscription {
    topic: KafkaTopic,
    parts: SelectAll<BoxStream<'static, Result<Part, String>>>,
    position: Position,
    /// Names of the partitions as [logs](LogPlace).
    logs: BTreeMap<i32, Arc<str>>,
    ends: Offsets,
    /// Time of the newest received message.
    newest: Option<i64>,
    /// Time of the next look at the partitions of the topic.
    look: Instant,
}

impl KafkaSubscription {
    fn new(topic: KafkaTopic, partitions: Partitions, position: Position) -> KafkaSubscription {
        let (mut parts, mut logs) = (SelectAll::new(), BTreeMap::new());
        for (number, client) in partitions {
            let offset = position.offsets.get(&number).copied().unwrap_or_default();
            logs.insert(number, format!("kafka:{:x}/{number}", position.epoch).into());
            parts.push(follow(topic.clone(), number, client, offset));
        }
        let ends = position.offsets.clone();
        KafkaSubscription { topic, parts, position, logs, ends, newest: None, look: Instant::now() + PARTITIONS }
    }

    fn take(&mut self, part: Part, messages: &mut Vec<Message>) {
        self.newest = part.records.last().map(|last| last.record.timestamp.timestamp_millis()).or(self.newest);
        let log = self.logs.get(&part.number);
        messages.extend(part.records.into_iter().map(|record| message(record, log)));
        self.position.offsets.insert(part.number, part.next);
        self.ends.insert(part.number, part.end);
    }

    /// Number of messages in the topic that were not received.
    fn behind(&self) -> u64 {
        let parts = self.ends.iter().map(|(number, end)| end - self.position.offsets.get(number).unwrap_or(end));
        parts.map(|count| count.max(0).unsigned_abs()).sum()
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn receive(&mut self, most: usize) -> Result<Vec<Message>, String> {
        let mut messages = Vec::new();
        loop {
            let part = tokio::select! {
                part = self.parts.next() => part,
                () = sleep_until(self.look) => {
                    self.look = Instant::now() + PARTITIONS;
                    let count = self.topic.connect().await.map_err(|failure| failure.message)?.len();
                    if count != self.logs.len() {
                        return Err(format!("{}: the topic has {count} partitions now", self.topic));
                    }
                    continue;
                }
            };
            let mut next = part;
            while let Some(part) = next {
                self.take(part?, &mut messages);
                next = if messages.len() < most { self.parts.next().now_or_never().flatten() } else { None };
            }
            return Ok(messages);
        }
    }

    fn position(&self) -> Option<Bytes> {
        Some(self.position.write().into())
    }

    fn lag(&self) -> Option<FeedLag> {
        let behind = self.behind();
        let age = self.newest.map_or(0, |newest| Timestamp::now().as_millisecond() - newest);
        let age = if behind == 0 { 0 } else { age.max(0).unsigned_abs() };
        Some(FeedLag { time: Duration::from_millis(age), messages: Some(behind), ..FeedLag::default() })
    }
}

/// Messages of a partition from `offset` on, until the first error.
fn follow(
    topic: KafkaTopic,
    number: i32,
    client: Arc<PartitionClient>,
    offset: i64,
) -> BoxStream<'static, Result<Part, String>> {
    unfold(Some(offset), move |offset| {
        let (topic, client) = (topic.clone(), Arc::clone(&client));
        async move {
            let offset = offset?;
            match next_part(&topic, number, &client, offset).await {
                Ok(part) => {
                    let next = part.next;
                    Some((Ok(part), Some(next)))
                }
                Err(failure) => Some((Err(failure.message), None)),
            }
        }
    })
    .boxed()
}

/// Waits for messages of a partition at `offset`, or for a part without any that is passed.
async fn next_part(topic: &KafkaTopic, number: i32, client: &PartitionClient, offset: i64) -> Result<Part, Failure> {
    let mut is_behind = false;
    loop {
        let (records, end) = topic.answer(client.fetch_records(offset, 1..ANSWER, WAIT_MS)).await?;
        if let Some(last) = records.last() {
            let next = last.offset + 1;
            return Ok(Part { number, records, next, end });
        }
        if is_behind {
            return Ok(Part { number, records, next: offset + 1, end });
        }
        // The end of a transaction is no record. Before it ends, the last stable offset is that of its first message. A broker may
        // look for messages before it looks for their end, so it is asked again.
        is_behind = end > offset && topic.answer(client.get_offset(OffsetAt::Latest)).await? > offset;
    }
}

/// Converts a record. Attributes of CloudEvents are headers `ce_NAME`, with values as they are.
fn message(RecordAndOffset { record, offset }: RecordAndOffset, log: Option<&Arc<str>>) -> Message {
    let header = |(name, value): (String, Vec<u8>)| match name.strip_prefix("ce_") {
        Some(attribute) => (format!("ce-{attribute}"), attribute::encode(&value).into()),
        None => (name, value.into()),
    };
    Message {
        key: record.key.map(Bytes::from),
        value: record.value.map(Bytes::from),
        headers: record.headers.into_iter().map(header).collect(),
        place: log.map(|log| LogPlace { log: Arc::clone(log), number: offset }),
        delivery: None,
    }
}
