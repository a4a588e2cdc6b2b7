//! Caches on a server of Redis or PostgreSQL: what a gateway serves after crashes, without its source, and while the server is away.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Server, run};
use diorama_servers::{PostgresServer, RedisServer};

const PATIENCE: Duration = Duration::from_secs(60);
/// Number of rows at the start.
const ROWS: i64 = 500;

/// Prices by id.
type Rows = BTreeMap<String, i64>;

/// A server with the cache.
enum Store {
    Redis(RedisServer),
    Postgres(PostgresServer),
}

impl Store {
    fn redis() -> Option<Store> {
        RedisServer::start().map(Store::Redis)
    }

    fn postgres() -> Option<Store> {
        PostgresServer::start().map(Store::Postgres)
    }

    fn url(&self) -> String {
        match self {
            Store::Redis(server) => server.url(),
            Store::Postgres(server) => server.url("postgres"),
        }
    }

    fn kill(&mut self) {
        match self {
            Store::Redis(server) => server.kill(),
            Store::Postgres(server) => server.kill(),
        }
    }

    fn restart(&mut self) {
        match self {
            Store::Redis(server) => server.restart(),
            Store::Postgres(server) => server.restart(),
        }
    }

    /// Number of rows that are stored.
    fn rows(&self) -> i64 {
        match self {
            // Beside the rows, there are three fields of the claim, and the meta.
            Store::Redis(server) => server.run::<i64>(&["HLEN", "diorama_cache:products"]) - 4,
            Store::Postgres(server) => {
                let count = "SELECT count(*) FROM diorama_cache_rows WHERE dio = 'products'";
                server.psql(count).parse().unwrap()
            }
        }
    }
}

fn database(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("shop.db")).unwrap()
}

/// A folder with a source of rows, and a configuration with the cache at `url`.
fn folder(url: &str) -> (TempDir, Rows) {
    let dir = tempfile::tempdir().unwrap();
    let shop = database(dir.path());
    shop.execute_batch("CREATE TABLE products (id TEXT PRIMARY KEY, price INTEGER); BEGIN").unwrap();
    let rows: Rows = (0..ROWS).map(|number| (format!("p{number}"), number)).collect();
    for (id, price) in &rows {
        shop.execute("INSERT INTO products VALUES (?1, ?2)", (id, price)).unwrap();
    }
    shop.execute_batch("COMMIT").unwrap();
    let configuration =
        format!("[lens]\ncache = {url:?}\n[dio.products]\nsource = {{ sqlite = \"shop.db\", table = \"products\" }}\n");
    std::fs::write(dir.path().join("diorama.toml"), configuration).unwrap();
    (dir, rows)
}

/// Takes the source away.
fn hide(dir: &Path) {
    std::fs::rename(dir.join("shop.db"), dir.join("hidden.db")).unwrap();
}

/// Brings the source back.
fn show(dir: &Path) {
    std::fs::rename(dir.join("hidden.db"), dir.join("shop.db")).unwrap();
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn served(server: &Server) -> Rows {
    let rows = server.get("/products?limit=10000").json();
    let row = |row: &Value| (row["id"].as_str().unwrap().to_string(), row["price"].as_i64().unwrap());
    rows.as_array().unwrap().iter().map(row).collect()
}

fn cache_warnings(server: &Server) -> Vec<String> {
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 200, "{ready:?}");
    let warnings = ready.json()["dios"]["products"]["warnings"].clone();
    let warnings = serde_json::from_value::<Option<Vec<String>>>(warnings).unwrap().unwrap_or_default();
    warnings.into_iter().filter(|warning| warning.starts_with("cache: ")).collect()
}

/// Changes, adds and deletes rows.
fn write(server: &Server, rows: &mut Rows, number: i64) {
    let kind = [("content-type", "application/json")];
    let (method, id, body) = match number % 5 {
        0 => ("DELETE", format!("p{}", number * 3 % ROWS), String::new()),
        1 => ("PUT", format!("new{number}"), json!({ "id": format!("new{number}"), "price": number }).to_string()),
        _ => (
            "PATCH",
            rows.keys().nth(usize::try_from(number).unwrap() % rows.len()).unwrap().clone(),
            json!({ "price": 10_000 + number }).to_string(),
        ),
    };
    let answer = server.request(method, &format!("/products/{id}"), &kind, &body);
    assert!((200..300).contains(&answer.status) || method == "DELETE" && answer.status == 404, "{answer:?}");
    match method {
        "DELETE" => drop(rows.remove(&id)),
        "PUT" => drop(rows.insert(id, number)),
        _ => drop(rows.insert(id, 10_000 + number)),
    }
}

fn stop(mut server: Server) {
    server.signal("TERM");
    assert!(server.ended().success());
}

/// Killed at any time, and restarted without its source, a gateway serves all rows and all accepted writes.
fn all_rows_are_served_without_the_source(store: &Store) {
    let (dir, mut rows) = folder(&store.url());
    stop(Server::start(dir.path(), &[]));
    assert!(!dir.path().join("cache.redb").exists());
    assert_eq!(store.rows(), ROWS);
    for round in 0..3 {
        let mut server = Server::start(dir.path(), &[]);
        for number in 0..20 {
            write(&server, &mut rows, round * 20 + number);
        }
        assert_eq!(served(&server), rows);
        server.kill();
        hide(dir.path());
        let mut server = Server::start(dir.path(), &[]);
        assert_eq!(served(&server), rows, "round {round}");
        assert_eq!(cache_warnings(&server), [""; 0]);
        server.kill();
        show(dir.path());
    }
}

