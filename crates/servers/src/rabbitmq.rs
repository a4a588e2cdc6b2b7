//! A broker of AMQP 0-9-1.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

use crate::account::Account;
use crate::daemon::Daemon;
use crate::port::free_port;
use crate::processes::eventually;
use crate::programs::{find, path_folders};
use crate::skip_or_fail;

/// Start script that does not change to another account, as the one in `PATH` of Debian does.
const SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Name of the node.
const NODE: &str = "diorama@localhost";

/// A RabbitMQ node with a name server (epmd) of its own, a user `guest` with all rights, and a user `reader` (password `diorama`) with
/// the right to read. It has a virtual host `/` and one `closed`, to which no user has rights.
///
/// Dropping it kills both and removes their folders.
#[derive(Debug)]
pub struct RabbitServer {
    names: Daemon,
    daemon: Daemon,
    epmd: PathBuf,
    /// Port of the node's own protocol.
    distribution: u16,
    tls: Option<u16>,
    /// Time of the last start.
    started: SystemTime,
    /// True once a queue was deleted.
    has_deleted: AtomicBool,
}

/// A message of a queue.
#[derive(Debug, Clone, PartialEq)]
pub struct RabbitMessage {
    /// Routing key.
    pub routing_key: String,
    /// Properties, without the headers.
    pub properties: BasicProperties,
    /// Headers by name, as texts.
    pub headers: BTreeMap<String, String>,
    /// Content.
    pub value: String,
}

impl RabbitServer {
    /// Starts a node without queues. Returns `None` if RabbitMQ is not installed.
    pub fn start() -> Option<RabbitServer> {
        RabbitServer::start_with(None)
    }

    /// Starts a node that also listens on a port with TLS, with a certificate and its key in PEM.
    pub fn start_tls(certificate: &str, key: &str) -> Option<RabbitServer> {
        RabbitServer::start_with(Some((certificate, key)))
    }

    fn start_with(tls: Option<(&str, &str)>) -> Option<RabbitServer> {
        let epmd = find("epmd", &path_folders()).map_err(|missing| skip_or_fail("RabbitMQ", &missing)).ok()?;
        if !PathBuf::from(SCRIPT).exists() {
            skip_or_fail("RabbitMQ", &format!("there is no {SCRIPT}"));
            return None;
        }
        let names = Daemon::new("epmd", Account::of_test());
        let daemon = Daemon::new("rabbitmq", Account::of_test());
        let tls = tls.map(|(certificate, key)| {
            for (name, text) in [("certificate.pem", certificate), ("key.pem", key)] {
                write(&daemon, name, text);
            }
            free_port()
        });
        let mut server = RabbitServer {
            names,
            daemon,
            epmd,
            distribution: free_port(),
            tls,
            started: SystemTime::now(),
            has_deleted: AtomicBool::new(false),
        };
        write(&server.daemon, "plugins", "[].\n");
        write(&server.daemon, "definitions.json", DEFINITIONS);
        server.launch(true);
        Some(server)
    }

    fn launch(&mut self, may_move: bool) {
        if self.names.id().is_none() {
            let epmd = |daemon: &Daemon| {
                let mut command = Command::new(&self.epmd);
                command.args(["-address", "127.0.0.1", "-port", &daemon.port.to_string()]);
                command
            };
            self.names.launch(may_move, epmd, is_open);
        }
        self.started = SystemTime::now();
        let (names, distribution, tls) = (self.names.port, self.distribution, self.tls);
        let command = |daemon: &Daemon| {
            write(daemon, "rabbitmq.conf", &configuration(daemon, tls));
            let mut command = Command::new(SCRIPT);
            // The node is this process, and no child of a shell.
            command.env("RUNNING_UNDER_SYSTEMD", "true").env_remove("NOTIFY_SOCKET");
            command.env("HOME", daemon.folder()).env("ERL_EPMD_PORT", names.to_string());
            command.env("RABBITMQ_NODENAME", NODE).env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
            command.env("RABBITMQ_NODE_PORT", daemon.port.to_string());
            command.env("RABBITMQ_DIST_PORT", distribution.to_string());
            command.env("RABBITMQ_MNESIA_BASE", daemon.file("data")).env("RABBITMQ_LOG_BASE", daemon.file("logs"));
            command.env("RABBITMQ_CONFIG_FILE", daemon.file("rabbitmq")).env("RABBITMQ_LOGS", "-");
            command.env("RABBITMQ_CONF_ENV_FILE", daemon.file("none"));
            command.env("RABBITMQ_ENABLED_PLUGINS_FILE", daemon.file("plugins"));
            command.env("RABBITMQ_PID_FILE", daemon.file("pid"));
            command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 2:2 +sbwt none");
            command
        };
        self.daemon.launch(may_move, command, |daemon| {
            let log = fs::read_to_string(daemon.file("log")).unwrap_or_default();
            log.contains("Server startup complete") && is_open(daemon)
        });
    }

