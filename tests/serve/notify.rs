//! Notifications of a running server, to receivers that are down, slow, gone or somebody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use diorama_inbound::signature::{Scheme, Standard, TOLERANCE};
use parking_lot::Mutex;
use serde_json::Value;

use crate::authority::Authority;
use crate::process::{Answer, PATIENCE, Server, WHSEC, folder, run};

const JSON: (&str, &str) = ("content-type", "application/json");
const WAIT: (&str, &str) = ("prefer", "wait=10");

/// A receiver that checks signatures and answers as it is told.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<Answers>>,
    taken: Arc<Mutex<Vec<(String, Value)>>>,
}

/// Answers of a receiver.
#[derive(Default)]
struct Answers {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    delay: Duration,
    count: usize,
}

impl Receiver {
    /// Serves at `address` until the task is aborted.
    async fn serve(&self, address: SocketAddr) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = loop {
            match tokio::net::TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/hooks", post(Receiver::take)).with_state(self.clone());
        #[expect(clippy::disallowed_methods, reason = "the test aborts it, or its runtime does")]
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (address, serving)
    }

    async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
        let now = jiff::Timestamp::now();
        let method = axum::http::Method::POST;
        let request = diorama_inbound::Request {
            method: &method,
            path: "/hooks",
            query: None,
            headers: &headers,
            body: &body,
            now,
        };
        if Scheme::Standard(Standard::new([WHSEC]).unwrap()).verify(&request, TOLERANCE).is_err() {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let (status, answer, delay) = {
            let mut answers = receiver.answers.lock();
            answers.count += 1;
            (answers.status, answers.headers.clone(), answers.delay)
        };
        tokio::time::sleep(delay).await;
        if status < 300 {
            let id = headers["webhook-id"].to_str().unwrap().to_string();
            receiver.taken.lock().push((id, serde_json::from_slice(&body).unwrap()));
        }
        let mut response = StatusCode::from_u16(status.max(200)).unwrap().into_response();
        for (name, value) in answer {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn answer(&self, status: u16, headers: &[(&'static str, &'static str)]) {
        let mut answers = self.answers.lock();
        (answers.status, answers.headers) = (status, headers.to_vec());
    }

    fn asked(&self) -> usize {
        self.answers.lock().count
    }

    fn taken(&self) -> Vec<(String, Value)> {
        self.taken.lock().clone()
    }
}

fn any() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn configure(dir: &Path, url: &str, more: &str) {
    let text = format!(
        "[dio.orders]\nsource = {{ sqlite = \"shop.db\", table = \"orders\" }}\n\
         [notify.shop]\ndio = \"orders\"\nurl = {url:?}\nsecrets = [\"env:WHSEC\"]\n{more}\n"
    );
    std::fs::write(dir.join("diorama.toml"), text).unwrap();
}

fn put(server: &Server, id: &str, price: usize) -> Answer {
    let body = format!("{{\"item\":\"Bun\",\"price\":{price}}}");
    server.request("PUT", &format!("/orders/{id}"), &[JSON, WAIT], &body)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn state(server: &Server) -> Value {
    server.get("/_notify/shop").json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_arrives_in_the_order_of_its_row_over_kills_and_a_receiver_that_is_down() {
    let dir = folder();
    let receiver = Receiver::default();
    let (address, mut serving) = receiver.serve(any()).await;
    configure(
        dir.path(),
        &format!("http://{address}/hooks"),
        "retry = [\"100ms\", \"200ms\", \"1s\", \"1s\", \"1s\", \"1s\"]",
    );
    let mut server = Server::start(dir.path(), &[]);
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..4 {
        for number in 0..40 {
            let (id, price) = (format!("r{}", number % 7), 1 + round * 100 + number);
            let answer = put(&server, &id, price);
            assert!(answer.status < 300, "{}", answer.body);
            last.insert(id, price);
            match (round, number) {
                // Down for a while, with a kill of the server in it.
                (1, 10) => serving.abort(),
                (1, 30) | (3, 15) => {
                    server.kill();
                    server = Server::start(dir.path(), &[]);
                }
                (2, 5) => (_, serving) = receiver.serve(address).await,
                _ => {}
            }
        }
    }
    until("everything is delivered", || {
        let own = state(&server);
        own["waiting"] == 0 && own["behind"] == 0 && own["state"] == "active"
    })
    .await;
    let taken = receiver.taken();
    let (mut ids, mut shown) = (BTreeSet::new(), BTreeMap::<String, Vec<u64>>::new());
    let mut repeated = 0;
    for (id, message) in &taken {
        if !ids.insert(id.clone()) {
            repeated += 1;
            continue;
        }
        let row = message["data"]["id"].as_str().unwrap().to_string();
        shown.entry(row).or_default().push(message["data"]["seq"].as_u64().unwrap());
    }
    for (row, seqs) in &shown {
        assert!(seqs.is_sorted(), "{row}: {seqs:?}");
    }
    for (row, price) in &last {
        let newest = taken.iter().rev().find(|(_, message)| message["data"]["id"] == **row).unwrap();
        assert_eq!(newest.1["data"]["record"]["price"], *price, "{row}");
    }
    // One event for each write: each sets another price.
    assert_eq!(ids.len(), 160, "{repeated} repeated");
    assert!(repeated <= 16, "only what was under way at a kill comes twice: {repeated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_delivery_is_listed_with_its_reason_and_sent_again_on_request() {
    let dir = folder();
    let receiver = Receiver::default();
    let (address, _serving) = receiver.serve(any()).await;
    receiver.answer(422, &[]);
    configure(dir.path(), &format!("http://user:pw@{address}/hooks?key=1"), "retry = [\"50ms\"]\nselect = [\"price\"]");
    let server = Server::start(dir.path(), &[]);
    put(&server, "a", 1);
    until("it is given up", || server.get("/_notify/shop/deliveries?state=failed").json()[0].is_object()).await;
    let list = server.get("/_notify/shop/deliveries?state=failed");
    assert_eq!(list.raw_header("x-total-count"), Some("1"));
    let failed = &list.json()[0];
    assert_eq!((&failed["attempts"], &failed["row"]), (&2.into(), &"a".into()));
    assert!(failed["detail"].as_str().unwrap().contains("422"), "{failed}");
    let own = failed["links"]["self"].as_str().unwrap().to_string();
    let whole = server.get(&own).json();
    assert_eq!(whole["message"]["type"], "orders.inserted");
    assert_eq!(whole["message"]["data"]["record"], serde_json::json!({"price": 1}));
    assert!(!list.body.contains("pw") && !server.get("/_notify").body.contains("key=1"), "no credentials");

    receiver.answer(200, &[]);
    let replay = server.request("POST", failed["links"]["replay"].as_str().unwrap(), &[], "");
    assert_eq!((replay.status, &replay.json()["state"]), (200, &"pending".into()), "{}", replay.body);
    until("it is delivered", || server.get(&own).json()["state"] == "delivered").await;
    assert_eq!(receiver.taken().len(), 1);
    assert_eq!(server.get("/_notify/shop/deliveries/dlv_0").status, 404);
    assert_eq!(server.get("/_notify/nobody").status, 404);
    assert_eq!(server.get("/webhooks/shop/deliveries").status, 404);
    assert_eq!(server.get("/_notify/shop/deliveries?state=applied").status, 400);
    assert!(server.get("/metrics").body.contains("diorama_notify_delivered_total{notification=\"shop\"} 1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_gone_stays_disabled_over_a_restart_and_can_be_enabled() {
    let dir = folder();
    let receiver = Receiver::default();
    let (address, _serving) = receiver.serve(any()).await;
    receiver.answer(410, &[]);
    configure(dir.path(), &format!("http://{address}/hooks"), "");
    let mut server = Server::start(dir.path(), &[]);
    put(&server, "a", 1);
    until("it is disabled", || state(&server)["state"] == "disabled").await;
    server.kill();
    let server = Server::start(dir.path(), &[]);
    put(&server, "b", 1);
    assert_eq!((state(&server)["state"].as_str(), receiver.asked()), (Some("disabled"), 1));
    receiver.answer(204, &[]);
    let enabled = server.request("POST", "/_notify/shop/enable", &[], "");
    assert_eq!(enabled.status, 200, "{}", enabled.body);
    until("both are delivered", || receiver.taken().len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_receiver_is_left_alone_for_as_long_as_it_asks() {
    let dir = folder();
    let receiver = Receiver::default();
    let (address, _serving) = receiver.serve(any()).await;
    receiver.answer(429, &[("retry-after", "2")]);
    configure(dir.path(), &format!("http://{address}/hooks"), "retry = [\"10ms\", \"10ms\"]\nconcurrency = 1");
    let server = Server::start(dir.path(), &[]);
    put(&server, "a", 1);
    until("it is asked", || receiver.asked() == 1).await;
    let asked = Instant::now();
    receiver.answer(200, &[]);
    (0..20).for_each(|price| drop(put(&server, "b", price)));
    until("it rests", || state(&server)["state"] == "resting" || receiver.asked() > 1).await;
    until("all is delivered", || receiver.taken().len() == 21).await;
    assert!(asked.elapsed() >= Duration::from_millis(1_900), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_and_one_with_a_wrong_certificate_are_failures_that_say_so() {
    let dir = folder();
    let receiver = Receiver::default();
    let (address, _serving) = receiver.serve(any()).await;
    receiver.answers.lock().delay = Duration::from_secs(2);
    configure(dir.path(), &format!("http://{address}/hooks"), "timeout = \"200ms\"\nretry = [\"1s\"]");
    let server = Server::start(dir.path(), &[]);
    put(&server, "a", 1);
    let failure = || state(&server)["last_failure"]["detail"].as_str().unwrap_or_default().to_string();
    until("it fails", || !failure().is_empty()).await;
    assert!(failure().contains("timed out"), "{}", failure());
    drop(server);

    // A server whose certificate is signed by an authority that nobody knows.
    let other = folder();
    Authority::new().server().write(other.path());
    let tls = "[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[dio.products]\nsource = { csv = \"products.csv\" }\n\
         [lens]\ncache = \"memory\"\n";
    std::fs::write(other.path().join("diorama.toml"), tls).unwrap();
    let stranger = Server::start(other.path(), &[]);
    configure(dir.path(), &format!("https://{}/hooks", stranger.address), "retry = [\"1h\"]");
    let server = Server::start(dir.path(), &[]);
    put(&server, "b", 1);
    let failure = || state(&server)["last_failure"]["detail"].as_str().unwrap_or_default().to_string();
    until("it fails", || !failure().is_empty()).await;
    assert!(failure().contains("certificate"), "{}", failure());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_message_shows_if_the_receiver_takes_messages() {
    let dir = folder();
    let receiver = Receiver::default();
    let (address, _serving) = receiver.serve(any()).await;
    configure(dir.path(), &format!("http://{address}/hooks"), "");
    let test = |dir: &Path| {
        let output = run(dir, &["notify", "test", "shop"]);
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let (success, text) = tokio::task::block_in_place(|| test(dir.path()));
    assert!(success && text.contains("answered 200"), "{text}");
    assert_eq!(receiver.taken()[0].1["type"], "orders.test");
    receiver.answer(404, &[]);
    let (success, text) = tokio::task::block_in_place(|| test(dir.path()));
    assert!(!success && text.contains("answered 404"), "{text}");
    configure(dir.path(), "ftp://x", "colour = 1\nevents = [\"exploded\"]");
    let (success, text) = tokio::task::block_in_place(|| test(dir.path()));
    assert!(!success && text.contains("colour") && text.contains("exploded"), "{text}");
}
