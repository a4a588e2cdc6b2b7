//! The gateway beside a bare axum handler that returns prebuilt bytes of the same length with the same headers.
//!
//! `cargo bench --bench gateway` prints one table: requests per second of *server CPU* and their ratio, case by case; options
//! follow `--`: `--rows N` or `--sizes` (10,000, 100,000 and 1,000,000 one after the other), `--rounds N`, `--seconds S` (of a round), `--only WORD` (in a case's name), `--deliveries`, `--writes`, `--aggregates`,
//! `--sockets` or `--scopes` for nothing but the table of those. Server and client have a core each. Rounds of all servers alternate, since other programs
//! use the machine. Nothing is asserted about speed.

mod aggregates;
mod cases;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod client;
mod deliveries;
#[path = "../products/mod.rs"]
mod products;
mod scopes;
mod servers;
mod sockets;
mod writes;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diorama::record::Body;

use crate::cases::Case;
use crate::client::{Answer, Ask, Times};
use crate::servers::{Prebuilt, Server};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, default: usize| value(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let rows = number("--rows", 100_000);
    if let Some(prebuilt) = value("--serve-bare") {
        return runtime().block_on(servers::bare(Path::new(prebuilt)));
    }
    if let Some(folder) = value("--serve-library") {
        return runtime().block_on(servers::library(rows, Path::new(folder)));
    }
    if let Some(folder) = value("--serve-sockets") {
        return runtime().block_on(sockets::ours(Path::new(folder)));
    }
    if arguments.iter().any(|argument| argument == "--serve-sockets-bare") {
        return runtime().block_on(sockets::bare());
    }
    if let Some(folder) = value("--serve-scopes") {
        return runtime().block_on(scopes::serve(rows, Path::new(folder)));
    }
    if arguments.iter().any(|argument| argument == "--burn") {
        return aggregates::burn();
    }
    let pinned = pin_client();
    let only_of = |word: &str| arguments.iter().any(|argument| argument == word);
    let (deliveries, writes) = (only_of("--deliveries"), only_of("--writes"));
    let plan = Plan {
        rows,
        rounds: number("--rounds", 7),
        time: Duration::from_secs_f64(value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(0.5)),
        only: value("--only").cloned().unwrap_or_default(),
        pinned,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match (deliveries, writes) {
            (true, _) => compare_deliveries(&plan).await,
            (_, true) => writes::compare(&plan).await,
            _ if only_of("--aggregates") => {
                let rows = number("--rows", 1_000_000);
                aggregates::compare(&Plan { rows, ..plan.clone() }).await;
            }
            _ if only_of("--sockets") => sockets::compare(&plan).await,
            _ if only_of("--scopes") => scopes::compare(&plan, number("--rows", 10_000)).await,
            _ if only_of("--sizes") => {
                for rows in [10_000, 100_000, 1_000_000] {
                    compare(&Plan { rows, ..plan.clone() }).await;
                    println!();
                }
            }
            _ => compare(&plan).await,
        }
    });
}

/// As `diorama serve` makes its own.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}

/// Leaves the first core to the servers. Threads and children made later inherit the mask; servers set their own.
fn pin_client() -> bool {
    let own = std::process::id().to_string();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let last = format!("1-{}", cores.max(2) - 1);
    let pinned = Command::new("taskset").args(["-pc", &last, &own]).stdout(Stdio::null()).status();
    let pinned = pinned.is_ok_and(|status| status.success());
    if !pinned {
        println!("taskset does not work here: servers and client share all cores, and the figures mean less");
    }
    pinned
}

#[derive(Clone, Debug)]
struct Plan {
    rows: usize,
    rounds: usize,
    time: Duration,
    only: String,
    pinned: bool,
}

/// Requests per second of server CPU, and the share of the time in which the server was busy.
#[derive(Clone, Debug)]
struct Round {
    rate: f64,
    busy: f64,
    times: Times,
}

