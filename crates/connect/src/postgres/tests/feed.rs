//! Feeds: what happens on the server is what the Dio shows, in order, and once.

mod contract;

use std::collections::BTreeMap;

use diorama_core::Dio;
use diorama_core::cache::MemoryCache;
use diorama_core::dio::DioEvent;
use diorama_core::lens::Lens;
use diorama_servers::CutProxy;

use super::*;
use crate::connector::{Feed as _, FeedFormat, FollowMode, SourceRequest};
use crate::postgres::PostgresTls;
use crate::postgres::follow::PostgresFeed;

const PATIENCE: Duration = Duration::from_secs(20);

/// A Dio of a table that follows its changes.
pub(super) struct Followed {
    pub(super) dio: Dio,
    lens: Lens,
}

fn lens() -> Lens {
    let lens = Lens::new().on_start(|dio| list(dio.clone())).on_refresh(|dio| list(dio.clone()));
    lens.cache_source(MemoryCache::default()).build().unwrap()
}

pub(super) async fn follow(url: &str, table: &str, mode: FollowMode) -> Followed {
    follow_at(lens(), Address::parse(url, None, None).unwrap(), table, mode).await
}

async fn follow_at(lens: Lens, address: Address, table: &str, mode: FollowMode) -> Followed {
    let dio = follow_with(&lens, address, table, mode).await;
    Followed { dio, lens }
}

async fn follow_with(lens: &Lens, address: Address, table: &str, mode: FollowMode) -> Dio {
    let shared = Shared::new(address, PostgresRelation::Table(table.into()));
    let slot = crate::postgres::slot::name_of(table);
    let feed = PostgresFeed { shared: Arc::clone(&shared), mode, slot };
    feed.prepare();
    let shell = Postgres::connect(Arc::clone(&shared), PostgresOptions::default()).await.unwrap();
    let dio = lens.dio(Vista::new(table, shell)).make().await.unwrap();
    feed.start(&dio, FeedFormat::Diorama).unwrap();
    dio
}

async fn list(dio: Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.reconcile(rows).await.map(drop)
}

