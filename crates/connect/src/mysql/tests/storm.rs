//! A storm over the feed: random transactions on the server, own writes and refreshes, while connections are cut, and the server and
//! the Dio end and begin again. Rows never go back, and at rest the Dio has the rows of the server.
//!
//! `DIORAMA_FEED_SECONDS` sets the time, `DIORAMA_FEED_SEED` makes the choices of an earlier run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use diorama_core::Dio;
use diorama_core::dio::DioEvent;
use mysql_async::prelude::Queryable as _;

use super::feed::{DURABLE, Followed, PATIENCE, follow_in, lens_in};
use super::*;

/// Rows 1 to 40 are counted up by the server, 41 to 60 by own writes; those from 1,000 come and go.
const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER UNSIGNED NOT NULL, text VARCHAR(200));
    INSERT INTO t SELECT seq, 0, 'begin' FROM seq_1_to_60;";

/// Random numbers: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Returns the statements of a random transaction.
fn transaction(random: &mut Random) -> String {
    let mut sql = String::from("BEGIN;");
    for _ in 0..=random.below(4) {
        let (id, other) = (1 + random.below(40), 1_000 + random.below(200));
        sql += &match random.below(9) {
            0 => format!("UPDATE t SET n = n + 1 WHERE id <= {id};"),
            1..=3 => format!("UPDATE t SET n = n + 1, text = 'text {other}' WHERE id = {id};"),
            4 => format!("REPLACE INTO t VALUES ({other}, 1, repeat('x', {}));", other % 190),
            5 => format!("DELETE FROM t WHERE id = {other};"),
            6 => format!("UPDATE IGNORE t SET id = id + 300 WHERE id = {other};"),
            7 => {
                format!("INSERT IGNORE INTO t SELECT seq, 2, 'many' FROM seq_{other}_to_{};", other + random.below(300))
            }
            _ => format!("DELETE FROM t WHERE id > {other} AND id % 3 = 0;"),
        };
    }
    sql + if random.below(8) == 0 { "ROLLBACK;" } else { "COMMIT;" }
}

/// Makes random transactions until `end`; each that fails is left out.
async fn write(fixture_url: String, mut random: Random, end: Arc<AtomicBool>) -> u64 {
    let address = Address::parse(&fixture_url, None, None).unwrap();
    let (mut conn, mut done) = (None, 0);
    while !end.load(Ordering::Relaxed) {
        let Some(open) = &mut conn else {
            conn = address.connect().await.ok();
            tokio::task::yield_now().await;
            continue;
        };
        let row_image = ["FULL", "FULL", "MINIMAL", "NOBLOB"][random.below(4) as usize];
        let sql = format!("SET binlog_row_image = {row_image}; {}", transaction(&mut random));
        match open.query_drop(sql).await {
            Ok(()) => done += 1,
            Err(mysql_async::Error::Server(_)) => drop(open.query_drop("ROLLBACK").await),
            Err(_) => conn = None,
        }
        // No more than the feed can follow.
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
    }
    done
}