async fn compare_deliveries(plan: &Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let own = std::env::current_exe().expect("a path");
    let arguments = ["--serve-library", text(folder.path()), "--rows", "1000"];
    let library = Server::start(&own, &arguments, plan.pinned);
    ready(library.address).await;
    deliveries::compare(&library, plan.rounds, plan.time).await;
}

async fn compare(plan: &Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let own = std::env::current_exe().expect("a path");
    let (file, lengths) = write_rows(folder.path(), plan.rows);
    let cache = folder.path().join("cache.redb");
    let products = format!("products={}", file.display());
    let arguments = ["serve", &products, "--listen", "127.0.0.1:0", "--cache", text(&cache)];
    let serve = Server::start(Path::new(env!("CARGO_BIN_EXE_diorama")), &arguments, plan.pinned);
    let rows = plan.rows.to_string();
    let arguments = ["--serve-library", text(folder.path()), "--rows", &rows];
    let library = Server::start(&own, &arguments, plan.pinned);
    ready(serve.address).await;

    let mut cases = cases::all(&lengths);
    cases.retain(|case| case.name.contains(&plan.only));
    let mut prebuilt = Vec::new();
    for case in &cases {
        // The file of JSON behind `diorama serve` takes no writes.
        let server = if case.writes() { &library } else { &serve };
        prebuilt.push(prebuild(case, &learn(case, server).await.answer));
    }
    let answers = folder.path().join("answers.json");
    fs::write(&answers, serde_json::to_vec(&prebuilt).expect("a list")).expect("a file");
    let bare = Server::start(&own, &["--serve-bare", text(&answers)], plan.pinned);

    println!("{} rows, {} rounds of {:?} for each server and case", plan.rows, plan.rounds, plan.time);
    println!("requests per second of server CPU; ratios to bare axum as median (lowest..highest)\n");
    println!("resident before: {} MB (`diorama serve`), {} MB (library)", serve.resident(), library.resident());
    println!(
        "| case | bare axum | `diorama serve` | ratio | library in `axum::serve` | ratio | p50, p99, CPU of one | target |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (case, prebuilt) in cases.iter().zip(&prebuilt) {
        let theirs = (&bare, case.bare(prebuilt));
        let serve = if case.writes() { None } else { Some(learn(case, &serve).await) };
        println!("{}", compare_one(plan, case, theirs, serve, learn(case, &library).await).await);
    }
    println!("resident afterwards: {} MB (`diorama serve`), {} MB (library)", serve.resident(), library.resident());
}

/// Runs the rounds of one case and writes its line.
async fn compare_one(
    plan: &Plan,
    case: &Case,
    bare: (&Server, Arc<[Ask]>),
    serve: Option<Ours<'_>>,
    library: Ours<'_>,
) -> String {
    let (mut bares, mut serves, mut libraries) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        bares.push(round(plan, case, bare.0, &bare.1).await);
        if let Some(serve) = &serve {
            serves.push(round(plan, case, serve.server, &serve.asks).await);
        }
        libraries.push(round(plan, case, library.server, &library.asks).await);
    }
    let mut line = format!("| {} | {} ", case.name, rate(&bares));
    for ours in [&serves, &libraries] {
        let _ = write!(line, "| {} | {} ", rate(ours), ratio(ours, &bares));
    }
    let _ = write!(line, "| {} ", spent(if serves.is_empty() { &libraries } else { &serves }));
    line + &case.target.map_or("| |".to_string(), |target| format!("| {target:.2} |"))
}

