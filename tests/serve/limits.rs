//! How much a client may ask for, and what becomes of one that asks for more.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use futures_util::StreamExt as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::connect_async;

use crate::events::{connect, frame};
use crate::process::{PATIENCE, Server, folder, run};

fn configured(limits: &str) -> (TempDir, Server) {
    let dir = folder();
    let text =
        format!("[server.limits]\n{limits}\n[dio.orders]\nsource = {{ sqlite = \"shop.db\", table = \"orders\" }}\n");
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start(dir.path(), &[]);
    (dir, server)
}

fn open(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks on a connection that stays open; the answer's head and body, empty if there is none.
fn ask(stream: &mut TcpStream) -> String {
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let mut answer = vec![0; 4_096];
    let read = stream.read(&mut answer).unwrap_or(0);
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// What comes until the connection is closed.
fn rest(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn an_address_has_its_share_of_connections_and_gets_places_back() {
    let (_dir, server) = configured("per_address = 3");
    let mut first: Vec<_> = (0..3).map(|_| open(&server)).collect();
    for stream in &mut first {
        assert!(ask(stream).starts_with("HTTP/1.1 200"));
    }
    let refused = rest(open(&server));
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("Retry-After: 5"), "{head}");
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some("rate-limited"), Some(429)));
    assert!(ask(&mut first[0]).starts_with("HTTP/1.1 200"), "those that are open stay");
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while !ask(&mut open(&server)).starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "the places did not come back");
    }
}

