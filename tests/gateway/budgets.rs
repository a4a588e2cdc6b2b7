//! What callers may hold and what a query may take: each bound has a word, a time to come again, and a gauge.

use std::time::Duration;

use diorama::gateway::{Limits, MountOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Answer, App, products, rows};

async fn app(count: usize, change: impl FnOnce(&mut Limits)) -> App {
    let mut limits = Limits::default();
    change(&mut limits);
    App::with(products(), rows(count), |lens| lens, MountOptions::default(), |gateway| gateway.limits(limits)).await
}

/// What callers hold of a budget.
pub(crate) async fn held(app: &App, budget: &str) -> u64 {
    let metrics = app.get("/metrics").await;
    let line = format!("diorama_budget_held{{budget=\"{budget}\"}} ");
    metrics.text().lines().find_map(|text| text.strip_prefix(&line)).unwrap().parse().unwrap()
}

pub(crate) async fn until_held(app: &App, budget: &str, expected: impl std::ops::RangeBounds<u64>) {
    let reached = async {
        while !expected.contains(&held(app, budget).await) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.expect("the budget is as expected in the end");
}

pub(crate) fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.refusal(), (status, code.to_string()));
    assert!(!answer.header("retry-after").is_empty() || status == 400, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_long_is_given_up_and_single_rows_are_read() {
    let app = app(20_000, |limits| limits.query_time = Duration::from_nanos(1)).await;
    for query in ["name=match.9$", "name=ilike.*9*&order=price.desc", "meta=is.null&order=name&limit=5", "q=bun%205"] {
        refused(&app.get(&format!("/products?{query}")).await, 503, "query-timeout");
    }
    refused(&app.get("/products/_aggregate?select=name,count()").await, 503, "query-timeout");
    refused(&app.send("DELETE", "/products?name=match.9$", &[], "").await, 503, "query-timeout");
    assert_eq!(app.get("/products/7").await.status, 200);
    assert_eq!(app.get("/products?limit=5").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_and_sort_keys_take_bounded_memory() {
    let app = app(20_000, |limits| limits.query_memory = 256 << 10).await;
    refused(&app.get("/products/_aggregate?select=name,count()&limit=1").await, 400, "limit-too-large");
    let sorted = app.send("GET", "/products?order=name", &[("Accept", "application/x-ndjson")], "").await;
    refused(&sorted, 400, "limit-too-large");
    assert_eq!(app.get("/products?order=name&limit=10").await.status, 200, "a page holds the keys of its rows");
    assert_eq!(app.get("/products/_aggregate?select=max(price)").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_whose_turn_does_not_come_is_busy_and_single_rows_are_read() {
    let limits = Limits { query_time: Duration::from_millis(100), ..Limits::default() };
    let lens = |lens: diorama::LensBuilder| lens.heavy_queries(1);
    let app = App::with(products(), rows(10_000), lens, MountOptions::default(), |g| g.limits(limits)).await;
    let (begun, mut started) = tokio::sync::mpsc::unbounded_channel();
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = parking_lot::Mutex::new(gate);
    let held = app.dio.value_scenery().custom(move |_| {
        let _ = begun.send(());
        let _ = gate.lock().recv();
        Ok(1.into())
    });
    let meanwhile = async {
        started.recv().await.unwrap();
        refused(&app.get("/products?name=ilike.*9*").await, 503, "busy");
        assert_eq!(app.get("/products/7").await.status, 200);
        assert_eq!(app.get("/products?limit=100").await.status, 200);
        drop(release);
    };
    let (opened, ()) = tokio::join!(held.open(), meanwhile);
    opened.unwrap();
    let answered = async {
        while app.get("/products?name=ilike.*9*").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("its turn comes when the worker is free");
}

#[tokio::test]
async fn bodies_in_flight_are_bounded_and_given_back() {
    let app = app(1, |limits| (limits.body, limits.bodies) = (64 << 10, 1)).await;
    let half = format!(
        "PATCH /products/1 HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        app.address,
        60 << 10
    );
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(app.address).await.unwrap();
        socket.write_all(half.as_bytes()).await.unwrap();
        socket.write_all(&vec![b' '; 59 << 10]).await.unwrap();
        slow.push(socket);
    }
    until_held(&app, "bodies", 118 << 10..).await;
    let long = format!("{{\"price\":3}}{}", " ".repeat(50 << 10));
    refused(&app.json("PATCH", "/products/1", &long).await, 429, "rate-limited");
    assert_eq!(app.get("/products/1").await.json()["price"], 10);
    drop(slow);
    until_held(&app, "bodies", 0..=0).await;
    assert_eq!(app.json("PATCH", "/products/1", &long).await.status, 202);
    assert_eq!(held(&app, "bodies").await, 0);
}

#[tokio::test]
async fn large_answers_are_bounded_and_small_ones_are_not_counted() {
    let app = app(3_000, |limits| limits.answers = 400 << 10).await;
    refused(&app.get("/products?limit=3000").await, 429, "rate-limited");
    assert_eq!(app.get("/products?limit=100").await.status, 200);
    assert_eq!(held(&app, "answers").await, 0);
}

#[tokio::test]
async fn a_large_answer_is_held_until_its_reader_has_it() {
    let rows = (1..=10_000).map(|n: i64| {
        let cells = [("name".to_string(), "x".repeat(2_000).into()), ("price".to_string(), n.into())];
        (n.to_string(), cells.into_iter().collect())
    });
    let app = App::with(products(), rows.collect(), |l| l, MountOptions::default(), |g| g).await;
    let mut reader = TcpStream::connect(app.address).await.unwrap();
    let request = format!("GET /products?limit=10000 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", app.address);
    reader.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    reader.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    assert!(held(&app, "answers").await > 1 << 20, "the socket does not take all of it");
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    until_held(&app, "answers", 0..=0).await;
}

/// An event stream whose head was read.
async fn stream(app: &App, path: &str) -> (u16, TcpStream) {
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", app.address);
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    (std::str::from_utf8(&head[9..]).unwrap().parse().unwrap(), socket)
}

#[tokio::test]
async fn one_address_has_its_share_of_live_queries_and_filters() {
    let app = app(7, |limits| (limits.live_queries, limits.live_per_address) = (10, 2)).await;
    let filter = stream(&app, "/products/events?price=gte.50").await;
    let live = stream(&app, "/products/live?price=gte.50").await;
    assert_eq!((filter.0, live.0), (200, 200));
    until_held(&app, "live_queries", 2..=2).await;
    for path in ["/products/events?price=gte.51", "/products/live?limit=3", "/products/_aggregate?select=count()&live"]
    {
        refused(&app.send("GET", path, &[("Accept", "text/event-stream")], "").await, 429, "rate-limited");
    }
    let equal = stream(&app, "/products/live?price=gte.50").await;
    let plain = stream(&app, "/products/events").await;
    assert_eq!((equal.0, plain.0), (200, 200), "what is followed already and what needs no filter costs nothing");
    drop((filter, live, equal, plain));
    until_held(&app, "live_queries", 0..=0).await;
    assert_eq!(stream(&app, "/products/live?limit=3").await.0, 200);
}

#[tokio::test]
async fn patterns_of_subscribers_are_counted() {
    let app = app(7, |limits| limits.patterns = 4 << 20).await;
    let heavy = r"/products/events?name=match.\w{12}";
    let first = stream(&app, heavy).await;
    assert_eq!(first.0, 200);
    assert!(held(&app, "patterns").await > 512 << 10);
    let second = heavy.replace("12", "11");
    refused(&app.send("GET", &second, &[("Accept", "text/event-stream")], "").await, 429, "rate-limited");
    let lists = (1..=30).map(|n| format!(r"/products?name=match.\w{{{n}}}"));
    for list in lists.filter(|list| !list.contains("{2")) {
        app.get(&list).await;
    }
    let before = held(&app, "patterns").await;
    drop(first);
    until_held(&app, "patterns", 0..=0).await;
    assert!(before > 0 && before < 1 << 20, "queries keep none");
}

#[tokio::test]
async fn every_budget_has_a_gauge_a_limit_and_a_count_of_refusals() {
    let app = app(1, |_| {}).await;
    let metrics = app.get("/metrics").await;
    for budget in ["bodies", "spooled", "deliveries", "answers", "live_queries", "patterns"] {
        for name in ["held", "limit", "refused_total"] {
            assert!(
                metrics.text().contains(&format!("diorama_budget_{name}{{budget=\"{budget}\"}} ")),
                "{name} {budget}"
            );
        }
    }
    assert!(metrics.text().contains("diorama_workers ") && metrics.text().contains("diorama_workers_waiting "));
}
