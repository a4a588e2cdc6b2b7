//! The feed from the binary log: what happens on the server is what the Dio shows, in order, and once.

use std::collections::BTreeMap;

use diorama_core::Dio;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::DioEvent;
use diorama_core::lens::Lens;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::connector::{Feed as _, FollowMode};
use crate::feed::FeedFormat;
use crate::mysql::follow::MySqlFeed;

const PATIENCE: Duration = Duration::from_secs(20);

/// Options of a server that loses nothing when it is killed.
const DURABLE: [&str; 2] = ["innodb-flush-log-at-trx-commit=2", "sync-binlog=0"];

/// A Dio of a table that follows its changes.
struct Followed {
    dio: Dio,
    lens: Lens,
}

fn lens() -> Lens {
    let lens = Lens::new().on_start(|dio| list(dio.clone())).on_refresh(|dio| list(dio.clone()));
    lens.cache_source(MemoryCache::default()).build().unwrap()
}

/// A Lens with files in `folder`.
fn lens_in(folder: &std::path::Path) -> Lens {
    let lens = Lens::new().on_start(|dio| list(dio.clone())).on_refresh(|dio| list(dio.clone()));
    lens.cache_at(folder.join("cache.redb")).build().unwrap()
}

async fn follow(url: &str, table: &str) -> Followed {
    follow_in(lens(), url, table).await
}

async fn follow_in(lens: Lens, url: &str, table: &str) -> Followed {
    let address = Address::parse(url, None, None).unwrap();
    let shared = Shared::new(address, MySqlRelation::Table(table.into()));
    let feed = MySqlFeed { shared: Arc::clone(&shared), mode: FollowMode::Auto };
    feed.prepare();
    let shell = MySql::connect(shared, MySqlOptions::default()).await.unwrap();
    let dio = lens.dio(Vista::new(table, shell)).make().await.unwrap();
    feed.start(&dio, FeedFormat::Diorama).unwrap();
    Followed { dio, lens }
}

async fn list(dio: Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.reconcile(rows).await.map(drop)
}

impl Followed {
    async fn connected(&self) {
        self.until("the feed is connected", || self.dio.status().feeds.iter().any(|feed| feed.connected)).await;
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let feeds = || self.dio.status().feeds;
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: {:?}", feeds()));
    }

    /// Waits until the rows are those of the table.
    async fn equals(&self, fixture: &Fixture, table: &str) {
        let expected = fixture.rows(table).await;
        let waiting = async {
            while rows(&self.dio) != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let (shown, state) = (rows(&self.dio), self.dio.state());
            let other = |(id, row): &(&String, &String)| shown.get(*id) != Some(*row);
            let other: Vec<_> = expected.iter().filter(other).map(|(id, row)| (row, shown.get(id))).take(5).collect();
            let (dirty, status) = (state.dirty().count(), self.dio.status());
            panic!(
                "{} rows, shown {}; expected and shown: {other:#?}, in doubt {dirty}, source {:?}, feeds {:?}",
                expected.len(),
                shown.len(),
                status.source,
                status.feeds
            );
        }
    }

    /// Returns how often the table was read as a whole.
    fn lists(&self) -> u64 {
        self.dio.counters().refreshed.count
    }

    async fn close(self) {
        self.dio.close().await;
        self.lens.close().await;
    }
}

fn rows(dio: &Dio) -> BTreeMap<String, String> {
    let state = dio.state();
    let row =
        |row: diorama_core::table::RowRef<'_>| (row.id().to_string(), format!("{:?}", row.body().decode().unwrap()));
    state.table().natural(0).map(row).collect()
}

