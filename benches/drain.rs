//! How fast a long queue drains into SQLite: whether the rate falls with what waits, and what a write costs.
//!
//! `cargo bench --bench drain`; `-- --writes 20000` for another length. A second connection holds the database while the writes
//! are accepted, so that all of them wait; then it lets go. The last part kills the process with everything queued, and drains
//! what the next one finds in the journal. Nothing is asserted.

#![expect(clippy::disallowed_methods, reason = "the writers are joined where they are spawned")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diorama::connect::{Sqlite, SqliteOptions};
use diorama::dio::{Settings, WriteOptions};
use diorama::{Dio, Lens, Record, WriteOp};

/// Writers at a time.
const WRITERS: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let writes: usize = value("--writes").and_then(|writes| writes.parse().ok()).unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(folder) = value("--fill") {
        return runtime.block_on(fill(Path::new(folder), writes));
    }
    if let Some(folder) = value("--drain") {
        return runtime.block_on(drain_found(Path::new(folder), writes));
    }
    for (rows, lanes, journal) in [(writes, 1, "WAL"), (writes, 64, "WAL"), (100, 1, "WAL"), (writes, 1, "DELETE")] {
        println!("\n{writes} writes over {rows} rows, {lanes} lanes, journal_mode = {journal}");
        runtime.block_on(drain(writes, rows, lanes, journal));
    }
    println!("\n{writes} writes over {writes} rows, 1 lane, queued by a process that was killed");
    killed(writes);
}

/// A folder with an empty table of a database in this journal mode.
fn shop(journal: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let database = rusqlite::Connection::open(dir.path().join("shop.db")).expect("a database");
    let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, price INTEGER)";
    database.execute_batch(&format!("PRAGMA journal_mode = {journal}; {table}")).expect("a table");
    dir
}

/// A connection that keeps all others from writing.
fn hold(folder: &Path) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(folder.join("shop.db")).expect("a database");
    database.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    database
}

async fn open(folder: &Path, writes: usize, lanes: usize) -> (Lens, Dio) {
    let lens = Lens::new()
        .cache_at(folder.join("cache.redb"))
        .write_queue_capacity(2 * writes)
        .write_concurrency(lanes)
        .settings(|settings: &mut Settings| settings.drain_timeout = Duration::ZERO)
        .on_start(|dio| {
            let dio = dio.clone();
            async move { dio.reconcile(dio.master().list_values().await?).await.map(drop) }
        })
        .build()
        .expect("a lens");
    let options = SqliteOptions::default();
    let vista = Sqlite::open("orders", folder.join("shop.db"), "orders", options).await.expect("the table");
    let dio = lens.make_dio(vista).await.expect("a dio");
    (lens, dio)
}

/// Accepts so many writes over so many rows.
async fn accept(dio: &Dio, writes: usize, rows: usize) {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let writer = || {
        let (dio, next) = (dio.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= writes {
                    return;
                }
                let cells = [("item".to_string(), "Muffin".into()), ("price".to_string(), (number as i64).into())];
                let op = WriteOp::Replace { id: (number % rows + 1).to_string(), record: Record::from_iter(cells) };
                dio.write(op, WriteOptions::default()).await.expect("an accepted write");
            }
        })
    };
    for writer in (0..WRITERS).map(|_| writer()).collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
}

/// CPU time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Waits until everything is settled; prints the rate of each tenth, the first counted from the first settlement.
async fn watch(dio: &Dio, writes: usize) {
    while dio.status().queued == writes {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (began, spent) = (Instant::now(), cpu());
    let mut rates = Vec::new();
    let (mut since, mut left) = (began, dio.status().queued);
    for tenth in (0..10).rev() {
        while dio.status().queued > writes * tenth / 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let now = dio.status().queued;
        rates.push((left - now) as f64 / since.elapsed().as_secs_f64());
        (since, left) = (Instant::now(), now);
    }
    let per_write = (cpu() - spent).as_secs_f64() * 1e3 / writes as f64;
    let (first, last) = (rates[0], rates[9]);
    println!("  drained in {:.1} s, {per_write:.3} ms of CPU a write", began.elapsed().as_secs_f64());
    println!("  first tenth {first:.0}/s, last tenth {last:.0}/s: {:.2}", first / last);
    println!("  each tenth: {}", rates.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(" "));
}

async fn drain(writes: usize, rows: usize, lanes: usize, journal: &str) {
    let dir = shop(journal);
    let (lens, dio) = open(dir.path(), writes, lanes).await;
    let lock = hold(dir.path());
    let (began, spent) = (Instant::now(), cpu());
    accept(&dio, writes, rows).await;
    let (took, spent) = (began.elapsed().as_secs_f64(), (cpu() - spent).as_secs_f64());
    println!("  accepted {:.0}/s, {:.3} ms of CPU a write", writes as f64 / took, spent * 1e3 / writes as f64);
    lock.execute_batch("ROLLBACK").expect("no lock");
    watch(&dio, writes).await;
    drop(dio);
    lens.close().await;
}

/// Accepts writes and waits to be killed.
async fn fill(folder: &Path, writes: usize) {
    let (_lens, dio) = open(folder, writes, 1).await;
    println!("open");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a word that the database is held");
    accept(&dio, writes, writes).await;
    println!("accepted");
    std::future::pending::<()>().await;
}

async fn drain_found(folder: &Path, writes: usize) {
    let began = Instant::now();
    let (lens, dio) = open(folder, writes, 1).await;
    println!("  open again after {:.2} s with {} writes queued", began.elapsed().as_secs_f64(), dio.status().queued);
    watch(&dio, writes).await;
    drop(dio);
    lens.close().await;
}

fn killed(writes: usize) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let dir = shop("WAL");
    let own = std::env::current_exe().expect("this program");
    let arguments =
        |what: &str| [what.to_string(), dir.path().display().to_string(), "--writes".into(), writes.to_string()];
    let mut child = Command::new(&own)
        .args(arguments("--fill"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    lines.next();
    let lock = hold(dir.path());
    child.stdin.take().expect("its input").write_all(b"held\n").expect("a word");
    lines.next();
    child.kill().expect("kill -9");
    child.wait().expect("its end");
    drop(lock);
    let status = Command::new(&own).args(arguments("--drain")).status().expect("a process");
    assert!(status.success());
}
