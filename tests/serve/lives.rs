//! Views of the event stream over many lives of one server: each is what an unfiltered subscriber could have filtered itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Random;
use crate::process::{Answer, Server, folder};

/// Orders in a database, and a webhook for them that asks for no proof.
pub(crate) const CONFIG: &str = r#"
[lens]
cache = "cache.redb"

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[webhook.orders]
auth = { scheme = "none" }
"#;

/// A subscriber that polls: a filter on the price, and the changes that it wants.
struct View {
    query: &'static str,
    matches: fn(i64) -> bool,
    ops: &'static [&'static str],
    position: String,
    told: Vec<Told>,
}

/// Type, row, and how the row stands to the filter.
type Told = (u64, String, String, &'static str);

const ALL: &[&str] = &["insert", "update", "delete"];

fn views(position: &str) -> Vec<View> {
    let view = |query, matches, ops| View { query, matches, ops, position: position.to_string(), told: Vec::new() };
    vec![
        view("price=gte.500", |price| price >= 500, ALL),
        view("price=lt.500&select=item", |price| price < 500, ALL),
        view("price=gte.500&ops=insert", |price| price >= 500, &["insert"]),
        view("price=gte.500&ops=update,delete", |price| price >= 500, &["update", "delete"]),
        view("ops=delete", |_| true, &["delete"]),
    ]
}

/// A reader that has every event, with its rows.
struct Everything {
    position: String,
    frames: Vec<Value>,
}

/// Frames after `position`, and where to go on.
fn poll(server: &Server, query: &str, position: &mut String) -> Vec<Value> {
    let answer: Answer = server.get(&format!("/orders/events?since={position}&{query}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let frames: Vec<Value> = answer
        .body
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(frames.iter().all(|frame| frame["type"] != "reset"), "{query}: {frames:#?}");
    let last = frames.iter().rev().find_map(|frame| frame["position"].as_str()).unwrap();
    *position = last.to_string();
    frames.into_iter().filter(|frame| frame["type"].as_str().unwrap().starts_with("Record")).collect()
}

impl View {
    fn hear(&mut self, server: &Server) {
        for frame in poll(server, self.query, &mut self.position) {
            let flag = match (&frame["entered"], &frame["left"]) {
                (Value::Bool(true), _) => "entered",
                (_, Value::Bool(true)) => "left",
                _ => "",
            };
            let kind = frame["type"].as_str().unwrap().to_string();
            assert_eq!(kind == "RecordChanged", frame["changed"].is_array(), "{}: {frame}", self.query);
            self.told.push((frame["seq"].as_u64().unwrap(), kind, frame["id"].as_str().unwrap().to_string(), flag));
        }
    }

    /// What it is to be told of the events that somebody else was told.
    fn expected(&self, frames: &[Value]) -> Vec<Told> {
        let mut rows: HashMap<String, i64> = HashMap::new();
        let mut told = Vec::new();
        for frame in frames {
            let id = frame["id"].as_str().unwrap().to_string();
            let new = frame["record"]["price"].as_i64();
            let old = match new {
                Some(new) => rows.insert(id.clone(), new),
                None => rows.remove(&id),
            };
            let matches = |price: Option<i64>| price.is_some_and(self.matches);
            let (kind, op, flag) = match (frame["type"].as_str().unwrap(), matches(old), matches(new)) {
                ("RecordInserted", _, true) => ("RecordInserted", "insert", ""),
                ("RecordChanged", true, true) => ("RecordChanged", "update", ""),
                ("RecordChanged", false, true) => ("RecordInserted", "insert", "entered"),
                ("RecordChanged", true, false) => ("RecordRemoved", "delete", "left"),
                ("RecordRemoved", true, _) => ("RecordRemoved", "delete", ""),
                _ => continue,
            };
            if self.ops.contains(&op) {
                told.push((frame["seq"].as_u64().unwrap(), kind.to_string(), id, flag));
            }
        }
        told
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Writes, deliveries and deletions of a few rows, whoever asks for them; some are refused, which is as well.
fn change(server: &Server, random: &mut Random) {
    let (id, price) = (random.below(12), random.below(1_000));
    let path = format!("/orders/r{id}");
    let send = |method: &str, path: &str, body: Value| {
        let headers = [("content-type", "application/json")];
        let answer = server.request(method, path, &headers, &body.to_string());
        assert!(answer.status < 500, "{method} {path}: {answer:?}");
    };
    match random.below(6) {
        0 => send("DELETE", &path, Value::Null),
        1 => send("PUT", &path, json!({ "id": format!("r{id}"), "item": "bun", "price": price })),
        2 => send("POST", "/orders", json!({ "id": format!("r{id}"), "item": "new", "price": price })),
        3 => {
            let new = json!({ "id": format!("r{id}"), "item": "told", "price": price });
            send("POST", "/webhooks/orders", json!({ "op": "upsert", "id": format!("r{id}"), "new": new }));
        }
        _ => send("PATCH", &path, json!({ "price": price })),
    }
}

#[cfg(unix)]
#[test]
fn every_event_views_of_a_server_that_is_stopped_and_killed_are_what_anybody_could_have_filtered() {
    let seconds = number("DIORAMA_LIVES_SECONDS").unwrap_or(8);
    let seed = number("DIORAMA_LIVES_SEED").unwrap_or(0x9E37_79B9_7F4A_7C15);
    println!("DIORAMA_LIVES_SEED={seed}");
    let mut random = Random(seed | 1);
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let begun = server.get("/orders").raw_header("dio-position").unwrap().to_string();
    let mut views = views(&begun);
    let mut everything = Everything { position: begun, frames: Vec::new() };
    let (end, mut lives) = (Instant::now() + Duration::from_secs(seconds), 0);
    while Instant::now() < end || lives < 3 {
        lives += 1;
        for _ in 0..random.below(120) {
            change(&server, &mut random);
            if random.below(20) == 0 {
                let at = random.below(views.len()) as usize;
                views[at].hear(&server);
            }
            if random.below(30) == 0 {
                everything.frames.extend(poll(&server, "", &mut everything.position));
            }
        }
        if random.below(2) == 0 {
            server.signal("TERM");
            server.ended();
        } else {
            server.kill();
        }
        server = Server::start(dir.path(), &[]);
    }
    everything.frames.extend(poll(&server, "", &mut everything.position));
    let upto = everything.frames.last().and_then(|frame| frame["seq"].as_u64()).unwrap_or(0);
    for view in &mut views {
        view.hear(&server);
        view.told.retain(|told| told.0 <= upto);
        assert_eq!(view.told, view.expected(&everything.frames), "{} after {lives} lives", view.query);
    }
    println!("{} events over {lives} lives, seen in {} ways", everything.frames.len(), views.len());
    assert!(everything.frames.len() > 50);
}
