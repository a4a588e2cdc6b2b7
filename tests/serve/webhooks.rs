//! Webhooks, by token and by signature.

use base64::Engine as _;
use hmac::{KeyInit as _, Mac as _};

use crate::process::{Answer, Server, TOKEN, WHSEC, folder};

const CONFIG: &str = r#"
[lens]
cache = "memory"

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[webhook.orders]
auth = { scheme = "bearer", secrets = ["env:TOKEN"] }

[webhook.signed]
dio = "orders"
auth = { scheme = "standard", secrets = ["env:WHSEC"] }
"#;

fn start(dir: &std::path::Path) -> Server {
    std::fs::write(dir.join("diorama.toml"), CONFIG).unwrap();
    Server::start(dir, &[])
}

fn bearer(server: &Server, token: &str, kind: &str, body: &str) -> Answer {
    let token = format!("Bearer {token}");
    server.request("POST", "/webhooks/orders", &[("authorization", &token), ("content-type", kind)], body)
}

fn signed(server: &Server, id: &str, at: i64, body: &str) -> Answer {
    signed_with(server, "/webhooks/signed", WHSEC, id, at, body)
}

/// A delivery as Standard Webhooks signs it.
pub(crate) fn signed_with(server: &Server, path: &str, secret: &str, id: &str, at: i64, body: &str) -> Answer {
    let key = base64::engine::general_purpose::STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    let (at, signature) = (at.to_string(), format!("v1,{signature}"));
    let headers = [
        ("content-type", "application/json"),
        ("webhook-id", id),
        ("webhook-timestamp", &at),
        ("webhook-signature", &signature),
    ];
    server.request("POST", path, &headers, body)
}

#[test]
fn files_served_on_loopback_take_webhooks_under_their_names() {
    let dir = folder();
    let server = Server::start(dir.path(), &["products.csv"]);
    let body = r#"{"op":"update","id":"1","new":{"name":"Muffin","price":180}}"#;
    let answer = server.post("/webhooks/products", body);
    assert_eq!((answer.status, answer.json()["applied"].as_u64()), (200, Some(1)), "{}", answer.body);
    assert_eq!(server.get("/products/1").json()["price"], 180);
}

#[test]
fn a_delivery_changes_rows_before_it_is_answered() {
    let dir = folder();
    let server = start(dir.path());
    // A webhook reports what the master has: it is asked again.
    let master = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    master.execute("INSERT INTO orders(id, item, price) VALUES ('o1', 'Bun', 150), ('o2', 'Muffin', 175)", []).unwrap();
    let body = r#"[{"op":"insert","id":"o1","new":{"item":"Bun","price":150}},{"op":"upsert","id":"o2","new":{"item":"Muffin","price":175}}]"#;
    let answer = bearer(&server, TOKEN, "application/json", body);
    assert_eq!((answer.status, answer.json()["applied"].as_u64()), (200, Some(2)), "{}", answer.body);
    assert_eq!(server.get("/orders/o2").json()["item"], "Muffin");
    let again = bearer(&server, TOKEN, "application/json", body);
    // Until the source was asked, the same bytes are judged anew.
    let again = again.json();
    assert!(again["unchanged"] == 2 || again["duplicate"] == true, "{again}");
    let lines = "{\"op\":\"delete\",\"id\":\"o2\"}\n";
    master.execute("DELETE FROM orders WHERE id = 'o2'", []).unwrap();
    let told = bearer(&server, TOKEN, "application/x-ndjson", lines).json();
    // While the row is being asked for, the event waits for the answer, which may come first.
    let counts = ["applied", "deferred", "unchanged"].map(|count| told[count].as_u64().unwrap());
    assert_eq!(counts.iter().sum::<u64>(), 1, "{told}");
    let deadline = std::time::Instant::now() + crate::process::PATIENCE;
    while server.get("/orders/o2").status != 404 {
        assert!(std::time::Instant::now() < deadline, "the row is still there");
    }
}

#[test]
fn a_signed_delivery_counts_once() {
    let dir = folder();
    let server = start(dir.path());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let body = r#"{"op":"insert","id":"o1","new":{"item":"Bun","price":150}}"#;
    assert_eq!(signed(&server, "msg_1", now, body).json()["applied"], 1);
    assert_eq!(signed(&server, "msg_1", now, body).json()["duplicate"], true);
    assert_eq!(signed(&server, "msg_2", now - 400, body).status, 401);
    assert_eq!(signed(&server, "msg_2", now + 400, body).status, 401);
}

#[test]
fn what_is_not_right_is_refused_without_a_hint_why() {
    let dir = folder();
    let server = start(dir.path());
    let body = r#"{"op":"delete","id":"o1"}"#;
    let wrong = bearer(&server, "wrong", "application/json", body);
    assert_eq!((wrong.status, wrong.json()["code"].as_str()), (401, Some("signature-invalid")));
    assert!(wrong.head.contains("www-authenticate: bearer"));
    let missing = server.post("/webhooks/orders", body);
    assert_eq!(missing.json()["detail"], wrong.json()["detail"]);
    assert_eq!(server.post("/webhooks/nothing", body).status, 404);
    assert_eq!(server.get("/webhooks/orders").status, 405);
    assert_eq!(bearer(&server, TOKEN, "text/plain", body).status, 415);
    assert_eq!(bearer(&server, TOKEN, "application/json", "{").status, 202, "it is kept");
    assert_eq!(bearer(&server, TOKEN, "application/json", r#"{"op":"frob","id":"1"}"#).status, 202);
}
