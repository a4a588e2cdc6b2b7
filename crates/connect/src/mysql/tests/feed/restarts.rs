//! A feed goes on after cuts, restarts, and in the middle of a transaction.

use super::*;

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
