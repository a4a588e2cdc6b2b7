//! A storm over the feed of a database, PostgreSQL or MariaDB: random transactions on the server, writes through the API, and subscribers,
//! while Diorama and the server are killed and connections are cut. Rows never go back, no event is told twice, and at rest
//! everybody has the rows of the server.
//!
//! `DIORAMA_FEED_SECONDS` sets the time, which `tests/feed_storm.sh` makes ten minutes. `DIORAMA_FEED_SEED=N` makes the choices of
//! an earlier run.

mod client;
mod restart;
mod system;
mod table;
mod watcher;
mod world;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use diorama_servers::CutProxy;
use serde_json::Value;

use crate::harness::Random;
use crate::process::Server;
use client::{Client, check_own};
use system::Database;
use table::{TABLES, Table};
use watcher::{Watcher, difference};
use world::{World, pause};
use writer::Writer;

/// Seconds of a storm by default.
const SECONDS: u64 = 12;
/// Longest time without progress until all is at rest: a feed that was cut several times waits up to 30 s.
const REST: Duration = Duration::from_secs(100);
/// Longest time until all is at rest.
const LONGEST_REST: Duration = Duration::from_secs(400);
/// Longest time of a start, which reads up to 100,000 events of each table: a debug build takes up to 55 s on a busy machine.
const START: Duration = Duration::from_secs(240);

/// Configuration of a Diorama that follows the tables, or of one that only reads them.
fn config(key: &str, url: &str, follows: bool) -> String {
    let mut text = match follows {
        true => "[lens]\ncache = \"cache.redb\"\n".to_string(),
        false => "[lens]\ncache = \"memory\"\n".to_string(),
    };
    for table in TABLES.map(Table::name) {
        text += &format!(
            "[dio.{table}]\nsource = {{ {key} = \"{url}\", table = \"{table}\" }}\nmax_limit = 1_000_000\nallow_shrink = true\n{}",
            if follows { "feed = \"replication\"\n" } else { "" }
        );
    }
    text
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// The processes of a storm.
struct Storm<'w> {
    database: Box<dyn Database>,
    proxy: CutProxy,
    diorama: Server,
    dir: PathBuf,
    world: &'w World,
    random: Random,
}

