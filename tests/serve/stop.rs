//! How a server ends: asked to, or not.

use crate::events::{connect, frame};
use crate::process::{Server, folder};

const ORDERS: &str = "[dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), ORDERS).unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut socket = connect(&server, "/orders/events").await;
    frame(&mut socket).await;
    let headers = [("content-type", "application/json")];
    assert_eq!(server.request("POST", "/orders/o1", &headers, r#"{"item":"Bun","price":1}"#).status, 202);
    // As `timeout` and some supervisors do.
    server.signal("TERM");
    server.signal("TERM");
    let mut seen = Vec::new();
    loop {
        let next = frame(&mut socket).await;
        if next.is_null() {
            break;
        }
        seen.push(next);
    }
    assert_eq!(seen.last().unwrap(), 1001, "{seen:?}");
    assert!(server.ended().success(), "{:#?}", server.printed);
    assert_eq!(server.printed.last().unwrap(), "stopped");
    let shop = rusqlite::Connection::open(dir.path().join("shop.db")).unwrap();
    let orders: u32 = shop.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 1);
}

#[test]
fn acknowledged_writes_survive_sigkill() {
    let dir = folder();
    std::fs::write(dir.path().join("diorama.toml"), ORDERS).unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut acknowledged = Vec::new();
    for at in 0..40 {
        let answer = server.post(&format!("/orders/o{at}"), &format!(r#"{{"item":"Bun","price":{at}}}"#));
        assert!((200..300).contains(&answer.status), "{}", answer.body);
        acknowledged.push(at);
    }
    server.kill();
    let server = Server::start(dir.path(), &[]);
    for at in acknowledged {
        let answer = server.get(&format!("/orders/o{at}"));
        assert_eq!((answer.status, answer.json()["price"].as_u64()), (200, Some(at)));
    }
}