#[test]
fn connections_beyond_all_places_wait_for_one() {
    let (_dir, server) = configured("max_connections = 2");
    let mut two = [open(&server), open(&server)];
    for stream in &mut two {
        assert!(ask(stream).starts_with("HTTP/1.1 200"));
    }
    let mut third = open(&server);
    third.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    third.set_nonblocking(true).unwrap();
    assert!(ask(&mut two[0]).starts_with("HTTP/1.1 200"));
    assert_eq!(third.read(&mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    third.set_nonblocking(false).unwrap();
    drop(two);
    let mut answer = [0; 12];
    third.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[test]
fn heads_and_bodies_must_come_in_time() {
    let (_dir, server) = configured("header_timeout = \"200ms\"\nbody_timeout = \"200ms\"");
    let mut head = open(&server);
    head.write_all(b"GET /orders HTTP/1.1\r\nhost: loc").unwrap();
    let answer = rest(head);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut body = open(&server);
    body.write_all(
        b"POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
    )
    .unwrap();
    assert!(rest(body).starts_with("HTTP/1.1 408"));
    let idle = open(&server);
    assert!(!rest(idle).starts_with("HTTP/1.1 200"), "who says nothing is let go too");
}

#[test]
fn every_limit_is_what_the_configuration_says() {
    let limits = "body = \"1KiB\"\nbulk = \"2KiB\"\nuri = 300\ndepth = 3\nnodes = 20\nheaders = 16\nheader_bytes = \"8KiB\"\nrows = 2\n\
                  max_sockets = 1";
    let (_dir, server) = configured(limits);
    for id in ["a", "b", "c"] {
        assert_eq!(server.post(&format!("/orders/{id}"), r#"{"item":"Bun","price":1}"#).status, 202);
    }
    assert_eq!(server.get("/orders?limit=3").json()["code"], "limit-too-large");
    assert_eq!(server.get("/orders").json().as_array().unwrap().len(), 2);
    assert_eq!(server.get(&format!("/orders?item={}", "x".repeat(300))).json()["code"], "uri-too-long");
    let large = format!(r#"{{"item":"{}"}}"#, "x".repeat(1_100));
    assert_eq!(server.post("/orders/d", &large).json()["code"], "payload-too-large");
    assert_eq!(
        server.post("/orders/_query", r#"{"where":{"and":[{"or":[{"price":1}]}]}}"#).json()["code"],
        "malformed-body"
    );
    let wide = format!(r#"{{"where":{{"price":{{"in":[1{}]}}}}}}"#, ",1".repeat(20));
    assert_eq!(server.post("/orders/_query", &wide).json()["code"], "malformed-body");
    let lines = format!("{}\n", r#"{"item":"Bun"}"#).repeat(200);
    let bulk = server.request("POST", "/orders", &[("content-type", "application/x-ndjson")], &lines);
    assert!(bulk.body.contains("payload-too-large"), "{}", bulk.body);
    let many: Vec<_> = (0..20).map(|at| (format!("x-{at}"), "1")).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(server.request("GET", "/orders", &many, "").status, 431);
    assert_eq!(server.request("GET", "/orders", &many[..8], "").status, 200);
    let long = "x".repeat(9_000);
    assert_eq!(server.request("GET", "/orders", &[("x-long", &long)], "").status, 431);
}

#[test]
fn a_request_names_its_host_once_and_in_one_way() {
    let (_dir, server) = configured("");
    let said = |head: &str| {
        let mut stream = open(&server);
        stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
        let answer = rest(stream);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let is_problem = head.to_ascii_lowercase().contains("content-type: application/problem+json");
        assert!(status < 400 || is_problem && body.contains("\"code\":"), "{answer}");
        status
    };
    for (head, status) in [
        ("GET /orders HTTP/1.1\r\nhost: localhost", 200),
        ("GET http://localhost/orders HTTP/1.1\r\nhost: evil.example", 200),
        ("GET /orders HTTP/1.1", 400),
        ("GET http://localhost/orders HTTP/1.1", 400),
        ("GET /orders HTTP/1.1\r\nhost: localhost\r\nhost: localhost", 400),
        ("GET /orders HTTP/1.1\r\nhost: localhost\r\nHost: evil.example", 400),
        ("GET /orders HTTP/1.1\r\nhost: local host", 400),
        ("GET http://evil.example/orders HTTP/1.1\r\nhost: localhost", 421),
        ("GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost", 421),
        ("GET http://evil.example/ HTTP/1.1\r\nhost: evil.example", 421),
        ("GET /orders HTTP/1.1\r\nhost: evil.example", 421),
        ("GET /orders HTTP/1.0", 421),
    ] {
        assert_eq!(said(head), status, "{head}");
    }
}

#[test]
fn three_hundred_wrong_tokens_are_slowed_down_and_the_right_one_passes() {
    let dir = folder();
    let text = "[server]\nauth = { tokens = [\"env:TOKEN\"] }\n[dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start(dir.path(), &[]);
    let ask = |token: &str| {
        let token = format!("Bearer {token}");
        server.request("GET", "/orders", &[("authorization", &token)], "")
    };
    let started = Instant::now();
    let wrong: Vec<u16> = (0..300).map(|at| ask(&format!("wrong-{at}")).status).collect();
    let judged = wrong.iter().filter(|status| **status == 401).count() as u64;
    assert!(judged >= 10 && judged <= 10 * (started.elapsed().as_secs() + 2), "{judged} of 300 were answered 401");
    assert_eq!(wrong.iter().filter(|status| **status == 429).count() as u64, 300 - judged);
    assert_eq!(ask(crate::process::TOKEN).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_counted_while_they_are_open() {
    let (_dir, server) = configured("max_sockets = 1");
    let mut socket = connect(&server, "/orders/events").await;
    frame(&mut socket).await;
    let refused = connect_async(server.url("/orders/events")).await.unwrap_err().to_string();
    assert!(refused.contains("429"), "{refused}");
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    let deadline = Instant::now() + PATIENCE;
    while connect_async(server.url("/orders/events")).await.is_err() {
        assert!(Instant::now() < deadline, "the place did not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_a_connection_of_its_address() {
    let (_dir, server) = configured("per_address = 2");
    // The connections that asked whether the server is ready are closed, but perhaps not yet counted so.
    let deadline = Instant::now() + PATIENCE;
    let mut sockets = Vec::new();
    while sockets.len() < 2 {
        assert!(Instant::now() < deadline);
        sockets.extend(connect_async(server.url("/orders/events")).await);
    }
    assert!(rest(open(&server)).starts_with("HTTP/1.1 429"));
    sockets.clear();
    while !ask(&mut open(&server)).starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < deadline, "the places did not come back");
    }
}

#[test]
fn behind_a_trusted_proxy_each_caller_has_its_own_share() {
    let dir = folder();
    let text = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[server.limits]\nper_address = 1\nlive_per_address = 1\n\
                [dio.orders]\nsource = { sqlite = \"shop.db\", table = \"orders\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let server = Server::start(dir.path(), &[]);
    let mut streams = Vec::new();
    let mut live = |query: &str, caller: &str| {
        let mut stream = open(&server);
        let head = format!(
            "GET /orders/live?{query} HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nx-forwarded-for: {caller}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        streams.push(stream);
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    assert_eq!(live("limit=1", "192.0.2.1"), "200");
    assert_eq!(live("limit=2", "192.0.2.1"), "429", "one address holds its share");
    assert_eq!(live("limit=2", "203.0.113.7, 192.0.2.1"), "429", "a caller cannot write itself another address");
    assert_eq!(live("limit=2", "192.0.2.2"), "200");
    assert_eq!(streams.len(), 4, "connections of a proxy are not those of one address");
}

#[test]
fn check_shows_limits_and_tokens_that_cannot_be() {
    let dir = folder();
    let text = "[server]\nauth = { tokens = [\"env:SHORT\"] }\n[server.limits]\nper_adress = 5\ndepth = 1_000\n\
                [dio.products]\nsource = { csv = \"products.csv\" }\n";
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
    let mut check = crate::process::command(dir.path(), &["check"]);
    let output = check.env("SHORT", "hunter2").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for expected in [
        "diorama.toml:2:20: the secret env:SHORT is shorter than 16 bytes",
        "diorama.toml:4:1: [server.limits] has no key \"per_adress\": did you mean per_address?",
        "diorama.toml:5:9: server.limits.depth must be a whole number from 1 to 100",
    ] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    assert!(!said.contains("hunter2"));
    std::fs::write(dir.path().join("diorama.toml"), "[dio.products]\nsource = { csv = \"products.csv\" }\n").unwrap();
    assert!(run(dir.path(), &["check"]).status.success());
}

/// A subscriber that takes hardly anything from the network.
async fn stuck(server: &Server) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    let head = "GET /orders/events HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    stream
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_costs_the_server_little_whether_it_reads_or_not() {
    const IDLE: usize = 300;
    const STUCK: usize = 100;
    let (_dir, server) = configured("");
    let write = |count: usize| {
        for at in 0..count {
            let row = format!(r#"{{"item":"{at}{}","price":{at}}}"#, "x".repeat(200_000));
            let headers = [("content-type", "application/json")];
            assert_eq!(server.request("PUT", "/orders/o1", &headers, &row).status, 202);
        }
    };
    let mut idle = vec![connect(&server, "/orders/events").await];
    frame(&mut idle[0]).await;
    let before = server.memory();
    for _ in 0..IDLE {
        let mut socket = connect(&server, "/orders/events").await;
        frame(&mut socket).await;
        idle.push(socket);
    }
    let each_idle = server.memory().saturating_sub(before) / IDLE;
    drop(idle);
    // What is kept for all, filled to its bounds.
    write(60);
    let mut all = Vec::new();
    for _ in 0..STUCK {
        all.push(stuck(&server).await);
    }
    let before = server.memory();
    write(15);
    let each_stuck = server.memory().saturating_sub(before) / STUCK;
    println!("an idle socket costs {each_idle} bytes, one that does not read {each_stuck}");
    assert!(each_idle < 64 << 10, "{each_idle}");
    assert!(each_stuck < 1 << 20, "{each_stuck}: 3 MB of events are not kept for everybody");
}

/// What is asked for with `head` by somebody who then takes nothing until the server has given up.
async fn stalled(server: &Server, head: &str, each: impl Fn()) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    // Writing to a connection that the other side has given up fails; it has no more to ask.
    let deadline = Instant::now() + PATIENCE;
    while stream.write_all(b"\r\n").await.is_ok() {
        assert!(Instant::now() < deadline, "it goes on for ever");
        each();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_long_answers_that_nobody_takes_are_cut_off() {
    let (_dir, server) = configured("write_timeout = \"300ms\"");
    let write = |at: usize| {
        let row = format!(r#"{{"item":"{at}{}","price":{at}}}"#, "x".repeat(250_000));
        let headers = [("content-type", "application/json")];
        assert_eq!(server.request("PUT", &format!("/orders/o{}", at % 20), &headers, &row).status, 202);
    };
    (0..20).for_each(write);
    // 5 MB are more than what lies between two ends of a connection.
    stalled(&server, "GET /orders?limit=20 HTTP/1.1", || ()).await;
    let at = std::cell::Cell::new(0);
    stalled(&server, "GET /orders/events HTTP/1.1\r\naccept: text/event-stream", || {
        at.set(at.get() + 1);
        write(at.get());
    })
    .await;
    assert!(server.get("/healthz").status == 200);
}

#[test]
fn every_refusal_is_a_problem_also_of_what_is_not_http() {
    let (_dir, server) = configured("header_bytes = \"16KiB\"");
    let asked = |request: &str| {
        let mut stream = open(&server);
        stream.write_all(request.as_bytes()).unwrap();
        rest(stream)
    };
    let host = "host: localhost\r\nconnection: close\r\n";
    let long = |bytes: usize| format!("GET /orders HTTP/1.1\r\n{host}x-a: {}\r\n\r\n", "a".repeat(bytes));
    for (request, status, code) in [
        (format!("GET /orders?\"id\"=eq.1 HTTP/1.1\r\n{host}\r\n"), 400, "malformed-request"),
        (format!("GET /orders?price=gt.<5> HTTP/1.1\r\n{host}\r\n"), 400, "malformed-request"),
        (format!("GET /orders/a b HTTP/1.1\r\n{host}\r\n"), 400, "malformed-request"),
        ("BLAH\r\n\r\n".to_string(), 400, "malformed-request"),
        (format!("GET /orders HTTP/1.1\r\n{host}host: localhost\r\n\r\n"), 400, "invalid-header"),
        ("GET /orders HTTP/1.1\r\nconnection: close\r\n\r\n".to_string(), 400, "invalid-header"),
        (format!("GET /orders HTTP/1.1\r\n{host}bad header: x\r\n\r\n"), 400, "malformed-request"),
        (long(17 << 10), 431, "headers-too-large"),
        (long(100_000), 431, "headers-too-large"),
        (format!("GET /orders HTTP/1.1\r\n{host}{}\r\n", "x: y\r\n".repeat(200)), 431, "headers-too-large"),
        (format!("GET /orders?q={} HTTP/1.1\r\n{host}\r\n", "a".repeat(12_000)), 414, "uri-too-long"),
        (format!("GET /orders HTTP/1.1\r\n{host}accept: image/png\r\n\r\n"), 406, "not-acceptable"),
        (format!("GET /orders/events HTTP/1.1\r\n{host}accept: text/event-stream;q=0\r\n\r\n"), 406, "not-acceptable"),
    ] {
        let answer = asked(&request);
        let start = &request[..request.len().min(60)];
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{start}: {answer}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{start}: {head}");
        assert!(head.to_lowercase().contains("content-type: application/problem+json"), "{start}: {head}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{start}: {body}"));
        assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status)), "{start}");
    }
    assert!(asked(&long(15_000)).starts_with("HTTP/1.1 200"));
    assert!(
        asked(&format!("GET /orders HTTP/1.1\r\n{host}accept:\r\n\r\n")).starts_with("HTTP/1.1 200"),
        "an empty Accept"
    );
}
