//! PostgreSQL as a source, beside the server's own programs: the first list, the feed by replication, and writes.
//!
//! `cargo bench --bench postgres` runs all parts; `-- list`, `-- feed` and `-- writes` select some. Sizes are environment variables
//! (`DIORAMA_BENCH_...`, see [`Plan`] and the README). Each run has a PostgreSQL server of its own, with fsync on, whose files are
//! in the folder for temporary files as those of Diorama are. Every result is one line that ends with a ratio to what the server's
//! program did in the same run, 1.00 being as fast. Nothing is asserted about speed.

#[expect(dead_code, reason = "the gateway's benchmark uses more of it")]
#[path = "gateway/client.rs"]
mod client;
#[expect(dead_code, reason = "other benchmarks use more of it")]
mod program;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use diorama::connect::{Postgres, PostgresOptions, PostgresRelation};
use diorama_servers::PostgresServer;
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::{Message, connect};

use crate::client::{Ask, drive};
use crate::program::Diorama;

/// Runs of each program in `list`; the fastest counts.
const RUNS: usize = 3;
/// Commits before the measured ones in `feed`.
const WARM_UP: usize = 20;
/// Pause after each commit in `feed`.
const PAUSE: Duration = Duration::from_millis(10);
/// Rows of one transaction in `feed`.
const TRANSACTION: usize = 100;
/// Clients at a time in `writes`.
const CLIENTS: [usize; 3] = [1, 16, 64];
/// Time within which the next event arrives.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sizes.
#[derive(Debug)]
struct Plan {
    /// `DIORAMA_BENCH_ROWS`: rows of the table in `list`.
    rows: usize,
    /// `DIORAMA_BENCH_COMMITS`: single commits in `feed`.
    commits: usize,
    /// `DIORAMA_BENCH_CHANGES`: rows of the table in `feed`, each of which is changed once in transactions of a hundred.
    changes: usize,
    /// `DIORAMA_BENCH_TABLE`: rows of the table in `writes`.
    table: usize,
    /// `DIORAMA_BENCH_SECONDS`: seconds for each program and number of clients in `writes`.
    seconds: usize,
    /// `DIORAMA_BENCH_LANES`: `write_concurrency` in `writes`.
    lanes: usize,
    /// `DIORAMA_BENCH_FEED`: `feed` of the resource in `writes`, such as `replication`; none by default.
    feed: Option<String>,
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wants = |part: &str| arguments.is_empty() || arguments.iter().any(|word| word == part);
    let size = |name: &str, default: usize| {
        env::var(format!("DIORAMA_BENCH_{name}")).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let plan = Plan {
        rows: size("ROWS", 1_000_000),
        commits: size("COMMITS", 500),
        changes: size("CHANGES", 200_000).next_multiple_of(TRANSACTION),
        table: size("TABLE", 100_000),
        seconds: size("SECONDS", 10),
        lanes: size("LANES", 1),
        feed: env::var("DIORAMA_BENCH_FEED").ok(),
    };
    let Some(psql) = program("psql") else { return println!("skipped: there is no psql") };
    let Some(server) = PostgresServer::start() else { return println!("skipped: there is no PostgreSQL server") };
    let shown = |name: &str| server.psql(&format!("SHOW {name}"));
    println!(
        "PostgreSQL {}, fsync {}, synchronous_commit {}, wal_level {}",
        shown("server_version"),
        shown("fsync"),
        shown("synchronous_commit"),
        shown("wal_level")
    );
    let runtime = Runtime::new().expect("a runtime");
    if wants("list") {
        list(&plan, &server, &psql, &runtime);
    }
    if wants("feed") {
        feed(&plan, &server, &psql);
    }
    if wants("writes") {
        match program("pgbench") {
            Some(pgbench) => writes(&plan, &server, &pgbench, &runtime),
            None => println!("writes: skipped: there is no pgbench"),
        }
    }
}

/// Finds a program in `PATH`, or else in Debian's folders of PostgreSQL.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = env::split_paths(&path).chain(versions.map(|version| version.path().join("bin")));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Executes `statements`, which make and fill tables, and leaves nothing of it for the server to do later.
fn fill(server: &PostgresServer, statements: &str) {
    server.psql(&format!("{statements}\nVACUUM ANALYZE;\nCHECKPOINT;"));
}

// --- list ------------------------------------------------------------------------------------------------------------

/// Reads a whole table, as the start of a resource does, beside `\copy` of psql into nothing.
fn list(plan: &Plan, server: &PostgresServer, psql: &Path, runtime: &Runtime) {
    let rows = plan.rows;
    let statements = format!(
        "CREATE TABLE listed (id bigint PRIMARY KEY, name text, stock integer, price numeric(10,2), changed timestamptz,
             active boolean, extra jsonb);
         INSERT INTO listed SELECT n, 'product number ' || n, n % 1000, (n % 100000) / 100.0,
             timestamptz '2026-01-01' + n * interval '1 second', n % 3 = 0,
             jsonb_build_object('shelf', n % 100, 'tags', jsonb_build_array('a', 'b'))
             FROM generate_series(1, {rows}) n;"
    );
    fill(server, &statements);
    let url = server.url("postgres");
    let copy = || {
        let mut command = Command::new(psql);
        command.args(["-X", "-q", "-d", &url, "-c", r"\copy (SELECT * FROM listed) TO '/dev/null'"]);
        let began = Instant::now();
        assert!(command.status().expect("psql").success());
        began.elapsed()
    };
    let ours = || {
        let began = Instant::now();
        let listed = runtime.block_on(async {
            let relation = PostgresRelation::Table("listed".into());
            let vista = Postgres::open("listed", &url, relation, PostgresOptions::default()).await.expect("the table");
            vista.list_values().await.expect("its rows")
        });
        let took = began.elapsed();
        assert_eq!(listed.len(), rows);
        took
    };
    copy();
    let runs: Vec<(Duration, Duration)> = (0..RUNS).map(|_| (ours(), copy())).collect();
    let ours = runs.iter().map(|run| run.0).min().unwrap_or_default().as_secs_f64();
    let copy = runs.iter().map(|run| run.1).min().unwrap_or_default().as_secs_f64();
    println!(
        "list: {rows} rows of 7 columns: {ours:.2} s ({:.0} rows/s), psql \\copy {copy:.2} s ({:.0} rows/s), ratio {:.2}",
        rows as f64 / ours,
        rows as f64 / copy,
        copy / ours
    );
    server.psql("DROP TABLE listed");
}

