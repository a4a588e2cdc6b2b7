//! The feed from the binary log: what happens on the server is what the Dio shows, in order, and once.

mod contract;
mod reads;
mod restarts;
mod schema;
mod values;

use std::collections::BTreeMap;

use diorama_core::Dio;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::DioEvent;
use diorama_core::lens::Lens;

use super::*;
use crate::connector::{Feed as _, FeedFormat, FollowMode};
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
    let dio = follow_with(&lens, url, table).await;
    Followed { dio, lens }
}

async fn follow_with(lens: &Lens, url: &str, table: &str) -> Dio {
    let address = Address::parse(url, None, None).unwrap();
    let shared = Shared::new(address, MySqlRelation::Table(table.into()));
    let feed = MySqlFeed { shared: Arc::clone(&shared), mode: FollowMode::Auto };
    feed.prepare();
    let shell = MySql::connect(shared, MySqlOptions::default()).await.unwrap();
    let dio = lens.dio(Vista::new(table, shell)).make().await.unwrap();
    feed.start(&dio, FeedFormat::Diorama).unwrap();
    dio
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
        // Columns that are not named get their default, and are not in the log.
        "SET binlog_row_image = MINIMAL; REPLACE INTO t (id, n) VALUES (65, 1); SET binlog_row_image = NOBLOB; REPLACE INTO t (id, n) VALUES (66, 1)",
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
    followed.until("it is behind", || lag().is_some_and(|lag| lag.bytes > Some(0))).await;
    followed.equals(&fixture, "t").await;
    followed.until("it has caught up", || lag().is_some_and(|lag| lag.bytes == Some(0) && lag.time.is_zero())).await;
    followed.close().await;
}
