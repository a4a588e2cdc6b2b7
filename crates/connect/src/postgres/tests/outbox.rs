//! Triggers that write into an outbox: no change is lost while nobody reads it.

use diorama_core::cache::RedbCache;
use diorama_core::journal::RedbJournal;
use diorama_core::lens::Lens;
use diorama_servers::CutProxy;

use super::feed::{Followed, follow, follow_in, list};
use super::*;
use crate::connector::{Feed as _, FollowMode, SourceRequest};
use crate::postgres::follow::PostgresFeed;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER);
    INSERT INTO t SELECT n, n FROM generate_series(1, 100) n;
    CREATE ROLE reader LOGIN PASSWORD 'x'; GRANT SELECT ON t TO reader;
    CREATE ROLE writer; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON t TO writer;";

impl Fixture {
    /// A server that does not replicate, with an outbox of table `t` for the user `reader`.
    async fn with_outbox() -> Option<Fixture> {
        let server = PostgresServer::start_with(&["fsync=off", "wal_level=replica"])?;
        server.psql(TABLE);
        let fixture = Fixture { server };
        fixture.make_triggers(true).await;
        Some(fixture)
    }

    fn reader(&self) -> String {
        format!("postgres://reader:x@127.0.0.1:{}/postgres", self.server.port())
    }

    async fn make_triggers(&self, outbox: bool) {
        let address = Address::parse(&self.reader(), None, None).unwrap();
        let shared = Shared::new(address, PostgresRelation::Table("t".into()));
        let feed = PostgresFeed { shared, mode: FollowMode::Auto, slot: "x".into() };
        let request = SourceRequest { name: "t".into(), ..SourceRequest::default() };
        self.server.psql(&feed.trigger(&request, outbox).await.unwrap());
    }

    /// Changes the table as a user who has no right on the outbox.
    fn write(&self, sql: &str) {
        self.server.psql(&format!("SET ROLE writer; {sql}"));
    }

    fn waiting(&self) -> String {
        self.server.psql("SELECT count(*) FROM diorama_t_outbox")
    }
}

/// A Lens with files in `folder`, whose rows are listed once, and by the feed's refreshes.
fn lens_listing_once(folder: &std::path::Path) -> Lens {
    let once = |dio: &diorama_core::Dio| {
        let dio = dio.clone();
        async move { if dio.status().complete { Ok(()) } else { list(dio).await } }
    };
    let lens = Lens::new().on_start(once).on_refresh(|dio| list(dio.clone()));
    let journal = RedbJournal::open(folder.join("journal.redb")).unwrap();
    let lens = lens.cache_file(RedbCache::open(folder.join("cache.redb")).unwrap()).journal_source(Arc::new(journal));
    lens.build().unwrap()
}

impl Followed {
    fn refreshes(&self) -> u64 {
        self.dio.counters().refreshed.count
    }

    /// Waits until no refresh is owed any more.
    async fn refreshed_once(&self, fixture: &Fixture) {
        self.until("the first refresh has ended", || self.refreshes() == 1).await;
        for _ in 0..2 {
            fixture.write("UPDATE t SET n = n + 1");
            self.settled(fixture).await;
        }
    }

