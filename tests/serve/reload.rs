//! Reload while the server runs: of a certificate when its files change, of the configuration by SIGHUP. Connections stay.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::authority::{Authority, Issued, configure, connect, get, rest};
use crate::events::{Socket, connect as subscribe, frame};
use crate::frames::{DATA, HEADERS, Http2};
use crate::process::{Answer, PATIENCE, Server, folder};

/// A server with its log in a file.
pub(crate) struct Logged {
    dir: TempDir,
    pub(crate) server: Server,
}

impl Logged {
    pub(crate) fn start(dir: TempDir) -> Logged {
        let mut server = Server::launch_logged(dir.path(), &dir.path().join("log"));
        server.wait_for("ready");
        Logged { dir, server }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until the log has `count` lines with this text.
    fn wait(&self, text: &str, count: usize) {
        wait(text, || self.log().lines().filter(|line| line.contains(text)).count() >= count);
    }

    /// Hangs up and waits for the next line with this text.
    pub(crate) fn hang_up(&self, text: &str) {
        let before = self.log().lines().filter(|line| line.contains(text)).count();
        self.server.signal("HUP");
        self.wait(text, before + 1);
    }
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The certificate that a new connection is shown.
fn shown(server: &Server, client: &Arc<ClientConfig>) -> Vec<u8> {
    connect(server, client).unwrap().conn.peer_certificates().unwrap()[0].to_vec()
}

fn secured(authority: &Authority) -> (Logged, Arc<ClientConfig>) {
    let dir = folder();
    authority.server().write(dir.path());
    configure(dir.path(), "", "", "");
    (Logged::start(dir), authority.speaking("http/1.1"))
}

/// Replaces a file as certbot does.
fn replace(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join("new"), text).unwrap();
    std::fs::rename(dir.join("new"), dir.join(name)).unwrap();
}

#[test]
fn a_new_certificate_is_shown_without_a_restart_and_connections_stay() {
    let authority = Authority::new();
    let (logged, client) = secured(&authority);
    let server = &logged.server;
    let before = shown(server, &client);
    // An open stream, a request that is not sent completely, and an idle connection.
    let mut events = Http2::open(server, &authority, &[]);
    events.get(1, "/orders/events", &[("accept", "text/event-stream")]);
    events.until("hello", |frame| frame.kind == DATA);
    let mut begun = connect(server, &client).unwrap();
    let head = "POST /orders/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 24\r\n\
                connection: close\r\n\r\n";
    begun.write_all(head.as_bytes()).unwrap();
    let next = authority.server_between(2020, 2050);
    // The certificate comes a while before its key: the pair does not fit in between.
    replace(logged.dir.path(), "cert.pem", &next.cert);
    std::thread::sleep(Duration::from_millis(300));
    replace(logged.dir.path(), "key.pem", &next.key);
    wait("the new certificate", || shown(server, &client) != before);
    logged.wait("certificate valid until 2050-01-01T00:00:00Z", 1);
    let metrics = get(server, &client, "/metrics").unwrap();
    assert!(metrics.contains("\ndiorama_tls_certificate_expires_timestamp_seconds 2524608000\n"), "{metrics}");
    begun.write_all(br#"{"item":"Bun","price":1}"#).unwrap();
    assert!(rest(&mut begun).unwrap().starts_with("HTTP/1.1 202"));
    events.until("the event", |frame| String::from_utf8_lossy(&frame.payload).contains("RecordInserted"));
    events.get(3, "/orders", &[]);
    assert!(events.until("a head", |frame| frame.kind == HEADERS && frame.stream == 3).is_ok());
}

#[test]
fn a_wrong_certificate_is_refused_and_the_old_one_stays() {
    let authority = Authority::new();
    let (logged, client) = secured(&authority);
    let before = shown(&logged.server, &client);
    let next = authority.server();
    // By the files themselves, and by a hangup.
    std::fs::write(logged.path("key.pem"), &next.key).unwrap();
    logged.wait("does not belong to the first certificate", 1);
    assert_eq!(shown(&logged.server, &client), before);
    std::fs::remove_file(logged.path("cert.pem")).unwrap();
    logged.hang_up("cert: cannot read");
    Issued { cert: "nonsense".into(), key: next.key.clone() }.write(logged.dir.path());
    logged.hang_up("contains no certificate");
    authority.server_between(2020, 2021).write(logged.dir.path());
    logged.hang_up("expired at 2021-01-01T00:00:00Z");
    assert_eq!(shown(&logged.server, &client), before);
    next.write(logged.dir.path());
    logged.hang_up("the configuration was reloaded");
    assert_ne!(shown(&logged.server, &client), before);
    assert!(logged.log().contains("the new settings are refused, and the old ones stay"));
}

#[test]
fn a_hangup_changes_the_authority_of_clients_for_new_connections() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (logged, anonymous) = secured(&authority);
    let mut open = connect(&logged.server, &anonymous).unwrap();
    std::fs::write(logged.path("ca.pem"), &clients.pem).unwrap();
    configure(logged.dir.path(), "", "client_ca = \"ca.pem\"", "");
    logged.hang_up("the configuration was reloaded");
    let own = clients.client("robot");
    let known = authority.trusting(&[&tokio_rustls::rustls::version::TLS13], Some(&own), b"http/1.1");
    assert!(get(&logged.server, &known, "/orders").unwrap().starts_with("HTTP/1.1 200"));
    assert!(get(&logged.server, &anonymous, "/orders").is_err());
    open.write_all(b"GET /orders HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    assert!(rest(&mut open).unwrap().starts_with("HTTP/1.1 200"), "an open connection stays what it was");
    assert!(!logged.log().contains("need a restart"), "{}", logged.log());
}

const ORDERS: &str = "[dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_closes_no_connection_and_names_what_needs_a_restart() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), ORDERS).unwrap();
    let logged = Logged::start(dir);
    let mut socket = subscribe(&logged.server, "/orders/events").await;
    assert_eq!(frame(&mut socket).await["type"], "hello");
    let mut begun = std::net::TcpStream::connect(&logged.server.address).unwrap();
    begun.set_read_timeout(Some(PATIENCE)).unwrap();
    let head =
        "POST /orders/a HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 24\r\n\r\n";
    begun.write_all(head.as_bytes()).unwrap();
    logged.hang_up("the configuration was reloaded");
    assert!(!logged.log().contains("need a restart"), "{}", logged.log());
    let more = "[server]\nlisten = \"127.0.0.1:1\"\n[server.tls]\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
    let own = Authority::new().server();
    std::fs::write(logged.path("c.pem"), &own.cert).unwrap();
    std::fs::write(logged.path("k.pem"), &own.key).unwrap();
    std::fs::write(logged.path("diorama.toml"), format!("{more}{ORDERS}refresh_every = \"1h\"\n")).unwrap();
    for _ in 0..2 {
        logged.hang_up("need a restart");
    }
    let log = logged.log();
    let line = log.lines().find(|line| line.contains("need a restart")).unwrap();
    for key in ["dio.orders.refresh_every", "server.listen", "server.tls.cert", "server.tls.key"] {
        assert!(line.contains(key), "{key}: {line}");
    }
    assert!(!line.contains("dio.orders.source"), "{line}");
    begun.write_all(br#"{"item":"Bun","price":1}"#).unwrap();
    let mut answer = [0; 12];
    begun.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 202");
    assert_eq!(frame(&mut socket).await["type"], "RecordInserted");
}

#[test]
fn a_wrong_configuration_is_refused_with_all_its_problems() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), ORDERS).unwrap();
    let logged = Logged::start(dir);
    let wrong = format!("[server]\nlisten = 5\nbase_path = \"a b\"\n{ORDERS}colour = \"red\"\n");
    std::fs::write(logged.path("diorama.toml"), wrong).unwrap();
    logged.hang_up("colour");
    let log = logged.log();
    for problem in ["diorama.toml:2:10: server.listen must be a text", "diorama.toml:3:13: server.base_path"] {
        assert!(log.contains(problem), "{problem}: {log}");
    }
    let is_refusal = |line: &&str| line.contains("ERROR") && line.contains("the new settings are refused");
    assert_eq!(log.lines().filter(is_refusal).count(), 3, "{log}");
    assert!(!log.contains("the configuration was reloaded"));
    assert_eq!(logged.server.get("/orders").status, 200);
    std::fs::remove_file(logged.path("diorama.toml")).unwrap();
    logged.hang_up("there is no ./diorama.toml");
    assert_eq!(logged.server.get("/orders").status, 200);
    std::fs::write(logged.path("diorama.toml"), ORDERS).unwrap();
    logged.hang_up("the configuration was reloaded");
}