    /// URL of the node, with the user `guest`.
    pub fn url(&self) -> String {
        url(self.port())
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Port at 127.0.0.1 with TLS.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls
    }

    /// Kills the node, as a crash does, as soon as it has stored what was declared: it answers a declaration some time before, up to two
    /// seconds, and a node that is killed meanwhile does not know it afterwards.
    pub fn kill(&mut self) {
        if self.daemon.id().is_some() {
            assert!(eventually(|| self.has_decided()), "the broker does not store its definitions");
            let has_names = eventually(|| self.knows_its_replicas());
            assert!(has_names, "the broker does not store the names of its replicas: {:?}", self.replicas());
        }
        self.daemon.kill();
    }

    /// True if the log of definitions has the end of each transaction. The node writes it later than the transaction, and takes one
    /// without it as aborted when it starts.
    fn has_decided(&self) -> bool {
        let logs = ["LATEST.LOG", "PREVIOUS.LOG"].map(|name| self.daemon.file("data").join(NODE).join(name));
        let logs = logs.map(|path| fs::read(path).unwrap_or_default()).concat();
        count(&logs, "presume_abort") <= count(&logs, "committed") + count(&logs, "aborted")
    }

    /// Starts the node again, on the same port with the same queues.
    pub fn restart(&mut self) {
        self.launch(false);
    }

    /// Connects as the user `guest`. The channel confirms messages.
    pub async fn connect(&self) -> (Connection, Channel) {
        let connected = Connection::connect(&self.url(), ConnectionProperties::default()).await;
        let connection = connected.unwrap_or_else(|error| panic!("{}: {error}", self.url()));
        let channel = connection.create_channel().await.unwrap_or_else(|error| panic!("a channel: {error}"));
        let confirms = channel.confirm_select(ConfirmSelectOptions::default()).await;
        confirms.unwrap_or_else(|error| panic!("confirms: {error}"));
        (connection, channel)
    }

    /// Declares a durable queue with `arguments`.
    pub async fn declare_queue(&self, name: &str, arguments: &[(&str, &str)]) {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.declare_queue_with(name, durable, arguments).await;
    }

    /// Declares a queue. The end of a quorum queue of the same name that was deleted just before may take the name of its replica away from
    /// the new one: then it is declared once more.
    pub async fn declare_queue_with(&self, name: &str, options: QueueDeclareOptions, arguments: &[(&str, &str)]) {
        self.declare(name, options, arguments).await;
        while self.has_deleted.load(Ordering::Relaxed) && !self.stores_names().await {
            self.delete_queue(name).await;
            self.declare(name, options, arguments).await;
        }
    }

    async fn declare(&self, name: &str, options: QueueDeclareOptions, arguments: &[(&str, &str)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            let value = match *value {
                "true" => AMQPValue::Boolean(true),
                value => AMQPValue::LongString(LongString::from(value)),
            };
            table.insert((*name).into(), value);
        }
        let (_connection, channel) = self.connect().await;
        let declared = channel.queue_declare(name.into(), options, table).await;
        declared.map(drop).unwrap_or_else(|error| panic!("queue {name}: {error}"));
    }