// --- feed ------------------------------------------------------------------------------------------------------------

/// Follows a table by replication, and measures at a subscriber of the resource's events.
fn feed(plan: &Plan, server: &PostgresServer, psql: &Path) {
    fill(server, &numbers("followed", plan.changes));
    let diorama = serve(&server.url("postgres"), "followed", "feed = \"replication\"");
    let mut subscriber = Subscriber::connect(diorama.address, "followed");
    quiet(plan, &server.url("postgres"), psql, &subscriber);
    throughput(plan, server, &diorama, &mut subscriber);
}

/// Commits one row at a time, and waits for its event.
fn quiet(plan: &Plan, url: &str, psql: &Path, subscriber: &Subscriber) {
    let mut session = Session::open(psql, url);
    let (mut commits, mut whole, mut late) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM_UP + plan.commits {
        let (id, n) = (number % plan.changes + 1, -i64::try_from(number).unwrap_or_default() - 1);
        let began = Instant::now();
        session.execute(&format!("UPDATE followed SET n = {n} WHERE id = {id} RETURNING id"));
        let committed = Instant::now();
        let arrived = subscriber.wait_for(&id.to_string(), n);
        if number >= WARM_UP {
            commits.push(committed - began);
            whole.push(arrived - began);
            // The event may overtake the answer of psql.
            late.push(arrived.saturating_duration_since(committed));
        }
        std::thread::sleep(PAUSE);
    }
    let (commit, event) = (percentile(&mut commits, 0.5), percentile(&mut whole, 0.5));
    println!(
        "feed quiet: {} commits of one row: the event p50 {:.2} ms, p99 {:.2} ms after the commit's return; from its beginning the \
         commit p50 {commit:.2} ms, the event p50 {event:.2} ms, ratio {:.2}",
        plan.commits,
        percentile(&mut late, 0.5),
        percentile(&mut late, 0.99),
        commit / event
    );
}

