//! Values from the source to the answer and back: moments, UUIDs, numbers, and what SQLite holds beside its types.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Answer, Server, folder};

/// A folder with a database of `tables`, each served under its name.
fn shop(sql: &str, tables: &[&str]) -> TempDir {
    let dir = folder();
    rusqlite::Connection::open(dir.path().join("shop.db")).unwrap().execute_batch(sql).unwrap();
    let mut config = "[lens]\ncache = \"cache.redb\"\n".to_string();
    for table in tables {
        config += &format!("[dio.{table}]\nsource = {{ sqlite = \"shop.db\", table = \"{table}\" }}\n");
    }
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    dir
}

fn cell(dir: &TempDir, sql: &str) -> String {
    let database = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    database.query_row(&format!("SELECT quote(({sql}))"), [], |row| row.get(0)).unwrap()
}

fn send(server: &Server, method: &str, path: &str, body: &str) -> Answer {
    server.request(method, path, &[("content-type", "application/json"), ("prefer", "wait=10")], body)
}

fn ids(server: &Server, path: &str) -> Value {
    let answer = server.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json().as_array().unwrap().iter().map(|row| row["id"].clone()).collect()
}

const NOTES: &str = "
    CREATE TABLE notes (id INTEGER PRIMARY KEY, name TEXT, created DATETIME DEFAULT CURRENT_TIMESTAMP, at TIMESTAMP(3), r REAL);
    INSERT INTO notes VALUES
        (1, 'a', '2023-01-29 12:00:00', 1675000001, 9e999),
        (2, 'b', '2023-01-28T23:30:00-01:00', 1675000002, -9e999),
        (3, CAST(x'61ff62' AS TEXT), 'soon', NULL, 1.5);";

#[test]
fn moments_are_found_by_time_whatever_their_spelling() {
    let dir = shop(NOTES, &["notes"]);
    let server = Server::start(dir.path(), &[]);
    assert_eq!(ids(&server, "/notes?created=gte.2023-01-29T00:00:00Z"), json!([1, 2]));
    assert_eq!(ids(&server, "/notes?created=gte.2023-01-29T01:00:00Z"), json!([1]));
    assert_eq!(ids(&server, "/notes?at=eq.1675000001"), json!([1]));
    assert_eq!(ids(&server, "/notes?at=gt.2023-01-29T13:46:41Z"), json!([2]));
    assert_eq!(ids(&server, "/notes?order=created.desc"), json!([3, 1, 2]));
    for wrong in ["NaN", "Infinity"] {
        assert_eq!(server.get(&format!("/notes?id=gt.{wrong}")).status, 400, "whole numbers are finite");
    }
    for wrong in ["yesterday", "2020-1-9"] {
        let refused = server.get(&format!("/notes?created=gt.{wrong}"));
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.contains("write 2026-01-31"), "{refused:?}");
    }
}