impl Followed {
    /// Waits until the feed is connected and no refresh is owed.
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
            let other: Vec<_> = expected.iter().filter(other).map(|(id, row)| (row, shown.get(id))).collect();
            let (dirty, status) = (state.dirty().collect::<Vec<_>>(), self.dio.status());
            panic!(
                "expected and shown: {other:?}, in doubt {dirty:?}, source {:?}, feeds {:?}",
                status.source, status.feeds
            );
        }
    }

    pub(super) async fn close(self) {
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

/// A patch that merges into a JSON column reads the stored row first. The feed waits for its message in the log as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_merges_into_a_json_column_is_confirmed_by_the_feed() {
    let table = "CREATE TABLE t (id INTEGER PRIMARY KEY, j JSONB); INSERT INTO t VALUES (1, '{\"a\": 1}');";
    let Some(fixture) = Fixture::new(table) else { return };
    let followed = follow(&fixture.url(), "t", FollowMode::Replication).await;
    followed.connected().await;
    let mut events = followed.dio.subscribe_events();
    let patch = CborValue::Map(vec![("b".into(), 2.into())]);
    followed.dio.vista().patch_value("1", &record([("j", patch)])).await.unwrap();
    loop {
        let event =
            tokio::time::timeout(Duration::from_secs(7), events.recv()).await.expect("it is confirmed").unwrap();
        if matches!(event, DioEvent::WriteCommitted { .. }) {
            break;
        }
    }
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_prevents_a_feed_is_said_with_what_to_do() {
    let server = PostgresServer::start_with(&["fsync=off", "wal_level=replica"]);
    let Some(server) = server else { return };
    server.psql(TABLE);
    let fixture = Fixture { server };
    let error = async |mode| {
        let followed = follow(&fixture.url(), "t", mode).await;
        let error = || followed.dio.status().feeds[0].error.clone();
        followed.until("an error is reported", || error().is_some()).await;
        let told = error().unwrap();
        followed.close().await;
        told
    };
    let told = Box::pin(error(FollowMode::Replication)).await;
    assert!(told.contains("wal_level = logical") && told.contains("feed = \"notify\""), "{told}");
    assert_eq!(inspect(&fixture.url(), "t", FollowMode::Replication).await.unwrap_err(), told);
    let told = Box::pin(error(FollowMode::Auto)).await;
    assert!(told.contains("replication is not possible") && told.contains("diorama trigger t"), "{told}");
    assert_eq!(inspect(&fixture.url(), "t", FollowMode::Auto).await, Ok(Some(told)));
    let told = Box::pin(error(FollowMode::Notify)).await;
    assert_eq!(inspect(&fixture.url(), "t", FollowMode::Notify).await.unwrap_err(), told);
}

/// Says what `diorama check` says.
async fn inspect(url: &str, table: &str, mode: FollowMode) -> std::result::Result<Option<String>, String> {
    let shared = Shared::new(Address::parse(url, None, None).unwrap(), PostgresRelation::Table(table.into()));
    let feed = PostgresFeed { shared, mode, slot: crate::postgres::slot::name_of(table) };
    let request = SourceRequest { name: table.into(), id: Some("id".into()), ..SourceRequest::default() };
    feed.inspect(&request).await.map_err(|error| match error {
        Error::Config(mistake) => mistake,
        other => panic!("{other}"),
    })
}

/// `diorama check` finds what would prevent a feed, in the same words, and leaves the server as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_will_prevent_a_feed_is_found_before_it_starts() {
    let sql = format!(
        "{TABLE} CREATE TABLE keyless (id INTEGER, n INTEGER); CREATE VIEW v AS SELECT * FROM t;
        CREATE ROLE \"a reader\" LOGIN PASSWORD 'x'; GRANT SELECT ON t TO \"a reader\"; CREATE TABLE own AS SELECT * FROM t;
        ALTER TABLE own ADD PRIMARY KEY (id), OWNER TO \"a reader\"; GRANT CREATE ON DATABASE postgres TO \"a reader\";
        GRANT CREATE ON SCHEMA public TO \"a reader\";"
    );
    let Some(fixture) = Fixture::new(&sql) else { return };
    let replicated = async |url: &str, table: &str| inspect(url, table, FollowMode::Replication).await;
    assert_eq!(replicated(&fixture.url(), "t").await, Ok(None));
    let told = replicated(&fixture.url(), "v").await.unwrap_err();
    assert!(told.contains("not a table"), "{told}");
    let told = replicated(&fixture.url(), "keyless").await.unwrap_err();
    assert!(told.contains("REPLICA IDENTITY FULL"), "{told}");
    let reader = format!("postgres://a%20reader:x@127.0.0.1:{}/postgres", fixture.server.port());
    let told = replicated(&reader, "t").await.unwrap_err();
    assert!(told.contains("the owner of the table can run CREATE PUBLICATION"), "{told}");
    let told = replicated(&reader, "own").await.unwrap_err();
    assert!(told.contains("ALTER ROLE \"a reader\" REPLICATION"), "{told}");
    let left = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)";
    assert_eq!(fixture.server.psql(left), "0", "nothing is left on the server");

    let followed = follow(&reader, "own", FollowMode::Replication).await;
    let error = || followed.dio.status().feeds[0].error.clone();
    followed.until("an error is reported", || error().is_some()).await;
    assert_eq!(error().unwrap(), told, "the feed says the same");
    fixture.server.psql("ALTER ROLE \"a reader\" REPLICATION");
    assert_eq!(replicated(&reader, "own").await, Ok(None));
    followed.connected().await;
    assert_eq!(replicated(&reader, "own").await, Ok(None), "its own slot is there");
    followed.close().await;
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
    let relation = PostgresRelation::Table("lines".into());
    let shared = Shared::new(Address::parse(&fixture.url(), None, None).unwrap(), relation);
    let feed = PostgresFeed { shared, mode: FollowMode::Auto, slot: "x".into() };
    let request = SourceRequest { name: "lines".into(), ..SourceRequest::default() };
    for _ in 0..2 {
        fixture.server.psql(&feed.trigger(&request, false).await.unwrap());
    }
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

