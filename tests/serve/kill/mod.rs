//! SIGKILL, SIGTERM and damaged files under load: whatever was acknowledged is there afterwards, in the order it was told.
//!
//! `DIORAMA_KILL_CYCLES=500` runs more lives than the test command does, `DIORAMA_KILL_SEED=N` those of an earlier run.

mod ledger;
mod load;
mod stock;
mod subscriber;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;

use crate::process::{PATIENCE, Server, run};
use ledger::{Ledger, Rows, Sent};
use load::{Client, DIOS, Dice, Wire, World, position, refresh_and_read, row_of, send_again};
use stock::Stock;
use subscriber::{Event, Heard, Subscriber};

const CONFIG: &str = r#"
[server]
drain_timeout = "300ms"

[lens]
cache = "cache.redb"
refresh_every = "400ms"

[dio.orders]
source = { sqlite = "shop.db", table = "orders" }

[dio.products]
source = { csv = "products.csv" }
write = { sqlite = "shop.db", table = "products" }
write_concurrency = 2

[dio.stock]
source = { sqlite = "stock.db", table = "stock" }
version = "v"

[webhook.stock]
auth = { scheme = "bearer", secrets = ["env:TOKEN"] }
"#;

/// Resources with events.
const ALL: [&str; 3] = ["orders", "products", "stock"];
/// Rows that the read-only source has from the beginning; nobody writes to them.
const SOURCE: &str = "id,item,n\ncsv-1,Muffin,1\ncsv-2,Bun,2\n";

fn kill_folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("products.csv"), SOURCE).unwrap();
    std::fs::write(dir.path().join("diorama.toml"), CONFIG).unwrap();
    let tables = DIOS.map(|dio| format!("CREATE TABLE {dio} (id TEXT PRIMARY KEY, item TEXT, n INTEGER);")).concat();
    shop(dir.path()).execute_batch(&format!("PRAGMA journal_mode = WAL; {tables}")).unwrap();
    dir
}

fn shop(dir: &Path) -> Connection {
    let shop = Connection::open(dir.join("shop.db")).unwrap();
    shop.busy_timeout(Duration::from_secs(10)).unwrap();
    shop
}

/// The rows of a table as SQLite has them, and those of the file in front of it.
fn stored(dir: &Path, dio: &str) -> Rows {
    let shop = shop(dir);
    let mut select = shop.prepare(&format!("SELECT id, item, n FROM {dio}")).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get::<_, i64>(2)? as u64)))).unwrap();
    let mut rows: Rows = rows.map(Result::unwrap).collect();
    if dio == "products" {
        rows.extend([("csv-1".into(), ("Muffin".into(), 1)), ("csv-2".into(), ("Bun".into(), 2))]);
    }
    rows
}

/// All rows as a list shows them, and the position.
fn listed(wire: &mut Wire, dio: &str) -> (Rows, String, u64) {
    let answer = wire.get(&format!("/{dio}?limit=10000")).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let (epoch, seq) = position(&answer);
    (answer.json().as_array().unwrap().iter().map(row_of).collect(), epoch, seq)
}

/// How a life of the server ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Kill,
    Terminate,
}

/// What is done to the cache file between two lives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    None,
    Truncate,
    Empty,
    Garbage,
    Flips,
    ZeroPage,
    Delete,
}

impl Damage {
    /// Whether no start can overlook it.
    fn is_plain(self) -> bool {
        matches!(self, Damage::Truncate | Damage::Empty | Damage::Garbage)
    }

