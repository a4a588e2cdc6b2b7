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
    assert!(!refused.status.success() && said.contains("ack = \"memory\" cannot be combined with write"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_thousand_lines_in_one_request_are_taken_in_bounded_memory() {
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
    // What any bulk request takes at its peak, the pages of the journal among it, is there after a tenth of them.
    send(0..LINES / 10);
    let queued = || server.get("/readyz").json()["dios"]["orders"]["queued"].as_u64();
    let deadline = Instant::now() + PATIENCE;
    while queued() != Some(0) {
        assert!(Instant::now() < deadline, "they reach the source");
    }
    let before = server.most_memory();
    let (came, went) = send(LINES / 10..LINES);
    let grown = server.most_memory().saturating_sub(before);
    assert!(went > 20 << 20, "the results alone are {went} bytes");
    assert!(grown < 24 << 20, "{came} bytes came in, {went} went out, and at the most {grown} more were held");
    assert!(server.get("/orders?limit=0").head.contains(&format!("x-total-count: {}", LINES / 50)));
}

const ROUTED: &str = r#"
[dio.products]
source = { csv = "products.csv" }
write = { sqlite = "shop.db", table = "products" }
"#;

/// A folder whose CSV file's writes go to a table, which is empty.
fn routed() -> (tempfile::TempDir, rusqlite::Connection) {
    let dir = folder();
    let shop = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    shop.execute_batch("CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price INTEGER)").unwrap();
    std::fs::write(dir.path().join("diorama.toml"), ROUTED).unwrap();
    (dir, shop)
}

fn rows_of(shop: &rusqlite::Connection) -> Vec<(i64, String, i64)> {
    let mut rows = shop.prepare("SELECT id, name, price FROM products ORDER BY id").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_row_that_the_route_does_not_know_is_changed_and_deleted_as_any_other() {
    let (dir, shop) = routed();
    let mut server = Server::start(dir.path(), &[]);
    let send = |server: &Server, method: &str, path: &str, body: &str| {
        let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
        server.request(method, path, &headers, body)
    };
    let patched = send(&server, "PATCH", "/products/1", r#"{"price":180}"#);
    assert_eq!(patched.status, 200, "{patched:?}");
    assert_eq!(rows_of(&shop), [(1, "Muffin".into(), 180)], "the whole row goes there");
    assert_eq!(send(&server, "PATCH", "/products/1", r#"{"name":"Scone"}"#).status, 200);
    assert_eq!(rows_of(&shop), [(1, "Scone".into(), 180)]);
    for (path, there) in [("/products/1", 1), ("/products/2", 0)] {
        let deleted = send(&server, "DELETE", path, "");
        assert!((200..300).contains(&deleted.status), "{deleted:?}");
        assert_eq!(rows_of(&shop).len(), 0, "{path}, of which there was {there}");
    }
    let ids = |server: &Server| -> Vec<String> {
        let rows = server.get("/products").json();
        rows.as_array().unwrap().iter().map(|row| row["id"].to_string()).collect()
    };
    // The file still has them; the writes lie over it, through refreshes and restarts.
    assert_eq!(ids(&server), ["3"]);
    assert_eq!(server.post("/products/_refresh", "").status, 200);
    assert_eq!(ids(&server), ["3"]);
    server.kill();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(ids(&server), ["3"]);
    let failed = server.get("/operations?state=failed,parked").json();
    assert_eq!(failed.as_array().map(Vec::len), Some(0), "{failed}");
}

#[test]
fn a_routed_row_leaves_a_refresh_covered() {
    let (dir, _shop) = routed();
    let server = Server::start(dir.path(), &[]);
    let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
    let inserted = server.request("PUT", "/products/9", &headers, r#"{"id":9,"name":"Pie","price":400}"#);
    assert!((200..300).contains(&inserted.status), "{inserted:?}");
    let changed = server.request("PATCH", "/products/1", &headers, r#"{"price":1}"#);
    assert_eq!(changed.status, 200, "{changed:?}");
    let since = server.get("/products").raw_header("dio-position").unwrap().to_string();
    let refreshed = server.post("/products/_refresh", "").json();
    assert_eq!(
        (&refreshed["inserted"], &refreshed["changed"], &refreshed["removed"]),
        (&0.into(), &0.into(), &0.into())
    );
    let path = format!("/products/events?since={since}");
    let frames = server.get(&path).body;
    let told: Vec<&str> = frames.lines().filter(|line| line.contains("\"type\":\"Invalidated\"")).collect();
    assert!(told.len() == 1 && told[0].contains("\"covered\":true"), "nobody has to read again: {frames}");
}
