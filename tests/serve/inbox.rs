//! Deliveries and SIGKILL: what was answered 2xx is there afterwards, and nothing of it twice.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::process::{Answer, PATIENCE, Server, TOKEN, ask};

/// A source that takes a moment to list, and a webhook that does not wait for that.
const CONFIG: &str = r#"
[dio.stock]
source = { sqlite = "stock.db", table = "stock" }
version = "v"

[webhook.stock]
auth = { scheme = "bearer", secrets = ["env:TOKEN"], delivery = "header:x-delivery" }
answer_within = "2ms"

[webhook.strict]
dio = "stock"
auth = { scheme = "bearer", secrets = ["env:TOKEN"] }
on_undecodable = "reject"
rate = 1
"#;

const SENDERS: usize = 4;

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    let master = Connection::open(dir.path().join("stock.db")).unwrap();
    let rows = "CREATE TABLE stock (id TEXT PRIMARY KEY, n INTEGER, v INTEGER);
        WITH RECURSIVE t(x) AS (VALUES(0) UNION ALL SELECT x + 1 FROM t WHERE x < 3000)
        INSERT INTO stock SELECT 's' || x, 0, 0 FROM t;";
    master.execute_batch(rows).unwrap();
    dir
}

fn post(address: &str, path: &str, key: &str, body: &str) -> std::io::Result<Answer> {
    let token = format!("Bearer {TOKEN}");
    let headers = [("content-type", "application/json"), ("authorization", token.as_str()), ("x-delivery", key)];
    ask(address, "POST", path, &headers, body)
}

fn change(id: usize, version: u64) -> String {
    let new = json!({ "n": version * 10, "v": version });
    json!({ "op": "upsert", "id": format!("s{id}"), "new": new, "version": version }).to_string()
}

/// What one sender knows of its row.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    sent: u64,
    acknowledged: u64,
    queued: u64,
}

/// Delivers until the server is gone; every eighth delivery asks for a reading of the source as well.
fn deliver(address: &str, id: usize, mut told: Told) -> Told {
    loop {
        let version = told.sent + 1;
        told.sent = version;
        let body = match version % 8 {
            0 => format!(r#"[{},{{"op":"invalidate"}}]"#, change(id, version)),
            _ => change(id, version),
        };
        let Ok(answer) = post(address, "/webhooks/stock", &format!("{id}-{version}"), &body) else { return told };
        match answer.status {
            0 => return told,
            200 => told.acknowledged = version,
            202 => {
                assert_eq!(answer.json()["state"], "received", "{answer:?}");
                (told.acknowledged, told.queued) = (version, told.queued + 1);
            }
            503 => {}
            _ => panic!("{answer:?}"),
        }
    }
}

/// Every delivery that is kept.
fn kept(server: &Server, query: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/webhooks/stock/deliveries?limit=1000&after={after}{query}"));
        assert_eq!(page.status, 200, "{page:?}");
        let page: Vec<Value> = serde_json::from_str(&page.body).unwrap();
        let Some(last) = page.last() else { return all };
        after = last["id"].as_str().unwrap().to_string();
        all.extend(page);
    }
}

fn shown(server: &Server, id: usize) -> u64 {
    let row = server.get(&format!("/stock/s{id}")).json();
    assert_eq!(row["n"].as_u64().unwrap(), row["v"].as_u64().unwrap() * 10);
    row["v"].as_u64().unwrap()
}

