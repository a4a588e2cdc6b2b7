//! Bodies of webhooks: what nothing proves is refused early and holds little memory; what is proven is decoded within a budget.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, Request};
use diorama::gateway::webhook::{Hook, HookOptions};
use diorama::gateway::{Caller, Gateway, Limits, MountOptions};
use diorama::inbound::signature::{Mailgun, Standard};
use diorama::inbound::{self, Hmac, Key, Scheme};
use diorama::{ChangeEvent, Dio, Error, LensBuilder};
use flate2::Compression;
use flate2::write::GzEncoder;
use hmac::{KeyInit as _, Mac as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::budgets::{held, refused, until_held};
use crate::harness::{Answer, App, products, rows};

const SECRET: &str = "hunter2-hunter2-hunter2";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const BEARER: (&str, &str) = ("Authorization", "Bearer hunter2-hunter2-hunter2");
const MIB: usize = 1 << 20;

fn keys() -> Vec<Key> {
    vec![Key::plain(SECRET).unwrap()]
}

/// A webhook with a proof in each place: before the body, over the body, in the body.
fn hooks(gateway: Gateway) -> Gateway {
    let standard = Standard::new(["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]).unwrap();
    let hook = |name: &str, scheme| Hook::new(name, "products", inbound::Hook::new(scheme));
    let large = inbound::Hook::new(Scheme::Bearer(keys())).bytes(2 * MIB);
    let options = HookOptions { answer_within: Duration::from_millis(100), ..HookOptions::default() };
    [
        hook("bearer", Scheme::Bearer(keys())),
        hook("signed", Scheme::Hmac(Hmac::new(keys(), HeaderName::from_static("x-signature")))),
        hook("standard", Scheme::Standard(standard)),
        hook("mailgun", Scheme::Mailgun(Mailgun { secrets: keys() })),
        Hook::new("large", "products", large),
    ]
    .into_iter()
    .fold(gateway, |gateway, hook| gateway.try_hook(hook.with(options)).unwrap())
}

async fn start(limits: Limits, lens: impl FnOnce(LensBuilder) -> LensBuilder) -> App {
    App::with(products(), rows(7), lens, MountOptions::default(), |gateway| {
        hooks(gateway.limits(Limits { auth_failures: 1_000, ..limits }))
    })
    .await
}

async fn usual() -> App {
    start(Limits::default(), |lens| lens).await
}

/// A change of `size` bytes.
fn change(price: u32, size: usize) -> String {
    let row = format!(r#"{{"op":"update","id":"1","new":{{"name":"Bun 1","price":{price}}}}}"#);
    format!("{row}{}", " ".repeat(size.saturating_sub(row.len())))
}

fn signature(body: &str) -> String {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A delivery of `announced` bytes of which `sent` are sent.
async fn half(app: &App, hook: &str, headers: &[(&str, &str)], announced: usize, sent: usize) -> TcpStream {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST /webhooks/{hook} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}Content-Length: {announced}\r\n\r\n",
        app.address
    );
    let mut socket = TcpStream::connect(app.address).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&vec![b' '; sent]).await.unwrap();
    socket
}

async fn answer(mut socket: TcpStream) -> Answer {
    let mut raw = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), socket.read_to_end(&mut raw)).await.expect("it is answered").unwrap();
    Answer::parse(&raw)
}

async fn nothing_held(app: &App) {
    for budget in ["bodies", "spooled", "deliveries"] {
        until_held(app, budget, 0..=0).await;
    }
}

