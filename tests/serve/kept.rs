//! Files that an earlier version wrote, kept for ever: they open, and nothing in them is lost.
//!
//! `tests/data/format1` is what a server of version 0.1.0 (entries, journal and cache of format 1) left behind when it was
//! killed: writes confirmed, refused, parked, routed and queued, deliveries of a webhook, a refresh of 1,500 rows.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Server, run};

const CONFIG: &str = r#"
[lens]
cache = "cache.redb"
refresh_every = "1h"
events = { age = "36500d" }

[dio.products]
source = { csv = "products.csv" }
write = { sqlite = "shop.db", table = "products" }

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[dio.tickets]
source = { sqlite = "tickets.db", table = "tickets" }

[webhook.products]
auth = { scheme = "none" }
"#;

fn kept(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format1").join(file)
}

/// The files in a folder of their own, and what the server that wrote them said last.
fn unpacked() -> (TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    let files = kept("served.tar.gz");
    let unpacked = Command::new("tar").arg("xzf").arg(files).arg("-C").arg(dir.path()).status().unwrap();
    assert!(unpacked.success());
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    (dir, serde_json::from_slice(&std::fs::read(kept("expected.json")).unwrap()).unwrap())
}

/// What identifies the events of the log among `frames`.
fn told(frames: &[Value]) -> Vec<(u64, String, String)> {
    let text = |frame: &Value, member: &str| frame[member].as_str().unwrap_or_default().to_string();
    let is_event = |frame: &&Value| frame["type"].as_str().is_some_and(|name| name.starts_with(char::is_uppercase));
    let events = frames.iter().filter(is_event);
    events.map(|frame| (frame["seq"].as_u64().unwrap(), text(frame, "type"), text(frame, "id"))).collect()
}

fn events(server: &Server, path: &str) -> Vec<Value> {
    let answer = server.request("GET", path, &[("accept", "application/x-ndjson")], "");
    // Between the frames are the sizes of the pieces they came in.
    answer.body.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn operations_in_a_journal_of_format_1_are_listed_before_anything_is_served() {
    let (dir, expected) = unpacked();
    let listed = run(dir.path(), &["ops", "list", "--json", "--limit", "1000"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    for operation in expected["operations"].as_array().unwrap() {
        let (id, state) = (operation["id"].as_str().unwrap(), operation["state"].as_str().unwrap());
        let line = listed.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("no {id} in {listed}"));
        // What a worker was doing is not written down.
        let state = if state == "running" { "queued" } else { state };
        assert!(line.contains(state), "{state}: {line}");
    }
}

#[test]
fn durable_a_cache_and_a_journal_of_format_1_are_served_on_with_every_acknowledged_write() {
    let (dir, expected) = unpacked();
    let server = Server::start(dir.path(), &[]);
    for resource in ["products", "orders", "tickets"] {
        let position = expected[format!("position/{resource}")].as_str().unwrap();
        let (epoch, seq) = position.split_once(':').unwrap();
        let seq: u64 = seq.parse().unwrap();
        let now = server.get(&format!("/{resource}?limit=1")).raw_header("dio-position").unwrap().to_string();
        assert_eq!(now.split_once(':').unwrap().0, epoch, "{resource}: the history goes on");
        let before = told(expected[format!("events/{resource}")].as_array().unwrap());
        let frames = events(&server, &format!("/{resource}/events?since={epoch}:0"));
        let again: Vec<_> = told(&frames).into_iter().filter(|(at, ..)| *at <= seq).collect();
        assert_eq!(again, before, "{resource}");
    }
    assert_eq!(server.get("/products/muffin").json(), expected["products/muffin"], "a routed insert");
    assert_eq!(server.post("/products/_refresh", "").status, 200);
    // The source has other rows since these were written elsewhere, and was listed at the start: it wins.
    assert_eq!(server.get("/products/p1").json()["price"], 1_101);
    assert_eq!(server.get("/products/p2").json()["price"], 1_102);
    assert_eq!(
        server.get("/products?limit=0").raw_header("x-total-count"),
        Some("1501"),
        "those of the file and the muffin"
    );
    assert_eq!(server.get("/orders").json(), expected["orders"]);
    assert_eq!(server.get("/operations?state=parked").json()[0]["record"], "parked");
    let deliveries = server.get("/webhooks/products/deliveries").json();
    assert_eq!(deliveries.as_array().map(Vec::len), expected["webhooks/products/deliveries"].as_array().map(Vec::len));
    let settled = server.request(
        "PATCH",
        "/tickets/3",
        &[("content-type", "application/json"), ("prefer", "wait=10")],
        "{\"title\":\"last\"}",
    );
    assert_eq!(settled.status, 200, "{}", settled.body);
    let tickets = rusqlite::Connection::open(dir.path().join("tickets.db")).unwrap();
    let mut rows = tickets.prepare("SELECT id, title FROM tickets ORDER BY id").unwrap();
    let rows: Vec<(i64, String)> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, [(1, "queued patch".into()), (3, "last".into())], "what was queued has reached the master");
}

#[test]
fn a_subscriber_with_a_filter_is_reset_where_format_1_does_not_say_what_a_row_was() {
    let (dir, expected) = unpacked();
    let server = Server::start(dir.path(), &[]);
    let epoch = expected["position/orders"].as_str().unwrap().split_once(':').unwrap().0.to_string();
    let frames = events(&server, &format!("/orders/events?since={epoch}:0&price=gte.6"));
    let reset = frames.iter().find(|frame| frame["type"] == "reset").unwrap_or_else(|| panic!("{frames:#?}"));
    assert_eq!(reset["reason"], "trimmed");
}
