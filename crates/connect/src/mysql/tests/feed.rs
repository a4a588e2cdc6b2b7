//! The feed from the binary log: what happens on the server is what the Dio shows, in order, and once.

use std::collections::BTreeMap;

use diorama_core::Dio;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::DioEvent;
use diorama_core::lens::Lens;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRunner};
use tokio::task::JoinSet;

use super::*;
use crate::connector::{Feed as _, FollowMode};
use crate::feed::FeedFormat;
use crate::mysql::follow::MySqlFeed;

pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Options of a server that loses nothing when it is killed.
pub(super) const DURABLE: [&str; 2] = ["innodb-flush-log-at-trx-commit=2", "sync-binlog=0"];

/// A Dio of a table that follows its changes.
pub(super) struct Followed {
    pub(super) dio: Dio,
    lens: Lens,
}

fn lens() -> Lens {
    let lens = Lens::new().on_start(|dio| list(dio.clone())).on_refresh(|dio| list(dio.clone()));
    lens.cache_source(MemoryCache::default()).build().unwrap()
}

/// A Lens with files in `folder`.
pub(super) fn lens_in(folder: &std::path::Path) -> Lens {
    let lens = Lens::new().on_start(|dio| list(dio.clone())).on_refresh(|dio| list(dio.clone()));
    lens.cache_at(folder.join("cache.redb")).build().unwrap()
}

async fn follow(url: &str, table: &str) -> Followed {
    follow_in(lens(), url, table).await
}

pub(super) async fn follow_in(lens: Lens, url: &str, table: &str) -> Followed {
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
    pub(super) async fn connected(&self) {
        self.until("the feed is connected", || self.dio.status().feeds.iter().any(|feed| feed.connected)).await;
    }

    pub(super) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let feeds = || self.dio.status().feeds;
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: {:?}", feeds()));
    }

    /// Waits until the rows are those of the table.
    pub(super) async fn equals(&self, fixture: &Fixture, table: &str) {
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

    pub(super) async fn close(self) {
        self.dio.close().await;
        self.lens.close().await;
    }
}

/// Returns a row as text, with its columns by name.
fn shown(record: Record) -> String {
    format!("{:?}", record.into_iter().collect::<BTreeMap<_, _>>())
}

pub(super) fn rows(dio: &Dio) -> BTreeMap<String, String> {
    let state = dio.state();
    let row = |row: diorama_core::table::RowRef<'_>| (row.id().to_string(), shown(row.body().decode().unwrap()));
    state.table().natural(0).map(row).collect()
}