/// Generated columns are not sent by servers before version 18: such rows are read.
#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_are_those_of_the_table() {
    let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, twice INTEGER GENERATED ALWAYS AS (n * 2) STORED);
        INSERT INTO t (id, n) SELECT n, n FROM generate_series(1, 20) n;";
    let Some(fixture) = Fixture::new(sql) else { return };
    let followed = follow(&fixture.url(), "t", FollowMode::Replication).await;
    followed.connected().await;
    for change in
        ["INSERT INTO t (id, n) VALUES (30, 30)", "UPDATE t SET n = n + 1 WHERE id < 5", "DELETE FROM t WHERE id = 9"]
    {
        fixture.server.psql(change);
        followed.equals(&fixture, "t").await;
    }
    followed.dio.vista().patch_value("1", &record([("n", 50.into())])).await.unwrap();
    followed.until("the write is applied", || followed.dio.status().queued == 0).await;
    followed.equals(&fixture, "t").await;
    followed.close().await;
}

/// A write that changes nothing is settled at once, and a server that stops is not held up.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_quiet_feed() {
    let Some(mut fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t", FollowMode::Replication).await;
    followed.connected().await;
    followed.dio.vista().patch_value("1", &record([])).await.unwrap();
    followed.until("the write is applied", || followed.dio.status().queued == 0).await;
    fixture.server.psql("UPDATE t SET n = n + 1");
    followed.equals(&fixture, "t").await;
    fixture.server.stop();
    followed.close().await;
}

/// Columns that are added, retyped and dropped show in the rows at once, in the schema after a restart.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_need_no_restart() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let followed = follow(&fixture.url(), "t", FollowMode::Replication).await;
    followed.connected().await;
    for change in [
        "ALTER TABLE t ADD COLUMN e TEXT DEFAULT 'new'; UPDATE t SET e = 'changed' WHERE id = 7",
        "UPDATE t SET n = 5 WHERE id = 8; ALTER TABLE t ALTER COLUMN n TYPE TEXT; UPDATE t SET n = 'text' WHERE id = 9",
        "ALTER TABLE t DROP COLUMN large; INSERT INTO t (id, n) VALUES (300, 'x')",
    ] {
        fixture.server.psql(change);
        followed.equals(&fixture, "t").await;
    }
    let told: Vec<String> = followed.dio.inferred().iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("column \"n\": is now of type text"), "{told:?}");
    let row = followed.dio.held_row("300").unwrap();
    assert_eq!((&row["e"], row.get("large")), (&"new".into(), None));
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_and_the_server_is_checked() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let folder = fixture.server.folder().join("data");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&folder).unwrap());
    for (name, text) in [("server.crt", made.cert.pem()), ("server.key", made.signing_key.serialize_pem())] {
        std::fs::write(folder.join(name), text).unwrap();
        std::os::unix::fs::chown(folder.join(name), Some(owner), Some(owner)).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.join(name), private).unwrap();
    }
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authority.path(), made.cert.pem()).unwrap();
    let address = |tls, ca| Address::parse(&fixture.url(), Some(tls), ca).unwrap();
    let ca = || Some(authority.path().to_path_buf());
    let error = address(PostgresTls::Require, ca()).connect().await.unwrap_err().to_string();
    assert!(error.contains("does not support TLS"), "{error}");

    fixture.server.psql("ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf()");
    let encrypted = async |address: &Address| {
        let row =
            address.connect().await?.query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).await;
        Ok::<bool, Error>(row.unwrap().get(0))
    };
    while !encrypted(&address(PostgresTls::Prefer, None)).await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert!(encrypted(&address(PostgresTls::Require, ca())).await.unwrap());
    assert!(!encrypted(&address(PostgresTls::Off, None)).await.unwrap());
    let error = encrypted(&address(PostgresTls::Require, None)).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");

    fixture.server.psql("UPDATE t SET n = 1");
    let followed = follow_at(lens(), address(PostgresTls::Require, ca()), "t", FollowMode::Replication).await;
    followed.connected().await;
    fixture.server.psql("UPDATE t SET n = 2");
    followed.equals(&fixture, "t").await;
    let plain = "SELECT count(*) FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid) WHERE NOT s.ssl";
    assert_eq!(fixture.server.psql(plain), "0", "the replication connection is encrypted, too");
    followed.close().await;
}
