//! Files in, resources out; and what is said when that cannot be.

use crate::process::{Server, folder, run};

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn a_csv_file_is_a_resource_without_any_configuration() {
    let dir = folder();
    let server = Server::start(dir.path(), &["products.csv", "shelf=products.csv"]);
    let list = server.get("/products?price=gte.175&order=price.desc");
    assert_eq!(list.status, 200, "{}", list.body);
    assert_eq!(list.json()[0]["name"], "Croissant");
    assert_eq!(list.json().as_array().unwrap().len(), 2);
    assert_eq!(server.get("/shelf/3").json()["name"], "Bun");
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.get("/healthz").status, 200);
    let table = server.printed.join("\n");
    for word in ["resource", "products.csv", "takes none", "/products", "3"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
    assert!(dir.path().join("cache.redb").exists() && dir.path().join("cache.journal.redb").exists());
}

#[test]
fn every_configuration_mistake_is_reported_at_once() {
    let dir = folder();
    let text = "[server]\nlissten = \"127.0.0.1:1\"\n[dio.products]\nsource = { csv = \"products.csv\" }\nidd = \"id\"\n\
        [webhook.products]\nauth = { scheme = \"bearer\", secrets = [\"hunter2\"] }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    for command in [&["serve"][..], &["check"]] {
        let output = run(dir.path(), command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("diorama.toml:2:1: [server] has no key \"lissten\": did you mean listen?"), "{said}");
        assert!(said.contains("diorama.toml:5:1: [dio.products] has no key \"idd\": did you mean id?"), "{said}");
        assert!(said.contains("diorama.toml:7:") && !said.contains("hunter2"), "{said}");
    }
}

#[test]
fn missing_files_and_open_doors_are_refused() {
    let dir = folder();
    let missing = run(dir.path(), &["serve", "nope.csv"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no file nope.csv"));
    let public = run(dir.path(), &["serve", "products.csv", "--listen", "0.0.0.0:0"]);
    assert_eq!(public.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&public.stderr).contains("a public address requires server.auth"));
}

#[test]
fn an_explorer_without_its_page_is_refused_and_one_with_it_is_served() {
    let dir = folder();
    let config = "[server]\nexplorer = \"page\"\n[dio.products]\nsource = { csv = \"products.csv\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), config).unwrap();
    let missing = run(dir.path(), &["check"]);
    assert_eq!(missing.status.code(), Some(78));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains("server.explorer: there is no file page/index.html"), "{said}");
    std::fs::create_dir(dir.path().join("page")).unwrap();
    std::fs::write(dir.path().join("page/index.html"), "<title>mine</title>").unwrap();
    assert!(run(dir.path(), &["check"]).status.success());
    let server = Server::start(dir.path(), &["diorama.toml"]);
    assert_eq!(server.get("/static/index.html").body, "<title>mine</title>");
    assert_eq!(server.get("/static/explorer.js").status, 404);
}