    fn inflict(self, path: &Path, dice: &mut Dice) {
        let mut bytes = std::fs::read(path).unwrap();
        let length = bytes.len() as u64;
        match self {
            Damage::None => return,
            Damage::Delete => return std::fs::remove_file(path).unwrap(),
            Damage::Truncate => bytes.truncate(length as usize / 2),
            Damage::Empty => bytes.clear(),
            Damage::Garbage => bytes[..64].fill(0xa5),
            Damage::Flips => (0..40).for_each(|_| bytes[dice.roll(length) as usize] ^= 1 << dice.roll(8)),
            Damage::ZeroPage => {
                let at = dice.roll(length / 4096) as usize * 4096;
                bytes[at..at + 4096].fill(0);
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
}

/// Where a resource's events have been followed to.
#[derive(Default)]
struct Place {
    epoch: String,
    heard: u64,
    /// The highest position that anybody was told.
    highest: u64,
}

/// The lives of one server, and what is known of them.
struct Trial {
    dir: TempDir,
    log: PathBuf,
    dice: Dice,
    ledgers: HashMap<&'static str, Ledger>,
    stock: Stock,
    places: HashMap<&'static str, Place>,
    /// Operations that were not seen to be applied yet.
    pending: HashSet<String>,
    /// Some writes with a key that were acknowledged in an earlier life.
    keyed: Vec<(Sent, String)>,
    numbers: u64,
    figures: BTreeMap<&'static str, u64>,
}

impl Trial {
    fn new(seed: u64) -> Trial {
        let dir = kill_folder();
        let stock = Stock::open(dir.path());
        let ledgers = DIOS.map(|dio| (dio, Ledger { rows: stored(dir.path(), dio) })).into();
        Trial {
            log: dir.path().join("log"),
            dir,
            dice: Dice(seed),
            ledgers,
            stock,
            places: HashMap::new(),
            pending: HashSet::new(),
            keyed: Vec::new(),
            numbers: 1,
            figures: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str, by: u64) {
        *self.figures.entry(what).or_default() += by;
    }

    fn start(&mut self) -> Server {
        if self.dice.roll(4) == 0 {
            // A start that does not live to be ready.
            let mut short = Server::launch_logged(self.dir.path(), &self.log);
            std::thread::sleep(Duration::from_micros(self.dice.roll(60_000)));
            short.kill();
            self.count("killed while starting", 1);
        }
        let mut server = Server::launch_logged(self.dir.path(), &self.log);
        server.wait_for("ready");
        assert_eq!(server.get("/readyz").status, 200);
        if self.places.is_empty() {
            let mut wire = Wire::connect(&server.address).unwrap();
            for dio in ALL {
                let (epoch, seq) = position(&wire.get(&format!("/{dio}")).unwrap());
                self.places.insert(dio, Place { epoch, heard: seq, highest: seq });
            }
        }
        server
    }

    /// Loads the server and ends it in the midst of it.
    fn live(&mut self, server: &mut Server, end: End) -> (Vec<Sent>, HashMap<&'static str, Heard>) {
        let numbers = AtomicU64::new(self.numbers);
        let world = World { address: server.address.clone(), acknowledged: AtomicU64::new(0), numbers };
        let known: HashMap<&'static str, Rows> =
            self.ledgers.iter().map(|(dio, ledger)| (*dio, ledger.rows.clone())).collect();
        let mut dice = || Dice(self.dice.roll(u64::MAX));
        let (w, known) = (&world, &known);
        let mut sent = Vec::new();
        let mut heard = HashMap::new();
        let (target, moment) = (dice().roll(120), Duration::from_micros(dice().roll(8_000)));
        std::thread::scope(|scope| {
            let mut listeners = Vec::new();
            for dio in ALL {
                let place = &self.places[dio];
                let subscriber = Subscriber::connect(&w.address, dio, &place.epoch, place.heard).unwrap();
                listeners.push((dio, scope.spawn(move || subscriber.listen())));
            }
            let mut clients = Vec::new();
            for name in ["ann", "bob", "cyd"] {
                let client = Client::connect(name, dice(), w, known).unwrap();
                clients.push(scope.spawn(move || client.write_rows()));
            }
            let bulk = Client::connect("dan", dice(), w, known).unwrap();
            clients.push(scope.spawn(move || bulk.write_bulk()));
            let (of_stock, of_reader, stock) = (dice(), dice(), &mut self.stock);
            let hooks = scope.spawn(move || stock.deliver(of_stock, w));
            let reader = scope.spawn(move || drop(refresh_and_read(of_reader, &w.address)));
            let deadline = Instant::now() + PATIENCE;
            while w.acknowledged.load(Ordering::Relaxed) < target && !clients.iter().any(|client| client.is_finished())
            {
                assert!(Instant::now() < deadline, "the load does not get on");
                std::thread::yield_now();
            }
            std::thread::sleep(moment);
            match end {
                End::Kill => server.kill(),
                End::Terminate => server.signal("TERM"),
            }
            clients.into_iter().for_each(|client| sent.extend(client.join().unwrap()));
            hooks.join().unwrap();
            reader.join().unwrap();
            heard.extend(listeners.into_iter().map(|(dio, listener)| (dio, listener.join().unwrap())));
        });
        self.numbers = world.numbers.into_inner();
        (sent, heard)
    }

    /// A server that was asked to stop has said goodbye, and what is left.
    fn check_end(&mut self, server: &mut Server, heard: &HashMap<&'static str, Heard>) -> Vec<&'static str> {
        assert!(server.ended().success(), "{:#?}", server.printed);
        assert_eq!(server.printed.last().unwrap(), "stopped");
        for (dio, heard) in heard {
            assert_eq!(heard.closed, heard.hello.as_ref().map(|_| 1001), "{dio}");
        }
        let left = |dio: &&str| {
            let start = format!("{dio}: ");
            server
                .printed
                .iter()
                .any(|line| line.starts_with(&start) && line.contains("writes are left in the journal"))
        };
        let (left, drained): (Vec<_>, Vec<_>) = DIOS.into_iter().partition(left);
        self.count("stopped with writes left", u64::from(!left.is_empty()));
        drained
    }

    /// What a new life shows is explained by what was said before.
    fn check_start(&mut self, server: &Server, sent: &[Sent], heard: &HashMap<&'static str, Heard>) {
        let mut wire = Wire::connect(&server.address).unwrap();
        for dio in DIOS {
            let mine: Vec<&Sent> = sent.iter().filter(|one| one.dio == dio).collect();
            let (rows, epoch, seq) = listed(&mut wire, dio);
            let ledger = self.ledgers.get_mut(dio).unwrap();
            ledger.settle(&mine, &rows).unwrap_or_else(|why| panic!("{dio}: {why}"));
            for one in mine.iter().rev().take(20) {
                assert_eq!(wire.row(dio, &one.id).unwrap(), rows.get(&one.id).cloned(), "{}", one.id);
            }
            let acknowledged = mine.iter().filter_map(|one| match one.outcome {
                ledger::Outcome::Acknowledged { seq, .. } => Some(seq),
                ledger::Outcome::Doubt => None,
            });
            let place = self.places.get_mut(dio).unwrap();
            place.highest = acknowledged.fold(place.highest, u64::max);
            assert_eq!(epoch, place.epoch, "{dio} has another epoch");
            assert!(seq >= place.highest, "{dio} went back from {} to {seq}", place.highest);
        }
        for dio in ALL {
            self.check_events(server, &mut wire, dio, &heard[dio], sent);
        }
        let (acknowledged, doubts) =
            (sent.iter().filter(|one| !one.is_doubt()).count(), sent.iter().filter(|one| one.is_doubt()).count());
        self.count("acknowledged writes", acknowledged as u64);
        self.count("writes in doubt", doubts as u64);
        for operation in sent.iter().filter_map(Sent::operation) {
            self.pending.insert(operation.to_string());
        }
        self.check_operations(&mut wire, false);
        self.repeat(&mut wire, sent);
        let (deliveries, doubts) = self.stock.check(&server.address);
        self.figures.insert("acknowledged deliveries", deliveries);
        self.count("deliveries in doubt", doubts);
    }

    /// The log has what was told, and nothing between.
    fn check_events(&mut self, server: &Server, wire: &mut Wire, dio: &'static str, heard: &Heard, sent: &[Sent]) {
        let place = self.places.get_mut(dio).unwrap();
        let (_, head) = position(&wire.get(&format!("/{dio}?limit=1")).unwrap());
        let witness = Subscriber::connect(&server.address, dio, &place.epoch, place.heard).unwrap().until(head);
        assert_eq!(witness.resets, [""; 0], "{dio}: a restart must not cost a subscriber its place");
        assert_eq!(heard.resets, [""; 0], "{dio}: nobody was too slow");
        let log: Vec<&Event> = witness.events.iter().filter(|event| event.seq <= heard.last).collect();
        for (told, logged) in heard.events.iter().zip(&log) {
            assert_eq!(told, *logged, "{dio}: what was told is not what the log has");
        }
        assert_eq!(heard.events.len(), log.len(), "{dio}: up to {}", heard.last);
        let logged: HashSet<(&str, &str)> =
            witness.events.iter().filter_map(|event| Some((event.op.as_deref()?, event.id.as_deref()?))).collect();
        let changes = witness.events.iter().filter(|event| event.kind.starts_with("Record"));
        let operations: HashSet<&str> = changes.filter_map(|event| event.op.as_deref()).collect();
        for one in sent.iter().filter(|one| one.dio == dio) {
            let Some(operation) = one.operation() else { continue };
            assert!(operations.contains(operation), "{dio}: no event tells of {one:?}");
            // Operations of a write by filter come in no order.
            let exact = one.id.starts_with("dan") || logged.contains(&(operation, one.id.as_str()));
            assert!(exact, "{dio}: {operation} is not about {}", one.id);
        }
        place.highest = place.highest.max(head);
        place.heard = heard.last.max(place.heard);
        let told = heard.events.len() as u64;
        self.count("events heard", told);
    }

    /// Operations are known; with `all`, every one has been applied.
    fn check_operations(&mut self, wire: &mut Wire, all: bool) {
        let failed = wire.get("/operations?state=failed").unwrap();
        assert_eq!(failed.body, "[]", "an acknowledged write failed");
        let pending = std::mem::take(&mut self.pending);
        for operation in pending {
            let answer = wire.get(&format!("/operations/{operation}")).unwrap();
            assert_eq!(answer.status, 200, "{operation} is not known: {answer:?}");
            let state = answer.json()["state"].as_str().unwrap().to_string();
            match state.as_str() {
                "applied" => {}
                "queued" | "running" | "unknown" if !all => drop(self.pending.insert(operation)),
                _ => panic!("{operation} is {state}"),
            }
        }
    }

    /// Writes with a key are sent again: those that were accepted are not accepted twice.
    fn repeat(&mut self, wire: &mut Wire, sent: &[Sent]) {
        for (one, operation) in std::mem::take(&mut self.keyed) {
            let before = wire.row(one.dio, &one.id).unwrap();
            assert_eq!(send_again(wire, &one), (operation, true), "{one:?}");
            assert_eq!(wire.row(one.dio, &one.id).unwrap(), before, "{one:?} was applied twice");
            self.count("repetitions", 1);
        }
        let keyed: Vec<Sent> = sent.iter().filter(|one| one.key.is_some()).cloned().collect();
        for one in &keyed {
            let before = wire.row(one.dio, &one.id).unwrap();
            let possible = one.effect.on(&before);
            if one.is_doubt() && possible.is_err() && !self.shows(one, &before) {
                panic!("{one:?} can neither have been accepted nor be now: {before:?}");
            }
            let (operation, replayed) = send_again(wire, one);
            let after = wire.row(one.dio, &one.id).unwrap();
            match (one.operation(), replayed) {
                (Some(known), replayed) => {
                    assert_eq!((known, replayed), (operation.as_str(), true), "{one:?}");
                    assert_eq!(after, before, "{one:?} was applied twice");
                }
                (None, true) => assert_eq!(after, before, "{one:?} was applied twice"),
                (None, false) => {
                    assert_eq!(Ok(&after), possible.as_ref(), "{one:?}");
                    self.count("accepted at the second try", 1);
                }
            }
            match after {
                Some(row) => drop(self.ledgers.get_mut(one.dio).unwrap().rows.insert(one.id.clone(), row)),
                None => drop(self.ledgers.get_mut(one.dio).unwrap().rows.remove(&one.id)),
            }
            let (_, seq) = position(&wire.get(&format!("/{}?limit=1", one.dio)).unwrap());
            let place = self.places.get_mut(one.dio).unwrap();
            place.highest = place.highest.max(seq);
            self.pending.insert(operation);
        }
        self.count("repetitions", keyed.len() as u64);
        let certain = keyed.into_iter().filter_map(|one| Some((one.clone(), one.operation()?.to_string())));
        self.keyed = certain.take(8).collect();
    }

    /// Whether the row is what `one` makes of a row.
    fn shows(&self, one: &Sent, row: &ledger::Row) -> bool {
        use ledger::Effect;
        match (&one.effect, row) {
            (Effect::Insert(item, n), Some(row)) => row == &(item.clone(), *n),
            (Effect::Delete, None) => true,
            _ => false,
        }
    }

    /// Waits until every write is delivered; then the sources have what was acknowledged, and a refresh changes nothing.
    fn settle(&mut self, server: &Server) {
        let mut wire = Wire::connect(&server.address).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = wire.get("/readyz").unwrap().json();
            if DIOS.iter().all(|dio| ready["dios"][dio]["queued"] == 0) {
                break;
            }
            assert!(Instant::now() < deadline, "writes do not get through: {ready}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.check_operations(&mut wire, true);
        for dio in DIOS {
            assert_eq!(stored(self.dir.path(), dio), self.ledgers[dio].rows, "{dio}: SQLite has something else");
            let answer = wire.ask("POST", &format!("/{dio}/_refresh"), &[], "").unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(listed(&mut wire, dio).0, self.ledgers[dio].rows, "{dio}: after a refresh");
        }
        self.count("times settled", 1);
    }

    /// The cache file is damaged while nobody looks.
    fn damage(&mut self, damage: Damage) {
        if damage != Damage::None {
            self.stock.catch_up();
        }
        damage.inflict(&self.dir.path().join("cache.redb"), &mut self.dice);
    }

    fn set_aside(&self) -> usize {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains(".corrupt-")).count()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(30).collect();
            eprintln!("the servers said last:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The damage after cycle number `at`, the last of which loses the file.
fn damage_after(at: usize, cycles: usize) -> Damage {
    let kinds = [Damage::Truncate, Damage::Flips, Damage::ZeroPage, Damage::Garbage, Damage::Flips, Damage::Empty];
    match at {
        at if at + 1 == cycles => Damage::Delete,
        at if at % 3 == 2 => kinds[at / 3 % kinds.len()],
        _ => Damage::None,
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_over_sigkill_sigterm_and_damaged_caches() {
    let cycles = variable("DIORAMA_KILL_CYCLES").unwrap_or(20) as usize;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = variable("DIORAMA_KILL_SEED").unwrap_or(now);
    eprintln!("DIORAMA_KILL_SEED={seed}");
    let mut trial = Trial::new(seed);
    let mut server = trial.start();
    for at in 0..cycles {
        let end = if trial.dice.roll(3) == 0 { End::Terminate } else { End::Kill };
        let damage = damage_after(at, cycles);
        eprintln!("life {at}: {end:?}, then {damage:?}");
        let (sent, heard) = trial.live(&mut server, end);
        let drained = match end {
            End::Terminate => trial.check_end(&mut server, &heard),
            End::Kill => Vec::new(),
        };
        let stored: Vec<_> = drained.into_iter().map(|dio| (dio, stored(trial.dir.path(), dio))).collect();
        trial.damage(damage);
        let aside = trial.set_aside();
        server = trial.start();
        assert!(!damage.is_plain() || trial.set_aside() > aside, "{damage:?} was overlooked");
        trial.check_start(&server, &sent, &heard);
        for (dio, stored) in stored {
            let repeated: HashSet<&str> =
                sent.iter().filter(|one| one.key.is_some()).map(|one| one.id.as_str()).collect();
            let rows = trial.ledgers[dio].rows.iter().chain(&stored).filter(|(id, _)| !repeated.contains(id.as_str()));
            for (id, _) in rows {
                assert_eq!(trial.ledgers[dio].rows.get(id), stored.get(id), "{dio}/{id} was drained");
            }
        }
        if damage != Damage::None || at % 4 == 3 {
            trial.settle(&server);
        }
    }
    let said = std::fs::read_to_string(&trial.log).unwrap();
    assert_eq!(said.matches("it is set aside and filled again").count(), trial.set_aside(), "each is said once");
    let aside = trial.set_aside() as u64;
    trial.count("caches set aside", aside);
    assert!(trial.figures["acknowledged writes"] > cycles as u64);
    eprintln!("{cycles} lives: {:#?}", trial.figures);
    server.signal("TERM");
    assert!(server.ended().success());
}

/// A folder whose journal holds writes that were acknowledged and not delivered, with the server gone.
fn killed_folder() -> TempDir {
    let dir = kill_folder();
    drop(Stock::open(dir.path()));
    let mut server = Server::start(dir.path(), &[]);
    for at in 0..40 {
        assert_eq!(server.post(&format!("/orders/o{at}"), &json!({ "item": "Bun", "n": at }).to_string()).status, 202);
    }
    server.kill();
    dir
}

#[test]
fn a_damaged_journal_stops_the_start_and_stays_as_it_is() {
    let dir = killed_folder();
    let path = dir.path().join("cache.journal.redb");
    let whole = std::fs::read(&path).unwrap();
    let mut dice = Dice(7);
    for damage in [Damage::Truncate, Damage::Empty, Damage::Garbage] {
        damage.inflict(&path, &mut dice);
        let damaged = std::fs::read(&path).unwrap();
        let output = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{damage:?}: {said}");
        assert!(
            said.contains("cache.journal.redb") && said.contains("holds acknowledged writes"),
            "{damage:?}: {said}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "{damage:?}: the journal was touched");
        std::fs::write(&path, &whole).unwrap();
    }
    let server = Server::start(dir.path(), &[]);
    assert!((0..40).all(|at| server.get(&format!("/orders/o{at}")).status == 200), "the restored journal has all");
    let second = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{said}");
    assert!(said.contains("cache.redb") && said.contains("in use by another process"), "{said}");
    assert_eq!(server.get("/orders/o1").status, 200);
}
