//! Cut connections and a server that is killed.

use tokio::task::JoinSet;

use super::writes::TABLE;
use super::*;

#[tokio::test]
async fn a_write_whose_connection_is_cut_has_one_effect() {
    let Some(fixture) = Fixture::new(TABLE) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    let shell = fixture.shell_at(proxy.port(), "t").await;
    let changes = contract::one_effect_over_cuts(&shell, &proxy).await;
    assert_eq!(fixture.count("history"), changes as u64);
}

#[tokio::test]
async fn a_list_whose_connection_is_cut_is_an_error() {
    let rows = "FOR $i IN 0..8000 { CREATE type::record('t', $i) SET text = 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }";
    let Some(fixture) = Fixture::new(rows) else { return };
    let proxy = CutProxy::start(fixture.server.port());
    contract::whole_or_error(&fixture.shell_at(proxy.port(), "t").await, &proxy, 8_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_leaves_whole_lists_and_single_effects() {
    let Some(mut fixture) =
        Fixture::new(&format!("FOR $i IN 0..4000 {{ CREATE type::record('big', $i) SET n = 1 }}; {TABLE}"))
    else {
        return;
    };
    let (big, shell) = (fixture.shell("big").await, fixture.shell("t").await);
    for round in 0..3_u32 {
        let (mut writing, mut listing) = (JoinSet::new(), JoinSet::new());
        writing.spawn({
            let shell = shell.clone();
            async move {
                for number in 0..200 {
                    let op = WriteOp::Patch { id: (number % 10).to_string(), record: record([("n", number.into())]) };
                    let operation = format!("op_{round}_{number:03}");
                    while let Err(error) = shell.write_once(&operation, &op).await {
                        assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        });
        listing.spawn({
            let big = big.clone();
            async move {
                let mut failures = 0;
                for _ in 0..20 {
                    match big.list(&Query::default()).await {
                        Ok(rows) => assert_eq!(rows.len(), 4_000),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
                            failures += 1;
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
                failures
            }
        });
        let some = u64::from(round) * 30 + 40;
        while fixture.count("history") < 200 * u64::from(round) + some {
            tokio::task::yield_now().await;
        }
        fixture.server.kill();
        fixture.server.restart();
        writing.join_all().await;
        let failures: u32 = listing.join_all().await.into_iter().sum();
        assert!(failures > 0, "a list was under way");
    }
    assert_eq!(fixture.count("history"), 600, "none was lost or made twice");
}

#[tokio::test]
async fn a_connection_that_was_lost_while_idle_is_replaced() {
    let Some(mut fixture) = Fixture::new("CREATE t:1 SET n = 1") else { return };
    let vista = fixture.open("t").await;
    assert_eq!(vista.list_values().await.unwrap().len(), 1);
    fixture.server.kill();
    assert_eq!(vista.get_value("1").await.unwrap_err().kind(), ErrorKind::Transient);
    fixture.server.restart();
    assert!(vista.get_value("1").await.unwrap().is_some());
}
