//! Repeated deliveries, cut connections, a killed server.

use super::*;

/// Rows `0` to `9`, and a history of their changes.
const TABLE: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t SELECT n, -1 FROM generate_series(0, 9) n;
         CREATE TABLE history (n INTEGER);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO history VALUES (new.n); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note();";

#[tokio::test]
async fn an_operation_has_one_effect_over_a_thousand_deliveries() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let changes = contract::one_effect(&fixture.shell("t").await).await;
    assert_eq!(fixture.server.psql("SELECT count(*) FROM history"), changes.to_string());
}

#[tokio::test]
async fn a_write_whose_connection_is_cut_has_one_effect() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let shell = fixture.shell_behind(&proxy, "t").await;
    let changes = contract::one_effect_over_cuts(&shell, &proxy).await;
    assert_eq!(fixture.server.psql("SELECT count(*) FROM history"), changes.to_string());
}

#[tokio::test]
async fn a_list_whose_connection_is_cut_is_an_error() {
    let rows = "CREATE TABLE t AS SELECT n AS id, repeat('x', 50) AS text FROM generate_series(1, 20000) n;
        ALTER TABLE t ADD PRIMARY KEY (id);";
    let Some(fixture) = Fixture::new(rows) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    contract::whole_or_error(&fixture.shell_behind(&proxy, "t").await, &proxy, 20_000).await;
}

#[tokio::test]
async fn a_restarted_server_is_connected_to_again() {
    let Some(mut fixture) =
        Fixture::new("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 1);")
    else {
        return;
    };
    let shell = fixture.shell("t").await;
    assert!(shell.get("1").await.unwrap().is_some());
    fixture.server.kill();
    let error = shell.get("1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let error = shell.write_batch(&inserts([5])).await.remove(0).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
    fixture.server.restart();
    tokio::time::timeout(Duration::from_secs(20), async {
        while shell.get("1").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the server is back");
    assert!(shell.write_batch(&inserts([5])).await.remove(0).is_ok());
}
