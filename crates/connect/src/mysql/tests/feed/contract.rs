//! The contract of feeds with the binary log.

use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;

use super::*;
use crate::contract::feed::{Abilities, Change, Sender, feeds};

const TABLE: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL); INSERT INTO t SELECT seq, 0 FROM seq_1_to_20;";

/// A server behind a proxy.
struct BinaryLog {
    fixture: Fixture,
    proxy: CutProxy,
}

#[async_trait]
impl Sender for BinaryLog {
    fn abilities(&self) -> Abilities {
        Abilities { resumes: true, never_back: true, in_order: true, refreshes_at_start: 0 }
    }

    async fn follow(&self, lens: &Lens) -> Dio {
        let port = |port: u16| format!(":{port}/");
        let url = self.fixture.url().replace(&port(self.fixture.server.port()), &port(self.proxy.port()));
        follow_with(lens, &url, "t").await
    }

    async fn change(&self, changes: &[Change]) {
        let sql = changes.iter().map(|(id, n)| match n {
            Some(n) => format!("INSERT INTO t VALUES ({id}, {n}) ON DUPLICATE KEY UPDATE n = {n};"),
            None => format!("DELETE FROM t WHERE id = {id};"),
        });
        let mut conn = Address::parse(&self.fixture.url(), None, None).unwrap().connect().await.unwrap();
        conn.query_drop(sql.collect::<String>()).await.unwrap();
        conn.disconnect().await.unwrap();
    }

    async fn cut(&self) {
        self.proxy.cut_all();
    }

    async fn restart(&mut self) {
        self.fixture.server.kill();
        self.fixture.server.restart();
    }

    async fn lose_positions(&mut self, way: usize) -> bool {
        // A file of the log that is sent to somebody stays.
        while !self
            .fixture
            .sql("SELECT id FROM information_schema.processlist WHERE command = 'Binlog Dump'")
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match way {
            0 => drop(self.fixture.sql("RESET MASTER")),
            1 => {
                self.fixture.sql("FLUSH BINARY LOGS");
                loop {
                    let logs = self.fixture.sql("SHOW BINARY LOGS");
                    let newest = logs.lines().last().and_then(|line| line.split('\t').next()).unwrap();
                    if logs.lines().count() == 1 {
                        break;
                    }
                    // A file that a crash would need stays for a moment.
                    self.fixture.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            2 => drop(self.fixture.sql("SET GLOBAL server_id = 7")),
            _ => return false,
        }
        true
    }

    /// Rows that are compressed are not read.
    async fn send_nonsense(&self) -> bool {
        self.fixture.sql(
            "SET GLOBAL log_bin_compress_min_len = 10; SET GLOBAL log_bin_compress = ON;
            BEGIN; UPDATE t SET n = n + 1; UPDATE t SET n = n - 1; COMMIT; SET GLOBAL log_bin_compress = OFF",
        );
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_log_keeps_the_contract_of_feeds() {
    let Some(fixture) = Fixture::with(&DURABLE, TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    feeds(BinaryLog { fixture, proxy }).await;
}