/// Changes each row once in transactions of psql, and waits until the subscriber has all.
fn throughput(plan: &Plan, server: &PostgresServer, diorama: &Diorama, subscriber: &mut Subscriber) {
    let transaction = |from: usize| {
        let to = from + TRANSACTION - 1;
        format!("UPDATE followed SET n = 1 WHERE id BETWEEN {from} AND {to};\n")
    };
    let sql: String = (1..=plan.changes).step_by(TRANSACTION).map(transaction).collect();
    let mut had: HashSet<String> = HashSet::with_capacity(plan.changes);
    let (mut conflated, mut resets, mut reconnects) = (0, 0, 0);
    let began = Instant::now();
    let (committed, all) = std::thread::scope(|scope| {
        let psql = scope.spawn(|| {
            server.psql(&sql);
            began.elapsed()
        });
        let mut all = began.elapsed();
        while had.len() < plan.changes {
            let (at, frame) = match subscriber.frames.recv_timeout(PATIENCE) {
                Ok(next) => next,
                Err(RecvTimeoutError::Timeout) => panic!("no event arrives, {} rows are there", had.len()),
                Err(RecvTimeoutError::Disconnected) => {
                    // A subscriber that was too slow: it begins again with the rows.
                    *subscriber = Subscriber::open(diorama.address, "followed");
                    reconnects += 1;
                    continue;
                }
            };
            resets += usize::from(frame.kind == "reset");
            conflated += usize::from(frame.conflated);
            for (id, row) in frame.into_rows() {
                if row.n == 1 && had.insert(id) {
                    all = at - began;
                }
            }
        }
        (psql.join().expect("psql").as_secs_f64(), all.as_secs_f64())
    });
    let changes = plan.changes as f64;
    println!(
        "feed throughput: {} changes in transactions of {TRANSACTION} rows: {:.0} changes/s until the subscriber has all, {:.2} s \
         after the last commit ({conflated} conflated, {resets} resets, {reconnects} new connections); psql committed {:.0}/s, \
         ratio {:.2}",
        plan.changes,
        changes / all,
        all - committed,
        changes / committed,
        committed / all
    );
}