impl Fixture {
    async fn rows(&self, table: &str) -> BTreeMap<String, String> {
        let rows = self.open(table).await.unwrap().list_values().await.unwrap();
        rows.iter().map(|(id, record)| (id, shown(record))).collect()
    }
}

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER UNSIGNED, large TEXT, d DECIMAL(20,2));
    INSERT INTO t SELECT seq, seq, repeat('x', 300), seq FROM seq_1_to_100;";

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
                sql += &format!("UPDATE t SET n = {n} WHERE id = 1; INSERT INTO t (id, n) VALUES (1000 + {n}, {n});\n");
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
        INSERT INTO t (id, u) SELECT 30 + seq, concat('01890a5d-ac96-', seq MOD 10, '74b-', seq DIV 10, 'cce-b302099a8057') FROM seq_0_to_99;
        INSERT INTO t (id, place, doc, tiny, medium, big) VALUES
            (20, POINT(1, 2), '{}', '', '', ''), (21, NULL, '[1.50, 1e400]', repeat('a', 255), repeat('b', 70000), repeat('c', 300000));",
    );
    followed.equals(&fixture, "t").await;
    fixture.sql("UPDATE t SET m0 = NULL, id = id + 1000; SET binlog_row_image = MINIMAL; UPDATE t SET t0 = '01:00:00'");
    followed.equals(&fixture, "t").await;
    assert_eq!(followed.dio.status().feeds[0].undecodable, 0);
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_survives_cut_connections_and_a_killed_server() {
    let Some(mut fixture) = Fixture::with(&DURABLE, TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let url = fixture.url().replace(&format!(":{}/", fixture.server.port()), &format!(":{}/", proxy.port()));
    let followed = follow(&url, "t").await;
    followed.connected().await;
    let lists = followed.lists();
    for round in 0..6 {
        fixture.sql("UPDATE t SET n = n + 1; UPDATE t SET d = d + 1 WHERE id % 3 = 0");
        match round {
            2 => {
                fixture.server.kill();
                fixture.server.restart();
            }
            4 => proxy.cut_after(30_000),
            _ => proxy.cut_all(),
        }
        fixture.sql("INSERT INTO t SELECT max(id) + 1, 0, 'a', 0 FROM t");
        if round == 4 {
            proxy.cut_after(None);
            proxy.cut_all();
        }
        followed.equals(&fixture, "t").await;
    }
    assert_eq!(followed.lists(), lists, "the feed continued where it had stopped");
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_feed_goes_on_where_it_stopped() {
    let Some(mut fixture) = Fixture::with(&DURABLE, TABLE) else { return };
    let folder = tempfile::tempdir().unwrap();
    let open = async |fixture: &Fixture| follow_in(lens_in(folder.path()), &fixture.url(), "t").await;
    let followed = open(&fixture).await;
    followed.connected().await;
    fixture.sql("UPDATE t SET n = n + 1");
    followed.equals(&fixture, "t").await;
    followed.close().await;

    fixture.sql("UPDATE t SET n = n + 1 WHERE id < 50; DELETE FROM t WHERE id = 60");
    fixture.server.restart();
    fixture.sql("UPDATE t SET n = n + 1 WHERE id < 5");
    let followed = open(&fixture).await;
    followed.equals(&fixture, "t").await;
    followed.close().await;

    // A log that was begun anew, one whose place is gone, and that of another server.
    for change in [
        "RESET MASTER; UPDATE t SET n = 0; DELETE FROM t WHERE id = 61; UPDATE t SET d = 1",
        "UPDATE t SET n = 2; DELETE FROM t WHERE id = 62; FLUSH BINARY LOGS; FLUSH BINARY LOGS;
            SET @last = (SELECT 1); PURGE BINARY LOGS TO 'binlog.000003'",
        "SET GLOBAL server_id = 7; UPDATE t SET n = 4; DELETE FROM t WHERE id = 63",
    ] {
        fixture.sql(change);
        let followed = open(&fixture).await;
        followed.equals(&fixture, "t").await;
        followed.until("what was missed is not known, and read", || followed.lists() == 1).await;
        fixture.sql("UPDATE t SET n = n + 1");
        followed.equals(&fixture, "t").await;
        assert_eq!(followed.lists(), 1);
        followed.close().await;
    }
}

/// Columns that are added, retyped and dropped show in the rows at once, in the schema after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_need_no_restart() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    for change in [
        "ALTER TABLE t ADD COLUMN e TEXT DEFAULT 'new' AFTER id; UPDATE t SET e = 'changed' WHERE id = 7",
        "UPDATE t SET n = 5 WHERE id = 8; ALTER TABLE t MODIFY n TEXT; UPDATE t SET n = 'text' WHERE id = 9",
        "ALTER TABLE t DROP COLUMN large; INSERT INTO t (id, n) VALUES (300, 'x')",
        "CREATE TABLE other LIKE t; INSERT INTO other (id, n) VALUES (7, 'other'); RENAME TABLE t TO former, other TO t",
        "UPDATE former SET n = 'former'; UPDATE t SET n = 'now'",
        "DROP TABLE t; CREATE TABLE t (id INTEGER PRIMARY KEY, e TEXT, n TEXT); INSERT INTO t VALUES (1, 'a', 'b')",
    ] {
        fixture.sql(change);
        followed.equals(&fixture, "t").await;
    }
    let told: Vec<String> = followed.dio.inferred().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[1].starts_with("column \"n\": is now of type text"), "{told:?}");
    fixture.sql("RENAME TABLE t TO gone");
    let error = || followed.dio.status().feeds[0].error.clone();
    followed.until("the missing table is told", || error().is_some_and(|error| error.contains("has no table"))).await;
    fixture.sql("RENAME TABLE gone TO t; UPDATE t SET e = 'back'");
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