impl Storm<'_> {
    fn start(dir: &Path, world: &World) -> Server {
        let begun = Instant::now();
        let mut diorama = Server::launch_logged(dir, &dir.join("log"));
        diorama.wait_within("ready", START);
        world.highest("milliseconds of the slowest start", begun.elapsed().as_millis() as u64);
        diorama
    }

    /// Waits for a random time, or until a large transaction is being applied.
    fn calm(&mut self, most: usize) {
        let large = || self.world.large_transactions.load(Ordering::Relaxed);
        let (end, before) = (Instant::now() + Duration::from_millis(self.random.below(most)), large());
        while Instant::now() < end {
            pause(10);
            if large() != before {
                return pause(self.random.below(800));
            }
        }
    }

    /// One trouble at a random moment.
    fn trouble(&mut self) {
        let moment = 100 + self.random.below(900);
        match self.random.below(11) {
            0..=2 => self.restart(moment),
            3 => {
                self.world.count("kills of the server", 1);
                self.database.kill();
                pause(moment);
                self.database.restart();
            }
            4 | 5 => {
                self.world.count("connections cut at a byte", 1);
                let bytes = [500, 20_000, 400_000][self.random.below(3) as usize];
                self.proxy.cut_after(1 + self.random.below(bytes));
                self.proxy.cut_all();
                pause(moment);
                self.proxy.cut_after(None);
                self.proxy.cut_all();
            }
            6 => {
                self.world.count("silences", 1);
                self.proxy.hold(true);
                pause(moment);
                self.proxy.hold(false);
            }
            7 => {
                self.world.count("refusals", 1);
                self.proxy.refuse(true);
                self.proxy.cut_all();
                pause(moment);
                self.proxy.refuse(false);
            }
            8 => {
                self.world.count("rotations of the log", 1);
                self.database.rotate();
            }
            _ => {
                self.world.count("cuts", 1);
                self.proxy.cut_all();
            }
        }
    }

    /// Kills Diorama and starts it again, sometimes after its positions have become useless.
    fn restart(&mut self, moment: u64) {
        self.world.count("kills of diorama", 1);
        self.world.count("refreshes", self.refreshes());
        self.diorama.kill();
        if self.random.below(3) == 0 {
            self.world.count("positions lost", 1);
            pause(200);
            let table = Table::random(&mut self.random);
            self.database.lose_position(table, &mut self.random);
        } else if self.random.below(2) == 0 {
            pause(moment);
        }
        self.diorama = Storm::start(&self.dir, self.world);
        *self.world.address.lock() = self.diorama.address.clone();
    }

    fn refreshes(&self) -> u64 {
        self.total("diorama_dio_refreshes_total")
    }

    /// Sum of a metric over the resources.
    fn total(&self, metric: &str) -> u64 {
        let metrics = self.diorama.get("/metrics").body;
        let lines = metrics.lines().filter(|line| line.starts_with(metric));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Everybody stops; then all have the rows of the server, which keeps little for its feeds if this `is_last`.
    fn rest(&mut self, watchers: &[Watcher<'_>], is_last: bool) {
        let world = self.world;
        let _resting = world.rest.write();
        let begun = Instant::now();
        for state in ["queued", "running", "unknown"] {
            self.until(&format!("no operation is {state}"), || {
                let answer = self.diorama.get(&format!("/operations?state={state}"));
                if answer.body == "[]" { Ok(()) } else { Err(answer.body) }
            });
        }
        let parked = self.diorama.get("/operations?state=parked").body;
        if parked != "[]" {
            world.fault(format!("operations are parked: {parked}"));
        }
        let expected = self.expected();
        for (table, watcher) in TABLES.into_iter().zip(watchers) {
            let expected = &expected[&table];
            self.until(&format!("{}: the rows are those of the server", table.name()), || {
                let rows = list(&self.diorama, table);
                difference(&rows, expected).map_or(Ok(()), |found| Err(with_history(&found, watcher)))
            });
            self.until(&format!("{}: the copy of the subscriber has the rows", table.name()), || {
                watcher.check_rest(expected).map_err(|found| with_history(&found, watcher))
            });
        }
        let rows: usize = expected.values().map(HashMap::len).sum();
        if is_last {
            if world.faults().is_empty() {
                self.idle();
            }
            world.end();
        }
        eprintln!("at rest after {:?}: {rows} rows, {:?}", begun.elapsed(), world.figures());
    }

    /// The rows as a Diorama without a past reads them.
    fn expected(&self) -> HashMap<Table, HashMap<String, Value>> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("diorama.toml"), config(self.world.dialect.key(), &self.database.url(), false))
            .unwrap();
        let reader = Server::start(dir.path(), &["--log", "warn"]);
        let rows: HashMap<_, _> = TABLES.into_iter().map(|table| (table, list(&reader, table))).collect();
        for table in TABLES {
            let sums = self.database.run(&format!("SELECT count(*), coalesce(sum(n), 0) FROM {}", table.name()));
            let n = rows[&table].values().filter_map(|row| row["n"].as_u64()).sum::<u64>();
            assert_eq!(format!("{}|{n}", rows[&table].len()), sums, "{}", table.name());
        }
        rows
    }

    /// Waits until `holds`, and notes a fault if it does not in time. The time begins anew while the feeds receive changes.
    fn until(&self, what: &str, mut holds: impl FnMut() -> Result<(), String>) {
        let last = Instant::now() + LONGEST_REST;
        let (mut deadline, mut received, mut next_look) = (Instant::now() + REST, 0, Instant::now());
        while let Err(found) = holds() {
            if !self.world.faults().is_empty() {
                return;
            }
            if Instant::now() > deadline {
                return self.world.fault(format!("not within {REST:?}: {what}: {found}"));
            }
            if Instant::now() > next_look {
                next_look = Instant::now() + Duration::from_secs(1);
                let now = self.total("diorama_dio_feed_messages");
                if now != received {
                    (deadline, received) = (last.min(Instant::now() + REST), now);
                }
            }
            pause(100);
        }
    }

    /// Waits until the server keeps little for an idle Diorama.
    fn idle(&self) {
        self.until("the server keeps little of its log", || self.database.check_kept());
    }
}

