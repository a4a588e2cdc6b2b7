//! A Redis or Valkey server.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use redis::{Client, FromRedisValue};

use crate::account::Account;
use crate::daemon::Daemon;
use crate::programs::{find, path_folders};
use crate::skip_or_fail;

/// An entry of a stream: its id, and its fields with their values.
pub type RedisEntry = (String, Vec<(String, String)>);

/// A server that stores each command on the disk before it answers.
///
/// Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct RedisServer {
    daemon: Daemon,
    program: PathBuf,
    settings: Vec<String>,
}

impl RedisServer {
    /// Starts a server without keys. Returns `None` if neither Redis nor Valkey is installed.
    pub fn start() -> Option<RedisServer> {
        RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts a server with these arguments in place of the safe ones.
    pub fn start_with(settings: &[&str]) -> Option<RedisServer> {
        let folders = path_folders();
        let program = find("redis-server", &folders).or_else(|_| find("valkey-server", &folders));
        let program = program.map_err(|missing| skip_or_fail("Redis", &missing)).ok()?;
        let settings = settings.iter().map(ToString::to_string).collect();
        let mut server = RedisServer { daemon: Daemon::new("redis", Account::of_test()), program, settings };
        server.launch(true);
        Some(server)
    }

    fn launch(&mut self, may_move: bool) {
        let (program, settings) = (&self.program, &self.settings);
        let command = |daemon: &Daemon| {
            let mut command = Command::new(program);
            command.args(["--port", &daemon.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.arg("--dir").arg(daemon.folder()).args(settings);
            command
        };
        self.daemon.launch(may_move, command, |daemon| {
            let log = fs::read_to_string(daemon.file("log")).unwrap_or_default();
            log.contains("Ready to accept connections")
                && TcpStream::connect((Ipv4Addr::LOCALHOST, daemon.port)).is_ok()
        });
    }

    /// Address of the server.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Folder of the server's files.
    pub fn folder(&self) -> &Path {
        self.daemon.folder()
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts the server again, on the same port with the same files.
    pub fn restart(&mut self) {
        self.launch(false);
    }

    /// Runs a command and returns its answer.
    pub fn run<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let client = Client::open(self.url()).and_then(|client| client.get_connection());
        let mut connection = client.unwrap_or_else(|error| panic!("{}: {error}", self.url()));
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Adds an entry to a stream and returns its id.
    pub fn add(&self, stream: &str, fields: &[(&str, &str)]) -> String {
        let fields = fields.iter().flat_map(|(name, value)| [*name, *value]);
        self.run(&["XADD", stream, "*"].into_iter().chain(fields).collect::<Vec<_>>())
    }

    /// All entries of a stream.
    pub fn entries(&self, stream: &str) -> Vec<RedisEntry> {
        self.run(&["XRANGE", stream, "-", "+"])
    }
}
