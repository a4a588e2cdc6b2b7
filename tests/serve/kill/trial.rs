//! The lives of one server under load, one after the other on the same files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::damage::Damage;
use super::ledger::{Ledger, Rows, Sent};
use super::load::{Client, DIOS, World, refresh_and_read};
use super::stock::Stock;
use super::subscriber::{Heard, Subscriber};
use super::wire::{Wire, position};
use super::{ALL, kill_folder, stored};
use crate::harness::Random;
use crate::process::{PATIENCE, Server};

/// How a life of the server ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Kill,
    Terminate,
}

/// Where a resource's events have been followed to.
#[derive(Default)]
pub(super) struct Place {
    pub(super) epoch: String,
    pub(super) heard: u64,
    /// The highest position that anybody was told.
    pub(super) highest: u64,
}

/// The lives of one server, and what is known of them.
pub(super) struct Trial {
    pub(super) dir: TempDir,
    pub(super) log: PathBuf,
    pub(super) random: Random,
    pub(super) ledgers: HashMap<&'static str, Ledger>,
    pub(super) stock: Stock,
    pub(super) places: HashMap<&'static str, Place>,
    /// Operations that were not seen to be applied yet.
    pub(super) pending: HashSet<String>,
    /// Some writes with a key that were acknowledged in an earlier life.
    pub(super) keyed: Vec<(Sent, String)>,
    pub(super) numbers: u64,
    pub(super) figures: BTreeMap<&'static str, u64>,
}

impl Trial {
    pub(super) fn new(seed: u64) -> Trial {
        let dir = kill_folder();
        let stock = Stock::open(dir.path());
        let ledgers = DIOS.map(|dio| (dio, Ledger { rows: stored(dir.path(), dio) })).into();
        Trial {
            log: dir.path().join("log"),
            dir,
            random: Random(seed),
            ledgers,
            stock,
            places: HashMap::new(),
            pending: HashSet::new(),
            keyed: Vec::new(),
            numbers: 1,
            figures: BTreeMap::new(),
        }
    }

    pub(super) fn count(&mut self, what: &'static str, by: u64) {
        *self.figures.entry(what).or_default() += by;
    }

    pub(super) fn start(&mut self) -> Server {
        if self.random.below(4) == 0 {
            // A start that does not live to be ready.
            let mut short = Server::launch_logged(self.dir.path(), &self.log);
            std::thread::sleep(Duration::from_micros(self.random.below(60_000)));
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
    pub(super) fn live(&mut self, server: &mut Server, end: End) -> (Vec<Sent>, HashMap<&'static str, Heard>) {
        let numbers = AtomicU64::new(self.numbers);
        let world = World { address: server.address.clone(), acknowledged: AtomicU64::new(0), numbers };
        let known: HashMap<&'static str, Rows> =
            self.ledgers.iter().map(|(dio, ledger)| (*dio, ledger.rows.clone())).collect();
        let mut random = || Random(self.random.below(usize::MAX));
        let (w, known) = (&world, &known);
        let mut sent = Vec::new();
        let mut heard = HashMap::new();
        let (target, moment) = (random().below(120), Duration::from_micros(random().below(8_000)));
        std::thread::scope(|scope| {
            let mut listeners = Vec::new();
            for dio in ALL {
                let place = &self.places[dio];
                let subscriber = Subscriber::connect(&w.address, dio, &place.epoch, place.heard).unwrap();
                listeners.push((dio, scope.spawn(move || subscriber.listen())));
            }
            let mut clients = Vec::new();
            for name in ["ann", "bob", "cyd"] {
                let client = Client::connect(name, random(), w, known).unwrap();
                clients.push(scope.spawn(move || client.write_rows()));
            }
            let bulk = Client::connect("dan", random(), w, known).unwrap();
            clients.push(scope.spawn(move || bulk.write_bulk()));
            let (of_stock, of_reader, stock) = (random(), random(), &mut self.stock);
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
    pub(super) fn check_end(&mut self, server: &mut Server, heard: &HashMap<&'static str, Heard>) -> Vec<&'static str> {
        assert!(server.ended().success(), "{:#?}", server.printed);
        assert_eq!(server.printed.last().unwrap(), "stopped");
        for (dio, heard) in heard {
            assert_eq!(heard.closed, heard.hello.as_ref().map(|_| 1001), "{dio}");
        }
        let left = |dio: &&str| {
            let start = format!("{dio}: ");
            server.printed.iter().any(|line| line.starts_with(&start) && line.contains("writes remain in the journal"))
        };
        let (left, drained): (Vec<_>, Vec<_>) = DIOS.into_iter().partition(left);
        self.count("stopped with writes left", u64::from(!left.is_empty()));
        drained
    }

    /// The cache file is damaged while nobody looks.
    pub(super) fn damage(&mut self, damage: Damage) {
        if damage != Damage::None {
            self.stock.catch_up();
        }
        damage.inflict(&self.dir.path().join("cache.redb"), &mut self.random);
    }

    /// How often a cache was set aside: the newest file's number, because of the files only the newest few are kept.
    pub(super) fn set_aside(&self) -> usize {
        let files = std::fs::read_dir(self.dir.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
        names.filter_map(|name| name.split_once(".corrupt-")?.1.parse().ok()).max().unwrap_or(0)
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
