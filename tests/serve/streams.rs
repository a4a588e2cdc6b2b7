//! Writes that go to a stream of Redis and come back from another one, and what `/readyz` says about the server.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::Server;
use diorama_servers::RedisServer;

const PATIENCE: Duration = Duration::from_secs(60);
const WRITES: i64 = 60;

/// A folder with a configuration, and rows `p0` to `p9`.
fn folder(redis: &RedisServer) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[lens]\ncache = \"cache.redb\"\n[connection.redis]\nredis = {:?}\n[dio.products]\nsource = {{ csv = \"products.csv\" }}\n\
         write = {{ connection = \"redis\", stream = \"writes\" }}\nfeed = {{ connection = \"redis\", stream = \"changes\" }}\n",
        redis.url()
    );
    std::fs::write(dir.path().join("diorama.toml"), configuration).unwrap();
    save(dir.path(), &(0..10).map(|number| (format!("p{number}"), 0)).collect());
    dir
}

/// Writes the source anew.
fn save(dir: &Path, prices: &BTreeMap<String, i64>) {
    let rows = prices.iter().map(|(id, price)| format!("{id},{price}\n")).collect::<String>();
    std::fs::write(dir.join("new.csv"), format!("id,price\n{rows}")).unwrap();
    std::fs::rename(dir.join("new.csv"), dir.join("products.csv")).unwrap();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn field(fields: &[(String, String)], name: &str) -> String {
    let found = fields.iter().find(|(field, _)| field == name);
    found.unwrap_or_else(|| panic!("{name} in {fields:?}")).1.clone()
}

fn shown(server: &Server) -> BTreeMap<String, i64> {
    let rows = server.get("/products?limit=1000").json();
    let row = |row: &Value| (row["id"].as_str().unwrap().to_string(), row["price"].as_i64().unwrap());
    rows.as_array().unwrap().iter().map(row).collect()
}

/// Operations that were committed since the beginning, with repetitions.
fn committed(server: &Server) -> Vec<String> {
    let answer = server.get("/products/events?since=earliest");
    let lines = answer.body.lines().filter(|line| line.starts_with('{'));
    let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ended = events.filter(|event| event["type"] == "WriteCommitted");
    ended.map(|event| event["op"].as_str().unwrap().to_string()).collect()
}

fn warnings(server: &Server) -> Vec<String> {
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 200, "warnings do not make a server unready: {ready:?}");
    let warnings = ready.json()["dios"]["products"]["warnings"].clone();
    serde_json::from_value::<Option<Vec<String>>>(warnings).unwrap().unwrap_or_default()
}

/// Over kill -9 of Diorama and of Redis, each accepted write is in the stream once, and committed once when its change has come back.
#[test]
fn a_write_over_a_stream_is_added_and_committed_once() {
    let Some(mut redis) = RedisServer::start() else { return };
    let dir = folder(&redis);
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(warnings(&server).into_iter().filter(|text| !text.contains("no such stream")).count(), 0);
    let mut expected = BTreeMap::new();
    let mut operations = BTreeSet::new();
    for number in 1..=WRITES {
        let id = format!("p{}", number % 10);
        let kind = [("content-type", "application/json")];
        let answer =
            server.request("PATCH", &format!("/products/{id}"), &kind, &json!({ "price": number }).to_string());
        assert!((200..300).contains(&answer.status), "{answer:?}");
        operations.insert(answer.raw_header("dio-operation").unwrap().trim_start_matches("/operations/").to_string());
        expected.insert(id, number);
        assert_eq!(shown(&server), {
            let mut all = shown(&server);
            all.extend(expected.clone());
            all
        });
        match number % 20 {
            7 => {
                server.kill();
                server = Server::start(dir.path(), &[]);
            }
            14 => {
                redis.kill();
                redis.restart();
            }
            _ => {}
        }
    }
    until("all writes are in the stream", || redis.entries("writes").len() >= operations.len());
    let entries = redis.entries("writes");
    let added: Vec<_> = entries.iter().map(|(_, fields)| field(fields, "diorama-operation")).collect();
    assert_eq!(added.iter().cloned().collect::<BTreeSet<_>>(), operations);
    assert_eq!(added.len(), operations.len(), "none is there twice");
    // The application: it stores the rows, and then says so.
    for (_, fields) in &entries {
        let write: Value = serde_json::from_str(&field(fields, "value")).unwrap();
        let (id, new) = (field(fields, "key"), &write["new"]);
        let mut rows = expected.clone();
        rows.insert(id.clone(), new["price"].as_i64().unwrap());
        save(dir.path(), &rows);
        redis.add("changes", &[("key", &id), ("value", &json!({ "op": "upsert", "id": id, "new": new }).to_string())]);
    }
    save(dir.path(), &expected);
    until("all writes are committed", || committed(&server).len() >= operations.len());
    let committed = committed(&server);
    assert_eq!((committed.len(), committed.into_iter().collect()), (operations.len(), operations));
    assert_eq!(shown(&server), expected);
}

#[test]
fn a_server_that_may_lose_writes_is_told_by_readyz() {
    let Some(redis) = RedisServer::start_with(&["--appendonly", "no"]) else { return };
    let dir = folder(&redis);
    let server = Server::start(dir.path(), &[]);
    let about =
        |what: &str| warnings(&server).iter().any(|text| text.starts_with(what) && text.contains("appendonly is no"));
    until("both warn", || about("write route: ") && about("feed: "));
}
