//! A broker of MQTT 5.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use tokio::time::timeout;

use crate::account::Account;
use crate::daemon::Daemon;
use crate::port::free_port;
use crate::programs::{find, path_folders};
use crate::skip_or_fail;

/// Number of clients of all brokers.
static CLIENTS: AtomicU64 = AtomicU64::new(0);
/// Time within which the broker answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Mosquitto that writes its state to the disk after each change.
///
/// Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct MqttServer {
    daemon: Daemon,
    program: PathBuf,
    options: String,
    tls: Option<u16>,
}

/// A message of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttMessage {
    /// Topic.
    pub topic: String,
    /// User properties.
    pub properties: Vec<(String, String)>,
    /// Content.
    pub value: String,
    /// True if the broker had kept it.
    pub retained: bool,
}

/// A message to send.
#[derive(Debug, Clone, Copy)]
pub struct MqttRecord<'a> {
    /// Topic.
    pub topic: &'a str,
    /// User properties.
    pub properties: &'a [(&'a str, &'a str)],
    /// Content.
    pub value: &'a str,
    /// False for one that nobody acknowledges (QoS 0).
    pub acknowledged: bool,
    /// True if the broker is to keep it.
    pub retained: bool,
}

impl MqttServer {
    /// Starts a broker that anybody may use. Returns `None` if Mosquitto is not installed.
    pub fn start() -> Option<MqttServer> {
        MqttServer::start_with("allow_anonymous true\n", None)
    }

    /// Starts a broker with one user, `reader` with the password `diorama`, who may only read.
    pub fn start_closed() -> Option<MqttServer> {
        MqttServer::start_with("allow_anonymous false\npassword_file FOLDER/users\nacl_file FOLDER/rights\n", None)
    }

    /// Starts a broker that also listens on a port with TLS, with a certificate and its key in PEM.
    pub fn start_tls(certificate: &str, key: &str) -> Option<MqttServer> {
        MqttServer::start_with("allow_anonymous true\n", Some((certificate, key)))
    }

    fn start_with(options: &str, tls: Option<(&str, &str)>) -> Option<MqttServer> {
        let mut folders = path_folders();
        folders.push("/usr/sbin".into());
        let program = find("mosquitto", &folders).map_err(|missing| skip_or_fail("MQTT", &missing)).ok()?;
        let daemon = Daemon::new("mqtt", Account::of_test());
        let tls = tls.map(|(certificate, key)| {
            write(&daemon, "certificate.pem", certificate);
            write(&daemon, "key.pem", key);
            free_port()
        });
        write(&daemon, "users", USERS);
        write(&daemon, "rights", "user reader\ntopic read #\n");
        let mut server = MqttServer { daemon, program, options: options.to_string(), tls };
        server.launch(true);
        Some(server)
    }

