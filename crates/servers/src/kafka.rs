//! A broker of Kafka's protocol.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rskafka::chrono::DateTime;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;
use tokio::time::timeout;

use crate::account::Account;
use crate::daemon::Daemon;
use crate::programs::{find, path_folders};
use crate::skip_or_fail;

/// Name of the bucket with the broker's topics.
const BUCKET: &str = "topics";
/// Time for which the broker looks for messages that it has.
const WAIT_MS: i32 = 1_000;
/// Time for which the broker looks for messages behind the end that it tells.
const WAIT_AT_END_MS: i32 = 200;
/// Time for an answer of the broker.
const ANSWER: Duration = Duration::from_secs(10);

/// A broker, [Tansu](https://github.com/tansu-io/tansu), that keeps its messages in memory, or in an object store of its own, so that
/// they outlive it.
///
/// Dropping it kills both and removes their folders.
#[derive(Debug)]
pub struct KafkaServer {
    broker: Daemon,
    program: PathBuf,
    options: Vec<String>,
    store: Option<Daemon>,
    /// Port that clients are told to connect to, if it is not the broker's own.
    advertised: Option<u16>,
}

/// A message in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaMessage {
    /// Partition that has it.
    pub partition: i32,
    /// Key, empty without one.
    pub key: String,
    /// Value; `None` for a tombstone.
    pub value: Option<String>,
    /// Headers by name.
    pub headers: BTreeMap<String, String>,
}

/// A message to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct KafkaRecord<'a> {
    /// Key; none if it is empty.
    pub key: &'a str,
    /// Value; `None` for a tombstone.
    pub value: Option<&'a str>,
    /// Headers with their values.
    pub headers: &'a [(&'a str, &'a str)],
}

impl KafkaServer {
    /// Starts a broker without topics, which forgets everything when it ends. Returns `None` if it is not installed.
    pub fn start() -> Option<KafkaServer> {
        KafkaServer::start_with(&[], None)
    }

    /// Starts a broker that loses nothing when it is killed. The end of a partition that it tells may be an earlier one.
    pub fn start_durable() -> Option<KafkaServer> {
        let program = find("moto_server", &path_folders());
        let program = program.map_err(|missing| skip_or_fail("Kafka", &missing)).ok()?;
        let mut store = Daemon::new("kafka-store", Account::of_test());
        let command = |daemon: &Daemon| {
            let mut command = Command::new(&program);
            command.args(["--host", "127.0.0.1", "--port", &daemon.port.to_string()]);
            command
        };
        store.launch(true, command, |daemon| puts_bucket(daemon.port));
        KafkaServer::start_with(&[], Some(store))
    }

    fn start_with(options: &[&str], store: Option<Daemon>) -> Option<KafkaServer> {
        let program = find("tansu", &path_folders());
        let program = program.map_err(|missing| skip_or_fail("Kafka", &missing)).ok()?;
        let broker = Daemon::new("kafka", Account::of_test());
        let options = options.iter().map(ToString::to_string).collect();
        let mut server = KafkaServer { broker, program, options, store, advertised: None };
        server.launch(true);
        Some(server)
    }