    async fn settled(&self, fixture: &Fixture) {
        self.equals(fixture, "t").await;
        self.until("the outbox is read", || fixture.waiting().parse::<u32>().unwrap() <= 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_by_the_outbox() {
    let Some(fixture) = Fixture::with_outbox().await else { return };
    let followed = follow(&fixture.reader(), "t", FollowMode::Auto).await;
    followed.connected().await;
    for change in [
        "INSERT INTO t VALUES (200, 1)",
        "UPDATE t SET n = n + 1 WHERE id < 50",
        "UPDATE t SET id = id + 1000 WHERE id < 10",
        "DELETE FROM t WHERE id BETWEEN 30 AND 40",
        "UPDATE t SET n = 0 WHERE id = -1",
        "BEGIN; UPDATE t SET n = 5; ROLLBACK",
        // More than is read one by one, and more than is told one by one.
        "INSERT INTO t SELECT n, n FROM generate_series(10000, 13000) n",
        "INSERT INTO t SELECT n, n FROM generate_series(20000, 60000) n",
        "BEGIN; TRUNCATE t; INSERT INTO t SELECT n, -n FROM generate_series(1, 30000) n; COMMIT",
        "INSERT INTO t VALUES (-1, 1)",
    ] {
        fixture.write(change);
        followed.settled(&fixture).await;
    }
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_lost_while_nobody_reads_the_outbox() {
    let Some(mut fixture) = Fixture::with_outbox().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let open = async |fixture: &Fixture| {
        follow_in(lens_listing_once(folder.path()), &fixture.reader(), "t", FollowMode::Notify).await
    };
    let followed = open(&fixture).await;
    followed.refreshed_once(&fixture).await;
    followed.close().await;
    for round in 0..4 {
        let change = |n: i32| {
            let (changed, new) = (n % 50, 1_000 * (round + 1) + n);
            format!("UPDATE t SET n = {n} WHERE id = {changed}; INSERT INTO t VALUES ({new}, 0);")
        };
        fixture.write(&(0..100).map(change).collect::<String>());
        if round == 2 {
            fixture.server.kill();
            fixture.server.restart();
        }
        let followed = open(&fixture).await;
        followed.settled(&fixture).await;
        assert_eq!(followed.refreshes(), 0, "the rows are not listed again");
        followed.close().await;
    }
    // Triggers that were away may have missed changes.
    fixture
        .server
        .psql("DROP FUNCTION diorama_t() CASCADE; DROP FUNCTION diorama_t_both() CASCADE; UPDATE t SET n = -1");
    fixture.make_triggers(true).await;
    let followed = open(&fixture).await;
    followed.settled(&fixture).await;
    assert_eq!(followed.refreshes(), 1);
    followed.close().await;
    // So may an outbox that somebody has emptied.
    fixture.write("UPDATE t SET n = -2");
    fixture.server.psql("TRUNCATE diorama_t_outbox");
    let followed = open(&fixture).await;
    followed.settled(&fixture).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_change_is_lost_over_cuts_and_a_killed_server() {
    let Some(mut fixture) = Fixture::with_outbox().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let proxy = CutProxy::start(fixture.server.port());
    let url = fixture.reader().replace(&format!(":{}/", fixture.server.port()), &format!(":{}/", proxy.port()));
    let followed = follow_in(lens_listing_once(folder.path()), &url, "t", FollowMode::Notify).await;
    followed.refreshed_once(&fixture).await;
    for round in 0..8 {
        for n in 0..40 {
            fixture.write(&format!(
                "UPDATE t SET n = {n} WHERE id % 10 = {round}; DELETE FROM t WHERE id = {}",
                n + round * 5
            ));
            match (round, n) {
                (2 | 5, 20) => {
                    fixture.server.kill();
                    fixture.server.restart();
                }
                (_, 10) => proxy.cut_after(Some(2_000 + 3_000 * round as u64)),
                (_, 30) => {
                    proxy.cut_after(None);
                    proxy.cut_all();
                }
                _ => {}
            }
        }
        followed.settled(&fixture).await;
    }
    assert_eq!(followed.refreshes(), 1, "the rows are not listed again");
    followed.close().await;
}

/// The rows of an outbox are deleted by the one who reads them.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_has_one_reader() {
    let Some(fixture) = Fixture::with_outbox().await else { return };
    let first = follow(&fixture.reader(), "t", FollowMode::Notify).await;
    first.connected().await;
    let second = follow(&fixture.reader(), "t", FollowMode::Notify).await;
    let error = || second.dio.status().feeds[0].error.clone();
    second
        .until("the second one is refused", || error().is_some_and(|error| error.contains("another connection")))
        .await;
    first.close().await;
    second.connected().await;
    fixture.write("UPDATE t SET n = 7");
    second.settled(&fixture).await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_is_listed_and_dropped_with_its_triggers() {
    let Some(fixture) = Fixture::with_outbox().await else { return };
    let feed = |url: &str| {
        let address = Address::parse(url, None, None).unwrap();
        let shared = Shared::new(address, PostgresRelation::Table("t".into()));
        PostgresFeed { shared, mode: FollowMode::Auto, slot: "diorama_t".into() }
    };
    let listed = async || {
        let slots = feed(&fixture.reader()).slots().await.unwrap();
        slots.into_iter().map(|slot| (slot.name, slot.own, slot.active)).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, [("diorama_t_outbox".to_string(), true, false)]);
    let followed = follow(&fixture.reader(), "t", FollowMode::Notify).await;
    followed.connected().await;
    assert_eq!(listed().await, [("diorama_t_outbox".to_string(), true, true)]);
    followed.close().await;
    let refused = feed(&fixture.reader()).drop_slot("diorama_t_outbox").await.unwrap_err();
    assert!(refused.to_string().contains("owner"), "{refused}");
    feed(&fixture.url()).drop_slot("diorama_t_outbox").await.unwrap();
    assert_eq!(listed().await, []);
    fixture.write("UPDATE t SET n = 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_may_be_replaced_while_a_feed_reads() {
    let Some(fixture) = Fixture::with_outbox().await else { return };
    let followed = follow(&fixture.reader(), "t", FollowMode::Notify).await;
    followed.connected().await;
    for outbox in [false, true, true, false] {
        fixture.make_triggers(outbox).await;
        fixture.write("UPDATE t SET n = n + 1");
        followed.equals(&fixture, "t").await;
        fixture.write("UPDATE t SET n = n + 1 WHERE id < 5");
        followed.equals(&fixture, "t").await;
    }
    followed.close().await;
}
