//! Durable writes: how many a second of server CPU, how many in one commit of the journal, how long each takes; and what they do
//! to reads.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cases::{self, Case};
use crate::client::{self, Ask, Times};
use crate::servers::Server;
use crate::{Plan, learn, median, prebuild, products, text};

/// Clients at a time.
const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// What makes about a thousand writes a second beside the reads.
const PACED: (usize, Duration) = (16, Duration::from_millis(14));

/// One round of writes.
struct Round {
    rate: f64,
    commits: f64,
    wall: f64,
    times: Times,
}

pub(crate) async fn compare(plan: &Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let own = std::env::current_exe().expect("a path");
    let rows = plan.rows.to_string();
    let arguments = ["--serve-library", text(folder.path()), "--rows", &rows];
    let ours = Server::start(&own, &arguments, plan.pinned);
    crate::ready(ours.address).await;
    let case = cases::insert(1);
    let learnt = learn(&case, &ours).await;
    let prebuilt = [prebuild(&case, &learnt.answer)];
    let answers = folder.path().join("answers.json");
    std::fs::write(&answers, serde_json::to_vec(&prebuilt).expect("a list")).expect("a file");
    let bare = Server::start(&own, &["--serve-bare", text(&answers)], plan.pinned);

    println!("\nfdatasync of 4 KiB in a loop: {}\n", syncs(folder.path()));
    println!("| clients | bare axum | durable inserts | ratio | a second | per commit | p50 | p99 |");
    println!("|---|---|---|---|---|---|---|---|");
    for clients in CLIENTS {
        let case = cases::insert(clients);
        let (mut theirs, mut rounds) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            theirs.push(round(plan, &case, &bare, &case.bare(&prebuilt[0])).await.rate);
            rounds.push(round(plan, &case, &ours, &learnt.asks).await);
        }
        println!("{}", line(clients, &theirs, &rounds));
    }
    println!("\n{}", reads(plan, &ours, &learnt.asks).await);
}

fn line(clients: usize, theirs: &[f64], rounds: &[Round]) -> String {
    let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
    let ratio = median(rounds.iter().zip(theirs).map(|(ours, theirs)| ours.rate / theirs));
    let mut times: Times = rounds.iter().flat_map(|round| round.times.iter().copied()).collect();
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    let (bare, ours) = (median(theirs.iter().copied()), of(|round| round.rate));
    let (wall, commit) = (of(|round| round.wall), of(|round| round.times.len() as f64 / round.commits));
    format!(
        "| {clients} | {bare:.0} | {ours:.0} | **{ratio:.2}** | {wall:.0} | {commit:.0} | {p50:.1} ms | {p99:.1} ms |"
    )
}

async fn round(plan: &Plan, case: &Case, server: &Server, asks: &Arc<[Ask]>) -> Round {
    client::drive(server.address, asks, case.connections, plan.time / 10).await;
    let (commits, started, before) = (commits(server).await, Instant::now(), server.cpu());
    let times = client::drive(server.address, asks, case.connections, plan.time).await;
    let wall = started.elapsed().as_secs_f64();
    let after = crate::writes::commits(server).await;
    // What was acknowledged is still being applied; that is the server's work too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (many, spent) = (times.len() as f64, (server.cpu() - before).as_secs_f64());
    Round { rate: many / spent, commits: (after - commits).max(1.0), wall: many / wall, times }
}

/// Commits of the journal so far; 0 for a server that has none. Settlements are commits too, so that the figure of
/// acknowledgements per commit is rather too small.
async fn commits(server: &Server) -> f64 {
    let Ok(answer) = client::ask(server.address, &Ask::new("GET", "/metrics", "", "", 200)).await else { return 0.0 };
    let text = String::from_utf8_lossy(&answer.body);
    let lines = text.lines().filter(|line| line.starts_with("diorama_dio_journal_append_duration_seconds_count"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Reads alone, and beside a thousand writes a second.
async fn reads(plan: &Plan, server: &Server, writes: &Arc<[Ask]>) -> String {
    let get = |at: usize| Ask::new("GET", &format!("/products/{}", products::id(at * 7919 % plan.rows)), "", "", 200);
    let asks: Arc<[Ask]> = (0..1_000).map(get).collect();
    let (mut idle, mut busy, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let (mut idle_times, mut busy_times) = (Times::new(), Times::new());
    for _ in 0..plan.rounds {
        let alone = client::drive(server.address, &asks, 16, plan.time).await;
        let (clients, rest) = PACED;
        let load = client::drive_paced(server.address, writes, clients, plan.time, rest);
        let (beside, load) = tokio::join!(client::drive(server.address, &asks, 16, plan.time), load);
        let a_second = |times: &Times| times.len() as f64 / plan.time.as_secs_f64();
        idle.push(a_second(&alone));
        busy.push(a_second(&beside));
        written.push(a_second(&load));
        idle_times.extend(alone);
        busy_times.extend(beside);
    }
    let ratio = median(busy.iter().zip(&idle).map(|(busy, idle)| busy / idle));
    let (idle, busy, written) = (median(idle.into_iter()), median(busy.into_iter()), median(written.into_iter()));
    let (before, beside) = (percentile(&mut idle_times, 0.99), percentile(&mut busy_times, 0.99));
    format!(
        "reads of one record over 16 connections: {idle:.0} a second alone (p99 {before:.2} ms), {busy:.0} beside {written:.0} \
         writes a second (p99 {beside:.2} ms): ratio {ratio:.2}"
    )
}

/// Milliseconds that so many of `times` stay below.
pub(crate) fn percentile(times: &mut Times, part: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).copied().map_or(0.0, |micros| f64::from(micros) / 1_000.0)
}

/// What the disk does, without anything in between.
fn syncs(folder: &Path) -> String {
    let mut file = File::create(folder.join("syncs")).expect("a file");
    let page = [7_u8; 4096];
    let (started, mut times) = (Instant::now(), Times::new());
    while started.elapsed() < Duration::from_secs(1) {
        let began = Instant::now();
        file.write_all(&page).expect("a page");
        file.sync_data().expect("a disk");
        times.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    let (p50, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    format!("{} a second, p50 {p50:.2} ms, p99 {p99:.2} ms", times.len())
}