#[test]
fn a_second_process_on_the_same_files_says_so() {
    let dir = folder();
    let server = Server::start(dir.path(), &["products.csv"]);
    let second = run(dir.path(), &["serve", "products.csv", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use by another process"));
    assert_eq!(server.get("/products/1").status, 200);
}

#[test]
fn a_memory_cache_leaves_no_files() {
    let dir = folder();
    let server = Server::start(dir.path(), &["products.csv", "--cache", "memory"]);
    assert_eq!(server.get("/products/1").json()["name"], "Muffin");
    assert!(server.printed.join("\n").contains("takes none"));
    assert!(!dir.path().join("cache.redb").exists());
}

#[test]
fn a_write_route_takes_the_writes_of_a_read_only_source() {
    let dir = folder();
    let shop = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    shop.execute_batch("CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT, price INTEGER)").unwrap();
    let text =
        "[dio.products]\nsource = { csv = \"products.csv\" }\nwrite = { sqlite = \"shop.db\", table = \"products\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start(dir.path(), &[]);
    let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
    let answer = server.request("POST", "/products/9", &headers, r#"{"name":"Scone","price":300}"#);
    assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.body);
    assert_eq!(server.get("/products/9").json()["name"], "Scone");
    let stored: String = shop.query_row("SELECT name FROM products WHERE id = 9", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, "Scone");
    // It is not in the source, and stays all the same.
    assert_eq!(server.post("/products/_refresh", "").status, 200);
    assert_eq!(server.get("/products/9").status, 200);
}

/// Reads go on over a restart: what was read once is served although its source is away, and goes on when it is back.
#[test]
fn reads_go_on_a_start_without_the_source_serves_the_copy_of_it() {
    let dir = folder();
    let text = "[dio.products]\nsource = { csv = \"products.csv\" }\n\
        [dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let move_all = |from: &str, to: &str| {
        for name in ["products.csv", "shop.db"] {
            std::fs::rename(dir.path().join(format!("{name}{from}")), dir.path().join(format!("{name}{to}"))).unwrap();
        }
    };
    {
        let server = Server::start(dir.path(), &[]);
        let stored =
            server.request("POST", "/orders/1", &[("prefer", "wait=10"), JSON], r#"{"item":"bun","price":90}"#);
        assert_eq!(stored.status, 201, "{}", stored.body);
        drop(stopped(server));
    }
    move_all("", ".away");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.get("/products?price=gte.175").json().as_array().unwrap().len(), 2);
    let order = server.get("/orders/1");
    assert_eq!((order.status, order.json()["item"].as_str()), (200, Some("bun")), "{}", order.body);
    assert!(order.head.contains("detail=refresh-failed") || order.head.contains("detail=stale"), "{}", order.head);
    let refused = server.post("/products/_refresh", "");
    assert_eq!(refused.status, 502);
    assert!(refused.body.contains("there is no file products.csv"), "{}", refused.body);
    let queued = server.request("PATCH", "/orders/1", &[JSON], r#"{"price":95}"#);
    assert_eq!(queued.status, 202, "{}", queued.body);

    move_all(".away", "");
    assert_eq!(server.post("/products/_refresh", "").status, 200);
    let operation = queued.raw.lines().find_map(|line| line.strip_prefix("dio-operation: ")).unwrap();
    assert_eq!(server.get(&format!("{operation}?wait=20")).json()["state"], "applied");
    let shop = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    let price: i64 = shop.query_row("SELECT price FROM orders WHERE id = '1'", [], |row| row.get(0)).unwrap();
    assert_eq!(price, 95);
}

/// What comes back as something else is not mixed with what is served.
#[test]
fn reads_go_on_a_source_that_comes_back_with_other_columns_needs_a_restart() {
    let dir = folder();
    drop(stopped(Server::start(dir.path(), &["products.csv"])));
    std::fs::rename(dir.path().join("products.csv"), dir.path().join("away")).unwrap();
    let server = Server::start(dir.path(), &["products.csv"]);
    std::fs::write(dir.path().join("products.csv"), "id,title\n1,Muffin\n").unwrap();
    let refused = server.post("/products/_refresh", "");
    assert_eq!(refused.status, 502);
    assert!(refused.body.contains("restart"), "{}", refused.body);
    assert_eq!(server.get("/products/1").json()["name"], "Muffin");
    drop(stopped(server));
    let server = Server::start(dir.path(), &["products.csv"]);
    // A background refresh finds the new columns after a start that serves what it has.
    assert_eq!(server.post("/products/_refresh", "").status, 200);
    assert_eq!(server.get("/products/1").json()["title"], "Muffin");

    // A name that was never served is a mistake, also beside a cache.
    let missing = run(dir.path(), &["serve", "nope.csv", "--cache", "other.redb"]);
    assert_eq!(missing.status.code(), Some(78));
    drop(stopped(server));
    let missing = run(dir.path(), &["serve", "nope.csv", "--listen", "127.0.0.1:0"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no file nope.csv"));
}

fn stopped(mut server: Server) -> Server {
    server.signal("TERM");
    assert!(server.ended().success());
    server
}