impl Fixture {
    async fn rows(&self, table: &str) -> BTreeMap<String, String> {
        let rows = self.open(table).await.unwrap().list_values().await.unwrap();
        rows.iter().map(|(id, record)| (id, format!("{record:?}"))).collect()
    }
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER UNSIGNED, large TEXT, d DECIMAL(20,2));
    INSERT INTO t SELECT seq, seq, repeat('x', 5000), seq FROM seq_1_to_100;";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_arrives() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    let lists = followed.lists();
    for change in [
        "INSERT INTO t VALUES (200, 4000000000, 'a', NULL)",
        "UPDATE t SET n = n + 1 WHERE id < 50",
        "UPDATE t SET id = id + 1000 WHERE id < 10",
        "BEGIN; UPDATE t SET n = 7 WHERE id = 20; UPDATE t SET n = 8 WHERE id = 20; DELETE FROM t WHERE id = 21; COMMIT",
        "BEGIN; DELETE FROM t; ROLLBACK",
        "BEGIN; UPDATE t SET n = 9 WHERE id = 22; SAVEPOINT a; UPDATE t SET n = 10 WHERE id = 23; ROLLBACK TO a; COMMIT",
        "REPLACE INTO t VALUES (24, 1, 'b', 2), (2000, 1, 'b', 2)",
        "DELETE FROM t WHERE id BETWEEN 30 AND 40",
        "SET binlog_row_image = MINIMAL; UPDATE t SET n = 77 WHERE id < 60; DELETE FROM t WHERE id = 61;
            UPDATE t SET id = 62000 WHERE id = 62; INSERT INTO t (id, n) VALUES (63000, 3)",
        "SET binlog_row_image = NOBLOB; UPDATE t SET n = 78 WHERE id < 60; UPDATE t SET large = 'short' WHERE id = 64",
        "TRUNCATE t",
        "FLUSH BINARY LOGS; INSERT INTO t SELECT seq, seq, repeat('y', 500), seq FROM seq_1_to_3000; FLUSH BINARY LOGS",
        "TRUNCATE TABLE shop.t; INSERT INTO t VALUES (5, 5, 'a', 5)",
    ] {
        fixture.sql(change);
        followed.equals(&fixture, "t").await;
    }
    assert_eq!(followed.lists(), lists, "the table was not listed again");
    followed.close().await;
}

