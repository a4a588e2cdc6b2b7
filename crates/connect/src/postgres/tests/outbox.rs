//! Triggers that write into an outbox: no change is lost while nobody reads it.

use super::feed::{Followed, follow};
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

impl Followed {
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
