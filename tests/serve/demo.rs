//! The demo bakery: what its own customers wrote is there, whatever else happens.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{Server, has_tools, run};
use crate::webhooks::signed_with;

struct Bakery {
    dir: tempfile::TempDir,
}

impl Bakery {
    fn new() -> Bakery {
        Bakery { dir: tempfile::tempdir().unwrap() }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("diorama-demo")
    }

    fn open(&self) -> Server {
        Server::start_as(self.dir.path(), &["demo", "--listen", "127.0.0.1:0"])
    }

    fn change_price(&self, of: &str, to: &str) {
        let path = self.folder().join("products.csv");
        let list = std::fs::read_to_string(&path).unwrap();
        assert!(list.contains(of));
        std::fs::write(path, list.replace(of, to)).unwrap();
    }
}

/// Writes in every way there is, each confirmed by the shop's database.
fn trade(server: &Server) {
    let headers = [("content-type", "application/json"), ("prefer", "wait=10")];
    for (method, path, body) in [
        ("POST", "/products/muffin", r#"{"name":"Muffin","price":175,"category_id":3}"#),
        ("PUT", "/products/rye", r#"{"name":"Darker Rye","price":800,"category_id":1}"#),
        ("PATCH", "/products/spelt", r#"{"price":1}"#),
        ("DELETE", "/products/opera", ""),
        ("POST", "/orders/2001", r#"{"product_id":"muffin","quantity":2,"price":350}"#),
        ("PATCH", "/orders/1020", r#"{"status":"paid"}"#),
        ("DELETE", "/orders/1001", ""),
    ] {
        let answer = server.request(method, path, &headers, body);
        assert!([200, 201].contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
    }
    // And one that nobody waited for.
    assert_eq!(server.post("/products/scone", r#"{"name":"Scone","price":210}"#).status, 202);
}

#[track_caller]
fn everything_is_there(server: &Server, when: &str) {
    let row = |path: &str| server.get(path).json();
    assert_eq!(row("/products/muffin")["price"], 175, "{when}");
    assert_eq!(row("/products/scone")["price"], 210, "{when}");
    assert_eq!(row("/products/rye")["name"], "Darker Rye", "{when}");
    let spelt = row("/products/spelt");
    assert_eq!((&spelt["price"], &spelt["name"]), (&json!(1), &json!("Spelt Loaf")), "{when}");
    assert_eq!(server.get("/products/opera").status, 404, "{when}");
    assert_eq!(row("/orders/2001")["quantity"], 2, "{when}");
    assert_eq!(row("/orders/1020")["status"], "paid", "{when}");
    assert_eq!(server.get("/orders/1001").status, 404, "{when}");
    let list: Vec<Value> = row("/products?limit=100").as_array().unwrap().clone();
    assert_eq!(list.len(), 41, "{when}: forty, two more, one less");
    assert_eq!(list.iter().filter(|row| row["id"] == "muffin").count(), 1, "{when}");
}

fn refresh(server: &Server) {
    for resource in ["products", "orders", "categories"] {
        let answer = server.post(&format!("/{resource}/_refresh"), "");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

#[test]
fn the_demo_serves_three_resources_from_an_empty_folder() {
    let bakery = Bakery::new();
    let mut server = bakery.open();
    server.wait_for("or open http://");
    for (path, rows) in [("/products", 40), ("/orders", 20), ("/categories", 6)] {
        assert_eq!(server.get(path).json().as_array().unwrap().len(), rows, "{path}");
    }
    let products = server.get("/products?price=gt.600&order=price.desc&limit=2").json();
    assert_eq!(products[0]["id"], "brioche-loaf");
    let refused = server.post("/orders", r#"{"product_id":"rye","quantity":1}"#);
    assert_eq!((refused.status, &refused.json()["errors"]["price"]), (422, &json!("is mandatory")));
    assert_eq!(server.post("/categories", r#"{"id":7,"name":"Tea"}"#).status, 405);
}

#[test]
fn the_printed_lines_work_as_they_stand() {
    let bakery = Bakery::new();
    let mut server = bakery.open();
    server.wait_for("or open http://");
    let lines: Vec<String> = server.printed.iter().filter(|line| line.starts_with("  curl ")).cloned().collect();
    assert_eq!(lines.len(), 3);
    if !has_tools("the demo's printed lines", &["curl"]) {
        return;
    }
    for line in &lines {
        let output = Command::new("sh").args(["-c", &line.replace("curl ", "curl -sSf ")]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("\"id\""), "{line}: {said}{output:?}");
    }
    assert_eq!(server.get("/products/muffin").json()["price"], 175);
}

#[test]
fn writes_of_the_bakery_survive_every_refresh_restart_and_kill() {
    let bakery = Bakery::new();
    let mut server = bakery.open();
    trade(&server);
    everything_is_there(&server, "at once");
    for time in 0..3 {
        refresh(&server);
        everything_is_there(&server, &format!("after refresh {time}"));
    }
    server.signal("TERM");
    assert!(server.ended().success());
    let mut server = bakery.open();
    everything_is_there(&server, "after SIGTERM");
    refresh(&server);
    everything_is_there(&server, "after SIGTERM and a refresh");
    server.kill();
    let server = bakery.open();
    everything_is_there(&server, "after SIGKILL");
    refresh(&server);
    everything_is_there(&server, "after SIGKILL and a refresh");
}

#[test]
fn writes_of_the_bakery_survive_the_loss_of_the_cache_file() {
    let bakery = Bakery::new();
    let mut server = bakery.open();
    trade(&server);
    let before = server.get("/products?limit=1").head;
    server.kill();
    for time in 0..2 {
        std::fs::remove_file(bakery.folder().join("cache.redb")).unwrap();
        let mut server = bakery.open();
        everything_is_there(&server, &format!("after loss {time}"));
        refresh(&server);
        everything_is_there(&server, &format!("after loss {time} and a refresh"));
        server.signal("TERM");
        assert!(server.ended().success());
        let mut server = bakery.open();
        refresh(&server);
        everything_is_there(&server, &format!("after loss {time}, a restart and a refresh"));
        server.kill();
    }
    // The log goes on: who was subscribed need not begin anew.
    let server = bakery.open();
    let epoch = |head: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix("dio-position: ")).unwrap();
        line.split(':').next().unwrap().to_string()
    };
    assert_eq!(epoch(&server.get("/products?limit=1").head), epoch(&before));
}

#[test]
fn writes_that_were_accepted_in_the_last_moment_survive_sigkill() {
    let bakery = Bakery::new();
    let mut server = bakery.open();
    for at in 0..20 {
        let written = server.post(&format!("/products/roll-{at}"), r#"{"name":"Roll","price":50}"#);
        assert_eq!(written.status, 202);
    }
    server.kill();
    std::fs::remove_file(bakery.folder().join("cache.redb")).unwrap();
    let server = bakery.open();
    refresh(&server);
    assert_eq!(server.get("/products?limit=100").json().as_array().unwrap().len(), 60);
}

#[test]
fn a_list_that_is_edited_shows_after_a_refresh_and_the_bakerys_own_writes_stay() {
    let bakery = Bakery::new();
    let server = bakery.open();
    trade(&server);
    bakery.change_price("Baguette Tradition,320", "Baguette Tradition,350");
    let told = server.post("/products/_refresh", "").json();
    assert_eq!((&told["changed"], &told["inserted"], &told["removed"]), (&json!(1), &json!(0), &json!(0)));
    assert_eq!(server.get("/products/baguette").json()["price"], 350);
    everything_is_there(&server, "after an edit");
    // The list takes up what the bakery wrote: from now on it is the list's.
    bakery.change_price("Spelt Loaf,780", "Spelt Loaf,1");
    refresh(&server);
    everything_is_there(&server, "after the list says the same");
    bakery.change_price("Spelt Loaf,1", "Spelt Loaf,790");
    refresh(&server);
    assert_eq!(server.get("/products/spelt").json()["price"], 790);
}

#[test]
fn a_signed_webhook_tells_of_a_new_price() {
    let bakery = Bakery::new();
    let server = bakery.open();
    let secret = std::fs::read_to_string(bakery.folder().join("webhook.secret")).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    bakery.change_price("Espresso,250", "Espresso,260");
    let body = r#"{"op":"update","id":"espresso","partial":true,"new":{"price":260}}"#;
    let sent = |secret: &str| signed_with(&server, "/webhooks/products", secret.trim(), "msg_1", now, body);
    assert_eq!(sent(&secret.replace("dGhl", "dGhf")).status, 401);
    let answer = sent(&secret);
    assert_eq!((answer.status, &answer.json()["applied"]), (200, &json!(1)), "{}", answer.body);
    assert_eq!(server.get("/products/espresso").json()["price"], 260);
    assert_eq!(sent(&secret).json()["duplicate"], true);
    refresh(&server);
    assert_eq!(server.get("/products/espresso").json()["price"], 260);
}

#[cfg(unix)]
#[test]
fn the_folders_own_script_signs_a_webhook() {
    if !has_tools("webhook.sh", &["curl", "openssl", "awk", "od"]) {
        return;
    }
    let bakery = Bakery::new();
    let server = bakery.open();
    let url = format!("http://{}", server.address);
    let script = bakery.folder().join("webhook.sh");
    let output = Command::new("sh").arg(script).args(["black-forest", "600", &url]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"applied\":1"), "{output:?}");
    refresh(&server);
    let row = server.get("/products/black-forest").json();
    assert_eq!((&row["price"], &row["description"]), (&json!(600), &json!("Cherries, kirsch and cream")));
}

#[test]
fn unpacking_makes_what_is_missing_and_leaves_what_is_there() {
    let bakery = Bakery::new();
    drop(bakery.open());
    let folder = bakery.folder();
    bakery.change_price("Espresso,250", "Espresso,999");
    std::fs::remove_file(folder.join("categories.json")).unwrap();
    rusqlite::Connection::open(folder.join("shop.db")).unwrap().execute("DELETE FROM orders", []).unwrap();
    let server = bakery.open();
    assert_eq!(server.get("/categories/6").json()["name"], "Drinks");
    server.post("/products/_refresh", "");
    server.post("/orders/_refresh", "");
    assert_eq!(server.get("/products/espresso").json()["price"], 999);
    assert_eq!(server.get("/orders").json(), json!([]));
    let left: Vec<String> = names(&folder).into_iter().filter(|name| name.ends_with(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn no_arguments_serve_what_is_there_and_else_the_demo() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tea.csv"), "id,name\n1,Assam\n").unwrap();
    let text = "[server]\nlisten = \"127.0.0.1:0\"\n[dio.tea]\nsource = { csv = \"tea.csv\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start_as(dir.path(), &[]);
    assert_eq!(server.get("/tea/1").json()["name"], "Assam");
    assert!(!dir.path().join("diorama-demo").exists());
    drop(server);
    // The demo's address is its own: it is set by hand, lest the test depend on who has port 8080.
    std::fs::remove_file(dir.path().join("diorama.toml")).unwrap();
    let folder = dir.path().join("diorama-demo");
    drop(Server::start_as(dir.path(), &["demo", "--listen", "127.0.0.1:0"]));
    let path = folder.join("diorama.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("127.0.0.1:8080", "127.0.0.1:0");
    std::fs::write(path, text).unwrap();
    let server = Server::start_as(dir.path(), &[]);
    assert_eq!(server.get("/products/rye").status, 200);
}

#[test]
fn a_port_that_is_taken_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(dir.path(), &["demo", "--listen", &address]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("{address} is in use")) && said.contains("--listen 127.0.0.1:"), "{said}");
}

#[test]
fn nobody_is_invited_before_the_files_are_ours() {
    let bakery = Bakery::new();
    let server = bakery.open();
    let output = run(bakery.dir.path(), &["demo", "--listen", "127.0.0.1:0"]);
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("cache.redb"), "{said}");
    assert!(!printed.contains("listening"), "{printed}");
    assert_eq!(server.get("/healthz").status, 200);
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}