/// Checks that no row goes back, until the Dio closes.
async fn watch(dio: Dio) -> u64 {
    let mut events = dio.subscribe_events();
    let (mut last, mut count) = (BTreeMap::new(), 0);
    let dio = dio.downgrade();
    while let Ok(event) = events.recv().await {
        if let DioEvent::WriteFailed { id, error, .. } = &event {
            panic!("the write of row {id} has failed: {error}");
        }
        let DioEvent::RecordChanged { id, .. } = event else { continue };
        let Some(row) = dio.upgrade().and_then(|dio| dio.held_row(&id)) else { continue };
        if id.parse::<u64>().is_ok_and(|id| id <= 60) {
            let now = i128::from(row["n"].as_integer().unwrap());
            let before = last.insert(id.to_string(), now).unwrap_or_default();
            assert!(now >= before, "row {id} was {before} and is {now}");
        }
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_never_go_back_in_a_storm() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("DIORAMA_FEED_SEED").unwrap_or(now | 1);
    let end = Instant::now() + Duration::from_secs(number("DIORAMA_FEED_SECONDS").unwrap_or(6));
    eprintln!("DIORAMA_FEED_SEED={seed}");
    let mut random = Random(seed);
    let Some(mut fixture) = Fixture::with(&DURABLE, TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let url = fixture.url().replace(&format!(":{}/", fixture.server.port()), &format!(":{}/", proxy.port()));
    let folder = tempfile::tempdir().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        writers.spawn(write(fixture.url(), Random(random.below(u64::MAX) | 1), Arc::clone(&is_over)));
    }
    let (mut own, mut events) = (0, 0);
    let mut troubles = BTreeMap::new();
    while Instant::now() < end {
        let followed = follow_in(lens_in(folder.path()), &url, "t").await;
        let mut watching = tokio::task::JoinSet::new();
        watching.spawn(watch(followed.dio.clone()));
        let round = Instant::now() + Duration::from_secs(2 + random.below(4));
        while Instant::now() < round {
            let name = trouble(&mut random, &mut fixture, &proxy, &followed).await;
            *troubles.entry(name).or_insert(0) += 1;
            let pause = tokio::time::Instant::now() + Duration::from_millis(random.below(300));
            while tokio::time::Instant::now() < pause {
                own += 1;
                let id = (41 + own % 20).to_string();
                // A queue that is full while the server is away is no fault.
                let _ = followed.dio.vista().patch_value(&id, &record([("n", own.into())])).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let Some(watched) = watching.try_join_next() {
                watched.unwrap();
            }
        }
        if random.below(2) == 0 || Instant::now() > end {
            let waiting = tokio::time::timeout(3 * PATIENCE, async {
                while followed.dio.status().queued > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            waiting.await.unwrap_or_else(|_| panic!("the writes are applied: {:?}", followed.dio.status()));
        }
        followed.close().await;
        events += watching.join_all().await.iter().sum::<u64>();
    }
    is_over.store(true, Ordering::Relaxed);
    let transactions: u64 = writers.join_all().await.iter().sum();
    let followed = follow_in(lens_in(folder.path()), &url, "t").await;
    followed.connected().await;
    followed.until("the writes are applied", || followed.dio.status().queued == 0).await;
    followed.equals(&fixture, "t").await;
    let lists = followed.dio.counters().refreshed.count;
    eprintln!("{transactions} transactions, {own} own writes, {events} events, {lists} lists at the end, {troubles:?}");
    assert!(transactions > 100 && events > 100);
    followed.close().await;
}

/// One trouble. Returns its name.
async fn trouble(random: &mut Random, fixture: &mut Fixture, proxy: &CutProxy, followed: &Followed) -> &'static str {
    let moment = Duration::from_millis(random.below(300));
    match random.below(12) {
        0 => {
            fixture.server.kill();
            fixture.server.restart();
            "kill"
        }
        1 | 2 => {
            proxy.cut_after(1 + random.below(100_000));
            proxy.cut_all();
            tokio::time::sleep(moment).await;
            proxy.cut_after(None);
            proxy.cut_all();
            "cut at a byte"
        }
        3 => {
            proxy.hold(true);
            tokio::time::sleep(moment).await;
            proxy.hold(false);
            "silence"
        }
        4 | 5 => {
            proxy.cut_all();
            "cut"
        }
        6 => {
            fixture.sql("FLUSH BINARY LOGS");
            "rotation"
        }
        7 => {
            followed.dio.invalidate_record((1 + random.below(60)).to_string());
            "read"
        }
        8 => {
            fixture.sql("ALTER TABLE t ADD COLUMN IF NOT EXISTS more INTEGER DEFAULT 7 AFTER id");
            "alter"
        }
        9 => {
            fixture.sql("ALTER TABLE t DROP COLUMN IF EXISTS more");
            "alter back"
        }
        _ => {
            // It fails while the feed is away.
            let _ = tokio::time::timeout(moment, followed.dio.refresh_from_now()).await;
            "refresh"
        }
    }
}
