//! The contract of feeds with replication, and with triggers that notify, with an outbox and without.

use async_trait::async_trait;

use super::*;
use crate::contract::feed::{Abilities, Change, Sender, feeds};

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    INSERT INTO t SELECT n, 0 FROM generate_series(1, 20) n;";

/// How the changes arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Slot,
    Outbox,
    Notifications,
}

/// A server behind a proxy.
struct Changes {
    way: Way,
    server: PostgresServer,
    proxy: CutProxy,
}

impl Changes {
    async fn start(way: Way) -> Option<Changes> {
        let wal_level = if way == Way::Slot { "logical" } else { "replica" };
        let server = PostgresServer::start_with(&["fsync=off", &format!("wal_level={wal_level}")])?;
        server.psql(TABLE);
        let proxy = CutProxy::start(server.port());
        let changes = Changes { way, server, proxy };
        if way != Way::Slot {
            changes.make_triggers().await;
        }
        Some(changes)
    }

    fn address(&self, port: u16) -> Address {
        let url = self.server.url("postgres").replace(&format!(":{}/", self.server.port()), &format!(":{port}/"));
        Address::parse(&url, None, None).unwrap()
    }

    async fn make_triggers(&self) {
        let shared = Shared::new(self.address(self.server.port()), PostgresRelation::Table("t".into()));
        let feed = PostgresFeed { shared, mode: FollowMode::Notify, slot: "x".into() };
        let request = SourceRequest { name: "t".into(), ..SourceRequest::default() };
        self.server.psql(&feed.trigger(&request, self.way == Way::Outbox).await.unwrap());
    }
}

#[async_trait]
impl Sender for Changes {
    fn abilities(&self) -> Abilities {
        let is_replicated = self.way == Way::Slot;
        Abilities {
            resumes: self.way != Way::Notifications,
            never_back: true,
            in_order: is_replicated,
            refreshes_at_start: (!is_replicated).into(),
        }
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        let mode = if self.way == Way::Slot { FollowMode::Replication } else { FollowMode::Notify };
        follow_with(lens, self.address(self.proxy.port()), "t", mode).await
    }

    async fn change(&self, changes: &[Change]) {
        let sql = changes.iter().map(|(id, n)| match n {
            Some(n) => {
                format!(
                    "BEGIN; INSERT INTO t VALUES ({id}, {n}) ON CONFLICT (id) DO UPDATE SET n = EXCLUDED.n; COMMIT;"
                )
            }
            None => format!("BEGIN; DELETE FROM t WHERE id = {id}; COMMIT;"),
        });
        let client = self.address(self.server.port()).connect().await.unwrap();
        client.batch_execute(&sql.collect::<String>()).await.unwrap();
    }

    async fn cut(&self) {
        self.proxy.cut_all();
    }

    async fn restart(&mut self) {
        self.server.kill();
        self.server.restart();
    }

    async fn lose_positions(&mut self, way: usize) -> bool {
        match (self.way, way) {
            (Way::Slot, 0) => {
                while self.server.psql("SELECT count(*) FROM pg_replication_slots WHERE active") != "0" {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                self.server.psql("SELECT pg_drop_replication_slot('diorama_t')");
            }
            // Triggers that were away may have missed changes.
            (Way::Outbox, 0) => {
                self.server.psql("DROP FUNCTION diorama_t() CASCADE; DROP FUNCTION diorama_t_both() CASCADE");
                self.make_triggers().await;
            }
            (Way::Outbox, 1) => drop(self.server.psql("TRUNCATE diorama_t_outbox")),
            _ => return false,
        }
        true
    }

    async fn send_nonsense(&self) -> bool {
        match self.way {
            Way::Slot => return false,
            Way::Outbox => self.server.psql("INSERT INTO diorama_t_outbox (ids) VALUES ('nonsense'); NOTIFY diorama_t"),
            Way::Notifications => self.server.psql("NOTIFY diorama_t, 'nonsense'"),
        };
        true
    }
}

async fn keeps_the_contract(way: Way) {
    let Some(changes) = Changes::start(way).await else { return };
    feeds(changes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_keeps_the_contract_of_feeds() {
    keeps_the_contract(Way::Slot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_keeps_the_contract_of_feeds() {
    keeps_the_contract(Way::Outbox).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_keep_the_contract_of_feeds() {
    keeps_the_contract(Way::Notifications).await;
}
