//! Signed deliveries beside plain writes: `cargo bench --bench gateway -- --deliveries`.
//!
//! Each sender signs what it sends (Standard Webhooks) and waits for the answer, which means durable. A figure is what was
//! acknowledged in a second of the clock, and in a second of server CPU.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{KeyInit as _, Mac as _};
use tokio::task::JoinSet;

use crate::client::{Ask, Connection};
use crate::servers::Server;

/// What senders and the server know.
pub(crate) const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Makes requests that no request was before.
type Make = fn(u64) -> Ask;

/// Prints the figures of all cases.
pub(crate) async fn compare(server: &Server, rounds: usize, time: Duration) {
    println!("{rounds} rounds of {time:?}; acknowledged in a second (in a second of server CPU)\n");
    println!("| senders | insert, 1 kB | signed delivery, 1 kB, kept | ratio |");
    println!("|---|---|---|---|");
    for senders in [1, 64] {
        let (mut plain, mut signed) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            plain.push(round(server, insert, senders, time).await);
            signed.push(round(server, delivery, senders, time).await);
        }
        let (plain, signed) = (median(plain), median(signed));
        let ratio = signed.0 / plain.0;
        println!("| {senders} | {:.0} ({:.0}) | {:.0} ({:.0}) | {ratio:.2} |", plain.0, plain.1, signed.0, signed.1);
    }
}

async fn round(server: &Server, make: Make, senders: usize, time: Duration) -> (f64, f64) {
    let answered = Arc::new(AtomicU64::new(0));
    let (before, started) = (server.cpu(), Instant::now());
    let until = started + time;
    let mut tasks = JoinSet::new();
    for _ in 0..senders {
        let (mut connection, answered) =
            (Connection::open(server.address).await.expect("a connection"), Arc::clone(&answered));
        tasks.spawn(async move {
            while Instant::now() < until {
                connection.ask(&make(NEXT.fetch_add(1, Ordering::Relaxed))).await;
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a sender");
    }
    let (wall, answered) = (started.elapsed().as_secs_f64(), answered.load(Ordering::Relaxed) as f64);
    // What was acknowledged is still being applied; that is the server's work too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    (answered / wall, answered / (server.cpu() - before).as_secs_f64())
}

fn median(mut rounds: Vec<(f64, f64)>) -> (f64, f64) {
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    rounds[rounds.len() / 2]
}

fn row(number: u64) -> String {
    let description = "A round bun, baked in the morning, kept on the shelf, sold by weight. ".repeat(13);
    format!(r#"{{"name":"Bun {number}","category_id":7,"price":{number},"stock":56,"description":"{description}"}}"#)
}

fn insert(number: u64) -> Ask {
    Ask::new("POST", "/products", "content-type: application/json\r\n", &row(number), 202)
}

/// One of a thousand rows is another, and the newest.
fn delivery(number: u64) -> Ask {
    let body = format!(r#"{{"op":"upsert","id":"d{}","new":{},"version":{number}}}"#, number % 1_000, row(number));
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).expect("base64");
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).expect("a key");
    mac.update(format!("msg_{number}.{at}.{body}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let mut headers = "content-type: application/json\r\n".to_string();
    let _ =
        write!(headers, "webhook-id: msg_{number}\r\nwebhook-timestamp: {at}\r\nwebhook-signature: v1,{signature}\r\n");
    Ask::new("POST", "/webhooks/products", &headers, &body, 200)
}
