//! The feeds of a table: what happens on the server is what the Dio shows.

use std::collections::BTreeMap;

use async_trait::async_trait;
use diorama_core::Dio;
use diorama_core::cache::MemoryCache;
use diorama_core::lens::Lens;

use super::*;
use crate::connector::{Feed as _, FeedFormat, FollowMode, SourceRequest};
use crate::contract::feed::{Abilities, Change, Sender, feeds};
use crate::surrealdb::feed::SurrealFeed;

const PATIENCE: Duration = Duration::from_secs(60);

const KEPT: &str = "DEFINE TABLE t CHANGEFEED 1h; FOR $i IN 1..=20 { CREATE type::record('t', $i) SET n = 0 }";
const NOT_KEPT: &str = "FOR $i IN 1..=20 { CREATE type::record('t', $i) SET n = 0 }";

async fn follow_with(lens: &Lens, address: Address, mode: FollowMode) -> Dio {
    let shared = Shared::new(address, "t".into());
    let feed = SurrealFeed { shared: Arc::clone(&shared), mode };
    feed.prepare();
    let shell = Surreal::connect(shared, &Options::default()).await.unwrap();
    let dio = lens.dio(Vista::new("t", shell)).make().await.unwrap();
    feed.start(&dio, FeedFormat::Diorama).unwrap();
    dio
}

/// A server behind a proxy.
struct Database {
    fixture: Fixture,
    proxy: CutProxy,
    mode: FollowMode,
}

impl Database {
    fn is_kept(&self) -> bool {
        self.mode != FollowMode::Notify
    }
}

#[async_trait]
impl Sender for Database {
    fn abilities(&self) -> Abilities {
        let is_kept = self.is_kept();
        Abilities { resumes: is_kept, never_back: is_kept, in_order: is_kept, refreshes_at_start: 1 }
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        follow_with(lens, self.fixture.address_at(self.proxy.port()), self.mode).await
    }

    async fn change(&self, changes: &[Change]) {
        let statements = changes.iter().map(|(id, n)| match n {
            Some(n) => format!("UPSERT t:{id} SET n = {n} RETURN NONE;"),
            None => format!("DELETE t:{id};"),
        });
        let mut session = self.fixture.address_at(self.fixture.server.port()).connect().await.unwrap();
        // Statements of one request notify only the live queries that were there when it began.
        let requests: Vec<String> = if self.is_kept() { vec![statements.collect()] } else { statements.collect() };
        for request in requests {
            let results = session.query(&request, object([]), None).await.unwrap();
            results.into_iter().for_each(|result| drop(result.unwrap()));
        }
    }

    async fn cut(&self) {
        self.proxy.cut_all();
    }

    async fn restart(&mut self) {
        self.fixture.server.kill();
        self.fixture.server.restart();
    }

    async fn lose_positions(&mut self, way: usize) -> bool {
        match way {
            _ if !self.is_kept() => return false,
            // The table is another one of the same name, and the server does not tell that it has removed the rows.
            0 => {
                let rows = self.fixture.sql("SELECT * FROM t");
                self.fixture.sql("REMOVE TABLE t; REMOVE DATABASE shop; DEFINE DATABASE shop");
                self.fixture.sql("DEFINE TABLE t CHANGEFEED 1h");
                for row in rows.as_array().unwrap() {
                    self.fixture.sql(&format!("CREATE {} SET n = {}", row["id"].as_str().unwrap(), row["n"]));
                }
            }
            _ => return false,
        }
        true
    }

    /// A table that is defined again may have other rows.
    async fn send_nonsense(&self) -> bool {
        false
    }
}