/// Changes of rows that the log does not have are found by a list.
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_not_logged_as_rows_are_found() {
    let Some(fixture) = Fixture::new(&format!(
        "{TABLE} CREATE TABLE grandparents (id INTEGER PRIMARY KEY); INSERT INTO grandparents VALUES (1), (2), (3);
        CREATE TABLE parents (id INTEGER PRIMARY KEY, above INTEGER, FOREIGN KEY (above) REFERENCES grandparents (id) ON DELETE CASCADE ON UPDATE CASCADE);
        INSERT INTO parents VALUES (1, 1), (2, 2), (3, 3);
        ALTER TABLE t ADD COLUMN parent INTEGER, ADD FOREIGN KEY (parent) REFERENCES parents (id) ON DELETE CASCADE;
        UPDATE t SET parent = 1 + id % 3;
        CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'reading-only'; GRANT SELECT ON shop.* TO reader@'127.0.0.1';
        GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO reader@'127.0.0.1';"
    )) else {
        return;
    };
    let followed = follow(&fixture.url().replace("root:diorama@", "reader:reading-only@"), "t").await;
    followed.connected().await;
    let lists = followed.lists();
    fixture.sql("UPDATE parents SET above = 2 WHERE id = 1");
    fixture.sql("UPDATE t SET n = 1");
    followed.equals(&fixture, "t").await;
    assert_eq!(followed.lists(), lists, "a parent's change that reaches no row");
    for change in [
        "DELETE FROM parents WHERE id = 3",
        "DELETE FROM grandparents WHERE id = 1",
        "DELETE FROM grandparents WHERE id = 2",
        "SET binlog_format = STATEMENT; UPDATE t SET n = 50 WHERE id = 5; INSERT INTO t (id, n) VALUES (500, 1)",
        "XA START 'a'; UPDATE t SET n = 60; XA END 'a'; XA PREPARE 'a'; XA COMMIT 'a'",
        "XA START 'b'; UPDATE t SET n = 70; XA END 'b'; XA PREPARE 'b'; XA ROLLBACK 'b'; INSERT INTO t (id, n) VALUES (501, 1)",
        "XA START 'c'; UPDATE t SET n = 80; XA END 'c'; XA COMMIT 'c' ONE PHASE",
    ] {
        fixture.sql(change);
        followed.equals(&fixture, "t").await;
    }
    followed.close().await;
}

/// Rows that do not say which columns they have are read by the description of the table.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_names_of_columns_are_read() {
    let options = ["binlog-row-metadata=NO_LOG", "innodb-flush-log-at-trx-commit=0"];
    let sql = "CREATE TABLE t (id INTEGER UNSIGNED PRIMARY KEY, hidden INTEGER INVISIBLE DEFAULT 3, small TINYINT UNSIGNED, mood ENUM('a', 'b'));
        INSERT INTO t VALUES (1, 200, 'b');";
    let Some(fixture) = Fixture::with(&options, sql) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    for change in [
        "INSERT INTO t VALUES (4000000000, 200, 'a')",
        "UPDATE t SET small = 255",
        "ALTER TABLE t ADD COLUMN first INTEGER DEFAULT 9 FIRST; UPDATE t SET mood = 'b'",
    ] {
        fixture.sql(change);
        followed.equals(&fixture, "t").await;
    }
    followed.close().await;
}

