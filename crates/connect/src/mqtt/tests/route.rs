use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diorama_core::vista::{ErrorKind, WriteOp};
use diorama_servers::CutProxy;

use super::*;
use crate::stream::testing::{cloudevents, native, preset};

fn replace(id: &str, value: i64) -> WriteOp {
    WriteOp::Replace { id: id.into(), record: n(value) }
}

/// A feed reads what a route of each format has written, also ids that a topic cannot have, and repeated messages once.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_reads_what_a_route_has_written() {
    let Some(server) = MqttServer::start() else { return };
    for (format, read) in [
        (WriteFormat::Native, native()),
        (WriteFormat::Row, preset("row", None)),
        (WriteFormat::Debezium, preset("debezium", Some("rows"))),
        (WriteFormat::CloudEvents, cloudevents()),
    ] {
        let world = World::new();
        // A session for each format: the last acknowledgements are not sent any more.
        let mut own = topics(&server.url(), true);
        own.session.client = format!("{format:?}");
        let followed = world.open(|dio| start(dio, own, read)).await;
        followed.until("one list", || followed.lists() == 1).await;
        let (own, shared) =
            (route(&server.url(), "t/{id}", false, format), route(&server.url(), "t/all", false, format));
        let id = "a/b +é%#";
        world.source.insert(id, &n(5)).await.unwrap();
        for (route, operation, op) in [
            (&own, "1", WriteOp::Insert { id: id.into(), record: n(5) }),
            (&shared, "2", WriteOp::Insert { id: "gone".into(), record: n(1) }),
            (&shared, "3", WriteOp::Delete { id: "gone".into() }),
        ] {
            let operation = format!("op_{format:?}_{operation}");
            route.shell().write_once(&operation, &op).await.unwrap();
            // After a lost answer. It is told apart by its id.
            route.shell().write_once(&operation, &op).await.unwrap();
        }
        followed.until("all messages", || messages(&followed) == 6).await;
        followed.shows(&[(id, 5)]).await;
        assert_eq!(followed.undecodable(), 0);
        followed.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_have_the_id_of_their_operation_and_may_be_kept_per_row() {
    let Some(server) = MqttServer::start() else { return };
    server.keep("reader", "#").await;
    let kept = route(&server.url(), "rows/{id}", true, WriteFormat::Row);
    kept.shell().write_once("op_1", &replace("a b", 7)).await.unwrap();
    kept.shell().write_once("op_2", &replace("x", 1)).await.unwrap();
    kept.shell().write_once("op_3", &WriteOp::Delete { id: "x".into() }).await.unwrap();
    let event = route(&server.url(), "events", false, WriteFormat::CloudEvents);
    event.shell().write_once("op_4", &replace("é", 7)).await.unwrap();
    let messages = server.take_messages("reader").await;
    let property = |number: usize, name: &str| {
        messages[number].properties.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone()).unwrap()
    };
    assert_eq!((messages[0].topic.as_str(), messages[0].value.as_str()), ("rows/a b", r#"{"id":"a b","n":7}"#));
    assert_eq!((property(0, "diorama-operation"), property(0, "diorama-key")), ("op_1".into(), "a b".into()));
    assert_eq!(
        (property(3, "specversion"), property(3, "id"), property(3, "subject")),
        ("1.0".into(), "op_4".into(), "é".into())
    );
    let kept: Vec<_> = server.retained("#").await.into_iter().map(|message| message.topic).collect();
    assert_eq!(kept, ["rows/a b"], "a deleted row has no message");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_broker_that_is_away_is_known_not_to_be_sent() {
    let Some(mut server) = MqttServer::start() else { return };
    let route = route(&server.url(), "t/{id}", false, WriteFormat::Native);
    route.shell().write_once("op_0", &replace("a", 1)).await.expect("also if nobody has subscribed");
    let warnings = route.shell().warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("topic t/a: nobody has subscribed"), "{warnings:?}");
    server.keep("reader", "t/+").await;
    route.shell().write_once("op_0", &replace("b", 1)).await.unwrap();
    assert_eq!(route.shell().warnings(), [""; 0], "somebody has subscribed");
    let error = route.shell().write_once("op_0", &replace(&"x".repeat(70_000), 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error}");
    server.kill();
    let error = route.shell().write_once("op_1", &replace("a", 1)).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
    let error = route.shell().write_once("op_1", &replace("a", 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    server.restart();
    route.shell().write_once("op_1", &replace("a", 1)).await.unwrap();
}

/// Writes to 20 rows while connections are cut: no write that was reported as routed is missing, and without repeated operations the
/// messages of each row are its writes, in order. With `kills`, the last write of each row, after all trouble, is what the broker keeps.
async fn writes_over_trouble(kills: bool) {
    let Some(mut server) = MqttServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let route = route(&format!("mqtt://127.0.0.1:{}", proxy.port()), "t/{id}", true, WriteFormat::Row);
    server.keep("reader", "t/+").await;
    let (rows, writes, done) = (20, 60, AtomicUsize::new(0));
    let write = async |row: usize, number: i64| {
        let operation = format!("op_{row}_{number}");
        while let Err(error) = route.shell().write_once(&operation, &replace(&format!("r{row}"), number)).await {
            assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let write_row = async |row: usize| {
        for number in 0..writes {
            write(row, number).await;
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let trouble = async {
        for part in 1..8 {
            while done.load(Ordering::Relaxed) < rows * 60 * part / 8 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            match kills && part % 2 == 0 {
                true => {
                    server.kill();
                    server.restart();
                }
                false => proxy.cut_all(),
            }
        }
    };
    tokio::join!(futures_util::future::join_all((0..rows).map(write_row)), trouble);
    futures_util::future::join_all((0..rows).map(|row| write(row, writes))).await;
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["n"].as_i64().unwrap();
    let kept = server.retained("t/+").await;
    assert_eq!(kept.len(), rows);
    assert!(kept.iter().all(|message| value(&message.value) == writes), "{kept:?}");
    if kills {
        return;
    }
    let (mut seen, mut of_row) = (HashSet::new(), BTreeMap::<String, Vec<i64>>::new());
    for message in server.take_messages("reader").await {
        let operation = message.properties.into_iter().find(|(name, _)| name == "diorama-operation").unwrap().1;
        if seen.insert(operation) {
            of_row.entry(message.topic).or_default().push(value(&message.value));
        }
    }
    assert_eq!(of_row.len(), rows);
    for (row, numbers) in of_row {
        assert_eq!(numbers, (0..=writes).collect::<Vec<_>>(), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routed_writes_are_sent_in_order_over_cuts() {
    writes_over_trouble(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_after_the_broker_was_killed() {
    writes_over_trouble(true).await;
}
