//! Durable writes through to SQLite: how fast `diorama serve` accepts them, and how fast they settle.
//!
//! `cargo bench --bench settle`; `-- --seconds 5`, `--rows 100000`, `--clients 64`. The configuration is a source and no other setting.
//! Clients send `PATCH` for random rows as fast as they are answered; those that are refused because the queue is full wait as long as
//! the answer says. Then nothing is sent until nothing waits. Beside it: a loop of fdatasync, and transactions of the same update by
//! SQLite alone. Nothing is asserted about speed.

#[expect(dead_code, reason = "the gateway's benchmark uses more of it")]
#[path = "gateway/client.rs"]
mod client;
mod program;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::client::{Ask, Connection, ask};
use crate::program::Diorama;

/// Clients at a time.
const CLIENTS: [usize; 3] = [1, 16, 64];
const CONFIGURATION: &str = "[dio.written]\nsource = { sqlite = \"shop.db\", table = \"written\" }\n";

#[derive(Debug)]
struct Plan {
    seconds: Duration,
    rows: usize,
    clients: Vec<usize>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        arguments.get(at + 1)?.parse::<usize>().ok()
    };
    let plan = Plan {
        seconds: Duration::from_secs(value("--seconds").unwrap_or(5) as u64),
        rows: value("--rows").unwrap_or(100_000),
        clients: value("--clients").map_or(CLIENTS.to_vec(), |clients| vec![clients]),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (syncs, sync) = syncs(folder.path());
    println!("fdatasync of 4 KiB in a loop: {syncs} a second, p50 {:.2} ms", millis(sync));
    make(folder.path(), plan.rows);
    let (alone, transaction) = alone(&plan, folder.path());
    println!("SQLite alone, one update a transaction: {alone:.0} a second, p50 {:.2} ms", millis(transaction));
    println!(
        "\n| clients | accepted | settled | settled / accepted | refused | p50 / fdatasync | p50, p99 | CPU of one | journal |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for clients in &plan.clients {
        println!("{}", runtime.block_on(round(&plan, *clients, sync)));
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

/// Number in a second and median time of fdatasync.
fn syncs(folder: &Path) -> (usize, Duration) {
    let mut file = File::create(folder.join("syncs")).expect("a file");
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < Duration::from_secs(1) {
        let began = Instant::now();
        file.write_all(&[7_u8; 4096]).expect("a page");
        file.sync_data().expect("a disk");
        times.push(began.elapsed());
    }
    (times.len(), percentile(&mut times, 0.5))
}

/// Makes a table in write-ahead mode.
fn make(folder: &Path, rows: usize) {
    let database = rusqlite::Connection::open(folder.join("shop.db")).expect("a database");
    let statements = format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE written (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, name TEXT);
         WITH RECURSIVE g(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM g WHERE id < {rows})
         INSERT INTO written SELECT id, 0, 'product number ' || id FROM g;"
    );
    database.execute_batch(&statements).expect("a table");
}

/// Rate and median time of transactions of SQLite by one writer.
fn alone(plan: &Plan, folder: &Path) -> (f64, Duration) {
    let database = rusqlite::Connection::open(folder.join("shop.db")).expect("a database");
    database.execute_batch("PRAGMA synchronous = FULL").expect("a setting");
    let mut update = database.prepare("UPDATE written SET n = n + 1 WHERE id = ?1").expect("a statement");
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < plan.seconds {
        let began = Instant::now();
        update.execute([scattered(times.len(), plan.rows)]).expect("an update");
        times.push(began.elapsed());
    }
    (times.len() as f64 / started.elapsed().as_secs_f64(), percentile(&mut times, 0.5))
}

/// Number of a row that looks random (SplitMix64).
fn scattered(number: usize, rows: usize) -> i64 {
    let mut mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) % rows as u64) as i64 + 1
}

/// What one client got.
#[derive(Debug, Default)]
struct Writes {
    accepted: Vec<Duration>,
    refused: usize,
}

/// Sends writes until `end`, beginning with `number`.
async fn write(server: SocketAddr, rows: usize, mut number: usize, end: Instant) -> Writes {
    let mut connection = Connection::open(server).await.expect("a connection");
    let mut writes = Writes::default();
    while Instant::now() < end {
        let path = format!("/written/{}", scattered(number, rows));
        let ask = Ask::new(
            "PATCH",
            &path,
            "content-type: application/json\r\n",
            &format!("{{\"n\":{}}}", number % 1_000_000_007),
            202,
        );
        let began = Instant::now();
        let (status, retry_after) = connection.status(&ask).await.expect("an answer");
        match status {
            202 => writes.accepted.push(began.elapsed()),
            503 => {
                writes.refused += 1;
                let wait =
                    Duration::from_secs(retry_after.unwrap_or(1)).min(end.saturating_duration_since(Instant::now()));
                tokio::time::sleep(wait).await;
            }
            status => panic!("status {status} to a write"),
        }
        number += 1;
    }
    writes
}

async fn queued(server: SocketAddr) -> u64 {
    let answer = ask(server, &Ask::new("GET", "/readyz", "", "", 200)).await.expect("an answer");
    let ready: Value = serde_json::from_slice(&answer.body).expect("JSON");
    ready["dios"]["written"]["queued"].as_u64().expect("the length of the queue")
}

async fn round(plan: &Plan, clients: usize, sync: Duration) -> String {
    let server = Diorama::serve(CONFIGURATION, &[], |folder| make(folder, plan.rows));
    // The first writes make files and statements.
    write(server.address, plan.rows, 1 << 40, Instant::now() + plan.seconds / 10).await;
    while queued(server.address).await > 0 {}
    let (began, spent) = (Instant::now(), server.cpu());
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        tasks.spawn(write(server.address, plan.rows, client << 32, began + plan.seconds));
    }
    let mut all = Writes::default();
    while let Some(writes) = tasks.join_next().await {
        let writes = writes.expect("a client's task");
        all.accepted.extend(writes.accepted);
        all.refused += writes.refused;
    }
    let accepted = all.accepted.len() as f64 / began.elapsed().as_secs_f64();
    while queued(server.address).await > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let count = all.accepted.len();
    let settled = count as f64 / began.elapsed().as_secs_f64();
    let cpu = (server.cpu() - spent) * 1e6 / count as f64;
    let files = std::fs::read_dir(server.folder()).expect("a folder").flatten();
    let journal = files.filter(|file| file.file_name().to_string_lossy().contains("journal"));
    let size: u64 = journal.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    let (p50, p99) = (percentile(&mut all.accepted, 0.5), percentile(&mut all.accepted, 0.99));
    format!(
        "| {clients} | {accepted:.0}/s | {settled:.0}/s | {:.2} | {} | {:.1} | {:.2}, {:.2} ms | {cpu:.0} us | {} MiB |",
        settled / accepted,
        all.refused,
        p50.as_secs_f64() / sync.as_secs_f64(),
        millis(p50),
        millis(p99),
        size >> 20
    )
}
