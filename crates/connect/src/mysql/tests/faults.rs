//! Repeated deliveries and cut connections.

use super::*;

/// Rows `0` to `9`, and a history of their changes.
const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t SELECT seq, -1 FROM seq_0_to_9;
    CREATE TABLE history (n INTEGER); CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW INSERT INTO history VALUES (new.n);";

#[tokio::test]
async fn an_operation_has_one_effect_over_a_thousand_deliveries() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let changes = contract::one_effect(&fixture.shell("t").await).await;
    assert_eq!(fixture.sql("SELECT count(*) FROM history"), changes.to_string());
}

#[tokio::test]
async fn a_write_whose_connection_is_cut_has_one_effect() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let shell = fixture.shell_behind(&proxy, "t").await;
    let changes = contract::one_effect_over_cuts(&shell, &proxy).await;
    assert_eq!(fixture.sql("SELECT count(*) FROM history"), changes.to_string());
}

#[tokio::test]
async fn a_list_whose_connection_is_cut_is_an_error() {
    let rows = "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT); INSERT INTO t SELECT seq, repeat('x', 50) FROM seq_1_to_20000;";
    let Some(fixture) = Fixture::new(rows) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    contract::whole_or_error(&fixture.shell_behind(&proxy, "t").await, &proxy, 20_000).await;
}
