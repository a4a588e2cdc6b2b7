//! Writes that go to a topic and come back from another one: the database behind them is written by somebody else.

mod application;
mod broker;
mod storm;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::sync::RwLock;

use self::application::Application;
use self::broker::Broker;
use crate::harness::Random;
use crate::process::Server;

const PATIENCE: Duration = Duration::from_secs(60);
const WRITES: usize = 120;

fn database(dir: &Path) -> Connection {
    let database = Connection::open(dir.join("shop.db")).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    database
}

/// Rows by id: price, and number of the change.
type Rows = BTreeMap<String, (Option<i64>, Option<i64>)>;

/// Rows of the database.
fn stored(dir: &Path) -> Rows {
    let database = database(dir);
    let mut rows = database.prepare("SELECT id, price, rev FROM products").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn shown(server: &Server) -> Rows {
    let rows = server.get("/products?limit=10000").json();
    let row = |row: &Value| (row["id"].as_str().unwrap().to_string(), (row["price"].as_i64(), row["rev"].as_i64()));
    rows.as_array().unwrap().iter().map(row).collect()
}

fn prices(rows: Rows) -> BTreeMap<String, Option<i64>> {
    rows.into_iter().map(|(id, (price, _))| (id, price)).collect()
}

/// A client whose rows nobody else writes: what it was told is what it reads, at any time. It writes a row again when its last change
/// has come back. A row that it has deleted may be shown again while late changes arrive.
#[derive(Default)]
struct Client {
    /// Number of rows that it may have.
    ids: usize,
    rows: BTreeMap<String, Option<i64>>,
    deleted: BTreeSet<String>,
    operations: Vec<String>,
}

impl Client {
    fn check(&self, server: &Server) {
        let mut shown = prices(shown(server));
        shown.retain(|id, _| id.starts_with('p') && !self.deleted.contains(id));
        let differs = self.rows.iter().find(|(id, price)| shown.get(*id) != Some(*price));
        let told =
            differs.map(|(id, _)| events(server).into_iter().filter(|event| event["id"] == **id).collect::<Vec<_>>());
        assert_eq!(shown, self.rows, "each row is there once, as it was written last: {differs:?}, {told:#?}");
    }

    /// A row that is not known yet, or whose last change has come back; `None` if that is not found soon.
    fn choose(&self, dir: &Path, server: &Server, random: &mut Random) -> Option<String> {
        let ids = (0..20).map(|_| format!("p{}", random.below(self.ids)));
        let is_settled = |id: &String| !self.rows.contains_key(id) || shown(server).get(id) == stored(dir).get(id);
        ids.into_iter().find(|id| !self.deleted.contains(id) && is_settled(id))
    }

    /// Writes a row; returns false if there is none to be written now.
    fn write(&mut self, dir: &Path, server: &Server, random: &mut Random) -> bool {
        let Some(id) = self.choose(dir, server, random) else { return false };
        let price = i64::try_from(random.below(100_000)).unwrap();
        let path = format!("/products/{id}");
        let body = json!({ "price": price }).to_string();
        let kind = [("content-type", "application/json")];
        let (answer, after) = match (self.rows.contains_key(&id), random.below(10)) {
            (false, _) => (server.request("POST", &path, &kind, &body), Some(price)),
            (true, 0) => (server.request("DELETE", &path, &[], ""), None),
            (true, _) => (server.request("PATCH", &path, &kind, &body), Some(price)),
        };
        assert!((200..300).contains(&answer.status), "{answer:?}");
        let operation = answer.raw_header("dio-operation").unwrap().trim_start_matches("/operations/").to_string();
        self.operations.push(operation);
        match after {
            Some(price) => drop(self.rows.insert(id, Some(price))),
            None => {
                self.rows.remove(&id);
                self.deleted.insert(id);
            }
        }
        self.check(server);
        true
    }
}

/// The events since the beginning.
fn events(server: &Server) -> Vec<Value> {
    let answer = server.get("/products/events?since=earliest");
    answer.body.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes go to a topic, an application writes them to the database, and its changes come back, over kill -9 of the server and of the
/// broker.
#[test]
fn a_write_over_a_topic_is_one_visible_row_and_committed_once() {
    let Some(broker) = Broker::kafka() else { return };
    let world = World::new(broker);
    world.run(None, || story(world.dir.path(), &world.broker));
}

/// A broker with its topics, and a folder with the database and the configuration.
struct World {
    dir: tempfile::TempDir,
    broker: RwLock<Broker>,
    is_over: AtomicBool,
    /// True when the application makes no more changes of its own.
    is_calm: AtomicBool,
}

impl World {
    fn new(broker: Broker) -> World {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path())
            .execute_batch("CREATE TABLE products (id TEXT PRIMARY KEY, price INTEGER, rev INTEGER)")
            .unwrap();
        let configuration = format!(
            "[lens]\ncache = \"cache.redb\"\n[dio.products]\n\
             source = {{ sqlite = \"shop.db\", table = \"products\" }}\nversion = \"rev\"\n{}",
            broker.configuration()
        );
        std::fs::write(dir.path().join("diorama.toml"), configuration).unwrap();
        World { dir, broker: RwLock::new(broker), is_over: AtomicBool::new(false), is_calm: AtomicBool::new(false) }
    }

    /// Runs `story` beside the application, which also makes changes of its own with `own`.
    fn run(&self, own: Option<Random>, story: impl FnOnce()) {
        let application = Application::new(&self.broker, database(self.dir.path()), own, &self.is_calm);
        std::thread::scope(|scope| {
            scope.spawn(|| application.run(&self.is_over));
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
            self.is_over.store(true, Ordering::Release);
            if let Err(panic) = ended {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

fn story(dir: &Path, broker: &RwLock<Broker>) {
    let seed = RandomState::new().hash_one(0);
    eprintln!("seed {seed}");
    let (mut random, mut client) = (Random(seed), Client { ids: 40, ..Client::default() });
    let mut server = Server::start(dir, &[]);
    for number in 1..=WRITES {
        while !client.write(dir, &server, &mut random) {}
        if number % 40 == 20 {
            server.kill();
            server = Server::start(dir, &[]);
            client.check(&server);
        } else if number % 40 == 0 {
            let mut broker = broker.blocking_write();
            broker.kill();
            broker.restart();
        }
    }
    settle(dir, &server, &mut client);
}

/// Waits until every write has come back, and checks that each is committed once. Returns the events.
fn settle(dir: &Path, server: &Server, client: &mut Client) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    let committed = |events: &[Value]| {
        let ended = events.iter().filter(|event| event["type"] == "WriteCommitted");
        ended.map(|event| event["op"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    let own = |mut rows: Rows| {
        rows.retain(|id, _| id.starts_with('p'));
        prices(rows)
    };
    let is_settled = || own(stored(dir)) == client.rows && shown(server) == stored(dir);
    while committed(&events(server)).len() < client.operations.len() || !is_settled() {
        if Instant::now() > deadline {
            let (count, stored, shown) = (committed(&events(server)).len(), stored(dir), shown(server));
            let ids: BTreeSet<&String> = stored.keys().chain(shown.keys()).collect();
            let differs = |id: &&String| stored.get(*id) != shown.get(*id);
            let rows: Vec<_> = ids.into_iter().filter(differs).map(|id| (id, stored.get(id), shown.get(id))).collect();
            let (writes, ready) = (client.operations.len(), server.get("/readyz").body);
            panic!("{count} of {writes} writes committed; stored and shown: {rows:?}; {ready}");
        }
        client.check(server);
        std::thread::sleep(Duration::from_millis(50));
    }
    let events = events(server);
    let mut committed = committed(&events);
    committed.sort_unstable();
    client.operations.sort_unstable();
    assert_eq!(committed, client.operations);
    assert!(events.iter().all(|event| event["type"] != "WriteFailed" && event["type"] != "reset"));
    events
}
