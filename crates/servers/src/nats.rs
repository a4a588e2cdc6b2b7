//! A NATS server with JetStream.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use async_nats::jetstream::{self, Context, stream};
use async_nats::{ConnectOptions, HeaderMap};
use futures_util::StreamExt as _;

use crate::account::Account;
use crate::daemon::Daemon;
use crate::programs::{find, path_folders};
use crate::skip_or_fail;

/// A NATS server that stores each message on the disk before it answers.
///
/// Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct NatsServer {
    daemon: Daemon,
    program: PathBuf,
}

impl NatsServer {
    /// Starts a server without streams. Returns `None` if NATS is not installed.
    pub fn start() -> Option<NatsServer> {
        let program = find("nats-server", &path_folders());
        let program = program.map_err(|missing| skip_or_fail("NATS", &missing)).ok()?;
        let mut server = NatsServer { daemon: Daemon::new("nats", Account::of_test()), program };
        server.launch(true);
        Some(server)
    }

    fn launch(&mut self, may_move: bool) {
        let program = &self.program;
        let command = |daemon: &Daemon| {
            let store = daemon.file("store");
            let text = format!(
                "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
                daemon.port,
                store.display()
            );
            let written = fs::write(daemon.file("nats.conf"), text);
            written.unwrap_or_else(|error| panic!("the configuration of NATS: {error}"));
            let mut command = Command::new(program);
            command.arg("-c").arg(daemon.file("nats.conf"));
            command
        };
        self.daemon.launch(may_move, command, |daemon| {
            let log = fs::read_to_string(daemon.file("log")).unwrap_or_default();
            log.contains("Server is ready") && TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).is_ok()
        });
    }

    /// Address of the server.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts the server again, on the same port with the same streams.
    pub fn restart(&mut self) {
        self.launch(false);
    }

    /// Makes a stream of the messages of `subjects`.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) {
        let subjects = subjects.iter().map(ToString::to_string).collect();
        let config = stream::Config { name: name.into(), subjects, ..stream::Config::default() };
        let made = self.context().await.create_stream(config).await;
        made.map(drop).unwrap_or_else(|error| panic!("stream {name}: {error}"));
    }

    /// Removes a stream with its messages.
    pub async fn delete_stream(&self, name: &str) {
        let deleted = self.context().await.delete_stream(name).await;
        deleted.map(drop).unwrap_or_else(|error| panic!("stream {name}: {error}"));
    }

    /// Sends a message and waits until it is stored.
    pub async fn publish(&self, subject: &str, headers: &[(&str, &str)], value: &str) {
        let mut all = HeaderMap::new();
        headers.iter().for_each(|(name, value)| all.insert(*name, *value));
        // Without it, the answer does not arrive.
        let context = self.context().await;
        let sent = context.publish_with_headers(subject.to_string(), all, value.to_string().into()).await;
        let sent = sent.unwrap_or_else(|error| panic!("{subject}: {error}"));
        sent.await.map(drop).unwrap_or_else(|error| panic!("{subject}: {error}"));
    }

    /// All messages of a stream: subject, headers and value.
    pub async fn messages(&self, name: &str) -> Vec<(String, HeaderMap, String)> {
        let stream = self.context().await.get_stream(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let count = usize::try_from(stream.cached_info().state.messages).unwrap_or_default();
        let config = jetstream::consumer::pull::OrderedConfig::default();
        let consumer = stream.create_consumer(config).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let messages = consumer.messages().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let message = |message: Result<jetstream::Message, _>| {
            let message = message.unwrap_or_else(|error| panic!("{name}: {error}"));
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            (message.subject.to_string(), message.headers.clone().unwrap_or_default(), text)
        };
        messages.take(count).map(message).collect().await
    }

    /// Messages of a stream behind the first `count`: subject, headers and value.
    pub async fn messages_from(&self, name: &str, count: u64) -> Vec<(String, HashMap<String, String>, String)> {
        let stream = self.context().await.get_stream(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut all = Vec::new();
        for number in count + 1..=stream.cached_info().state.last_sequence {
            let message = stream.get_raw_message(number).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let headers = message.headers.iter();
            let headers = headers.filter_map(|(name, values)| Some((name.to_string(), values.first()?.to_string())));
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            all.push((message.subject.to_string(), headers.collect(), text));
        }
        all
    }

    async fn context(&self) -> Context {
        let options = ConnectOptions::new().connection_timeout(Duration::from_secs(10));
        let client = options.connect(self.url()).await;
        jetstream::new(client.unwrap_or_else(|error| panic!("{}: {error}", self.url())))
    }
}
