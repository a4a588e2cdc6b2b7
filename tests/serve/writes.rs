//! Writes to a real process: what it has taken outlives it, and how much it takes at once does not.

use std::time::Instant;

use crate::process::{PATIENCE, Server, folder, run};

const CONFIG: &str = r#"
[lens]
cache = "cache.redb"

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[dio.returns]
source = { sqlite = "shop.db", table = "returns" }
"#;

fn shop() -> tempfile::TempDir {
    let dir = folder();
    let shop = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    shop.execute_batch("CREATE TABLE returns (id TEXT PRIMARY KEY, item TEXT, price INTEGER)").unwrap();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    dir
}

#[test]
fn one_commit_an_idempotency_key_outlives_the_process_and_belongs_to_one_resource() {
    let dir = shop();
    let mut server = Server::start(dir.path(), &[]);
    let headers = [("content-type", "application/json"), ("idempotency-key", "k-1"), ("prefer", "wait=10")];
    let send = |server: &Server, path: &str, item: &str| {
        server.request("POST", path, &headers, &format!(r#"{{"item":"{item}","price":3}}"#))
    };
    let first = send(&server, "/orders", "bun");
    assert_eq!(first.status, 201, "{first:?}");
    server.kill();
    let server = Server::start(dir.path(), &[]);
    let replay = send(&server, "/orders", "bun");
    assert_eq!((replay.status, replay.json()), (201, first.json()));
    assert!(replay.head.contains("idempotency-replayed: true"), "{replay:?}");
    assert_eq!(send(&server, "/orders", "roll").status, 422, "the key is taken by another request");
    assert_eq!(server.get("/orders").json().as_array().unwrap().len(), 1);
    let elsewhere = send(&server, "/returns", "bun");
    assert_eq!((elsewhere.status, elsewhere.head.contains("idempotency-replayed")), (201, false));
}

#[test]
fn durable_a_resource_that_acknowledges_from_memory_says_so_everywhere() {
    let dir = shop();
    let config = CONFIG.replacen("table = \"returns\" }", "table = \"returns\" }\nack = \"memory\"", 1);
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let server = Server::start(dir.path(), &[]);
    let table = |name: &str| server.printed.iter().find(|line| line.starts_with(name)).unwrap();
    assert!(table("orders").ends_with("on disk") && table("returns").ends_with("in memory"), "{:#?}", server.printed);
    let durable =
        |path: &str| server.post(path, r#"{"item":"bun","price":3}"#).raw_header("dio-durable").unwrap().to_string();
    assert_eq!((durable("/orders").as_str(), durable("/returns").as_str()), ("disk", "memory"));
    let ready = server.get("/readyz").json();
    assert_eq!(
        (&ready["dios"]["orders"]["durable"], &ready["dios"]["returns"]["durable"]),
        (&true.into(), &false.into())
    );
    let reasons = ready["dios"]["returns"]["reasons"].to_string();
    assert!(reasons.contains("in memory only"), "{reasons}");
    let routed = format!("{CONFIG}ack = \"memory\"\nwrite = {{ sqlite = \"shop.db\", table = \"orders\" }}\n");
    std::fs::write(dir.path().join("diorama.toml"), routed).unwrap();
    let refused = run(dir.path(), &["check"]);
    let said = String::from_utf8_lossy(&refused.stderr).to_string();
    assert!(!refused.status.success() && said.contains("ack = \"memory\" does not go with write"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn g_a_hundred_thousand_lines_in_one_request_are_taken_in_bounded_memory() {
    const LINES: usize = 100_000;
    let dir = shop();
    let server = Server::start(dir.path(), &[]);
    // One in fifty is a row; the others are refused, each with a result of some length.
    let padding = "x".repeat(400);
    let line = |n: usize| match n % 50 {
        0 => format!("{{\"id\":\"b{n}\",\"item\":\"bun\"}}\n"),
        _ => format!("{{\"id\":\"b{n}\",\"item\":[\"{padding}\"]}}\n"),
    };
    let send = |lines: std::ops::Range<usize>| {
        let body: String = lines.map(line).collect();
        let answer = server.request("POST", "/orders", &[("content-type", "application/x-ndjson")], &body);
        assert_eq!(answer.status, 200);
        (body.len(), answer.body.len())
    };
    // What any bulk request takes, the pages of the journal among it, is there after a tenth of them.
    send(0..LINES / 10);
    let queued = || server.get("/readyz").json()["dios"]["orders"]["queued"].as_u64();
    let deadline = Instant::now() + PATIENCE;
    while queued() != Some(0) {
        assert!(Instant::now() < deadline, "they reach the source");
    }
    let before = server.memory();
    let (came, went) = send(LINES / 10..LINES);
    let grown = server.most_memory().saturating_sub(before);
    assert!(went > 20 << 20, "the results alone are {went} bytes");
    assert!(grown < 24 << 20, "{came} bytes came in, {went} went out, and at the most {grown} more were held");
    assert!(server.get("/orders?limit=0").head.contains(&format!("x-total-count: {}", LINES / 50)));
}