/// A large transaction is applied in parts, and a feed that ends within it continues there.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_is_applied_once() {
    let Some(fixture) = Fixture::with(&DURABLE, TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let url = fixture.url().replace(&format!(":{}/", fixture.server.port()), &format!(":{}/", proxy.port()));
    let folder = tempfile::tempdir().unwrap();
    let followed = follow_in(lens_in(folder.path()), &url, "t").await;
    followed.connected().await;
    fixture.sql("INSERT INTO t (id, n) SELECT seq + 1000, seq FROM seq_1_to_100000");
    followed.until("a part arrives", || rows(&followed.dio).len() > 1_000).await;
    proxy.cut_all();
    followed.equals(&fixture, "t").await;

    let mut events = followed.dio.subscribe_events();
    let updates = "UPDATE t SET n = n + 1 WHERE id = 1;\n".repeat(20_000);
    fixture.sql(&format!("BEGIN; {updates} COMMIT"));
    let (mut last, mut cuts) = (0, 0);
    while last < 20_001 {
        tokio::time::timeout(PATIENCE, events.recv()).await.expect("all changes arrive").unwrap();
        let now = n_of(&followed.dio);
        assert!(now >= last, "{now} after {last}");
        last = now;
        if last / 5_000 > cuts {
            cuts += 1;
            proxy.cut_all();
        }
    }
    assert!(cuts > 1, "{cuts}");
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prevents_a_feed_is_said_with_what_to_do() {
    let options = ["innodb-flush-log-at-trx-commit=0", "binlog-format=MIXED"];
    let Some(fixture) = Fixture::with(&options, TABLE) else { return };
    let error = async |url: &str, table: &str| {
        let followed = follow(url, table).await;
        let error = || followed.dio.status().feeds[0].error.clone();
        followed.until("an error is reported", || error().is_some()).await;
        let told = error().unwrap();
        let writes = followed.dio.vista();
        if table == "t" && writes.capabilities().can_update {
            writes.patch_value("1", &record([("n", 5.into())])).await.unwrap();
            followed.until("writes go on", || followed.dio.status().queued == 0).await;
        }
        followed.close().await;
        told
    };
    let told = error(&fixture.url(), "t").await;
    assert!(told.contains("binlog_format is MIXED: SET GLOBAL binlog_format = ROW"), "{told}");
    fixture.sql(
        "SET GLOBAL binlog_format = ROW; CREATE VIEW seen AS SELECT id, n FROM t;
        CREATE TABLE versioned (id INTEGER PRIMARY KEY) WITH SYSTEM VERSIONING;
        CREATE USER reader@'127.0.0.1' IDENTIFIED BY 'reading-only'; GRANT SELECT ON shop.* TO reader@'127.0.0.1';",
    );
    let told = error(&fixture.url(), "versioned").await;
    assert!(told.contains("SYSTEM VERSIONING"), "{told}");
    let told = error(&fixture.url(), "seen").await;
    assert!(told.contains("seen is not a table"), "{told}");
    let reader = fixture.url().replace("root:diorama@", "reader:reading-only@");
    let told = error(&reader, "t").await;
    assert!(told.contains("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO reader"), "{told}");
    fixture.sql("GRANT BINLOG MONITOR ON *.* TO reader@'127.0.0.1'");
    let told = error(&reader, "t").await;
    assert!(told.contains("REPLICATION SLAVE") && told.contains("denied"), "{told}");
    fixture.sql("SET GLOBAL log_bin_compress = ON");
    let told = error(&fixture.url(), "t").await;
    assert!(told.contains("SET GLOBAL log_bin_compress = OFF"), "{told}");
    fixture.sql("SET GLOBAL log_bin_compress = OFF; GRANT REPLICATION SLAVE ON *.* TO reader@'127.0.0.1'");
    let followed = follow(&reader, "t").await;
    followed.connected().await;
    fixture.sql("UPDATE t SET n = 9");
    followed.equals(&fixture, "t").await;
    followed.close().await;

    let shared = Shared::new(Address::parse(&reader, None, None).unwrap(), MySqlRelation::Table("t".into()));
    let told = MySqlFeed { shared, mode: FollowMode::Notify }.check().unwrap_err().to_string();
    assert!(told.contains("use feed = \"replication\""), "{told}");
    let without = Fixture::with(&["binlog-ignore-db=shop"], TABLE).unwrap();
    let told = error(&without.url(), "t").await;
    assert!(told.contains("binlog_ignore_db"), "{told}");
    let without = Fixture::with(&["skip-log-bin"], TABLE).unwrap();
    let told = error(&without.url(), "t").await;
    assert!(told.contains("the server has no binary log"), "{told}");
}

/// A write that changes nothing is settled at once, and reads go on after the log's next file has begun.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_quiet_feed() {
    let Some(mut fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    followed.dio.vista().patch_value("1", &record([])).await.unwrap();
    followed.until("the write is applied", || followed.dio.status().queued == 0).await;
    for change in ["FLUSH BINARY LOGS", "CREATE TABLE o (id INTEGER)", "INSERT INTO o VALUES (1)", "CREATE USER x@y"] {
        fixture.sql(change);
        followed.dio.refresh_from_now().await.unwrap();
        assert!(followed.dio.master().get_value("1").await.unwrap().is_some());
        followed.dio.vista().patch_value("1", &record([("n", 3.into())])).await.unwrap();
        followed.until("the write is applied", || followed.dio.status().queued == 0).await;
    }
    fixture.sql("UPDATE t SET n = n + 1");
    followed.equals(&fixture, "t").await;
    fixture.server.restart();
    let read = async {
        while followed.dio.master().get_value("1").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("reads go on after a restart of the server");
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

/// Rows never become older, whatever is read and written while changes arrive.
#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_never_bring_an_older_row_back() {
    let Some(fixture) = Fixture::with(&["innodb-flush-log-at-trx-commit=1", "sync-binlog=1"], TABLE) else { return };
    let fixture = Arc::new(fixture);
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let fixture = Arc::clone(&fixture);
            let sql = (0..400).map(|_| format!("UPDATE t SET n = n + 1 WHERE id % 3 = {writer} AND id < 12;\n"));
            let sql: String = sql.collect();
            std::thread::spawn(move || fixture.sql(&sql))
        })
        .collect();
    let mut events = followed.dio.subscribe_events();
    let watching = async {
        let mut last = BTreeMap::new();
        while let Ok(event) = events.recv().await {
            let DioEvent::RecordChanged { id, .. } = event else { continue };
            let row = followed.dio.held_row(&id).unwrap();
            let now = i128::from(row["n"].as_integer().unwrap());
            let before = last.insert(id.to_string(), now).unwrap_or_default();
            assert!(now >= before, "row {id} was {before} and is {now}");
        }
    };
    let reading = async {
        let facade = followed.dio.vista();
        let mut round = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            round += 1;
            followed.dio.refresh_from_now().await.unwrap();
            facade.patch_value("1", &record([("large", format!("{round}").into())])).await.unwrap();
            followed.dio.invalidate_record((1 + round % 11).to_string());
        }
        assert!(round > 5, "{round}");
    };
    tokio::select! {
        () = watching => panic!("the events have ended"),
        () = reading => {}
    }
    for writer in writers {
        writer.join().unwrap();
    }
    followed.until("the writes are applied", || followed.dio.status().queued == 0).await;
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_what_the_server_has_and_the_dio_has_not() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t").await;
    followed.connected().await;
    let lag = || followed.dio.status().feeds[0].lag;
    for n in 0..20 {
        fixture.sql(&format!(
            "INSERT INTO t (id, n, large) SELECT seq + 10000 * ({n} + 1), seq, repeat('y', 1000) FROM seq_1_to_2000"
        ));
    }
    followed.until("it is behind", || lag().is_some_and(|lag| lag.bytes > 0)).await;
    followed.equals(&fixture, "t").await;
    followed.until("it has caught up", || lag().is_some_and(|lag| lag.bytes == 0 && lag.time.is_zero())).await;
    followed.close().await;
}

