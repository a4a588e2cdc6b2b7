//! Logins, rights, TLS, and servers that may lose what they accept.

use std::fs;

use super::*;
use crate::connector::{Connector as _, Settings};

/// A user's rights as `docs/connect/redis.md` says them.
const FEED_RIGHTS: [&str; 6] = ["~s", "+xread", "+xinfo|stream", "+multi", "+exec", "+config|get"];
const ROUTE_RIGHTS: [&str; 10] = [
    "~s",
    "~{s}:diorama-operations",
    "+evalsha",
    "+script|load",
    "+xadd",
    "+zscore",
    "+zadd",
    "+zremrangebyrank",
    "+expire",
    "+time",
];

fn add_user(server: &RedisServer, name: &str, rights: &[&str]) {
    let words = ["ACL", "SETUSER", name, "on", ">p@ss"].into_iter().chain(rights.iter().copied());
    server.run::<String>(&words.collect::<Vec<_>>());
}

async fn error_of_feed(url: &str) -> String {
    let broker = RedisBroker { address: RedisAddress::parse(url).unwrap(), stream: "s".into() };
    broker.look().await.map(drop).unwrap_err().message
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_fail_say_why_and_never_the_password() {
    let Some(server) = RedisServer::start() else { return };
    add_user(&server, "shop", &["+ping"]);
    let at = |login: &str| format!("redis://{login}127.0.0.1:{}", server.port());
    let wrong = error_of_feed(&at("shop:wrongsecret@")).await;
    assert!(wrong.contains("user or the password is wrong") && !wrong.contains("wrongsecret"), "{wrong}");
    let lacking = error_of_feed(&at("shop:p%40ss@")).await;
    assert!(lacking.contains("lacks a right"), "{lacking}");
    server.run::<String>(&["CONFIG", "SET", "requirepass", "secret"]);
    let without = error_of_feed(&at("")).await;
    assert!(without.contains("requires a password"), "{without}");
    assert!(error_of_feed("redis://127.0.0.1:1").await.contains("redis://127.0.0.1:1: "));
}

/// A user with the documented rights, and without `CONFIG GET`.
#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough() {
    let Some(server) = RedisServer::start() else { return };
    add_user(&server, "feed", &FEED_RIGHTS);
    add_user(&server, "route", &ROUTE_RIGHTS);
    let world = World::new();
    let url = format!("redis://feed:p%40ss@127.0.0.1:{}", server.port());
    let followed = world.open(|dio| start(dio, &url, native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    let route = route(&format!("redis://route:p%40ss@127.0.0.1:{}", server.port()), Some(50), WriteFormat::Native);
    world.source.insert("a", &n(5)).await.unwrap();
    let insert = WriteOp::Insert { id: "a".into(), record: n(5) };
    for _ in 0..2 {
        route.shell().write_once("op_1", &insert).await.unwrap();
    }
    followed.shows(&[("a", 5)]).await;
    assert_eq!((messages(&followed), server.entries("s").len()), (1, 1));
    assert!(followed.dio.status().warnings.is_empty());
    let warnings = route.shell().warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("unknown") && warnings[0].contains("lacks a right"),
        "{warnings:?}"
    );
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_may_lose_what_they_accept_are_told() {
    let Some(server) = RedisServer::start_with(&["--appendonly", "no"]) else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.url(), native())).await;
    let warned = || followed.dio.status().warnings.iter().any(|warning| warning.contains("appendonly is no"));
    followed.until("the feed warns", warned).await;
    assert!(followed.dio.status().warnings.iter().all(|warning| warning.starts_with("feed: redis://127.0.0.1:")));
    followed.close().await;
    server.run::<String>(&["CONFIG", "SET", "appendonly", "yes", "appendfsync", "everysec"]);
    let route = route(&server.url(), None, WriteFormat::Native);
    assert!(route.shell().warnings().is_empty(), "it was not asked yet");
    route.shell().write_once("op_1", &WriteOp::Delete { id: "a".into() }).await.unwrap();
    assert!(route.shell().warnings()[0].contains("appendfsync is everysec"), "{:?}", route.shell().warnings());
}

/// Settings of a table in a configuration.
struct Table(serde_json::Value, parking_lot::Mutex<Vec<String>>);

