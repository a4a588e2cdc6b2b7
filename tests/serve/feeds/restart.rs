//! A restart with a copy: the feed continues where it has stopped, and the table is not listed again.

use std::path::Path;
use std::time::Instant;

use diorama_servers::PostgresServer;

use super::world::pause;
use crate::process::{PATIENCE, Server, run};

const TABLE: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t SELECT n, 0 FROM generate_series(1, 200) n;";

/// A server whose log has its statements, and a folder for Diorama.
struct World {
    postgres: PostgresServer,
    dir: tempfile::TempDir,
}

impl World {
    fn new(wal_level: &str, feed: &str) -> Option<World> {
        let postgres = PostgresServer::start_with(&["log_statement=all", &format!("wal_level={wal_level}")])?;
        postgres.psql(TABLE);
        let dir = tempfile::tempdir().unwrap();
        let url = postgres.url("postgres");
        let text = format!(
            "[lens]\ncache = \"cache.redb\"\n[dio.t]\nsource = {{ postgres = \"{url}\", table = \"t\" }}\nfeed = \"{feed}\"\nmax_limit = 100_000\nreread_rate = 2_000\n"
        );
        std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
        Some(World { postgres, dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn start(&self) -> Server {
        Server::start(self.path(), &["--log", "warn"])
    }

    /// Number of lists that the server has been asked for.
    fn lists(&self) -> usize {
        let log = std::fs::read_to_string(self.postgres.folder().join("log")).unwrap();
        log.lines().filter(|line| line.contains("SELECT \"id\", \"n\" FROM \"public\".\"t\" ORDER BY")).count()
    }

    /// Waits until the rows are those of the server.
    fn settle(&self, diorama: &Server) {
        let expected = self.postgres.psql("SELECT coalesce(json_agg(t ORDER BY id), '[]') FROM t");
        let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
        let shown = || diorama.get("/t?limit=100000&order=id").json();
        wait(|| shown() == expected, || format!("expected {expected}\nfound    {}", shown()));
    }
}

fn wait(holds: impl Fn() -> bool, found: impl Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{}", found());
        pause(20);
    }
}

/// Waits until the feed is connected, no refresh is owed, and the position is stored.
fn stored(diorama: &Server) {
    wait(
        || diorama.get("/readyz").json()["dios"]["t"]["reasons"].as_array().is_none_or(Vec::is_empty),
        || diorama.get("/readyz").body,
    );
}

#[test]
fn a_restart_with_a_copy_does_not_list_the_table() {
    let Some(world) = World::new("logical", "replication") else { return };
    let mut diorama = world.start();
    world.settle(&diorama);
    stored(&diorama);
    assert_eq!(world.lists(), 1);
    for n in 1..=4 {
        world.postgres.psql(&format!("UPDATE t SET n = {n} WHERE id < 50; DELETE FROM t WHERE id = 100 + {n}"));
        world.settle(&diorama);
        diorama.kill();
        world
            .postgres
            .psql(&format!("UPDATE t SET n = n + 10 WHERE id % 7 = {n}; INSERT INTO t VALUES (1000 + {n}, 0)"));
        diorama = world.start();
        world.settle(&diorama);
        stored(&diorama);
        assert_eq!(world.lists(), 1, "the feed continues");
    }
    let ready = diorama.get("/readyz").json();
    assert_eq!(ready["dios"]["t"]["ready"], true, "{ready}");

    // Other columns, and another table, are read as a whole.
    for (change, expected) in [
        ("ALTER TABLE t ADD COLUMN added TEXT DEFAULT 'x'", "[\"x\"]"),
        (
            "ALTER TABLE t RENAME TO old; CREATE TABLE t AS SELECT id, n, 'y' AS added FROM old; ALTER TABLE t ADD PRIMARY KEY (id)",
            "[\"y\"]",
        ),
    ] {
        diorama.kill();
        world.postgres.psql(change);
        diorama = world.start();
        world.settle(&diorama);
        let added = |row: &serde_json::Value| row["added"].as_str().unwrap_or_default().to_string();
        let rows = diorama.get("/t?limit=100000").json();
        let values: std::collections::BTreeSet<String> = rows.as_array().unwrap().iter().map(added).collect();
        assert_eq!(format!("{values:?}").replace(['{', '}'], ""), expected.replace(['[', ']'], ""));
    }

    // Without the slot, changes are missing.
    diorama.kill();
    wait(
        || world.postgres.psql("SELECT count(*) FROM pg_replication_slots WHERE active") == "0",
        || "the slot is still active".into(),
    );
    world.postgres.psql("SELECT pg_drop_replication_slot('diorama_t'); UPDATE t SET n = -1");
    let diorama = world.start();
    world.settle(&diorama);
}

/// Diorama is killed at random moments while others write; every change arrives, and the table is listed once.
#[test]
fn kills_lose_no_change_of_an_outbox() {
    let Some(world) = World::new("replica", "auto") else { return };
    let made = run(world.path(), &["trigger", "--outbox", "t"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    world.postgres.psql(std::str::from_utf8(&made.stdout).unwrap());
    let mut diorama = world.start();
    stored(&diorama);
    let refreshed = || diorama.get("/metrics").body.contains("diorama_dio_refreshes_total{dio=\"t\",result=\"ok\"} 1");
    wait(refreshed, || "the first refresh has not ended".into());
    for n in 0..2 {
        world.postgres.psql(&format!("UPDATE t SET n = {n} + 5"));
        world.settle(&diorama);
    }
    let first = world.lists();
    let mut random = crate::harness::Random(7);
    for round in 0..12 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let change = |n: u32| {
                    let (id, gone, new) = ((n * 7 + round) % 100, 1_000 + n, 1_000 * (round + 2) + n);
                    format!(
                        "UPDATE t SET n = {n} + {round} * 1000 WHERE id = {id};
                        DELETE FROM t WHERE id = {gone}; INSERT INTO t VALUES ({new}, {n});\n"
                    )
                };
                world.postgres.psql(&(0..150).map(change).collect::<String>());
            });
            scope.spawn(|| {
                // The numbers of these rows of the outbox are lower than those of rows that are there before.
                let change = |n: u32| {
                    let id = 101 + (n * 3 + round) % 99;
                    format!("BEGIN; UPDATE t SET n = n + 1 WHERE id = {id}; SELECT pg_sleep(0.03); COMMIT;\n")
                };
                world.postgres.psql(&(0..10).map(change).collect::<String>());
            });
            pause(random.below(300));
            diorama.kill();
            pause(random.below(100));
            diorama = world.start();
        });
        if round % 4 == 3 {
            world.settle(&diorama);
        }
    }
    assert_eq!(world.lists(), first, "no change was missed");
    wait(|| world.postgres.psql("SELECT count(*) FROM diorama_t_outbox") == "1", || "the outbox is not emptied".into());
}