    /// Waits until the names of all replicas are stored, which takes up to three seconds; false if they are not after five.
    async fn stores_names(&self) -> bool {
        for _ in 0..500 {
            if self.knows_its_replicas() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// True if the replica of each quorum queue is in the file of their names. A node that is killed before does not find it again. Folders
    /// of deleted queues may remain from before the start.
    fn knows_its_replicas(&self) -> bool {
        let names = fs::read(self.quorum().join("names.dets")).unwrap_or_default();
        self.replicas().iter().all(|name| count(&names, name) > 0)
    }

    /// Folder of the replicas of quorum queues.
    fn quorum(&self) -> PathBuf {
        self.daemon.file("data").join(NODE).join("quorum").join(NODE)
    }

    /// Names of the replicas of quorum queues that were made or written to since the start.
    fn replicas(&self) -> Vec<String> {
        let is_new = |entry: &DirEntry| {
            let metadata = entry.metadata().ok().filter(|metadata| metadata.is_dir());
            metadata.and_then(|metadata| metadata.modified().ok()).is_some_and(|modified| modified > self.started)
        };
        let entries = fs::read_dir(self.quorum()).into_iter().flatten().flatten().filter(is_new);
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Removes a queue with its messages.
    pub async fn delete_queue(&self, name: &str) {
        self.has_deleted.store(true, Ordering::Relaxed);
        let (_connection, channel) = self.connect().await;
        let deleted = channel.queue_delete(name.into(), QueueDeleteOptions::default()).await;
        deleted.map(drop).unwrap_or_else(|error| panic!("queue {name}: {error}"));
    }

    /// Removes the messages of a queue that no consumer has.
    pub async fn purge_queue(&self, name: &str) {
        let (_connection, channel) = self.connect().await;
        let purged = channel.queue_purge(name.into(), QueuePurgeOptions::default()).await;
        purged.map(drop).unwrap_or_else(|error| panic!("queue {name}: {error}"));
    }

    /// Declares a durable topic exchange, and binds `queues` to it by routing keys.
    pub async fn declare_exchange(&self, name: &str, queues: &[(&str, &str)]) {
        let (_connection, channel) = self.connect().await;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(name.into(), ExchangeKind::Topic, durable, FieldTable::default()).await;
        declared.unwrap_or_else(|error| panic!("exchange {name}: {error}"));
        for (queue, key) in queues {
            let options = QueueBindOptions::default();
            let bound = channel.queue_bind((*queue).into(), name.into(), (*key).into(), options, FieldTable::default());
            bound.await.unwrap_or_else(|error| panic!("exchange {name}, queue {queue}: {error}"));
        }
    }

    /// Sends persistent messages to an exchange, or to a queue if its name is empty: routing key, message id and content. Each is stored
    /// when this returns.
    pub async fn publish(&self, exchange: &str, messages: &[(&str, &str, &str)]) {
        let (_connection, channel) = self.connect().await;
        for (key, id, value) in messages {
            let mut properties = BasicProperties::default().with_delivery_mode(2);
            if !id.is_empty() {
                properties = properties.with_message_id((*id).into());
            }
            publish(&channel, exchange, key, properties, value).await;
        }
    }

    /// Takes all messages out of a queue.
    pub async fn take_messages(&self, queue: &str) -> Vec<RabbitMessage> {
        let (_connection, channel) = self.connect().await;
        let mut messages = Vec::new();
        loop {
            let taken = channel.basic_get(queue.into(), BasicGetOptions::default()).await;
            let Some(message) = taken.unwrap_or_else(|error| panic!("queue {queue}: {error}")) else { break };
            let acknowledged = message.delivery.acker.ack(BasicAckOptions::default()).await;
            acknowledged.unwrap_or_else(|error| panic!("queue {queue}: {error}"));
            let headers = message.delivery.properties.headers().clone().unwrap_or_default();
            let text = |value: &AMQPValue| match value {
                AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
                other => format!("{other:?}"),
            };
            messages.push(RabbitMessage {
                routing_key: message.delivery.routing_key.to_string(),
                properties: message.delivery.properties.clone().with_headers(FieldTable::default()),
                headers: headers.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
                value: String::from_utf8_lossy(&message.delivery.data).into_owned(),
            });
        }
        messages
    }
}

/// Sends a message on a channel that confirms messages, and waits until it is stored.
pub async fn publish(channel: &Channel, exchange: &str, key: &str, properties: BasicProperties, value: &str) {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    // A queue that has just begun has no leader yet, and refuses messages.
    for _ in 0..1_000 {
        let properties = properties.clone();
        let sent = channel.basic_publish(exchange.into(), key.into(), options, value.as_bytes(), properties).await;
        let sent = sent.unwrap_or_else(|error| panic!("{exchange} {key}: {error}"));
        let confirmed = tokio::time::timeout(Duration::from_secs(30), sent).await;
        let confirmed =
            confirmed.unwrap_or_else(|_| panic!("{exchange} {key}: the broker does not confirm the message"));
        let confirmed = confirmed.unwrap_or_else(|error| panic!("{exchange} {key}: {error}"));
        if confirmed.is_ack() {
            assert_eq!(confirmed.take_message(), None, "{exchange} {key}: no queue takes the message");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{exchange} {key}: the broker refuses the message");
}

fn url(port: u16) -> String {
    format!("amqp://guest:guest@127.0.0.1:{port}/%2f")
}

/// Number of times that `text` occurs.
fn count(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).filter(|part| *part == text.as_bytes()).count()
}

fn is_open(daemon: &Daemon) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).is_ok()
}

fn write(daemon: &Daemon, name: &str, text: &str) {
    let written = fs::write(daemon.file(name), text);
    written.unwrap_or_else(|error| panic!("the file {name} of RabbitMQ: {error}"));
}

fn configuration(daemon: &Daemon, tls: Option<u16>) -> String {
    let file = |name: &str| daemon.file(name).display().to_string();
    let mut text = format!("load_definitions = {}\n", file("definitions.json"));
    if let Some(port) = tls {
        text += &format!("listeners.ssl.default = 127.0.0.1:{port}\n");
        text +=
            &format!("ssl_options.certfile = {}\nssl_options.keyfile = {}\n", file("certificate.pem"), file("key.pem"));
        text += "ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n";
    }
    text
}

/// Users and virtual hosts.
const DEFINITIONS: &str = r#"{
    "vhosts": [{"name": "/"}, {"name": "closed"}],
    "users": [
        {"name": "guest", "password": "guest", "tags": "administrator"},
        {"name": "reader", "password": "diorama", "tags": ""}
    ],
    "permissions": [
        {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
        {"user": "reader", "vhost": "/", "configure": "^$", "write": "^$", "read": ".*"}
    ]
}
"#;
