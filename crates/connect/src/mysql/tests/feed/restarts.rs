//! A feed goes on in the middle of a transaction.

use super::*;

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

fn n_of(dio: &Dio) -> i64 {
    let row = dio.held_row("1").unwrap();
    row["n"].as_integer().and_then(|n| i64::try_from(n).ok()).unwrap()
}