async fn keeps_the_contract(statements: &str, mode: FollowMode) {
    let Some(fixture) = Fixture::new(statements) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    feeds(Database { fixture, proxy, mode }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_feed_keeps_the_contract_of_feeds() {
    keeps_the_contract(KEPT, FollowMode::Auto).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_query_keeps_the_contract_of_feeds() {
    keeps_the_contract(NOT_KEPT, FollowMode::Notify).await;
}

/// A Dio that follows.
struct Followed {
    dio: Dio,
    lens: Lens,
}

async fn list(dio: Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.reconcile(rows).await.map(drop)
}

async fn follow(fixture: &Fixture, mode: FollowMode) -> Followed {
    let lens = Lens::new().on_start(|dio| list(dio.clone())).on_refresh(|dio| list(dio.clone()));
    let lens = lens.cache_source(MemoryCache::default()).build().unwrap();
    let dio = follow_with(&lens, fixture.address_at(fixture.server.port()), mode).await;
    let followed = Followed { dio, lens };
    followed.until("the feed is connected", || followed.dio.status().feeds[0].connected).await;
    followed.until("the source is read again", || followed.lists() == 1).await;
    followed
}

impl Followed {
    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let late = tokio::time::timeout(PATIENCE, waiting).await.is_err();
        assert!(!late, "{what}: {:?}; {:?}", self.dio.status().feeds, self.rows());
    }

    fn rows(&self) -> BTreeMap<String, CborValue> {
        let state = self.dio.state();
        let row =
            |row: diorama_core::table::RowRef<'_>| (row.id().to_string(), row.body().decode().unwrap()["n"].clone());
        state.table().natural(0).map(row).collect()
    }

    fn lists(&self) -> u64 {
        self.dio.counters().refreshed.count
    }

    async fn close(self) {
        self.dio.close().await;
        self.lens.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_of_other_tables_hide_none() {
    let Some(fixture) = Fixture::new(&format!("{KEPT}; DEFINE TABLE other CHANGEFEED 1h")) else { return };
    let followed = follow(&fixture, FollowMode::Replication).await;
    // More than one page of the server, before and after a change of the table, and in one transaction with it.
    let others = "CREATE other SET n = 1 RETURN NONE;".repeat(1_500);
    fixture.sql(&format!("{others} UPDATE t:1 SET n = 1; {others} UPDATE t:2 SET n = 2;"));
    fixture.sql("BEGIN; FOR $i IN 0..1200 { CREATE other SET n = 2 RETURN NONE }; UPDATE t:3 SET n = 3; COMMIT");
    fixture.sql("UPDATE t SET many = true RETURN NONE; UPDATE t:4 SET n = 4");
    followed.until("the last change", || followed.rows()["4"] == 4.into()).await;
    let rows = followed.rows();
    assert_eq!([&rows["1"], &rows["2"], &rows["3"]], [&1.into(), &2.into(), &3.into()]);
    assert_eq!(followed.lists(), 1, "no list is needed");
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_anew_is_read_again() {
    let Some(fixture) = Fixture::new(KEPT) else { return };
    let followed = follow(&fixture, FollowMode::Replication).await;
    let shell = fixture.shell("t").await;
    fixture.sql("REMOVE TABLE t");
    let error = shell.list(&Query::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "a table that is gone is not an empty one: {error}");
    followed.until("the removal is found", || !followed.dio.status().feeds[0].connected).await;
    fixture.sql("DEFINE TABLE t CHANGEFEED 1h; CREATE t:77 SET n = 7");
    let expected = BTreeMap::from([("77".to_string(), CborValue::from(7))]);
    followed.until("the new rows", || followed.rows() == expected).await;
    let lists = followed.lists();
    fixture.sql("DEFINE TABLE OVERWRITE t CHANGEFEED 2h");
    followed.until("the rows are read again", || followed.lists() > lists).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_feed_that_is_dropped_is_replaced_by_a_live_query() {
    let Some(fixture) = Fixture::new(KEPT) else { return };
    let followed = follow(&fixture, FollowMode::Auto).await;
    fixture.sql("ALTER TABLE t DROP CHANGEFEED; UPDATE t:1 SET n = 1");
    followed.until("the end of the change feed is found", || followed.dio.status().feeds[0].connects > 1).await;
    followed.until("the missed change", || followed.rows()["1"] == 1.into()).await;
    fixture.sql("UPDATE t:1 SET n = 2");
    followed.until("the live query", || followed.rows()["1"] == 2.into()).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_with_their_originals_are_whole_rows() {
    let statements = "DEFINE TABLE t CHANGEFEED 1h INCLUDE ORIGINAL; CREATE t:1 SET n = 0; CREATE t:2 SET n = 0";
    let Some(fixture) = Fixture::new(statements) else { return };
    let followed = follow(&fixture, FollowMode::Auto).await;
    fixture.sql("UPDATE t:1 SET n = 5; DELETE t:2; CREATE t:3 SET n = 7");
    let expected = BTreeMap::from([("1".to_string(), CborValue::from(5)), ("3".into(), 7.into())]);
    followed.until("the rows", || followed.rows() == expected).await;
    assert_eq!((followed.lists(), followed.dio.status().feeds[0].undecodable), (1, 0));
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_transactions_are_all_reported() {
    let Some(fixture) = Fixture::new(KEPT) else { return };
    let followed = follow(&fixture, FollowMode::Replication).await;
    // Numbers are given before transactions are visible, so that some may appear late.
    let address = fixture.address_at(fixture.server.port());
    let mut writers = tokio::task::JoinSet::new();
    for id in 1..=8_u32 {
        let address = address.clone();
        writers.spawn(async move {
            let mut session = address.connect().await.unwrap();
            for n in 1..=200 {
                session.last(&format!("UPDATE t:{id} SET n = {n} RETURN NONE"), object([]), None).await.unwrap();
            }
        });
    }
    writers.join_all().await;
    let is_last = |id: u32| followed.rows()[&id.to_string()] == 200.into();
    followed.until("the last changes", || (1..=8).all(is_last)).await;
    assert_eq!(followed.lists(), 1, "no list is needed");
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_of_feed_is_said() {
    let Some(fixture) = Fixture::new(NOT_KEPT) else { return };
    let inspect = async |mode| {
        let shared = fixture.shared_at(fixture.server.port(), "t");
        SurrealFeed { shared, mode }.inspect(&SourceRequest::default()).await
    };
    let said = inspect(FollowMode::Auto).await.unwrap().unwrap();
    assert!(said.contains("live query") && said.contains("ALTER TABLE t CHANGEFEED"), "{said}");
    let refused = inspect(FollowMode::Replication).await.unwrap_err();
    assert!(matches!(&refused, Error::Config(problem) if problem.contains("ALTER TABLE t CHANGEFEED")), "{refused}");
    assert_eq!(inspect(FollowMode::Notify).await.unwrap(), None);
    let followed = follow(&fixture, FollowMode::Auto).await;
    fixture.sql("UPDATE t:1 SET n = 1; DELETE t:2");
    followed.until("the changes", || followed.rows()["1"] == 1.into() && followed.rows().len() == 19).await;
    followed.close().await;
    fixture.sql("ALTER TABLE t CHANGEFEED 1h");
    assert_eq!(inspect(FollowMode::Auto).await.unwrap(), None);
    assert_eq!(inspect(FollowMode::Replication).await.unwrap(), None);
}
