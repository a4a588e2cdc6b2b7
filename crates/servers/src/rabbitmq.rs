//! A broker of AMQP 0-9-1.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};

use crate::account::Account;
use crate::daemon::Daemon;
use crate::port::free_port;
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
        let mut server = RabbitServer { names, daemon, epmd, distribution: free_port(), tls };
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

    /// Kills the node, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
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

    /// Declares a queue.
    pub async fn declare_queue_with(&self, name: &str, options: QueueDeclareOptions, arguments: &[(&str, &str)]) {
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
        for _ in 0..1_000 {
            if self.knows_its_replicas() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("queue {name}: the broker does not store its replica");
    }

    /// True if the replica of each quorum queue is in the file of their names. A broker that is killed before does not find it again.
    fn knows_its_replicas(&self) -> bool {
        let folder = self.daemon.file("data").join(NODE).join("quorum").join(NODE);
        let names = fs::read(folder.join("names.dets")).unwrap_or_default();
        let replicas = fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir());
        replicas.into_iter().all(|replica| {
            let name = replica.file_name();
            names.windows(name.len()).any(|bytes| bytes == name.as_encoded_bytes())
        })
    }

    /// Removes a queue with its messages.
    pub async fn delete_queue(&self, name: &str) {
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
        for _ in 0..1_000 {
            if queues.iter().all(|(_, key)| self.has_stored(key)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("exchange {name}: the broker does not store its bindings");
    }

    /// True if a definition with `text` is in a file. A broker that is killed before does not know it afterwards.
    fn has_stored(&self, text: &str) -> bool {
        let files = fs::read_dir(self.daemon.file("data").join(NODE)).into_iter().flatten().flatten();
        let contents = files.filter(|entry| entry.path().is_file()).filter_map(|entry| fs::read(entry.path()).ok());
        contents.into_iter().any(|content| content.windows(text.len()).any(|bytes| bytes == text.as_bytes()))
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