#[test]
fn a_row_that_was_read_can_be_written_back_and_changes_nothing() {
    let dir = shop(NOTES, &["notes"]);
    let server = Server::start(dir.path(), &[]);
    let all = "SELECT group_concat(hex(name) || quote(created) || quote(at) || quote(r) || typeof(name)) FROM notes";
    let before = cell(&dir, all);
    for id in 1..=3 {
        let row = server.get(&format!("/notes/{id}")).body;
        let put = send(&server, "PUT", &format!("/notes/{id}"), &row);
        assert!(put.status < 300, "{row}: {put:?}");
        let patched = send(&server, "PATCH", &format!("/notes/{id}"), &row);
        assert!(patched.status < 300, "{row}: {patched:?}");
    }
    assert_eq!(cell(&dir, all), before);
    assert_eq!(
        send(&server, "PATCH", "/notes/3", r#"{"created":"tomorrow"}"#).status,
        422,
        "another misfit is refused"
    );
    let made = send(&server, "POST", "/notes", r#"{"created":"2024-05-01 08:00:00","at":1700000000}"#);
    assert_eq!(made.status, 201, "what the source holds is accepted: {made:?}");
}

#[test]
fn what_json_has_no_number_for_is_a_word() {
    let dir = shop(NOTES, &["notes"]);
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/notes?select=r").json(), json!([{"r": "Infinity"}, {"r": "-Infinity"}, {"r": 1.5}]));
    assert_eq!(ids(&server, "/notes?r=is.null"), json!([]));
    assert_eq!(ids(&server, "/notes?r=eq.Infinity"), json!([1]));
    assert!(send(&server, "PATCH", "/notes/3", r#"{"r":"-Infinity"}"#).status < 300);
    assert_eq!(cell(&dir, "SELECT r FROM notes WHERE id = 3"), "-9.0e+999");
    assert_eq!(server.get("/notes/3?select=name").json(), json!({"name": "a\u{fffd}b"}), "text that is not UTF-8");
}

#[test]
fn uuids_are_the_same_id_in_any_case() {
    let upper = "01890A5D-AC96-774B-BCCE-B302099A8057";
    let lower = upper.to_lowercase();
    let dir =
        shop(&format!("CREATE TABLE u (id UUID PRIMARY KEY, n INT); INSERT INTO u VALUES ('{upper}', 1);"), &["u"]);
    let server = Server::start(dir.path(), &[]);
    for id in [upper, &lower, "01890a5dac96774bbcceb302099a8057"] {
        assert_eq!(server.get(&format!("/u/{id}")).json(), json!({"id": upper, "n": 1}), "{id}");
        assert_eq!(ids(&server, &format!("/u?id=eq.{id}")), json!([upper]));
    }
    assert_eq!(send(&server, "PATCH", &format!("/u/{lower}"), r#"{"n":2}"#).status, 200);
    assert_eq!(send(&server, "PUT", &format!("/u/{lower}"), &format!(r#"{{"id":"{lower}","n":3}}"#)).status, 200);
    assert_eq!(send(&server, "POST", "/u", &format!(r#"{{"id":"{lower}","n":4}}"#)).status, 409);
    assert_eq!(cell(&dir, "SELECT group_concat(id || n) FROM u"), format!("'{upper}3'"));
    assert_eq!(send(&server, "DELETE", &format!("/u/{lower}"), "").status, 200);
    assert_eq!(cell(&dir, "SELECT count(*) FROM u"), "0");
}

#[test]
fn integers_of_any_size_keep_their_digits() {
    let dir = folder();
    let big = "123456789012345678901234567890";
    std::fs::write(
        dir.path().join("d.json"),
        format!("[{{\"id\":1,\"n\":{big},\"in\":{{\"a\":[-{big}]}}}},{{\"id\":2,\"n\":7}}]\n"),
    )
    .unwrap();
    std::fs::write(dir.path().join("diorama.toml"), "[dio.d]\nsource = { json = \"d.json\" }\n").unwrap();
    let server = Server::start(dir.path(), &[]);
    let row = format!("{{\"id\":1,\"n\":{big},\"in\":{{\"a\":[-{big}]}}}}");
    assert_eq!(server.get("/d/1").body, row);
    assert_eq!(ids(&server, &format!("/d?n=eq.{big}")), json!([1]));
    assert_eq!(ids(&server, "/d?n=lt.18446744073709551617"), json!([2]));
    assert_eq!(ids(&server, "/d?order=n"), json!([2, 1]));
    let csv = server.request("GET", "/d?select=n", &[("accept", "text/csv")], "");
    assert_eq!(csv.body.lines().nth(1), Some(big));
    std::fs::write(dir.path().join("c.csv"), format!("id,n,at\n1,{big},2023-01-29 12:00:00\n2,7,2023-01-30\n"))
        .unwrap();
    let files = Server::start(dir.path(), &["c.csv", "--cache", "memory"]);
    assert_eq!(files.get("/c/1").body, format!("{{\"id\":1,\"n\":{big},\"at\":\"2023-01-29 12:00:00\"}}"));
    assert_eq!(ids(&files, "/c?at=gt.2023-01-29T12:00:00Z"), json!([2]));
    let sum = server.get("/d/_aggregate?select=sum(n),max(n)");
    assert!(sum.body.contains(&format!("\"max_n\":{big}")), "{sum:?}");
}

#[test]
fn tables_that_are_odd_are_served_and_written() {
    let sql = "
        CREATE VIRTUAL TABLE fts USING fts5(title, body); INSERT INTO fts VALUES ('x', 'y');
        CREATE TABLE anything (id INTEGER PRIMARY KEY, v ANY) STRICT;
        INSERT INTO anything (v) VALUES (1), ('two'), (x'0102'), ('{\"a\":1}');
        CREATE TABLE blobs (k BLOB PRIMARY KEY, v TEXT); INSERT INTO blobs VALUES (x'0102', 'one'), (x'ffee', 'two');
        CREATE TABLE nullkeys (k TEXT PRIMARY KEY, v INT); INSERT INTO nullkeys VALUES (NULL, 1), ('a', 2), (NULL, 3);
        CREATE TABLE plain (id INTEGER PRIMARY KEY, name TEXT);";
    let dir = shop(sql, &["fts", "anything", "blobs", "nullkeys", "plain"]);
    let declared =
        "[dio.declared]\nsource = { sqlite = \"shop.db\", table = \"blobs\" }\ncolumns.k = { type = \"string\" }\n";
    let config = std::fs::read_to_string(dir.path().join("diorama.toml")).unwrap();
    std::fs::write(dir.path().join("diorama.toml"), config + declared).unwrap();
    let server = Server::start(dir.path(), &[]);

    let made = send(&server, "POST", "/fts", r#"{"title":"t","body":"b"}"#);
    assert_eq!(made.json(), json!({"rowid": 2, "title": "t", "body": "b"}));

    assert_eq!(
        server.get("/anything?select=v").json(),
        json!([{"v": 1}, {"v": "two"}, {"v": "AQI"}, {"v": "{\"a\":1}"}])
    );
    assert_eq!(server.get("/anything/_schema").json()["columns"][1]["type"], "json");

    assert_eq!(server.get("/declared").json(), server.get("/blobs").json(), "declared columns change nothing of that");
    assert_eq!(server.get("/declared/AQI").json()["v"], "one");
    assert_eq!(server.get("/blobs").json(), json!([{"k": "AQI", "v": "one"}, {"k": "_-4", "v": "two"}]));
    assert_eq!(send(&server, "PATCH", "/blobs/_-4", r#"{"v":"2"}"#).status, 200);
    assert_eq!(send(&server, "PUT", "/blobs/AQID", r#"{"v":"new"}"#).status, 201);
    assert_eq!(
        cell(&dir, "SELECT group_concat(hex(k) || v) FROM (SELECT * FROM blobs ORDER BY k)"),
        "'0102one,010203new,FFEE2'"
    );

    assert_eq!(server.get("/nullkeys?select=v").json(), json!([{"v": 1}, {"v": 2}, {"v": 3}]), "no row is left out");

    let made = send(&server, "POST", "/plain", r#"[{"name":"a"},{"name":"b"},{"nam":"d"}]"#);
    let told: Vec<_> =
        made.json().as_array().unwrap().iter().map(|one| (one["status"].clone(), one["id"].clone())).collect();
    assert_eq!(told, [(json!(201), json!("1")), (json!(201), json!("2")), (json!(422), Value::Null)]);
    assert_eq!(cell(&dir, "SELECT group_concat(id || name) FROM plain"), "'1a,2b'");
}

#[test]
fn a_view_without_a_key_can_be_numbered() {
    let dir =
        shop("CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x'), ('y'); CREATE VIEW v AS SELECT a FROM t;", &[]);
    let config = "[dio.v]\nsource = { sqlite = \"shop.db\", table = \"v\" }\nid = \"#\"\n";
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/v").json(), json!([{"id": 1, "a": "x"}, {"id": 2, "a": "y"}]));
    assert_eq!(server.get("/v/2").json(), json!({"id": 2, "a": "y"}));
    assert_eq!(send(&server, "PATCH", "/v/2", r#"{"a":"z"}"#).status, 405);
}

#[test]
fn enumerated_ids_are_all_answered_and_none_is_changed_by_a_patch() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INT);
        WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 300) INSERT INTO t SELECT x, x FROM c;";
    let dir = shop(sql, &["t"]);
    let server = Server::start(dir.path(), &[]);
    let wanted: Vec<String> = (1..=150).map(|id| id.to_string()).collect();
    for path in [
        format!("/t?id=in.({})", wanted.join(",")),
        format!("/t?{}", wanted.iter().map(|id| format!("id={id}")).collect::<Vec<_>>().join("&")),
        format!("/t?filter=%7B%22id%22:[{}]%7D", wanted.join(",")),
        format!("/t?id=in.({})&n=gt.0", wanted.join(",")),
    ] {
        assert_eq!(ids(&server, &path).as_array().unwrap().len(), 150, "{path}");
    }
    assert_eq!(ids(&server, "/t").as_array().unwrap().len(), 100);
    assert_eq!(ids(&server, "/t?n=in.(1,2)").as_array().unwrap().len(), 2);
    assert_eq!(ids(&server, "/t?_page=2&_per_page=3"), json!([4, 5, 6]));
    let refused = send(&server, "PATCH", "/t?id=in.(1,2)", r#"{"id":5}"#);
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(send(&server, "PATCH", "/t?id=eq.1", r#"{"id":1,"n":0}"#).status, 200);
}
