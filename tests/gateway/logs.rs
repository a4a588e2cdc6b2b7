//! What the gateway logs of a request.

use std::io::Write;
use std::sync::Arc;

use diorama::gateway::MountOptions;
use diorama::{Column, ColumnType, Schema};
use parking_lot::Mutex;
use serde_json::Value;
use tracing::subscriber::DefaultGuard;

use crate::harness::{App, rows};

/// What was logged on this thread, where a test's server runs as well.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Log, DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
        let guard = tracing::subscriber::set_default(lines.with_max_level(tracing::Level::DEBUG).finish());
        (log, guard)
    }

    fn all(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
    }

    /// Lines about one request.
    fn of(&self, id: &str) -> Vec<Value> {
        self.all().into_iter().filter(|line| line["request.id"] == id).collect()
    }

    /// Lines with this message.
    fn lines(&self, message: &str) -> Vec<Value> {
        self.all().into_iter().filter(|line| line["message"] == message).collect()
    }
}

#[tokio::test]
async fn a_panic_costs_one_request_and_the_log_knows_which() {
    let (log, _guard) = Log::start();
    let columns = vec![Column::new("id", ColumnType::Integer), Column::new("name", ColumnType::String)];
    let app = App::with(Schema::new("id", columns), rows(2), |l| l, MountOptions::default(), |g| g).await;
    app.master.panic();
    let panicked = app.json("POST", "/products", r#"{"name":"new"}"#).await;
    assert_eq!(panicked.refusal(), (500, "internal".into()));
    assert!(!panicked.text().contains("told to panic"));
    let lines = log.of(panicked.header("x-request-id"));
    let said = lines.iter().find(|line| line["level"] == "ERROR").unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(
        (&said["route"], &said["dio"], &said["code"]),
        (&"/{dio}".into(), &"products".into(), &"internal".into())
    );
    assert!(said["cause"].as_str().unwrap().contains("the master was told to panic"), "{said}");
}

#[tokio::test]
async fn accepted_writes_are_found_by_their_request() {
    let (log, _guard) = Log::start();
    let app = App::start().await;
    for (method, path, media, body, message) in [
        ("PATCH", "/products/1", "application/json", r#"{"price":1}"#, "a write was accepted"),
        ("POST", "/products", "application/json", r#"[{"id":"a","name":"A"}]"#, "a bulk insert is in"),
        ("POST", "/products", "application/x-ndjson", r#"{"id":"b","name":"B"}"#, "a bulk insert is in"),
        ("PATCH", "/products?price=lt.50", "application/json", r#"{"price":1}"#, "writes by filter were accepted"),
    ] {
        let answer = app.send(method, path, &[("Content-Type", media)], body).await;
        assert!(answer.status < 300, "{answer:?}");
        let lines = log.of(answer.header("x-request-id"));
        let said = lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{lines:#?}"));
        assert_eq!(said["dio"], "products");
        if let Some(operation) = said["operation"].as_str() {
            assert_eq!(answer.header("dio-operation"), format!("/operations/{operation}"));
        }
    }
}

#[tokio::test]
async fn a_flood_of_refused_deliveries_is_not_a_flood_of_lines() {
    use diorama::gateway::webhook::Hook;
    use diorama::inbound::{self, Key, Scheme};
    let (log, _guard) = Log::start();
    let scheme = Scheme::Bearer(vec![Key::plain("s3cr3t").unwrap()]);
    let hook = Hook::new("shop", "products", inbound::Hook::new(scheme));
    let mount = |gateway: diorama::gateway::Gateway| gateway.try_hook(hook).unwrap();
    let app = App::with(crate::harness::products(), rows(1), |l| l, MountOptions::default(), mount).await;
    let started = std::time::Instant::now();
    for _ in 0..50 {
        let headers = [("Content-Type", "application/json"), ("Authorization", "Bearer hunter2")];
        assert_eq!(app.send("POST", "/webhooks/shop?key=hunter2", &headers, "{}").await.status, 401);
    }
    let text = String::from_utf8(log.0.lock().clone()).unwrap();
    let lines = text.matches("a delivery was refused").count() as u64;
    assert!((1..=started.elapsed().as_secs() / 5 + 1).contains(&lines), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("s3cr3t"), "{text}");
}

#[tokio::test]
async fn a_flood_of_failed_requests_is_not_a_flood_of_lines() {
    let (log, _guard) = Log::start();
    let small = |lens: diorama::LensBuilder| lens.settings(|settings| settings.write_queue_capacity = 1);
    let app = App::with(crate::harness::products(), rows(2), small, MountOptions::default(), |g| g).await;
    app.master.writes().close();
    let started = std::time::Instant::now();
    let mut refused = 0;
    for price in 0..50 {
        let answer = app.json("PATCH", "/products/1", &format!(r#"{{"price":{price}}}"#)).await;
        refused += u64::from(answer.status == 503);
    }
    assert!(refused >= 40);
    app.master.writes().open();
    let lines = log.lines("a request failed");
    let left_out: u64 = lines.iter().map(|line| line["left_out"].as_u64().unwrap()).sum();
    assert!((1..=started.elapsed().as_secs() / 5 + 1).contains(&(lines.len() as u64)), "{lines:#?}");
    assert!(left_out < refused);
    assert_eq!((&lines[0]["code"], &lines[0]["dio"]), (&"queue-full".into(), &"products".into()));
    // Another kind of failure has a line of its own.
    let columns = vec![Column::new("id", ColumnType::Integer), Column::new("name", ColumnType::String)];
    let other = App::with(Schema::new("id", columns), rows(2), |l| l, MountOptions::default(), |g| g).await;
    other.master.panic();
    let panicked = other.json("POST", "/products", r#"{"name":"new"}"#).await;
    assert_eq!(log.of(panicked.header("x-request-id")).iter().filter(|line| line["level"] == "ERROR").count(), 1);
}

#[tokio::test]
async fn a_flood_of_writes_that_fail_is_not_a_flood_of_lines() {
    let (log, _guard) = Log::start();
    let app = App::start().await;
    app.master.refuse_writes(diorama::Error::invalid("the master was told to refuse"));
    let started = std::time::Instant::now();
    for price in 0..50 {
        app.send(
            "PATCH",
            "/products/1",
            &[("Content-Type", "application/json"), ("Prefer", "wait=5")],
            format!(r#"{{"price":{price}}}"#),
        )
        .await;
    }
    let lines = log.lines("a write failed and was rolled back");
    assert!((1..=started.elapsed().as_secs() / 5 + 1).contains(&(lines.len() as u64)), "{lines:#?}");
}
