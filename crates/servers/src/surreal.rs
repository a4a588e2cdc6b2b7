//! SurrealDB's engine, behind a WebSocket that a script for Node serves as the real server does.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

use crate::account::Account;
use crate::daemon::Daemon;
use crate::programs::{find, path_folders};
use crate::{PASSWORD, skip_or_fail};

/// The script.
const BRIDGE: &str = include_str!("surreal/bridge.mjs");
/// Variable with the folder of the packages, in place of that of the test command.
const MODULES: &str = "DIORAMA_SURREAL";

/// A SurrealDB server whose database is on the disk. Its root user is `root` with the password [`PASSWORD`].
///
/// Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct SurrealServer {
    daemon: Daemon,
    program: PathBuf,
    modules: PathBuf,
}

impl SurrealServer {
    /// Starts a server with the database `shop` in the namespace `test`. Returns `None` if Node or the engine is not installed.
    pub fn start() -> Option<SurrealServer> {
        let found = find("node", &path_folders()).and_then(|program| Ok((program, modules()?)));
        let (program, modules) = found.map_err(|missing| skip_or_fail("SurrealDB", &missing)).ok()?;
        let mut server = SurrealServer { daemon: Daemon::new("surreal", Account::of_test()), program, modules };
        server.launch(true);
        server.post("", "DEFINE NAMESPACE test; USE NS test; DEFINE DATABASE shop");
        Some(server)
    }

    fn launch(&mut self, may_move: bool) {
        let (program, modules) = (&self.program, &self.modules);
        let command = |daemon: &Daemon| {
            let script = daemon.file("bridge.mjs");
            let written = fs::write(&script, BRIDGE);
            written.unwrap_or_else(|error| panic!("the script of SurrealDB: {error}"));
            let mut command = Command::new(program);
            let store = format!("rocksdb://{}", daemon.file("store").display());
            command.arg(script).arg(modules).args([&daemon.port.to_string(), &store, PASSWORD]);
            command
        };
        self.daemon.launch(may_move, command, |daemon| {
            // The engine writes more to the log.
            let log = fs::read(daemon.file("log")).unwrap_or_default();
            log.windows(6).any(|window| window == b"ready\n") && connect(daemon.port).is_ok()
        });
    }

    /// Address of the server.
    pub fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port())
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts the server again, on the same port with the same database.
    pub fn restart(&mut self) {
        self.launch(false);
    }

    /// Runs statements in the database `shop` and returns the result of the last one. Panics if one fails.
    pub fn sql(&self, statements: &str) -> Value {
        self.post("surreal-ns: test\r\nsurreal-db: shop\r\n", statements)
    }

    fn post(&self, headers: &str, statements: &str) -> Value {
        let answer = self.exchange(headers, statements);
        let answer = answer.unwrap_or_else(|error| panic!("{statements}: {error}"));
        let results = serde_json::from_str::<Value>(&answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
        let results = results.as_array().unwrap_or_else(|| panic!("{statements}: {answer}"));
        for result in results {
            assert!(result["status"] == "OK", "{statements}: {result}");
        }
        results.last().map(|last| last["result"].clone()).unwrap_or_default()
    }

    fn exchange(&self, headers: &str, statements: &str) -> std::io::Result<String> {
        let mut stream = connect(self.port())?;
        let length = statements.len();
        write!(
            stream,
            "POST /sql HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{statements}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string());
        body.ok_or_else(|| std::io::Error::other(format!("not an answer: {answer:?}")))
    }
}

fn connect(port: u16) -> std::io::Result<TcpStream> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))
}

/// Folder in which the test command has installed the packages.
fn modules() -> Result<PathBuf, String> {
    let cache = || {
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")))
    };
    let folder = env::var_os(MODULES).map(PathBuf::from).or_else(|| Some(cache()?.join("diorama-surreal")));
    let folder = folder.ok_or("there is no HOME")?;
    match folder.join("node_modules/@surrealdb/node").is_dir() {
        true => Ok(folder),
        false => Err(format!("there is no package @surrealdb/node in {}: ./test.sh installs it", folder.display())),
    }
}