/// A configuration with a key for each token, whose role has this rule.
fn access(keys: &[(&str, &str)], rule: &str) -> String {
    let hash = |token: &str| Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = |(name, token): &(&str, &str)| {
        format!("[key.{name}]\ntoken_sha256 = \"{}\"\nrole = \"shop\"\nclaims = {{ item = \"{name}\" }}\n", hash(token))
    };
    let keys: String = keys.iter().map(key).collect();
    format!("{ORDERS}{keys}[key.root]\ntoken_sha256 = \"{}\"\nrole = \"admin\"\n{rule}", hash(ROOT))
}

/// Subscribes with a token.
async fn subscribe_as(server: &Server, path: &str, token: &str) -> Socket {
    let mut request = server.url(path).into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    connect_async(request).await.unwrap().0
}

/// Type of the next event of a row, and how the row passed the border of the rows of the socket.
async fn row_event(socket: &mut Socket) -> (String, String) {
    loop {
        let next = frame(socket).await;
        let kind = next["type"].as_str().unwrap_or_default().to_string();
        if kind.starts_with("Record") {
            let passed = ["entered", "left"].into_iter().find(|name| next[name] == true).unwrap_or_default();
            return (kind, passed.to_string());
        }
        assert!(matches!(&*kind, "WriteCommitted" | "heartbeat"), "{next}");
    }
}