async fn round(plan: &Plan, case: &Case, server: &Server, asks: &Arc<[Ask]>) -> Round {
    client::drive(server.address, asks, case.connections, plan.time / 10).await;
    let (started, before) = (Instant::now(), server.cpu());
    let answers = client::drive(server.address, asks, case.connections, plan.time).await;
    let wall = started.elapsed();
    if case.writes() {
        // What was acknowledged is still being applied; that is the server's work too.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let spent = (server.cpu() - before).as_secs_f64();
    Round { rate: answers.len() as f64 / spent, busy: spent / wall.as_secs_f64(), times: answers }
}

/// How long answers took, and the server's CPU time of one.
fn spent(rounds: &[Round]) -> String {
    let mut times: Times = rounds.iter().flat_map(|round| &round.times).copied().collect();
    let (p50, p99) = (writes::percentile(&mut times, 0.5), writes::percentile(&mut times, 0.99));
    let rate = median(rounds.iter().map(|round| round.rate));
    format!("{p50:.2} ms, {p99:.2} ms, {:.1} us", 1e6 / rate)
}

fn rate(rounds: &[Round]) -> String {
    if rounds.is_empty() {
        return "-".to_string();
    }
    let (rate, busy) = (median(rounds.iter().map(|r| r.rate)), median(rounds.iter().map(|r| r.busy)));
    format!("{rate:.0} ({:.0} % busy)", busy * 100.0)
}

/// Each round beside the bare server's of the same turn.
fn ratio(ours: &[Round], bare: &[Round]) -> String {
    if ours.is_empty() {
        return "-".to_string();
    }
    let ratios: Vec<f64> = ours.iter().zip(bare).map(|(ours, bare)| ours.rate / bare.rate).collect();
    let lowest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = ratios.iter().copied().fold(0.0, f64::max);
    format!("**{:.2}** ({lowest:.2}..{highest:.2})", median(ratios.into_iter()))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One of our servers, what it is going to be asked, and what it answers.
struct Ours<'a> {
    server: &'a Server,
    asks: Arc<[Ask]>,
    answer: Answer,
}

/// Asks for the first time; a conditional case learns the version that this server has.
async fn learn<'a>(case: &Case, server: &'a Server) -> Ours<'a> {
    let plain = client::ask(server.address, &case.plain()).await.expect("an answer");
    indexed(case, server).await;
    let asks = case.ours(plain.header("etag").filter(|_| case.is_conditional()));
    let answer = client::ask(server.address, &asks[0]).await.expect("an answer");
    assert_eq!(answer.status, case.status, "{}: {answer:?}", case.name);
    Ours { server, asks, answer }
}

/// Waits until the server has the indexes that a case asks for.
async fn indexed(case: &Case, server: &Server) {
    let Some(path) = case.explained() else { return };
    for _ in 0..600 {
        let ask = Ask::new("GET", &path, "", "", 200);
        let answer = client::ask(server.address, &ask).await.expect("an answer");
        let explained: serde_json::Value = serde_json::from_slice(&answer.body).expect("a plan");
        if explained["plan"]["wanted"].as_array().is_some_and(Vec::is_empty) {
            println!("{}: {} rows looked at, {} us", case.name, explained["examined"], explained["microseconds"]);
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{}: its indexes were not built within a minute", case.name);
}

/// What the bare server gives for `case`: what ours does.
fn prebuild(case: &Case, answer: &Answer) -> Prebuilt {
    // These two are hyper's to write.
    let own = |(name, _): &&(String, String)| name != "date" && name != "content-length";
    let headers = answer.headers.iter().filter(own).cloned().collect();
    let (route, method, length) = (case.route(), case.method.to_string(), answer.length);
    Prebuilt { route, method, status: case.status, headers, length }
}

/// Waits until every resource has its rows.
async fn ready(server: SocketAddr) {
    let ask = Ask::new("GET", "/readyz", "", "", 200);
    for _ in 0..600 {
        if client::ask(server, &ask).await.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the rows were not read within a minute");
}

/// The rows as a file, one per line, and how long each is.
fn write_rows(folder: &Path, rows: usize) -> (PathBuf, Vec<usize>) {
    let schema = products::schema();
    let (mut text, mut lengths) = (Vec::new(), Vec::with_capacity(rows));
    for at in 0..rows {
        let body = Body::encode(&products::id(at), &products::record(at), schema.layout());
        lengths.push(body.json().len());
        text.extend_from_slice(body.json());
        text.push(b'\n');
    }
    let file = folder.join("products.ndjson");
    fs::write(&file, text).expect("a file of rows");
    (file, lengths)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