/// A source whose feed is driven by the test.
async fn driven(fixture: &Fixture) -> (Arc<Shared>, MySql, Place) {
    let address = Address::parse(&fixture.url(), None, None).unwrap();
    let shared = Shared::new(address, MySqlRelation::Table("t".into()));
    let shell = MySql::connect(Arc::clone(&shared), MySqlOptions::default()).await.unwrap();
    let mut session = Session::new(shared.address.connect().await.unwrap());
    let end = server::end_of_log(&mut session).await.unwrap();
    shared.progress.set_following(true);
    shared.progress.reach(&end, true);
    (shared, shell, end)
}

/// Runs `call` until it waits for the feed, which then reaches everything.
async fn waits<T: Send + 'static>(
    fixture: &Fixture,
    shared: &Shared,
    call: impl Future<Output = T> + Send + 'static,
    is_whole: bool,
) -> T {
    fixture.sql("UPDATE t SET d = d + 1");
    let mut running = JoinSet::new();
    running.spawn(call);
    fixture.sql("SELECT count(*) FROM t a JOIN t b");
    assert!(running.try_join_next().is_none(), "it waits for the feed");
    let end = Place { file: "binlog.999999".into(), offset: 4 };
    shared.progress.reach(&end, is_whole);
    running.join_next().await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_end_when_the_feed_has_passed_them() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let (shared, shell, begin) = driven(&fixture).await;
    let again = || shared.progress.reach(&begin, true);
    let own = shell.clone();
    assert!(waits(&fixture, &shared, async move { own.get("1").await }, true).await.unwrap().is_some());
    again();
    let own = shell.clone();
    assert_eq!(
        waits(&fixture, &shared, async move { own.list(&Query::default()).await }, false).await.unwrap().len(),
        100
    );
    for is_whole in [true, false] {
        again();
        let (own, op) = (shell.clone(), WriteOp::Patch { id: "1".into(), record: record([("n", 5.into())]) });
        let operation = format!("op_{is_whole}");
        let written =
            waits(&fixture, &shared, async move { own.write_once(&operation, &op).await }, is_whole).await.unwrap();
        assert_eq!((written.reported, written.record.is_some()), (is_whole, is_whole));
    }
}

/// The server sends a transaction a moment before it shows it.
#[tokio::test(flavor = "multi_thread")]
async fn reads_show_what_the_feed_has_applied() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let (shared, shell, end) = driven(&fixture).await;
    shared.progress.reach(&Place { file: "binlog.999999".into(), offset: 4 }, true);
    shared.progress.note_begun(end);
    let own = shell.clone();
    let mut reads = JoinSet::new();
    reads.spawn(async move { own.get("1").await });
    reads.spawn(async move { Ok(shell.list(&Query::default()).await?.get("1")) });
    fixture.sql("SELECT count(*) FROM t a JOIN t b");
    assert!(reads.try_join_next().is_none(), "they wait until the transaction shows");
    fixture.sql("UPDATE t SET n = 77 WHERE id = 1");
    for row in reads.join_all().await {
        assert_eq!(row.unwrap().unwrap()["n"], 77.into());
    }
}