/// A change between the first list and the feed is told once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_while_a_feed_begins() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let fixture = Arc::new(fixture);
    let writing = std::thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || {
            let mut sql = String::new();
            for n in 1..=5_000 {
                sql += &format!("UPDATE t SET n = {n} WHERE id = 1;\n");
            }
            fixture.sql(&sql);
        }
    });
    let followed = follow(&fixture.url(), "t").await;
    let mut events = followed.dio.subscribe_events();
    let mut last = n_of(&followed.dio);
    while last < 5_000 {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("the last change arrives").unwrap();
        if let DioEvent::RecordChanged { .. } = event {
            let now = n_of(&followed.dio);
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    }
    writing.join().unwrap();
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

fn n_of(dio: &Dio) -> i64 {
    let row = dio.held_row("1").unwrap();
    row["n"].as_integer().and_then(|n| i64::try_from(n).ok()).unwrap()
}

/// A write is confirmed when the feed has reported it, so that no older event of the feed hides it again.
#[tokio::test(flavor = "multi_thread")]
async fn own_writes_are_not_undone_by_late_events() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    let facade = followed.dio.vista();
    let mut events = followed.dio.subscribe_events();
    for n in 1_000..1_100 {
        facade.patch_value("1", &record([("n", n.into())])).await.unwrap();
    }
    let (mut last, mut committed) = (0, 0);
    while committed < 100 {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("all are confirmed").unwrap();
        committed += i32::from(matches!(event, DioEvent::WriteCommitted { .. }));
        let now = n_of(&followed.dio);
        assert!(now >= last, "{now} after {last}");
        assert_eq!(followed.dio.rows_in_doubt(), 0, "no row has to be read again");
        last = now;
    }
    assert_eq!(n_of(&followed.dio), 1_099);
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_is_the_one_that_a_list_gives() {
    let types = types::types();
    let columns: Vec<String> = types.iter().enumerate().map(|(at, (ty, _))| format!("c{at} {ty}")).collect();
    let sql = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, {}) DEFAULT CHARSET utf8mb4", columns.join(", "));
    let Some(fixture) = Fixture::new(&sql) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    let lists = followed.lists();
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let shell = fixture.shell("t").await;
    for first in (0..types::rounds()).step_by(BATCH) {
        let mut batch = Vec::new();
        for n in first..(first + BATCH).min(types::rounds()) {
            let mut record = Record::new();
            for (at, (_, values)) in types.iter().enumerate() {
                record.insert(format!("c{at}"), values.new_tree(&mut runner).unwrap().current());
            }
            batch.push((format!("op_{n}"), WriteOp::Insert { id: n.to_string(), record }));
        }
        for done in shell.write_batch(&batch).await {
            done.unwrap();
        }
    }
    followed.equals(&fixture, "t").await;
    fixture.sql("UPDATE t SET c0 = NOT c0; SET binlog_row_image = MINIMAL; UPDATE t SET c7 = 1 WHERE id % 2 = 0");
    followed.equals(&fixture, "t").await;
    assert_eq!(followed.lists(), lists, "the table was not listed again");
    assert_eq!(followed.dio.status().feeds[0].undecodable, 0);
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_at_the_edges_of_their_types_are_those_of_a_list() {
    let Some(fixture) = Fixture::new(
        r"CREATE TABLE t (id INTEGER PRIMARY KEY, day DATE, at0 DATETIME, at3 DATETIME(3), m0 TIMESTAMP NULL, m2 TIMESTAMP(2) NULL, m5 TIMESTAMP(5) NULL,
            t0 TIME, t1 TIME(1), t4 TIME(4), year YEAR, n24 MEDIUMINT UNSIGNED, d0 DECIMAL(10), d1 DECIMAL(9,9), d2 DECIMAL(65,30),
            dz DECIMAL(12,3) ZEROFILL, bits BIT(13), fixed BINARY(5), wide CHAR(255), latin CHAR(5) CHARACTER SET latin1,
            cyr VARCHAR(50) CHARACTER SET cp1251, gbk VARCHAR(50) CHARACTER SET gbk, ucs VARCHAR(50) CHARACTER SET ucs2, v6 INET6, v4 INET4, u UUID,
            e ENUM('a', 'it''s', 'b\\c'), s SET('x', 'y z', 'ü') , place POINT, doc JSON, tiny TINYBLOB, medium MEDIUMTEXT, big LONGBLOB,
            twice INTEGER AS (id * 2) VIRTUAL, kept INTEGER AS (id * 3) STORED, hidden INTEGER INVISIBLE DEFAULT 5) DEFAULT CHARSET utf8mb4",
    ) else {
        return;
    };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    fixture.sql(
        r"SET sql_mode = '';
        INSERT INTO t (id) VALUES (1);
        INSERT INTO t (id, day, at0, at3, m0, m2, m5, t0, t1, t4, year, n24, d0, d1, d2, dz, bits) VALUES
            (2, '0000-00-00', '0000-00-00', '9999-12-31 23:59:59.999', '0000-00-00', '1970-01-01 00:00:01.01', '2038-01-19 03:14:07.99999',
                '-838:59:59', '-00:00:00.1', '838:59:59.0001', 0, 16777215, -9999999999, -0.000000001, -1.5, 7.5, 8191),
            (3, '2026-00-31', '2026-02-00 01:02:03', '1000-01-01', NULL, '2026-01-01 00:00:00', NULL,
                '00:00:00', '12:00:00', '-12:34:56.7891', 2155, 0, 0, 0.5, 99999999999999999999999999999999999.999999999999999999999999999999, 0, 0);
        INSERT INTO t (id, fixed, wide, latin, cyr, gbk, ucs, v6, v4, u, e, s) VALUES
            (4, x'6100000000', repeat('ü', 255), 'äß', 'Привет', '你好', 'été', '::', '0.0.0.0', '00000000-0000-0000-0000-000000000000', 'wrong', ''),
            (5, x'00', 'a  ', '', '', '', '', '::1', '255.255.255.255', '01890a5d-ac96-774b-bcce-b302099a8057', 'it''s', 'ü,x'),
            (6, x'0100000020', NULL, NULL, NULL, NULL, NULL, '::1.2.3.4', '1.2.3.4', '123e4567-e89b-12d3-a456-426614174000', 'b\\c', 'y z'),
            (7, NULL, NULL, NULL, 'ђ', NULL, NULL, '::ffff:1.2.3.4', NULL, 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, 'x,y z,ü'),
            (8, NULL, NULL, NULL, NULL, NULL, NULL, '1:0:0:2::', NULL, '123e4567-e89b-52d3-7456-426614174000', NULL, NULL),
            (9, NULL, NULL, NULL, NULL, NULL, NULL, '::1:2', NULL, '00000000-0000-6000-8000-000000000001', NULL, NULL);
        INSERT INTO t (id, place, doc, tiny, medium, big) VALUES
            (20, POINT(1, 2), '{}', '', '', ''), (21, NULL, '[1.50, 1e400]', repeat('a', 255), repeat('b', 70000), repeat('c', 300000));",
    );
    followed.equals(&fixture, "t").await;
    fixture.sql("UPDATE t SET m0 = NULL, id = id + 100; SET binlog_row_image = MINIMAL; UPDATE t SET t0 = '01:00:00'");
    followed.equals(&fixture, "t").await;
    assert_eq!(followed.dio.status().feeds[0].undecodable, 0);
    followed.close().await;
}