#[test]
fn a_source_that_cannot_be_written_keeps_no_writes() {
    let Some(world) = World::new("replica", "auto") else { return };
    let url = world.postgres.url("postgres");
    let query = format!("[dio.q]\nsource = {{ postgres = \"{url}\", query = \"SELECT id FROM t\" }}\n");
    let file = world.path().join("diorama.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + &query).unwrap();
    let diorama = world.start();
    let line = |start: &str| diorama.printed.iter().find(|line| line.starts_with(start)).cloned().unwrap();
    assert!(line("q ").ends_with("takes none") && line("t ").ends_with("on disk"), "{:#?}", diorama.printed);
}

#[test]
fn a_check_says_why_there_would_be_no_feed() {
    let Some(world) = World::new("replica", "auto") else { return };
    let check = || {
        let checked = run(world.path(), &["check"]);
        let text = [checked.stdout, checked.stderr].concat();
        (checked.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, said) = check();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("wal_level") && said.contains("`diorama trigger t`"), "{said}");
    let made = run(world.path(), &["trigger", "t"]);
    world.postgres.psql(std::str::from_utf8(&made.stdout).unwrap());
    let (code, said) = check();
    assert!(
        code == Some(0) && said.contains("arrive by notifications of triggers: replication is not possible"),
        "{said}"
    );
    let file = world.path().join("diorama.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"auto\"", "\"replication\"")).unwrap();
    let (code, said) = check();
    assert!(code == Some(78) && said.contains("[dio.t.feed]") && said.contains("wal_level = logical"), "{said}");
}
