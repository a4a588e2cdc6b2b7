//! A server process in a folder of its own, and a client for it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Everything is to happen within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What `WHSEC` holds for the servers.
pub(crate) const WHSEC: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The environment's `TOKEN`.
pub(crate) const TOKEN: &str = "s3cr3t-0123456789";

pub(crate) const PRODUCTS: &str = "id,name,price\n1,Muffin,175\n2,Croissant,220\n3,Bun,150\n";

/// A folder with a CSV file and a SQLite table of products.
pub(crate) fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("products.csv"), PRODUCTS).unwrap();
    let shop = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    shop.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY, item TEXT, price INTEGER)").unwrap();
    dir
}

pub(crate) fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diorama"));
    command.current_dir(dir).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("TOKEN", TOKEN).env("WHSEC", WHSEC);
    command
}

/// The command that serves on a port chosen by the system.
pub(crate) fn serving(dir: &Path, arguments: &[&str]) -> Command {
    command(dir, &[&["serve"], arguments, &["--listen", "127.0.0.1:0"]].concat())
}

/// Whether `tools` are at hand for `what`. Their absence is said aloud, and is a failure where nothing may be skipped.
pub(crate) fn has_tools(what: &str, tools: &[&str]) -> bool {
    let present = |tool: &str| {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", tool]).output();
        found.is_ok_and(|found| found.status.success())
    };
    let missing: Vec<&str> = tools.iter().copied().filter(|tool| !present(tool)).collect();
    if !missing.is_empty() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{what}: there is no {missing:?}");
        println!("SKIPPED: {what}: there is no {missing:?}");
    }
    missing.is_empty()
}

/// Runs a command that ends by itself.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

/// One request to the server at `address`, over a connection of its own.
pub(crate) fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE + asked_wait(headers)))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", address);
    head.push_str(&format!("content-length: {}\r\n", body.len()));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(Answer { status, head: head.to_ascii_lowercase(), raw: head.to_string(), body: body.to_string() })
}

/// How long the server may hold the answer back: `Prefer: wait=SECONDS`.
fn asked_wait(headers: &[(&str, &str)]) -> Duration {
    let prefer = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("prefer"));
    let seconds = prefer.and_then(|(_, value)| value.strip_prefix("wait=")).and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    lines: Mutex<Receiver<String>>,
    pub(crate) printed: Vec<String>,
    pub(crate) address: String,
}

impl Server {
    /// Serves with the port chosen by the system; returns when it is ready.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Server {
        let mut server = Server::launch(dir, arguments);
        server.wait_for("ready");
        server
    }

    /// Runs exactly this; returns when it is ready.
    pub(crate) fn start_as(dir: &Path, arguments: &[&str]) -> Server {
        let mut server = Server::launch_as(dir, arguments);
        server.wait_for("ready");
        server
    }

    /// Returns as soon as the port answers.
    pub(crate) fn launch(dir: &Path, arguments: &[&str]) -> Server {
        Server::spawn(serving(dir, arguments).stderr(Stdio::inherit()))
    }

    /// As [`Server::launch`] without arguments; its log is added to `log`.
    pub(crate) fn launch_logged(dir: &Path, log: &Path) -> Server {
        Server::spawn(serving(dir, &[]).stderr(File::options().append(true).create(true).open(log).unwrap()))
    }

    fn launch_as(dir: &Path, arguments: &[&str]) -> Server {
        Server::spawn(command(dir, arguments).stderr(Stdio::inherit()))
    }

    /// [`Server::launch`] for a command with an environment or a log of its own; see [`serving`].
    pub(crate) fn spawn(command: &mut Command) -> Server {
        let mut child = command.spawn().unwrap();
        let (send, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut server = Server { child, lines: Mutex::new(lines), printed: Vec::new(), address: String::new() };
        let line = server.wait_for("listening on http");
        let (_, address) = line.split_once("://").unwrap();
        server.address = address.split('/').next().unwrap().to_string();
        server
    }

    /// Reads what is printed until a line begins so.
    pub(crate) fn wait_for(&mut self, start: &str) -> String {
        self.wait_within(start, PATIENCE)
    }

    /// As [`Server::wait_for`], for a line that takes longer.
    pub(crate) fn wait_within(&mut self, start: &str, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            let line = self.lines.lock().unwrap().recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("no {start:?} in {:#?}", self.printed));
            self.printed.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.address)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &[("content-type", "application/json")], body)
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_request(method, path, headers, body).unwrap()
    }

    pub(crate) fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Answer> {
        ask(&self.address, method, path, headers, body)
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// The bytes of memory that it holds.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self) -> usize {
        self.status("VmRSS:")
    }

    /// The most bytes of memory that it ever held.
    #[cfg(target_os = "linux")]
    pub(crate) fn most_memory(&self) -> usize {
        self.status("VmHWM:")
    }

    /// From here on, [`Server::most_memory`] is about what is to come.
    #[cfg(target_os = "linux")]
    pub(crate) fn forget_most_memory(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// The files in `folder` that it has open.
    #[cfg(target_os = "linux")]
    pub(crate) fn open_files(&self, folder: &Path) -> Vec<std::path::PathBuf> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        links.filter(|link| link.starts_with(folder)).collect()
    }

    #[cfg(target_os = "linux")]
    fn status(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Waits for the end of the process.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // Up to the end of what it printed: the thread that reads it may be behind.
                self.printed.extend(self.lines.lock().unwrap().iter());
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end: {:#?}", self.printed);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) raw: String,
    pub(crate) body: String,
}

impl Answer {
    /// A header as it was sent.
    pub(crate) fn raw_header(&self, name: &str) -> Option<&str> {
        let mut lines = self.raw.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}
