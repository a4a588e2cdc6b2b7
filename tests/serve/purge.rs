//! Purges of a server that runs, is killed in the midst of them, and starts again.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lives::CONFIG;
use crate::process::{PATIENCE, Server, ask, folder};

/// Lives of the server that is killed.
const LIVES: u32 = 12;
/// Text that nobody must find any more.
const MARK: &str = "Hidden-text";

fn shop() -> TempDir {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    dir
}

fn send(server: &Server, method: &str, path: &str, body: &Value) -> u16 {
    server.request(method, path, &[("content-type", "application/json")], &body.to_string()).status
}

/// Waits until no write waits for the source.
fn settle(server: &Server) {
    let deadline = Instant::now() + PATIENCE;
    while server.get("/operations?state=queued,running,unknown").json() != json!([]) {
        assert!(Instant::now() < deadline, "writes are never settled");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Paths whose answers show rows, as they are or as they were.
fn answers(server: &Server, since: &str) -> String {
    let paths = [
        "/orders?limit=1000".to_string(),
        format!("/orders/events?since={since}"),
        format!("/orders/events?since={since}&item=like.*idden*"),
        "/orders/events?since=earliest".into(),
        "/operations?limit=1000".into(),
        "/webhooks/orders/deliveries".into(),
    ];
    let mut all = String::new();
    for path in paths {
        all += &server.get(&path).body;
    }
    for delivery in server.get("/webhooks/orders/deliveries?limit=1000").json().as_array().unwrap() {
        all += &server.get(delivery["links"]["self"].as_str().unwrap()).body;
    }
    all
}

/// Gives the rows `gone` values that are to be found nowhere later, and deletes them at the source.
fn fill(server: &Server, dir: &Path, rounds: usize) {
    for round in 0..rounds {
        for id in ["gone", "stays"] {
            let item = format!("{} {round}", if id == "gone" { MARK } else { "plain" });
            assert!(send(server, "PUT", &format!("/orders/{id}"), &json!({ "item": item, "price": round })) < 300);
            let new = json!({ "id": id, "item": format!("{item} told"), "price": round });
            let told = json!({ "op": "upsert", "id": id, "new": new });
            assert!(send(server, "POST", "/webhooks/orders", &told) < 300);
        }
    }
    settle(server);
    let source = rusqlite::Connection::open(dir.join("shop.db")).unwrap();
    source.busy_timeout(PATIENCE).unwrap();
    source.execute("DELETE FROM orders WHERE id = 'gone'", []).unwrap();
}

#[cfg(unix)]
#[test]
fn a_purged_row_is_in_no_answer_of_a_server_nor_of_the_next() {
    let dir = shop();
    let mut server = Server::start(dir.path(), &[]);
    let since = server.get("/orders").raw_header("dio-position").unwrap().to_string();
    fill(&server, dir.path(), 5);
    assert!(answers(&server, &since).contains(MARK));
    let purged = server.post("/orders/_purge", r#"{"ids":["gone"]}"#);
    assert_eq!(purged.status, 200, "{purged:?}");
    assert_eq!(purged.json()["in_source"], json!([]), "{purged:?}");
    for _ in 0..2 {
        let all = answers(&server, &since);
        assert!(!all.contains(MARK), "{all}");
        assert!(all.contains("plain 4"), "the other row is told as before");
        assert_eq!(server.get("/orders/gone").status, 404);
        server.kill();
        server = Server::start(dir.path(), &[]);
    }
}

/// Files of the server that have the values in any of their bytes.
fn with_the_mark(dir: &Path) -> Vec<&'static str> {
    let holds = |name: &&str| {
        let bytes = std::fs::read(dir.join(name)).unwrap();
        bytes.windows(MARK.len()).any(|bytes| bytes == MARK.as_bytes())
    };
    ["cache.redb", "cache.journal.redb"].into_iter().filter(holds).collect()
}

fn epoch(server: &Server) -> String {
    let position = server.get("/orders").raw_header("dio-position").unwrap().to_string();
    position.split(':').next().unwrap().to_string()
}

#[cfg(unix)]
#[test]
fn after_a_purge_and_a_start_the_bytes_of_the_row_are_in_no_file() {
    let dir = shop();
    let mut server = Server::start(dir.path(), &[]);
    fill(&server, dir.path(), 50);
    server.signal("TERM");
    assert!(server.ended().success());
    server = Server::start(dir.path(), &[]);
    let before = epoch(&server);
    let purged = server.post("/orders/_purge", r#"{"ids":["gone"]}"#);
    assert_eq!(purged.status, 200, "{purged:?}");
    // The cache may have written over its free pages already.
    assert!(with_the_mark(dir.path()).contains(&"cache.journal.redb"), "or this test shows nothing");
    server.kill();
    // What an interrupted copy has left is in nobody's way.
    std::fs::write(dir.path().join("cache.redb.clean"), MARK).unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(with_the_mark(dir.path()), [""; 0]);
    assert!(!dir.path().join("cache.redb.clean").exists());
    assert_eq!(server.get("/orders/stays").json()["price"], json!(49));
    assert_eq!(epoch(&server), before, "nothing of the log was lost");
}

#[cfg(unix)]
#[test]
fn a_purge_that_a_kill_interrupts_has_happened_or_not_and_is_finished_by_the_next_start() {
    let dir = shop();
    // The first is not killed: the others are, from its beginning to its end.
    let (mut took, mut finished) = (Duration::ZERO, 0);
    // Whether a kill meets a purge in its midst is chance.
    for life in 0..5 * LIVES {
        if life >= LIVES && finished > 0 {
            break;
        }
        let mut server = Server::start(dir.path(), &[]);
        let since = server.get("/orders").raw_header("dio-position").unwrap().to_string();
        fill(&server, dir.path(), 20);
        let (address, began) = (server.address.clone(), Instant::now());
        let purging = std::thread::spawn(move || {
            let headers = [("content-type", "application/json")];
            ask(&address, "POST", "/orders/_purge", &headers, r#"{"ids":["gone"]}"#)
        });
        let answered = if life == 0 {
            let answered = purging.join().unwrap();
            took = began.elapsed();
            server.kill();
            answered
        } else {
            match life % 2 {
                0 => std::thread::sleep(took * (life % LIVES) / LIVES),
                // The row goes first, then what the log remembers of it.
                _ => while server.get("/orders/gone").status == 200 && !purging.is_finished() {},
            }
            server.kill();
            purging.join().unwrap()
        };
        let answered = answered.is_ok_and(|answer| answer.status == 200);
        let server = Server::start(dir.path(), &[]);
        settle(&server);
        let all = answers(&server, &since);
        assert!(all.contains("plain 19"), "{life}");
        let erased = !all.contains(MARK);
        assert!(erased || !answered && life > 0, "life {life}: {all}");
        // Where anything is left everything is: each of the writes, as it was told.
        let left =
            |round: usize| all.contains(&format!("{MARK} {round}\"")) && all.contains(&format!("{MARK} {round} told"));
        assert!(erased || (0..20).all(left), "life {life}: all of it or nothing: {all}");
        finished += u32::from(erased && !answered);
        assert_eq!(server.post("/orders/_purge", r#"{"ids":["gone"]}"#).status, 200);
        assert!(!answers(&server, &since).contains(MARK), "life {life}");
    }
    println!("a purge took {took:?}; of {LIVES} or more, {finished} were finished after a kill");
    assert!(finished > 0, "none was met in its midst");
}
