//! Answers that are larger than what one reader may hold.

use std::time::Duration;

use diorama::gateway::MountOptions;
use diorama::{CborValue, Record};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::harness::{Answer, App, products};

const ROWS: usize = 20_000;

/// Rows of a kilobyte, twenty megabytes in all.
fn rows(price: i64) -> Vec<(String, Record)> {
    let name = "x".repeat(1_000);
    let row = |n: usize| {
        let cells = [("name".to_string(), name.as_str().into()), ("price".to_string(), price.into())];
        (n.to_string(), Record::from_iter(cells))
    };
    (1..=ROWS).map(row).collect()
}

async fn app() -> App {
    App::with(products(), rows(1), |lens| lens, MountOptions::default(), |gateway| gateway).await
}

/// Asks and reads the beginning of the answer only, through a small window.
async fn begin(app: &App, path: &str) -> (tokio::net::TcpStream, Vec<u8>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(app.address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: application/x-ndjson\r\n\r\n",
        app.address
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = vec![0; 4_096];
    stream.read_exact(&mut start).await.unwrap();
    (stream, start)
}

async fn end(mut stream: tokio::net::TcpStream, mut start: Vec<u8>) -> Vec<serde_json::Value> {
    stream.read_to_end(&mut start).await.unwrap();
    let answer = Answer::parse(&start);
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn prices(rows: &[serde_json::Value], price: i64) -> usize {
    rows.iter().filter(|row| row["price"] == price).count()
}

#[tokio::test]
async fn a_slow_reader_of_everything_holds_no_old_rows() {
    let app = app().await;
    let slow = begin(&app, "/products").await;
    let filtered = begin(&app, "/products?price=eq.1&order=name.desc").await;
    app.dio.cache().insert_values(rows(2).into_iter().collect()).await.unwrap();
    app.json("DELETE", "/products/20000", "").await;
    assert_eq!(app.get("/products/19999").await.json()["price"], 2);
    let seen = end(slow.0, slow.1).await;
    assert_eq!(seen.len(), ROWS - 1, "a row that is gone when its turn comes is left out");
    let (old, new) = (prices(&seen, 1), prices(&seen, 2));
    // What it holds: what the server made at once, and what was on its way.
    assert!(old > 100 && new > 1_000, "{old} rows as they were, {new} as they became");
    let ids: Vec<String> = seen.iter().map(|row| row["id"].as_str().unwrap().to_string()).collect();
    assert!(ids.iter().eq((1..ROWS).map(|n| n.to_string()).collect::<Vec<_>>().iter()), "each once and in order");
    let seen = end(filtered.0, filtered.1).await;
    assert_eq!(prices(&seen, 2), 0, "rows that no longer match are left out");
    assert!(seen.len() > 100 && seen.len() < ROWS - 1_000, "{}", seen.len());
}

#[tokio::test]
async fn a_long_answer_is_whole_in_every_format() {
    let app = app().await;
    let cbor = app.send("GET", "/products", &[("Accept", "application/cbor")], "").await;
    let value: CborValue = ciborium::from_reader(&cbor.body[..]).unwrap();
    assert_eq!(value.as_array().unwrap().len(), ROWS);
    let csv = app.send("GET", "/products?select=id,price", &[("Accept", "text/csv")], "").await;
    assert_eq!((csv.text().lines().count(), csv.text().lines().nth(ROWS)), (ROWS + 1, Some("20000,1")));
    let json = tokio::time::timeout(Duration::from_secs(20), app.get("/products?limit=10000")).await.unwrap();
    assert_eq!(json.json().as_array().unwrap().len(), 10_000);
    assert_eq!(json.header("content-range"), "0-9999/20000");
}