impl Table {
    fn new(table: serde_json::Value) -> Table {
        Table(table, parking_lot::Mutex::default())
    }
}

impl Settings for Table {
    fn text(&self, key: &'static str) -> Option<String> {
        self.0[key].as_str().map(String::from)
    }
    fn secret(&self, key: &'static str) -> Option<String> {
        self.text(key)
    }
    fn path(&self, key: &'static str) -> Option<std::path::PathBuf> {
        self.text(key).map(Into::into)
    }
    fn word(&self, key: &'static str, words: &[&'static str]) -> Option<&'static str> {
        words.iter().find(|word| self.0[key] == **word).copied()
    }
    fn flag(&self, key: &'static str) -> Option<bool> {
        self.0[key].as_bool()
    }
    fn number(&self, key: &'static str) -> Option<u64> {
        self.0[key].as_u64()
    }
    fn count(&self, key: &'static str, _: std::ops::RangeInclusive<u64>) -> Option<usize> {
        self.number(key).and_then(|number| usize::try_from(number).ok())
    }
    fn size(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<usize> {
        self.count(key, range)
    }
    fn duration(&self, _: &'static str) -> Option<Duration> {
        None
    }
    fn texts(&self, _: &'static str) -> Option<Vec<String>> {
        None
    }
    fn secret_texts(&self, _: &'static str) -> Vec<(String, String)> {
        Vec::new()
    }
    fn json(&self, key: &'static str) -> Option<serde_json::Value> {
        self.0.get(key).cloned()
    }
    fn table(&self, _: &'static str, _: &mut dyn FnMut(&dyn Settings)) {}
    fn tables(&self, _: &'static str, _: &mut dyn FnMut(&dyn Settings)) {}
    fn has(&self, key: &'static str) -> bool {
        self.0.get(key).is_some()
    }
    fn wrong(&self, key: &'static str, problem: String) {
        self.1.lock().push(format!("{key}: {problem}"));
    }
}

#[test]
fn settings_that_contradict_are_reported() {
    let problems = |table: serde_json::Value| {
        let table = Table::new(table);
        let feed = super::super::RedisConnector.feed(&table);
        let problems = table.1.into_inner();
        assert!(feed.is_some() || !problems.is_empty());
        problems.join("; ")
    };
    assert_eq!(problems(serde_json::json!({ "redis": "redis://h", "stream": "s" })), "");
    assert!(problems(serde_json::json!({ "redis": "redis://h" })).contains("requires stream"));
    assert!(problems(serde_json::json!({ "redis": "h:1", "stream": "s" })).contains("redis://HOST:PORT"));
    assert!(
        problems(serde_json::json!({ "redis": "redis://h", "stream": "s", "user": "u" })).contains("requires password")
    );
    assert!(problems(serde_json::json!({ "redis": "redis://h", "stream": "s", "ca": "ca.pem" })).contains("rediss://"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_and_certificates_checked() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (certificate, private) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&certificate, key.cert.pem()).unwrap();
    fs::write(&private, key.signing_key.serialize_pem()).unwrap();
    let (certificate, private) = (certificate.to_str().unwrap(), private.to_str().unwrap());
    let Some(server) = RedisServer::start() else { return };
    // A free port of its own: that of a proxy that has ended.
    let port = CutProxy::start(server.port()).port().to_string();
    for (name, value) in
        [("tls-cert-file", certificate), ("tls-key-file", private), ("tls-auth-clients", "no"), ("tls-port", &port)]
    {
        server.run::<String>(&["CONFIG", "SET", name, value]);
    }
    let table = |host: &str, ca: Option<&str>| {
        let mut table = serde_json::json!({ "redis": format!("rediss://{host}:{port}"), "stream": "s" });
        if let Some(ca) = ca {
            table["ca"] = ca.into();
        }
        RedisAddress::read(&Table::new(table)).unwrap()
    };
    let trusted = table("localhost", Some(certificate)).connect().await.unwrap();
    assert_eq!(trusted.run::<String>(&redis::cmd("PING")).await.unwrap(), "PONG");
    let unknown = table("localhost", None).connect().await.unwrap_err().message;
    assert!(unknown.contains("TLS"), "{unknown}");
    let other = table("127.0.0.1", Some(certificate)).connect().await.unwrap_err().message;
    assert!(other.contains("TLS"), "{other}");
}
