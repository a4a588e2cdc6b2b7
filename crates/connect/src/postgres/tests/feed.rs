//! Feeds: what happens on the server is what the Dio shows, in order, and once.

use std::collections::BTreeMap;

use diorama_core::Dio;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::DioEvent;
use diorama_core::lens::Lens;
use diorama_servers::CutProxy;

use super::*;
use crate::connector::{Feed as _, FollowMode};
use crate::feed::FeedFormat;
use crate::postgres::follow::PostgresFeed;

const PATIENCE: Duration = Duration::from_secs(20);

/// A Dio of a table that follows its changes.
struct Followed {
    dio: Dio,
    lens: Lens,
}

fn lens() -> Lens {
    let lens = Lens::new().on_start(|dio| list(dio.clone())).on_refresh(|dio| list(dio.clone()));
    lens.cache_source(MemoryCache::default()).build().unwrap()
}

async fn follow(url: &str, table: &str, mode: FollowMode) -> Followed {
    follow_in(lens(), url, table, mode).await
}

async fn follow_in(lens: Lens, url: &str, table: &str, mode: FollowMode) -> Followed {
    let shared = Shared::new(Address::parse(url, None, None).unwrap());
    let slot = crate::postgres::slot::name_of(table);
    if mode != FollowMode::Notify {
        shared.expect_replication(&slot);
    }
    let relation = PostgresRelation::Table(table.into());
    let shell = Postgres::connect(Arc::clone(&shared), relation, PostgresOptions::default()).await.unwrap();
    let dio = lens.dio(Vista::new(table, shell)).make().await.unwrap();
    let feed = PostgresFeed { shared, mode, slot };
    feed.start(&dio, FeedFormat::Diorama).unwrap();
    Followed { dio, lens }
}

async fn list(dio: Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.reconcile(rows).await.map(drop)
}

impl Followed {
    /// Waits until the feed is connected and no refresh is owed.
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
        self.until("the rows are those of the table", || rows(&self.dio) == expected).await;
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

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, large TEXT, d NUMERIC);
    ALTER TABLE t ALTER COLUMN large SET STORAGE EXTERNAL;
    INSERT INTO t SELECT n, n, repeat('x', 5000), n FROM generate_series(1, 100) n;";

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_arrives() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t", FollowMode::Replication).await;
    followed.connected().await;
    let refreshes = followed.dio.counters().refreshed.count;
    for change in [
        "INSERT INTO t VALUES (200, 1, 'a', 'NaN')",
        "UPDATE t SET n = n + 1 WHERE id < 50",
        "UPDATE t SET id = id + 1000 WHERE id < 10",
        "BEGIN; UPDATE t SET n = 7 WHERE id = 20; UPDATE t SET n = 8 WHERE id = 20; DELETE FROM t WHERE id = 21; COMMIT",
        "BEGIN; DELETE FROM t; ROLLBACK",
        "DELETE FROM t WHERE id BETWEEN 30 AND 40",
        "TRUNCATE t",
        "INSERT INTO t SELECT n, n, repeat('y', 5000), n FROM generate_series(1, 3000) n",
        "BEGIN; TRUNCATE t; INSERT INTO t VALUES (5, 5, 'a', 5); COMMIT",
        "BEGIN; INSERT INTO t VALUES (6, 6, 'a', 6), (7, 7, 'a', 7); TRUNCATE t; COMMIT",
    ] {
        fixture.server.psql(change);
        followed.equals(&fixture, "t").await;
    }
    assert_eq!(followed.dio.counters().refreshed.count, refreshes, "the table was not listed again");
    followed.close().await;
}

