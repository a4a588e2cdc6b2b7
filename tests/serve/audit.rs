//! The audit log of a server that is attacked, killed, stopped, copied and damaged.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Server, TOKEN, folder, run};

const CONFIG: &str = r#"
[server]
auth = { tokens = ["env:TOKEN"] }
trusted_proxies = ["127.0.0.1"]

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }
"#;

fn shop() -> TempDir {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    dir
}

fn send(server: &Server, method: &str, path: &str, body: &str) -> crate::process::Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", &*bearer), ("content-type", "application/json"), ("x-request-id", "the-request")];
    server.request(method, path, &headers, body)
}

/// The entries in the files of a stopped server, oldest first.
fn kept(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = run(dir, &[&["audit", "--json", "--limit", "100000"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect()
}

#[test]
fn a_purge_is_in_the_log_after_a_kill_without_the_id_of_the_row() {
    let dir = shop();
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(send(&server, "PUT", "/orders/ann-smith", r#"{"item":"Bun","price":1}"#).status, 202);
    while send(&server, "GET", "/operations?state=queued,running,unknown", "").json() != json!([]) {}
    let purged = send(&server, "POST", "/orders/_purge", r#"{"ids":["ann-smith"]}"#);
    assert_eq!(purged.status, 200, "{}", purged.body);
    server.kill();
    let entries = kept(dir.path(), &[]);
    assert_eq!(actions(&entries)[..2], ["server-started", "purge"]);
    let purge = &entries[1];
    assert_eq!(
        (&purge["principal"], &purge["role"], &purge["resource"]),
        (&json!("token"), &json!("admin"), &json!("orders"))
    );
    assert_eq!((&purge["outcome"], &purge["request_id"]), (&json!("started"), &json!("the-request")));
    assert_eq!(purge["target"], "sha256:049e613c76e0525fd13efba380300400");
    assert!(!format!("{entries:?}").contains("ann-smith"));
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(send(&server, "POST", "/orders/_refresh", "").status, 200);
    server.signal("TERM");
    assert!(server.ended().success());
    let entries = kept(dir.path(), &[]);
    let before = entries.len() - 4;
    assert_eq!(actions(&entries)[before..], ["server-started", "refresh", "refresh", "server-stopped"]);
    assert_eq!(entries[before + 2]["outcome"], "200");
    assert_eq!(actions(&kept(dir.path(), &["--action", "purge"])).first(), Some(&"purge"));
    let numbers: Vec<u64> = entries.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=entries.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_flood_of_refused_requests_makes_a_handful_of_entries_and_counts_all_of_them() {
    const FLOOD: usize = 10_000;
    let dir = shop();
    let mut server = Server::start(dir.path(), &[]);
    let size = || std::fs::metadata(dir.path().join("cache.journal.redb")).unwrap().len();
    let before = size();
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let answers = std::thread::spawn(move || {
        let (mut all, mut piece) = (0, vec![0; 1 << 16]);
        let mut tail = Vec::new();
        while let Ok(read @ 1..) = reader.read(&mut piece) {
            tail.extend_from_slice(&piece[..read]);
            all += tail.windows(10).filter(|window| *window == b"HTTP/1.1 4").count();
            let keep = tail.len().min(b"HTTP/1.1 4".len() - 1);
            tail.drain(..tail.len() - keep);
        }
        all
    });
    let request = format!(
        "GET /orders/secret-id?x=y HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer wrong\r\n\r\n",
        server.address
    );
    for at in 1..=FLOOD {
        let close = if at == FLOOD { "connection: close\r\n\r\n" } else { "\r\n" };
        stream.write_all((request.trim_end().to_string() + "\r\n" + close).as_bytes()).unwrap();
    }
    assert_eq!(answers.join().unwrap(), FLOOD);
    server.signal("TERM");
    assert!(server.ended().success());
    let entries = kept(dir.path(), &["--action", "refused-authentication"]);
    assert!(entries.len() <= 6, "{entries:#?}");
    assert_eq!(entries.iter().map(|entry| entry["count"].as_u64().unwrap()).sum::<u64>(), FLOOD as u64);
    assert_eq!((&entries[0]["resource"], &entries[0]["outcome"]), (&json!("orders"), &json!("unauthenticated")));
    assert_eq!((&entries[0]["principal"], &entries[0]["address"]), (&json!(null), &json!("127.0.0.1")));
    let text = format!("{entries:?}");
    assert!(!text.contains("secret-id") && !text.contains("wrong") && !text.contains("x=y"), "{text}");
    assert!(size() < before + (1 << 20), "{before} to {}", size());
}

#[test]
fn a_backup_and_a_salvage_have_the_log_and_it_is_followed_while_the_server_runs() {
    let dir = shop();
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(send(&server, "POST", "/orders/_refresh", "").status, 200);
    let url = format!("http://{}", server.address);
    let backup = run(dir.path(), &["backup", "--url", &url, "--token", "env:TOKEN", "copy"]);
    assert!(backup.status.success(), "{backup:?}");
    let copied = kept(dir.path(), &["--cache", "copy/cache.redb"]);
    assert_eq!(actions(&copied).last(), Some(&"backup"), "an action is stored before it begins");
    let running = kept(dir.path(), &["--url", &url, "--token", "env:TOKEN", "--action", "refresh"]);
    assert_eq!(running[0]["target"], json!(null));
    let table = run(dir.path(), &["audit", "--url", &url, "--token", "env:TOKEN"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.lines().next().unwrap().starts_with("SEQ  TIME") && table.contains("server-started"), "{table}");
    let refused = server.get("/_audit");
    assert_eq!(refused.status, 401);
    server.signal("TERM");
    assert!(server.ended().success());
    let entries = kept(dir.path(), &[]);
    let salvaged = run(dir.path(), &["ops", "salvage", "--audit", "cache.journal.redb"]);
    let salvaged = String::from_utf8(salvaged.stdout).unwrap();
    let salvaged: Vec<Value> = salvaged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(salvaged, entries);
    // Even if the file can no longer be opened as it is: the last page is missing.
    let whole = std::fs::read(dir.path().join("cache.journal.redb")).unwrap();
    std::fs::write(dir.path().join("cut.redb"), &whole[..whole.len() - 4_096]).unwrap();
    let cut = run(dir.path(), &["ops", "salvage", "--audit", "cut.redb"]);
    assert!(cut.status.success(), "{cut:?}");
}

#[test]
fn a_server_in_memory_or_without_the_log_says_so() {
    let dir = folder();
    let server = Server::start(dir.path(), &["products.csv", "--cache", "memory"]);
    let answer = server.get("/_audit");
    assert_eq!(answer.status, 404);
    assert!(answer.json()["hint"].as_str().unwrap().contains("journal on disk"), "{}", answer.body);
    let text = "[audit]\nenabled = false\n[dio.products]\nsource = { csv = \"products.csv\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    assert_eq!(Server::start(dir.path(), &[]).get("/_audit").status, 404);
}
