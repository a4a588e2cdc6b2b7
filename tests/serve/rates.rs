//! Limits of callers: who is beyond one is refused, and all others are served meanwhile.

use futures_util::SinkExt as _;
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::events::{connect, frame};
use crate::process::{Answer, PRODUCTS, Server, folder};

fn limited(limit: &str) -> (TempDir, Server) {
    let dir = folder();
    let text = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[[limit]]\n{limit}\n[dio.orders]\n\
         source = {{ sqlite = \"shop.db\", table = \"orders\" }}\n[dio.products]\nsource = {{ csv = \"products.csv\" }}\n"
    );
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start(dir.path(), &[]);
    (dir, server)
}

fn get(server: &Server, path: &str, from: &str) -> Answer {
    server.request("GET", path, &[("x-forwarded-for", from), ("accept", "application/x-ndjson")], "")
}

#[test]
fn a_caller_beyond_its_limit_is_refused_and_others_are_served_meanwhile() {
    let (_dir, server) = limited("requests = \"1/h\"\nburst = 5\nwrites = \"2/h\"");
    let write = |from| {
        let headers = [("content-type", "application/json"), ("x-forwarded-for", from)];
        server.request("POST", "/orders", &headers, &json!({ "item": "Bun", "price": 1 }).to_string())
    };
    for left in (2..5).rev() {
        let answer = get(&server, "/orders", "198.51.100.1");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.raw_header("ratelimit-policy"), Some("\"principal-requests\";q=5;w=18000"));
        let state = answer.raw_header("ratelimit").unwrap();
        assert!(state.starts_with(&format!("\"principal-requests\";r={left};t=")), "{state}");
    }
    assert_eq!((write("198.51.100.1").status, get(&server, "/", "198.51.100.1").status), (202, 200));
    let refused = get(&server, "/orders", "198.51.100.1");
    assert_eq!(refused.status, 429);
    let problem = refused.json();
    assert_eq!(problem["code"], "rate-limited");
    let hint = problem["hint"].as_str().unwrap();
    assert!(hint.contains("requests of the [[limit]] with role = \"*\" and per = \"principal\""), "{hint}");
    let wait: u32 = refused.raw_header("retry-after").unwrap().parse().unwrap();
    assert!((3_500..=3_601).contains(&wait), "{wait}");
    assert!(refused.raw_header("ratelimit").unwrap().starts_with("\"principal-requests\";r=0;"));
    let healthy = get(&server, "/healthz", "198.51.100.1");
    assert_eq!((healthy.status, healthy.raw_header("ratelimit")), (200, None));
    assert_eq!(get(&server, "/orders", "198.51.100.2").status, 200, "another address");
    assert_eq!([202, 202, 429], [(); 3].map(|()| write("2001:db8:0:1::1").status));
    assert_eq!(get(&server, "/orders", "2001:db8:0:1::2").status, 200, "writes have a limit of their own");
    assert_eq!(write("2001:db8:0:1::3").status, 429, "one client usually has all of a /64 network");
    let metrics = get(&server, "/metrics", "198.51.100.3").body;
    assert!(metrics.contains("diorama_rate_limited_total{limit=\"requests\",per=\"principal\"} 1"), "{metrics}");
    assert!(metrics.contains("diorama_rate_limited_total{limit=\"writes\",per=\"principal\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_socket_beyond_the_limit_is_refused_until_another_one_is_closed() {
    let (_dir, server) = limited("per = \"address\"\nsockets = 2");
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = connect(&server, "/orders/events").await;
        assert_eq!(frame(&mut socket).await["type"], "hello");
        held.push(socket);
    }
    let refused = get(&server, "/orders/events?wait=0", "127.0.0.1");
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("rate-limited")));
    assert_eq!(get(&server, "/orders/events?wait=0", "198.51.100.1").status, 200);
    held.pop();
    while get(&server, "/orders/events?wait=0", "127.0.0.1").status != 200 {}
}

#[tokio::test]
async fn commands_on_a_socket_count_as_requests() {
    let (_dir, server) = limited("requests = \"1/h\"\nburst = 3");
    let mut socket = connect(&server, "/events").await;
    let mut ask = async |command: serde_json::Value| {
        socket.send(Message::text(command.to_string())).await.unwrap();
        frame(&mut socket).await
    };
    for name in ["a", "b"] {
        assert_eq!(ask(json!({ "type": "subscribe", "sub": name, "dio": "orders" })).await["type"], "hello");
    }
    let refused = ask(json!({ "type": "subscribe", "sub": "c", "dio": "orders" })).await;
    assert_eq!(
        (&refused["type"], &refused["sub"], &refused["code"]),
        (&json!("error"), &json!("c"), &json!("rate-limited"))
    );
    assert_eq!(
        ask(json!({ "type": "ping", "n": 1 })).await["type"],
        "pong",
        "a socket that says it lives is not limited"
    );
}

#[test]
fn an_export_is_complete_and_the_next_one_waits() {
    let dir = folder();
    let rows: String = (0..3_000).map(|n| format!("x{n},Muffin {n},175\n")).collect();
    std::fs::write(dir.path().join("products.csv"), PRODUCTS.to_string() + &rows).unwrap();
    let text = "[[limit]]\nexport = \"20KiB/h\"\n[dio.products]\nsource = { csv = \"products.csv\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start(dir.path(), &[]);
    let export = || server.request("GET", "/products?limit=10000", &[("accept", "application/x-ndjson")], "");
    let first = export();
    assert_eq!((first.status, first.body.lines().filter(|line| line.starts_with('{')).count()), (200, 3_003));
    let second = export();
    assert_eq!(second.status, 429);
    assert!(
        second.json()["detail"].as_str().unwrap().contains("limit of export: 20480 bytes per hour"),
        "{}",
        second.body
    );
    assert_eq!(server.get("/products?limit=5").status, 200, "a page is no export");
}