#[tokio::test]
async fn what_the_head_cannot_prove_is_refused_before_the_body() {
    let app = usual().await;
    let (wrong, short, old) = ("0".repeat(64), "00".to_string(), "1500000000".to_string());
    let standard =
        |at: &'static str| [("webhook-id", "a"), ("webhook-timestamp", at), ("webhook-signature", "v1,AAAA")];
    let basic = [("Authorization", "Basic eDp5")];
    for (hook, headers) in [
        ("bearer", &[][..]),
        ("bearer", &[("Authorization", "Bearer another")]),
        ("bearer", &basic),
        ("signed", &[]),
        ("signed", &[("X-Signature", &*short)]),
        ("standard", &[("webhook-id", "a"), ("webhook-timestamp", &*old)]),
        ("standard", &standard("1500000000")),
    ] {
        let socket = half(&app, hook, &[&[JSON], headers].concat(), 900_000, 0).await;
        assert_eq!(answer(socket).await.refusal(), (401, "signature-invalid".into()), "{hook} {headers:?}");
    }
    // What only the body can prove is read.
    let mut socket = half(&app, "signed", &[JSON, ("X-Signature", &wrong)], 10, 9).await;
    socket.write_all(b" ").await.unwrap();
    assert_eq!(answer(socket).await.refusal(), (401, "signature-invalid".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_signatures_of_large_bodies_hold_little_memory_and_no_file_afterwards() {
    const CONNECTIONS: usize = 40;
    let app = usual().await;
    let wrong = "0".repeat(64);
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        sockets.push(half(&app, "signed", &[JSON, ("X-Signature", &wrong)], MIB, MIB - 1).await);
    }
    let all = CONNECTIONS * MIB;
    until_held(&app, "spooled", (all * 8 / 10) as u64..=all as u64).await;
    let memory = held(&app, "bodies").await;
    assert!(memory <= (CONNECTIONS * (64 << 10)) as u64, "{memory}");
    assert_eq!(held(&app, "deliveries").await, 0);
    for mut socket in sockets {
        socket.write_all(b" ").await.unwrap();
        assert_eq!(answer(socket).await.refusal(), (401, "signature-invalid".into()));
    }
    nothing_held(&app).await;
    let body = change(33, MIB);
    let headers = [JSON, ("X-Signature", &signature(&body))];
    let right = app.send("POST", "/webhooks/signed", &headers, &body).await;
    assert!(matches!(right.status, 200 | 202), "a right one is read back: {right:?}");
    assert_eq!(app.get("/products/1").await.json()["price"], 33);
    nothing_held(&app).await;
}

#[tokio::test]
async fn a_proof_in_the_body_is_found_in_a_spooled_one() {
    let app = usual().await;
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().to_string();
    let proof = |signature: &str| {
        let padding = " ".repeat(200_000);
        format!(
            r#"{{"signature":{{"timestamp":"{at}","token":"t","signature":"{signature}"}}{padding},"op":"reload"}}"#
        )
    };
    let right = app.send("POST", "/webhooks/mailgun", &[JSON], proof(&signature(&format!("{at}t")))).await;
    assert!(matches!(right.status, 200 | 202), "{right:?}");
    let wrong = app.send("POST", "/webhooks/mailgun", &[JSON], proof(&signature("t"))).await;
    assert_eq!(wrong.refusal(), (401, "signature-invalid".into()));
    nothing_held(&app).await;
}

#[tokio::test]
async fn a_delivery_has_a_mebibyte_unless_its_webhook_takes_more() {
    let app = usual().await;
    let send = async |hook: &str, size: usize| {
        app.send("POST", &format!("/webhooks/{hook}"), &[JSON, BEARER], change(5, size)).await
    };
    assert_eq!(send("bearer", MIB).await.status, 200);
    too_large(&send("bearer", MIB + 1).await);
    assert_eq!(send("large", 2 * MIB).await.status, 200);
    too_large(&send("large", 2 * MIB + 1).await);
    let chunk = format!("{:x}\r\n{}\r\n", MIB + 1, " ".repeat(MIB + 1));
    let unannounced = [JSON, BEARER, ("Transfer-Encoding", "chunked")];
    let answer = app.send("POST", "/webhooks/bearer", &unannounced, format!("{chunk}0\r\n\r\n")).await;
    too_large(&answer);
    nothing_held(&app).await;
}

fn too_large(answer: &Answer) {
    assert_eq!(answer.refusal(), (413, "payload-too-large".into()));
}

fn gzip(body: &str) -> Vec<u8> {
    let mut coder = GzEncoder::new(Vec::new(), Compression::best());
    coder.write_all(body.as_bytes()).unwrap();
    coder.finish().unwrap()
}

#[tokio::test]
async fn a_gzip_bomb_is_refused_at_the_size_of_a_delivery() {
    let app = usual().await;
    let headers = [JSON, BEARER, ("Content-Encoding", "gzip")];
    let send = async |hook: &str, size: usize| {
        app.send("POST", &format!("/webhooks/{hook}"), &headers, gzip(&change(7, size))).await
    };
    assert_eq!(send("bearer", MIB).await.status, 200);
    too_large(&send("bearer", MIB + 1).await);
    too_large(&send("bearer", 500 * MIB).await);
    assert_eq!(send("large", 2 * MIB).await.status, 200);
    nothing_held(&app).await;
}

#[tokio::test]
async fn spooled_bodies_are_bounded_for_each_address() {
    // The largest delivery is the share of one address.
    let app = start(Limits { spooled: 1, ..Limits::default() }, |lens| lens).await;
    let headers = [JSON, BEARER];
    let first = half(&app, "large", &headers, 2 * MIB, 2 * MIB - 1).await;
    until_held(&app, "spooled", (MIB * 19 / 10) as u64..).await;
    refused(&app.send("POST", "/webhooks/bearer", &headers, change(5, MIB)).await, 429, "rate-limited");
    assert_eq!(app.send("POST", "/webhooks/bearer", &headers, change(5, 100)).await.status, 200, "it needs no file");
    drop(first);
    nothing_held(&app).await;
    assert_eq!(app.send("POST", "/webhooks/bearer", &headers, change(6, MIB)).await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_given_up() {
    let app = start(Limits { body_timeout: Duration::from_millis(200), ..Limits::default() }, |lens| lens).await;
    let socket = half(&app, "bearer", &[JSON, BEARER], MIB, 300_000).await;
    assert_eq!(answer(socket).await.refusal(), (408, "request-timeout".into()));
    nothing_held(&app).await;
}

/// A program that takes events when the gate is open.
fn gated(gate: &Arc<watch::Sender<bool>>) -> impl FnOnce(LensBuilder) -> LensBuilder + use<> {
    let gate = Arc::clone(gate);
    move |lens| {
        lens.on_event(move |_: &Dio, _: ChangeEvent| {
            let gate = Arc::clone(&gate);
            async move { gate.subscribe().wait_for(|open| *open).await.map(drop).map_err(|_| Error::Closed) }
        })
    }
}

#[tokio::test]
async fn deliveries_under_way_take_bounded_memory_and_the_largest_one_passes() {
    let gate = Arc::new(watch::Sender::new(false));
    let app = start(Limits { deliveries: 4 << 20, ..Limits::default() }, gated(&gate)).await;
    let send = async |price: u32, size: usize| {
        app.send("POST", "/webhooks/bearer", &[JSON, BEARER], change(price, size)).await
    };
    assert_eq!(send(5, MIB).await.status, 202, "it is being applied, and estimated to take more than there is");
    assert_eq!(held(&app, "deliveries").await, 4 << 20);
    refused(&send(6, 100).await, 429, "rate-limited");
    gate.send_replace(true);
    nothing_held(&app).await;
    assert_eq!(send(6, 100).await.status, 200);
}

#[tokio::test]
async fn a_short_delivery_of_many_changes_takes_memory_for_each() {
    let gate = Arc::new(watch::Sender::new(false));
    let app = start(Limits::default(), gated(&gate)).await;
    let changes = vec![r#"{"op":"delete","id":1}"#; 1_000].join(",");
    let taken = app.send("POST", "/webhooks/bearer", &[JSON, BEARER], format!("[{changes}]")).await;
    assert_eq!((taken.status, held(&app, "deliveries").await), (202, 1_000 * 4_096));
    gate.send_replace(true);
    nothing_held(&app).await;
}

#[tokio::test]
async fn a_server_whose_memory_for_deliveries_is_used_up_is_busy_for_everybody() {
    let gate = Arc::new(watch::Sender::new(false));
    let app = start(Limits::default(), gated(&gate)).await;
    let gateway = Gateway::new().try_mount(app.dio.clone(), MountOptions::default()).unwrap();
    let router = hooks(gateway).into_router();
    let status = async |address: u8, size: usize| {
        let request = Request::post("/webhooks/bearer").header("Host", "localhost");
        let request = [JSON, BEARER].iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.extension(Caller::new([10, 0, 0, address].into()));
        let body = Body::from(change(address.into(), size));
        let answer = router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
    };
    assert_eq!(status(1, 900_000).await, (202, false));
    assert_eq!(status(2, 900_000).await, (202, false));
    assert_eq!(status(3, 900_000).await, (503, true));
    assert_eq!(status(3, 1_000).await, (202, false), "a small one has a place");
    gate.send_replace(true);
    let passes = async {
        while status(3, MIB).await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), passes).await.expect("it has a place in the end");
}