fn with_history(found: &str, watcher: &Watcher<'_>) -> String {
    let history = watcher.history(found.lines().next().unwrap_or_default());
    format!("{found}\nnewest frames first: {history:#?}")
}

fn list(server: &Server, table: Table) -> HashMap<String, Value> {
    let answer = server.get(&format!("/{}?limit=1000000", table.name()));
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().as_array().unwrap().iter().map(|row| (table.id_of(row), row.clone())).collect()
}

#[test]
fn never_back_a_feed_of_postgresql_in_a_storm() {
    storm(system::postgres);
}

#[test]
fn never_back_a_feed_of_mariadb_in_a_storm() {
    storm(system::mariadb);
}

fn storm(start: fn() -> Option<Box<dyn Database>>) {
    let seconds = number("DIORAMA_FEED_SECONDS").unwrap_or(SECONDS);
    let is_long = seconds >= 60;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("DIORAMA_FEED_SEED").unwrap_or(now);
    eprintln!("DIORAMA_FEED_SEED={seed}");
    let mut random = Random(seed);
    let Some(database) = start() else { return };
    let proxy = CutProxy::start(database.port());
    let dir = tempfile::tempdir().unwrap();
    let url = database.url().replace(&format!(":{}/", database.port()), &format!(":{}/", proxy.port()));
    std::fs::write(dir.path().join("diorama.toml"), config(database.dialect().key(), &url, true)).unwrap();
    let world = World::new(&*database, if is_long { 100_000 } else { 20_000 });
    let world = &world;
    let mut fork = || Random(random.below(usize::MAX));
    let (mut clients, writers) = (Vec::new(), [0, 1].map(|number| Writer::new(number, fork(), world)));
    clients.extend(TABLES.map(|table| Client::new(table, fork(), world)));
    let diorama = Storm::start(dir.path(), world);
    *world.address.lock() = diorama.address.clone();
    let mut storm = Storm { database, proxy, diorama, dir: dir.path().into(), world, random: fork() };
    let watchers = TABLES.map(|table| Watcher::new(table, world));
    std::thread::scope(|scope| {
        for watcher in &watchers {
            scope.spawn(|| watcher.watch());
        }
        let writing = writers.map(|writer| scope.spawn(|| writer.write()));
        let clients: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| client.run())).collect();
        let _end = End(world);
        let end = Instant::now() + Duration::from_secs(seconds);
        let mut next_rest = Instant::now() + Duration::from_secs(seconds.min(120) / 2);
        while Instant::now() < end && !world.is_over() {
            storm.calm(if is_long { 4_000 } else { 1_500 });
            storm.trouble();
            if Instant::now() > next_rest {
                storm.rest(&watchers, false);
                next_rest = Instant::now() + Duration::from_secs(60);
            }
        }
        storm.rest(&watchers, true);
        world.count("refreshes", storm.refreshes());
        let rows: HashMap<_, _> = TABLES.into_iter().map(|table| (table, list(&storm.diorama, table))).collect();
        for (table, client) in TABLES.into_iter().zip(clients) {
            let own = client.join().unwrap();
            check_own(&own, |path| n_of(&rows[&table], table, path), world);
        }
        writing.into_iter().for_each(|writing| writing.join().unwrap());
    });
    let faults = world.faults();
    if !faults.is_empty() {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
    eprintln!("{:#?}", world.figures());
    assert!(faults.is_empty(), "DIORAMA_FEED_SEED={seed}: {} faults, the first is {}", faults.len(), faults[0]);
    assert!(world.figures()["events"] > if is_long { 1_000 } else { 20 });
}

/// Ends the threads also after a panic.
struct End<'w>(&'w World);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn n_of(rows: &HashMap<String, Value>, table: Table, path: &str) -> Option<u64> {
    let id = path.rsplit('/').next()?;
    assert!(!table.is_truncated(), "{path}");
    rows.get(id)?["n"].as_u64()
}