/// The server with the cache is killed during writes. Whatever it has lost, nothing wrong is served after a restart.
fn nothing_wrong_is_served_after_the_store_was_killed(mut store: Store, loses: bool) {
    let (dir, mut rows) = folder(&store.url());
    let mut server = Server::start(dir.path(), &[]);
    for round in 0..3 {
        for number in 0..20 {
            write(&server, &mut rows, round * 20 + number);
            if number == 10 {
                store.kill();
            }
        }
        // The rows are served, and accepted writes are in the journal.
        assert_eq!(served(&server), rows, "round {round}");
        store.restart();
        if round == 1 {
            server.kill();
            server = Server::start(dir.path(), &[]);
            assert_eq!(served(&server), rows);
        }
    }
    write(&server, &mut rows, 62);
    let count = i64::try_from(rows.len()).unwrap();
    until("the rows are stored again", || store.rows() == count && cache_warnings(&server).is_empty());
    match loses {
        // A store that has just lost everything is filled first.
        true => stop(server),
        false => server.kill(),
    }
    hide(dir.path());
    assert_eq!(served(&Server::start(dir.path(), &[])), rows);
}

/// A gateway whose cache is away at the start reads its source, says so, and stores the rows later, in place of older ones.
fn rows_come_from_the_source_while_the_store_is_away(mut store: Store) {
    let (dir, mut rows) = folder(&store.url());
    stop(Server::start(dir.path(), &[]));
    // While nobody looks.
    rows.insert("p0".into(), -1);
    rows.remove("p1");
    database(dir.path())
        .execute_batch("UPDATE products SET price = -1 WHERE id = 'p0'; DELETE FROM products WHERE id = 'p1'")
        .unwrap();
    store.kill();
    let server = Server::start(dir.path(), &[]);
    assert_eq!(served(&server), rows);
    until("it is told", || cache_warnings(&server).iter().any(|warning| warning.contains("stored later")));
    for number in 0..20 {
        write(&server, &mut rows, number);
    }
    assert_eq!(served(&server), rows);
    store.restart();
    until("the rows are stored", || cache_warnings(&server).is_empty());
    stop(server);
    assert_eq!(store.rows(), i64::try_from(rows.len()).unwrap());
    hide(dir.path());
    assert_eq!(served(&Server::start(dir.path(), &[])), rows);
}

#[test]
fn all_rows_are_served_from_redis_without_the_source() {
    let Some(store) = Store::redis() else { return };
    all_rows_are_served_without_the_source(&store);
}

#[test]
fn all_rows_are_served_from_postgres_without_the_source() {
    let Some(store) = Store::postgres() else { return };
    all_rows_are_served_without_the_source(&store);
}

#[test]
fn nothing_wrong_is_served_after_redis_was_killed() {
    let Some(store) = Store::redis() else { return };
    nothing_wrong_is_served_after_the_store_was_killed(store, false);
}

/// A server without persistence forgets everything.
#[test]
fn nothing_wrong_is_served_after_redis_has_forgotten_everything() {
    let Some(server) = RedisServer::start_with(&["--appendonly", "no"]) else { return };
    nothing_wrong_is_served_after_the_store_was_killed(Store::Redis(server), true);
}

#[test]
fn nothing_wrong_is_served_after_postgres_was_killed() {
    let Some(store) = Store::postgres() else { return };
    nothing_wrong_is_served_after_the_store_was_killed(store, false);
}

#[test]
fn rows_come_from_the_source_while_redis_is_away() {
    let Some(store) = Store::redis() else { return };
    rows_come_from_the_source_while_the_store_is_away(store);
}

#[test]
fn rows_come_from_the_source_while_postgres_is_away() {
    let Some(store) = Store::postgres() else { return };
    rows_come_from_the_source_while_the_store_is_away(store);
}

/// Commands that need a file with the rows say where they are.
#[test]
fn backups_and_tools_say_that_the_rows_are_on_a_server() {
    let Some(store) = Store::redis() else { return };
    let (dir, mut rows) = folder(&store.url());
    let server = Server::start(dir.path(), &[]);
    write(&server, &mut rows, 2);
    let output = run(dir.path(), &["backup", "saved", "--url", &format!("http://{}", server.address)]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && printed.contains("rows-are-not-in-this-backup.txt"), "{printed}");
    let note = std::fs::read_to_string(dir.path().join("saved/rows-are-not-in-this-backup.txt")).unwrap();
    assert!(note.contains(&store.url()), "{note}");
    stop(server);
    // A write that waits for the source, and is discarded while the server is stopped.
    hide(dir.path());
    let mut server = Server::start(dir.path(), &[]);
    write(&server, &mut rows, 3);
    server.kill();
    let operations = run(dir.path(), &["ops", "list", "--json"]);
    let operations = String::from_utf8(operations.stdout).unwrap();
    let start = operations.find("op_").unwrap_or_else(|| panic!("{operations}"));
    let operation: String =
        operations[start..].chars().take_while(|letter| letter.is_alphanumeric() || "_-".contains(*letter)).collect();
    let output = run(dir.path(), &["ops", "discard", &operation]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains(&store.url()) && error.contains("--url"), "{error}");
}
