//! Topics of Kafka: messages that a feed reads, and writes that a route sends, for each second of CPU of the program.
//!
//! `cargo bench --bench topics` runs both parts; `-- feed` and `-- route` select one. Sizes are environment variables
//! (`DIORAMA_BENCH_...`, see the README). The broker keeps its messages in memory. It shares the cores with Diorama and the clients, so
//! only figures per second of CPU say something about Diorama. Nothing is asserted about speed.

#[expect(dead_code, reason = "the gateway's benchmark uses more of it")]
#[path = "gateway/client.rs"]
mod client;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod program;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diorama_servers::{KafkaRecord, KafkaServer};
use tokio::runtime::Runtime;

use crate::client::{Ask, ask, drive};
use crate::program::Diorama;

/// Rows of the resource.
const ROWS: usize = 10_000;
/// Messages of one request to the broker.
const BATCH: usize = 1_000;
/// Partitions of a topic.
const PARTITIONS: i32 = 3;
/// Clients at a time.
const CLIENTS: usize = 64;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wants = |part: &str| arguments.is_empty() || arguments.iter().any(|word| word == part);
    let size = |name: &str, default: usize| {
        env::var(format!("DIORAMA_BENCH_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let Some(server) = KafkaServer::start() else { return println!("skipped: there is no broker") };
    let runtime = Runtime::new().expect("a runtime");
    if wants("feed") {
        runtime.block_on(feed(&server, size("MESSAGES", 500_000)));
    }
    if wants("route") {
        runtime.block_on(route(&server, size("SECONDS", 10)));
    }
}

/// Rows `p0`, `p1`, .. with the version 0.
fn rows(folder: &Path) {
    let rows: String = (0..ROWS).fold(String::new(), |mut text, number| {
        let _ = writeln!(text, r#"{{"id":"p{number}","n":0,"rev":0}}"#);
        text
    });
    fs::write(folder.join("rows.ndjson"), rows).expect("a file");
}

/// A resource whose rows have a version, so that no message needs a read of the source.
fn serve(server: &KafkaServer, settings: &str) -> Diorama {
    let configuration = format!(
        "[connection.kafka]\nkafka = {:?}\n[dio.rows]\nsource = {{ json = \"rows.ndjson\" }}\nid = \"id\"\nversion = \"rev\"\n{settings}\n",
        server.address()
    );
    Diorama::serve(&configuration, &[], rows)
}

/// Sends messages and waits until the feed has applied all.
async fn feed(server: &KafkaServer, count: usize) {
    server.create_topic("feed", PARTITIONS).await;
    let diorama = serve(server, "feed = { connection = \"kafka\", topic = \"feed\", format = \"row\" }");
    while figure(&diorama, "diorama_dio_feeds").await < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (cpu, began) = (diorama.cpu(), Instant::now());
    let mut number = 0;
    while number < count {
        let values: Vec<(String, String)> = (number..count.min(number + BATCH))
            .map(|at| {
                (format!("p{}", at % ROWS), format!(r#"{{"id":"p{}","n":{at},"rev":{}}}"#, at % ROWS, at / ROWS + 1))
            })
            .collect();
        let records: Vec<KafkaRecord<'_>> =
            values.iter().map(|(key, value)| KafkaRecord { key, value: Some(value), headers: &[] }).collect();
        // Messages of one row stay in one partition.
        let partition = i32::try_from(number / BATCH % (ROWS / BATCH)).unwrap_or_default() % PARTITIONS;
        server.produce("feed", partition, &records).await;
        number += BATCH;
    }
    let sent = began.elapsed().as_secs_f64();
    while figure(&diorama, "diorama_dio_feed_messages").await < count as f64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (time, cpu) = (began.elapsed().as_secs_f64(), diorama.cpu() - cpu);
    let count = count as f64;
    println!(
        "feed: {count} messages in {time:.2} s ({:.0}/s, sent in {sent:.2} s), {cpu:.2} s of CPU: {:.0} messages for each",
        count / time,
        count / cpu
    );
}

/// Patches rows by HTTP, each answered when its message is in the topic.
async fn route(server: &KafkaServer, seconds: usize) {
    server.create_topic("route", PARTITIONS).await;
    for format in ["native", "row"] {
        let write = format!(
            "write = {{ connection = \"kafka\", topic = \"route\", format = \"{format}\" }}\nack = \"applied\""
        );
        let diorama = serve(server, &write);
        let request = |number: usize| {
            let path = format!("/rows/p{}", number.wrapping_mul(7_919) % ROWS);
            Ask::new("PATCH", &path, "content-type: application/json\r\n", &format!("{{\"n\":{}}}", number + 1), 200)
        };
        let asks: Arc<[Ask]> = (0..200_000).map(request).collect();
        let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(1));
        drive(diorama.address, &asks, CLIENTS, time / 10).await;
        let (cpu, began) = (diorama.cpu(), Instant::now());
        let count = drive(diorama.address, &asks, CLIENTS, time).await.len() as f64;
        let (took, cpu) = (began.elapsed().as_secs_f64(), diorama.cpu() - cpu);
        println!(
            "route, {format}: {CLIENTS} clients: {:.0} writes/s settled, {cpu:.2} s of CPU: {:.0} writes for each",
            count / took,
            count / cpu
        );
    }
}

/// A figure of the resource in `/metrics`.
async fn figure(diorama: &Diorama, name: &str) -> f64 {
    let answer =
        ask(diorama.address, &Ask::new("GET", "/metrics", "connection: close\r\n", "", 200)).await.expect("figures");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find(|line| line.starts_with(name) && line.as_bytes().get(name.len()) == Some(&b'{'));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}