/// A session of psql that executes one statement at a time.
struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn open(psql: &Path, url: &str) -> Session {
        let mut command = Command::new(psql);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("psql");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Session { input: child.stdin.take(), output, child }
    }

    /// Executes a statement that returns one row, and commits it.
    fn execute(&mut self, statement: &str) {
        let input = self.input.as_mut().expect("its input");
        input.write_all(format!("{statement};\n").as_bytes()).expect("a statement");
        let mut line = String::new();
        // psql prints rows once the server is ready for the next statement, so after the commit.
        assert!(self.output.read_line(&mut line).expect("a row") > 0, "psql ended at {statement}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// A frame of an event stream, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    record: Option<Row>,
    #[serde(default)]
    rows: Vec<(String, Row)>,
    #[serde(default)]
    conflated: bool,
}

#[derive(Debug, Deserialize)]
struct Row {
    n: i64,
}

impl Frame {
    /// Rows of an event or of a part of a snapshot, with their ids.
    fn into_rows(self) -> impl Iterator<Item = (String, Row)> {
        self.id.zip(self.record).into_iter().chain(self.rows)
    }
}

/// A WebSocket that receives the rows and then the events of a resource.
struct Subscriber {
    /// Frames with the time of their arrival; ends with the connection.
    frames: Receiver<(Instant, Frame)>,
}

impl Subscriber {
    fn open(address: SocketAddr, dio: &str) -> Subscriber {
        let (mut socket, _) = connect(format!("ws://{address}/{dio}/events?snapshot=full")).expect("a socket");
        let (sender, frames) = channel();
        std::thread::spawn(move || {
            while let Ok(message) = socket.read() {
                let at = Instant::now();
                let Message::Text(text) = message else { continue };
                let frame = serde_json::from_str(&text).expect("a frame");
                if sender.send((at, frame)).is_err() {
                    return;
                }
            }
        });
        Subscriber { frames }
    }

    /// Opens a socket and receives the rows.
    fn connect(address: SocketAddr, dio: &str) -> Subscriber {
        let subscriber = Subscriber::open(address, dio);
        while subscriber.next().1.kind != "snapshot_end" {}
        subscriber
    }

    fn next(&self) -> (Instant, Frame) {
        self.frames.recv_timeout(PATIENCE).expect("a frame")
    }

    /// Waits until the row `id` has this `n`, and returns when its frame arrived.
    fn wait_for(&self, id: &str, n: i64) -> Instant {
        loop {
            let (at, frame) = self.next();
            if frame.into_rows().any(|(own, row)| own == id && row.n == n) {
                return at;
            }
        }
    }
}

// --- writes ----------------------------------------------------------------------------------------------------------

/// Patches rows by HTTP, each answered when the database has it, beside updates of pgbench in a table of the same form.
fn writes(plan: &Plan, server: &PostgresServer, pgbench: &Path, runtime: &Runtime) {
    fill(server, &(numbers("written", plan.table) + &numbers("updated", plan.table)));
    let feed = plan.feed.as_ref().map(|feed| format!("feed = \"{feed}\"\n")).unwrap_or_default();
    let settings = format!("{feed}ack = \"applied\"\nwrite_concurrency = {}", plan.lanes);
    let diorama = serve(&server.url("postgres"), "written", &settings);
    let ask = |number: usize| {
        let path = format!("/written/{}", scattered(number) % plan.table + 1);
        Ask::new("PATCH", &path, "content-type: application/json\r\n", &format!("{{\"n\":{number}}}"), 200)
    };
    let asks: Arc<[Ask]> = (1..=200_000.max(2 * plan.table)).map(ask).collect();
    let script = diorama.folder().join("update.sql");
    let text = format!("\\set id random(1, {})\nUPDATE updated SET n = n + 1 WHERE id = :id;\n", plan.table);
    fs::write(&script, text).expect("a script");
    let time = Duration::from_secs(u64::try_from(plan.seconds).unwrap_or(1));
    for clients in CLIENTS {
        let theirs = transactions(pgbench, &script, &server.url("postgres"), clients, plan.seconds);
        runtime.block_on(drive(diorama.address, &asks, clients, time / 10));
        let began = Instant::now();
        let times = runtime.block_on(drive(diorama.address, &asks, clients, time));
        let ours = times.len() as f64 / began.elapsed().as_secs_f64();
        let mut times: Vec<Duration> = times.into_iter().map(|micros| Duration::from_micros(micros.into())).collect();
        println!(
            "writes: {clients} clients: {ours:.0} applied/s (p50 {:.2} ms, p99 {:.2} ms), pgbench {theirs:.0}/s, ratio {:.2}",
            percentile(&mut times, 0.5),
            percentile(&mut times, 0.99),
            ours / theirs
        );
    }
}

/// Transactions per second of pgbench.
fn transactions(pgbench: &Path, script: &Path, url: &str, clients: usize, seconds: usize) -> f64 {
    let mut command = Command::new(pgbench);
    command.args(["-n", "-M", "prepared", "-T", &seconds.to_string(), "-c", &clients.to_string(), "-f"]);
    let output = command.arg(script).arg(url).output().expect("pgbench");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pgbench: {errors}");
    let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    rate.unwrap_or_else(|| panic!("pgbench tells no rate: {text}"))
}

/// A number that looks random (SplitMix64).
fn scattered(number: usize) -> usize {
    let mut mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) as usize
}

// --- shared ----------------------------------------------------------------------------------------------------------

/// Statements that make a table whose column `n` is changed.
fn numbers(table: &str, rows: usize) -> String {
    format!(
        "CREATE TABLE {table} (id bigint PRIMARY KEY, n integer NOT NULL, name text);
         INSERT INTO {table} SELECT g, 0, 'product number ' || g FROM generate_series(1, {rows}) g;\n"
    )
}

/// Milliseconds that this part of `times` stay below.
fn percentile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Serves the table `dio` of the database at `url` under its own name.
fn serve(url: &str, dio: &str, settings: &str) -> Diorama {
    let source = format!("source = {{ postgres = \"env:DIORAMA_BENCH_URL\", table = \"{dio}\" }}");
    Diorama::serve(&format!("[dio.{dio}]\n{source}\n{settings}\n"), &[("DIORAMA_BENCH_URL", url)], |_| ())
}