    fn launch(&mut self, may_move: bool) {
        let (program, options, advertised) = (&self.program, &self.options, self.advertised);
        let store = self.store.as_ref().map(|store| store.port);
        let command = |daemon: &Daemon| {
            let mut command = Command::new(program);
            let own = format!("tcp://127.0.0.1:{}", daemon.port);
            let told = format!("tcp://127.0.0.1:{}", advertised.unwrap_or(daemon.port));
            command.args(["broker", "--listener-url", &own, "--advertised-listener-url", &told]);
            command.args(options).arg("--storage-engine");
            match store {
                Some(store) => {
                    command.arg(format!("s3://{BUCKET}/"));
                    command.env("AWS_ENDPOINT", format!("http://127.0.0.1:{store}")).env("AWS_ALLOW_HTTP", "true");
                    command.env("AWS_ACCESS_KEY_ID", "diorama").env("AWS_SECRET_ACCESS_KEY", "diorama");
                    command.env("AWS_DEFAULT_REGION", "us-east-1");
                }
                None => drop(command.arg("memory://topics/")),
            }
            command
        };
        let is_ready = |daemon: &Daemon| TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).is_ok();
        self.broker.launch(may_move, command, is_ready);
    }

    /// `HOST:PORT` of the broker.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.advertised.unwrap_or(self.broker.port))
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.broker.port
    }

    /// Starts the broker again with `port`, that of a proxy, as the one that it tells clients.
    pub fn advertise(&mut self, port: u16) {
        self.broker.kill();
        self.advertised = Some(port);
        self.launch(false);
    }

    /// Kills the broker, as a crash does.
    pub fn kill(&mut self) {
        self.broker.kill();
    }

    /// Starts the broker again, on the same port with the same messages.
    pub fn restart(&mut self) {
        self.launch(false);
    }

    /// Makes a topic.
    pub async fn create_topic(&self, topic: &str, partitions: i32) {
        let controller = self.client().await.controller_client().unwrap_or_else(|error| panic!("{error}"));
        let made = controller.create_topic(topic, partitions, 1, 5_000).await;
        made.unwrap_or_else(|error| panic!("topic {topic}: {error}"));
    }

    /// Removes a topic with its messages.
    pub async fn delete_topic(&self, topic: &str) {
        let controller = self.client().await.controller_client().unwrap_or_else(|error| panic!("{error}"));
        let deleted = controller.delete_topic(topic, 5_000).await;
        deleted.unwrap_or_else(|error| panic!("topic {topic}: {error}"));
    }

    /// Sends messages to a partition. They may be there twice, if the broker does not answer.
    pub async fn produce(&self, topic: &str, partition: i32, messages: &[KafkaRecord<'_>]) {
        let record = |message: &KafkaRecord<'_>| Record {
            key: (!message.key.is_empty()).then(|| message.key.into()),
            value: message.value.map(Into::into),
            headers: message.headers.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect(),
            timestamp: DateTime::from_timestamp_millis(jiff::Timestamp::now().as_millisecond()).unwrap_or_default(),
        };
        let records: Vec<Record> = messages.iter().map(record).collect();
        answered(|| self.send(topic, partition, records.clone())).await;
    }

    async fn send(&self, topic: &str, partition: i32, records: Vec<Record>) {
        let client = self.partition(topic, partition).await;
        let sent = client.produce(records, Compression::NoCompression).await;
        drop(sent.unwrap_or_else(|error| panic!("messages for {topic}: {error}")));
    }

    /// All messages of a topic, partition after partition.
    pub async fn messages(&self, topic: &str) -> Vec<KafkaMessage> {
        let topics = self.client().await.list_topics().await.unwrap_or_else(|error| panic!("{error}"));
        let Some(found) = topics.into_iter().find(|found| found.name == topic) else { return Vec::new() };
        let mut all = Vec::new();
        for number in found.partitions {
            all.extend(self.messages_from(topic, number, 0).await);
        }
        all
    }

    /// Messages of a partition from an offset on.
    pub async fn messages_from(&self, topic: &str, partition: i32, offset: u64) -> Vec<KafkaMessage> {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        answered(|| self.read(topic, partition, offset)).await
    }

    async fn read(&self, topic: &str, partition: i32, mut offset: i64) -> Vec<KafkaMessage> {
        let client = self.partition(topic, partition).await;
        let end = client.get_offset(OffsetAt::Latest).await.unwrap_or_else(|error| panic!("{error}"));
        let mut all = Vec::new();
        loop {
            // The broker may tell an earlier end after it was killed, so it is asked for messages there too.
            let wait = if offset < end { WAIT_MS } else { WAIT_AT_END_MS };
            let fetched = client.fetch_records(offset, 1..1 << 20, wait).await;
            let (records, _) = fetched.unwrap_or_else(|error| panic!("{error}"));
            match records.last() {
                Some(last) => offset = last.offset + 1,
                None if offset >= end => return all,
                None => offset = end,
            }
            all.extend(records.into_iter().map(|record| message(partition, record.record)));
        }
    }

    async fn client(&self) -> Client {
        let client = ClientBuilder::new(vec![self.address()]).build().await;
        client.unwrap_or_else(|error| panic!("{}: {error}", self.address()))
    }

    async fn partition(&self, topic: &str, number: i32) -> PartitionClient {
        let client = self.client().await.partition_client(topic, number, UnknownTopicHandling::Retry).await;
        client.unwrap_or_else(|error| panic!("{topic}: {error}"))
    }
}

/// Makes a request again with a new connection, as a broker that was killed meanwhile may never answer the first one.
async fn answered<T, F: Future<Output = T>>(request: impl Fn() -> F) -> T {
    for _ in 0..5 {
        match timeout(ANSWER, request()).await {
            Ok(answer) => return answer,
            Err(_) => eprintln!("a broker of Kafka did not answer for {} s; asking again", ANSWER.as_secs()),
        }
    }
    panic!("a broker of Kafka does not answer")
}

fn message(partition: i32, record: Record) -> KafkaMessage {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|error| panic!("{error}"));
    KafkaMessage {
        partition,
        key: record.key.map(text).unwrap_or_default(),
        value: record.value.map(text),
        headers: record.headers.into_iter().map(|(name, value)| (name, text(value))).collect(),
    }
}

/// Makes the bucket. False while the store does not answer.
fn puts_bucket(port: u16) -> bool {
    let request = format!(
        "PUT /{BUCKET} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=diorama/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n"
    );
    let put = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    put().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