    fn launch(&mut self, may_move: bool) {
        let (program, options, tls) = (&self.program, &self.options, self.tls);
        let command = |daemon: &Daemon| {
            let folder = daemon.folder().display().to_string();
            let mut text = format!(
                "user {}\npersistence true\npersistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true\n\
                 max_queued_messages 0\nlog_dest stderr\nlistener {} 127.0.0.1\n",
                user(),
                daemon.port
            );
            if let Some(port) = tls {
                text += &format!(
                    "listener {port} 127.0.0.1\ncertfile {folder}/certificate.pem\nkeyfile {folder}/key.pem\n"
                );
            }
            text += &options.replace("FOLDER", &folder);
            write(daemon, "mosquitto.conf", &text);
            let mut command = Command::new(program);
            command.arg("-c").arg(daemon.file("mosquitto.conf"));
            command
        };
        self.daemon.launch(may_move, command, |daemon| {
            let log = fs::read_to_string(daemon.file("log")).unwrap_or_default();
            log.contains("running") && TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).is_ok()
        });
    }

    /// URL of the broker.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port())
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Port at 127.0.0.1 with TLS.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls
    }

    /// Kills the broker, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Kills the broker and removes what it has stored.
    pub fn kill_and_forget(&mut self) {
        self.daemon.kill();
        let _absent = fs::remove_file(self.daemon.file("mosquitto.db"));
    }

    /// Starts the broker again, on the same port.
    pub fn restart(&mut self) {
        self.launch(false);
    }

    /// Sends messages, one after the other. The broker has each when this returns, or was sent it.
    pub async fn publish(&self, messages: &[MqttRecord<'_>]) {
        let (client, mut events) = self.connect("", true).await;
        for message in messages {
            let qos = if message.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let own = |(name, value): &(&str, &str)| ((*name).to_string(), (*value).to_string());
            let properties = PublishProperties {
                user_properties: message.properties.iter().map(own).collect(),
                ..PublishProperties::default()
            };
            let value = message.value.as_bytes().to_vec();
            let sent = client.try_publish_with_properties(message.topic, qos, message.retained, value, properties);
            sent.unwrap_or_else(|error| panic!("{}: {error}", message.topic));
            loop {
                match event(&mut events).await {
                    Event::Incoming(Packet::PubAck(_)) => break,
                    Event::Outgoing(rumqttc::Outgoing::Publish(_)) if !message.acknowledged => break,
                    _ => {}
                }
            }
        }
        // The answer shows that the broker has read what is not acknowledged.
        client.try_subscribe("diorama/none", QoS::AtMostOnce).unwrap_or_else(|error| panic!("{error}"));
        while !matches!(event(&mut events).await, Event::Incoming(Packet::SubAck(_))) {}
    }

    /// Makes a session of `client` that keeps the messages of `filter` from now on.
    pub async fn keep(&self, client: &str, filter: &str) {
        let (requests, mut events) = self.connect(client, false).await;
        requests.try_subscribe(filter, QoS::AtLeastOnce).unwrap_or_else(|error| panic!("{filter}: {error}"));
        while !matches!(event(&mut events).await, Event::Incoming(Packet::SubAck(_))) {}
    }

    /// Takes all messages out of the session of `client`.
    pub async fn take_messages(&self, client: &str) -> Vec<MqttMessage> {
        let (requests, mut events) = self.connect(client, false).await;
        let own = format!("diorama/end/{client}");
        requests.try_subscribe(own.as_str(), QoS::AtLeastOnce).unwrap_or_else(|error| panic!("{own}: {error}"));
        let end = PublishProperties::default();
        let sent = requests.try_publish_with_properties(own.as_str(), QoS::AtLeastOnce, false, Vec::new(), end);
        sent.unwrap_or_else(|error| panic!("{own}: {error}"));
        let (mut messages, mut is_end) = (Vec::new(), false);
        // Messages behind the end that have arrived together with it are acknowledged, too.
        while !is_end || !events.state.events.is_empty() {
            if let Event::Incoming(Packet::Publish(publish)) = event(&mut events).await {
                if publish.topic == own.as_bytes() {
                    is_end = true;
                } else {
                    messages.push(message(&publish));
                }
            }
        }
        messages
    }

    /// The messages that the broker keeps for the topics of `filter`.
    pub async fn retained(&self, filter: &str) -> Vec<MqttMessage> {
        let (requests, mut events) = self.connect("", true).await;
        let filters = [Filter::new(filter, QoS::AtLeastOnce), Filter::new("diorama/end", QoS::AtLeastOnce)];
        requests.try_subscribe_many(filters).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let end = PublishProperties::default();
        let sent = requests.try_publish_with_properties("diorama/end", QoS::AtLeastOnce, false, Vec::new(), end);
        sent.unwrap_or_else(|error| panic!("{filter}: {error}"));
        let mut messages = Vec::new();
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = event(&mut events).await {
                if publish.topic == b"diorama/end".as_slice() {
                    return messages;
                }
                messages.push(message(&publish));
            }
        }
    }

    async fn connect(&self, client: &str, clean: bool) -> (AsyncClient, EventLoop) {
        // The broker ends the connection of another client with the same name.
        let number = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let client = if client.is_empty() { format!("test-{number}") } else { client.to_string() };
        let mut options = MqttOptions::new(client, "127.0.0.1", self.port());
        options.set_clean_start(clean).set_session_expiry_interval((!clean).then_some(3_600));
        options.set_max_packet_size(Some(1 << 20));
        let (client, mut events) = AsyncClient::new(options, 100);
        while !matches!(event(&mut events).await, Event::Incoming(Packet::ConnAck(_))) {}
        (client, events)
    }
}

async fn event(events: &mut EventLoop) -> Event {
    let event = timeout(PATIENCE, events.poll()).await.unwrap_or_else(|_| panic!("the broker does not answer"));
    event.unwrap_or_else(|error| panic!("the broker: {error}"))
}

fn message(publish: &Publish) -> MqttMessage {
    MqttMessage {
        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
        properties: publish.properties.clone().unwrap_or_default().user_properties,
        value: String::from_utf8_lossy(&publish.payload).into_owned(),
        retained: publish.retain,
    }
}

/// Account that the broker runs as. As root it would change to another one.
fn user() -> &'static str {
    if rustix::process::geteuid().is_root() { "root" } else { "mosquitto" }
}

fn write(daemon: &Daemon, name: &str, text: &str) {
    let written = fs::write(daemon.file(name), text);
    written.unwrap_or_else(|error| panic!("the file {name} of Mosquitto: {error}"));
}

/// Users with their passwords: `reader` with `diorama`.
const USERS: &str = "reader:$7$101$LD5kVTaU7mBbvKDJ$QxKnXKvDPjetQlJwkZCYC4/zNE+36oBnJg0VvI00QF3eP/4v25MTbKqfH7b5K37rQhxz6lAIgYILgWoaSiPWuw==\n";