const ROOT: &str = "the token of the administrator";
const BUN: &str = "the token that sees buns";
const ROLL: &str = "the token that sees rolls";
const OWN: &str =
    "[[allow]]\nrole = \"shop\"\ndio = \"orders\"\ncan = [\"read\", \"events\"]\nwhere = \"item=eq.{claims.item}\"\n";

fn as_caller(server: &Server, method: &str, path: &str, token: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    server.request(method, path, &[("Authorization", &bearer), ("Content-Type", "application/json")], body)
}

#[test]
fn a_hangup_replaces_keys_and_rules_and_a_mistake_in_them_changes_nothing() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), access(&[("Bun", BUN)], OWN)).unwrap();
    let logged = Logged::start(dir);
    let write = |text: &str| std::fs::write(logged.path("diorama.toml"), text).unwrap();
    let status = |token: &str, path: &str| as_caller(&logged.server, "GET", path, token, "").status;
    let insert = |id: &str, item: &str| {
        let body = format!(r#"{{"item":"{item}","price":1}}"#);
        as_caller(&logged.server, "POST", &format!("/orders/{id}"), ROOT, &body).status
    };
    assert_eq!((insert("a", "Bun"), insert("b", "Roll")), (202, 202));
    assert_eq!((status(BUN, "/orders/a"), status(BUN, "/orders/b"), status(ROLL, "/orders")), (200, 404, 401));
    for (mistake, told) in [
        (access(&[("Bun", BUN)], &OWN.replace("item=eq", "itm=eq")), "did you mean"),
        (access(&[("Bun", BUN)], &OWN.replace("read", "reed")), "did you mean"),
        (access(&[("Bun", BUN), ("Roll", BUN)], OWN), "is also one of another key"),
    ] {
        write(&mistake);
        logged.hang_up("the new settings are refused");
        assert!(logged.log().contains(told), "{told}: {}", logged.log());
        assert_eq!((status(BUN, "/orders/a"), status(BUN, "/orders/b")), (200, 404), "{told}");
    }
    write(&access(&[("Roll", ROLL)], OWN));
    logged.hang_up("the configuration was reloaded");
    assert_eq!((status(BUN, "/orders/a"), status(ROLL, "/orders/a"), status(ROLL, "/orders/b")), (401, 404, 200));
    write(&access(&[("Roll", ROLL)], &OWN.replace("eq.{claims.item}", "eq.Bun")));
    logged.hang_up("the configuration was reloaded");
    assert_eq!((status(ROLL, "/orders/a"), status(ROLL, "/orders/b")), (200, 404));
    assert!(!logged.log().contains("need a restart"), "{}", logged.log());
    wait("the entries of the audit log", || {
        let entries = as_caller(&logged.server, "GET", "/_audit", ROOT, "").json();
        let count = |action: &str| entries.as_array().unwrap().iter().filter(|entry| entry["action"] == action).count();
        (count("policy-reloaded"), count("configuration-refused")) == (2, 3)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_its_owner_leaves_one_socket_and_enters_another_and_new_rules_end_both() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), access(&[("Bun", BUN), ("Roll", ROLL)], OWN)).unwrap();
    let logged = Logged::start(dir);
    let change = |method: &str, body: &str| as_caller(&logged.server, method, "/orders/a", ROOT, body).status;
    let mut sockets = Vec::new();
    for token in [BUN, ROLL] {
        let mut socket = subscribe_as(&logged.server, "/orders/events", token).await;
        assert_eq!(frame(&mut socket).await["type"], "hello");
        sockets.push(socket);
    }
    assert_eq!(change("POST", r#"{"item":"Bun","price":1}"#), 202);
    assert_eq!(row_event(&mut sockets[0]).await, ("RecordInserted".into(), "".into()));
    assert_eq!(change("PATCH", r#"{"item":"Roll"}"#), 202);
    assert_eq!(row_event(&mut sockets[0]).await, ("RecordRemoved".into(), "left".into()));
    assert_eq!(row_event(&mut sockets[1]).await, ("RecordInserted".into(), "entered".into()), "the first of it");
    std::fs::write(logged.path("diorama.toml"), access(&[("Bun", BUN), ("Roll", ROLL)], "")).unwrap();
    logged.hang_up("the configuration was reloaded");
    assert_eq!(change("PATCH", r#"{"price":2}"#), 202);
    for socket in &mut sockets {
        let mut next = frame(socket).await;
        while next["type"] == "WriteCommitted" || next["type"] == "heartbeat" {
            next = frame(socket).await;
        }
        assert_eq!(next, 4403);
    }
}