/// What happens between the slot, the first list and the feed is told once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_repeated_while_a_feed_begins() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let url = fixture.url();
    let writing = std::thread::spawn({
        let url = url.clone();
        move || {
            let mut sql = String::new();
            for n in 1..=3_000 {
                sql += &format!("UPDATE t SET n = {n} WHERE id = 1;\n");
            }
            psql(&url, &sql);
        }
    });
    let followed = follow(&url, "t", FollowMode::Replication).await;
    let mut events = followed.dio.subscribe_events();
    let before = n_of(&followed.dio);
    let mut last = before;
    while last < 3_000 {
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
    let followed = follow(&fixture.url(), "t", FollowMode::Replication).await;
    followed.connected().await;
    let facade = followed.dio.vista();
    let mut events = followed.dio.subscribe_events();
    for n in 1_000..1_100 {
        facade.patch_value("1", &record([("n", n.into())])).await.unwrap();
    }
    let mut last = 0;
    let mut committed = 0;
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
async fn a_feed_survives_cut_connections_and_a_killed_server() {
    let Some(mut fixture) = Fixture::new(TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let url = fixture.url().replace(&format!(":{}/", fixture.server.port()), &format!(":{}/", proxy.port()));
    let followed = follow(&url, "t", FollowMode::Replication).await;
    followed.connected().await;
    for round in 0..6 {
        fixture.server.psql("UPDATE t SET n = n + 1; UPDATE t SET d = d + 1 WHERE id % 3 = 0");
        match round {
            2 => {
                fixture.server.kill();
                fixture.server.restart();
            }
            4 => proxy.cut_after(30_000),
            _ => proxy.cut_all(),
        }
        fixture.server.psql("INSERT INTO t SELECT max(id) + 1, 0, 'a', 0 FROM t");
        if round == 4 {
            proxy.cut_after(None);
            proxy.cut_all();
        }
        followed.equals(&fixture, "t").await;
    }
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prevents_a_feed_is_said_with_what_to_do() {
    let server = PostgresServer::start_with(&["fsync=off", "wal_level=replica"]);
    let Some(server) = server else { return };
    server.psql(&format!("{TABLE} CREATE TABLE keyless (id INTEGER, n INTEGER)"));
    let fixture = Fixture { server };
    let error = async |mode| {
        let followed = follow(&fixture.url(), "t", mode).await;
        let error = || followed.dio.status().feeds[0].error.clone();
        followed.until("an error is reported", || error().is_some()).await;
        let told = error().unwrap();
        followed.close().await;
        told
    };
    let told = error(FollowMode::Replication).await;
    assert!(told.contains("wal_level = logical") && told.contains("feed = \"notify\""), "{told}");
    let told = error(FollowMode::Auto).await;
    assert!(told.contains("diorama trigger t"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_report_changes_without_replication() {
    let server = PostgresServer::start_with(&["fsync=off", "wal_level=replica"]);
    let Some(server) = server else { return };
    server.psql(
        "CREATE TABLE lines (orders TEXT, line INTEGER, n INTEGER, PRIMARY KEY (orders, line));
        INSERT INTO lines SELECT 'a,b', n, n FROM generate_series(1, 200) n;",
    );
    let fixture = Fixture { server };
    let shared = Shared::new(Address::parse(&fixture.url(), None, None).unwrap());
    let relation = PostgresRelation::Table("lines".into());
    Postgres::connect(Arc::clone(&shared), relation, PostgresOptions::default()).await.unwrap();
    let feed = PostgresFeed { shared, mode: FollowMode::Auto, slot: "x".into() };
    fixture.server.psql(&feed.trigger("lines").await.unwrap());
    fixture.server.psql(&feed.trigger("lines").await.unwrap());
    let followed = follow(&fixture.url(), "lines", FollowMode::Auto).await;
    followed.connected().await;
    for change in [
        "INSERT INTO lines VALUES ('c', 1, 1)",
        "UPDATE lines SET n = n + 1 WHERE line < 20",
        "UPDATE lines SET line = line + 1000 WHERE line < 5",
        "DELETE FROM lines WHERE line BETWEEN 30 AND 40",
        "UPDATE lines SET n = 0",
        "INSERT INTO lines SELECT repeat('long', 500), n, n FROM generate_series(1, 200) n",
    ] {
        fixture.server.psql(change);
        followed.equals(&fixture, "lines").await;
    }
    followed.close().await;
}