fn live(dir: &Path, server: &mut Server, told: &mut [Told; SENDERS], millis: u64) {
    let address = server.address.clone();
    let address = address.as_str();
    let ended: Vec<Told> = std::thread::scope(|scope| {
        let all = told.iter().enumerate();
        let threads: Vec<_> = all.map(|(id, told)| scope.spawn(move || deliver(address, id, *told))).collect();
        std::thread::sleep(Duration::from_millis(millis));
        server.signal("KILL");
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    told.copy_from_slice(&ended);
    let _ = server.ended();
    *server = Server::start(dir, &[]);
}

#[test]
fn a_kill_between_receipt_and_answer_loses_nothing_and_repeats_nothing() {
    let dir = folder();
    let mut told = [Told::default(); SENDERS];
    let mut server = Server::start(dir.path(), &[]);
    for life in 0..4 {
        live(dir.path(), &mut server, &mut told, 120 + life * 60);
        let deadline = Instant::now() + PATIENCE;
        while !kept(&server, "&state=received").is_empty() {
            assert!(Instant::now() < deadline, "what was acknowledged is never applied");
        }
        for (id, told) in told.iter().enumerate() {
            let now = shown(&server, id);
            let range = told.acknowledged..=told.sent;
            assert!(range.contains(&now), "s{id} shows version {now}, possible are {range:?}");
            if told.acknowledged > 0 {
                let key = format!("{id}-{}", told.acknowledged);
                let again = post(&server.address, "/webhooks/stock", &key, &change(id, told.acknowledged)).unwrap();
                assert_eq!((again.status, &again.json()["duplicate"]), (200, &true.into()), "{key}: {again:?}");
            }
        }
        let mut applied: HashMap<String, u32> = HashMap::new();
        for one in kept(&server, "&state=applied") {
            *applied.entry(one["key"].as_str().unwrap().to_string()).or_default() += 1;
        }
        assert!(applied.values().all(|times| *times == 1), "applied twice: {applied:?}");
        assert_eq!(kept(&server, "&state=failed,undecodable"), Vec::<Value>::new());
    }
    assert!(told.iter().all(|told| told.acknowledged > 0), "{told:?}");
    eprintln!("{told:?}");
    assert!(told.iter().map(|told| told.queued).sum::<u64>() > 0, "some were acknowledged before they were applied");
}

/// Until `answer` says something.
fn patient(mut answer: impl FnMut() -> Option<Answer>) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never");
    }
}

#[test]
fn the_same_bytes_without_an_id_are_known_again_after_a_kill_and_what_was_not_applied_is_salvaged() {
    let dir = folder();
    let mut server = Server::start(dir.path(), &[]);
    let send = |server: &Server, hook: &str, body: &str| {
        let answer = post(&server.address, &format!("/webhooks/{hook}"), "", body).unwrap();
        (answer.status != 429).then_some(answer)
    };
    patient(|| send(&server, "strict", &change(1, 1)));
    patient(|| (shown(&server, 1) == 1).then(|| send(&server, "strict", &change(1, 1)))?);
    let poison = post(&server.address, "/webhooks/stock", "p", "{").unwrap();
    assert_eq!(poison.json()["state"], "undecodable");
    server.signal("KILL");
    let _ = server.ended();
    let salvaged = Command::new(env!("CARGO_BIN_EXE_diorama"))
        .args(["ops", "salvage", "cache.journal.redb"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let lines: Vec<Value> =
        salvaged.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let told = |name: &str| lines.iter().map(|line| line[name].as_str().unwrap_or_default()).collect::<Vec<_>>();
    assert_eq!((told("hook"), told("state"), told("body")), (vec!["stock"], vec!["undecodable"], vec!["{"]));
    assert!(String::from_utf8_lossy(&salvaged.stderr).contains("1 webhook deliveries"), "{salvaged:?}");
    assert!(!String::from_utf8_lossy(&salvaged.stdout).contains(TOKEN));
    let server = Server::start(dir.path(), &[]);
    // While the source is being read, bytes that say what is known already are judged like others.
    assert_eq!(server.post("/stock/_refresh", "").status, 200);
    let again = patient(|| send(&server, "strict", &change(1, 1)));
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &true.into()), "{again:?}");
    let other = patient(|| send(&server, "strict", &change(1, 2)));
    assert_eq!(other.json()["duplicate"], false, "{other:?}");
}

#[test]
fn the_configuration_says_what_is_refused_and_how_often() {
    let dir = folder();
    let server = Server::start(dir.path(), &[]);
    let poison = post(&server.address, "/webhooks/strict", "", "{").unwrap();
    assert_eq!((poison.status, poison.json()["code"].as_str()), (422, Some("undecodable-event")));
    let limited =
        (0..4).map(|_| post(&server.address, "/webhooks/strict", "", "{").unwrap().status).any(|status| status == 429);
    assert!(limited, "one a second is taken");
    let parked = post(&server.address, "/webhooks/stock", "p", "{").unwrap();
    assert_eq!((parked.status, parked.json()["state"].as_str()), (202, Some("undecodable")));
    let refused = server.request("POST", "/webhooks/stock", &[("content-type", "application/json")], "{");
    assert_eq!(refused.status, 401);
    let unknown = server.request("DELETE", "/webhooks/stock/deliveries", &[], "");
    assert_eq!((unknown.status, unknown.raw_header("allow")), (405, Some("GET, HEAD")));
}
