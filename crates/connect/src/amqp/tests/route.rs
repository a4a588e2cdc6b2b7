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

/// A feed reads what a route of each format has written, also ids that a routing key cannot have, and repeated messages once.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_reads_what_a_route_has_written() {
    let Some(server) = server(QUORUM).await else { return };
    for (format, read) in [
        (WriteFormat::Native, native()),
        (WriteFormat::Row, preset("row", None)),
        (WriteFormat::Debezium, preset("debezium", Some("rows"))),
        (WriteFormat::CloudEvents, cloudevents()),
    ] {
        let world = World::new();
        let followed = world.open(|dio| start(dio, queue(&server.url()), read)).await;
        followed.until("one list", || followed.lists() == 1).await;
        let (exchange, single) = (route(&server.url(), "t", "t.{id}", format), route(&server.url(), "", "q", format));
        let id = "a.b *é%";
        world.source.insert(id, &n(5)).await.unwrap();
        for (route, operation, op) in [
            (&exchange, "1", WriteOp::Insert { id: id.into(), record: n(5) }),
            (&single, "2", WriteOp::Insert { id: "gone".into(), record: n(1) }),
            (&exchange, "3", WriteOp::Delete { id: "gone".into() }),
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
async fn messages_are_persistent_and_have_the_id_of_their_operation() {
    let Some(server) = server(&[]).await else { return };
    route(&server.url(), "t", "t.{id}", WriteFormat::Row).shell().write_once("op_1", &replace("a b", 7)).await.unwrap();
    route(&server.url(), "t", "t.x", WriteFormat::CloudEvents)
        .shell()
        .write_once("op_2", &replace("é", 7))
        .await
        .unwrap();
    let [row, event] = server.take_messages("q").await.try_into().unwrap();
    assert_eq!((row.routing_key.as_str(), row.value.as_str()), ("t.a%20b", r#"{"id":"a b","n":7}"#));
    assert_eq!(row.properties.delivery_mode(), &Some(2));
    assert_eq!(row.properties.message_id().as_ref().unwrap().as_str(), "op_1");
    assert_eq!(row.properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!((row.headers["diorama-operation"].as_str(), row.headers["diorama-key"].as_str()), ("op_1", "a b"));
    assert_eq!(
        (event.headers["cloudEvents_id"].as_str(), event.headers["cloudEvents_subject"].as_str()),
        ("op_2", "é")
    );
}

/// The broker confirms what it can route to no queue. Each write hears of its own message only, whatever is under way beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_no_queue_takes_waits_and_no_other_one_is_taken_for_it() {
    let Some(server) = server(QUORUM).await else { return };
    let route = route(&server.url(), "t", "{id}", WriteFormat::Row);
    let write = async |number: usize| {
        let id = if number.is_multiple_of(2) { format!("t.{number}") } else { format!("nowhere{number}") };
        // The dot is encoded, so that the key has one word.
        let encoded = route.shell().write_once(&format!("op_{number}"), &replace(&id, 1)).await;
        (number, encoded)
    };
    let written = futures_util::future::join_all((0..40).map(write)).await;
    for (_, result) in &written {
        let error = result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(error.to_string().contains("no queue takes the routing key"), "{error}");
    }
    server.declare_exchange("t", &[("q", "even*"), ("q", "even.#")]).await;
    let route = super::route(&server.url(), "t", "even.{id}", WriteFormat::Row);
    let lost = super::route(&server.url(), "t", "odd.{id}", WriteFormat::Row);
    let write = async |number: usize| {
        let target = if number.is_multiple_of(2) { &route } else { &lost };
        target.shell().write_once(&format!("op_{number}"), &replace(&number.to_string(), 1)).await.is_ok()
    };
    let written = futures_util::future::join_all((0..400).map(write)).await;
    assert!(written.iter().enumerate().all(|(number, routed)| *routed == number.is_multiple_of(2)), "{written:?}");
    assert_eq!(server.take_messages("q").await.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_broker_that_is_away_is_known_not_to_be_sent_and_one_that_is_too_large_ends() {
    let Some(mut server) = server(&[]).await else { return };
    let route = route(&server.url(), "t", "t.{id}", WriteFormat::Native);
    let error = route.shell().write_once("op_0", &replace(&"x".repeat(300), 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error}");
    assert!(error.to_string().contains("longer than 255 bytes"), "{error}");
    server.kill();
    let error = route.shell().write_once("op_1", &replace("a", 1)).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
    let error = route.shell().write_once("op_1", &replace("a", 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    server.restart();
    route.shell().write_once("op_1", &replace("a", 1)).await.unwrap();
    assert_eq!(server.take_messages("q").await.len(), 1);
}

/// Random writes to 20 rows while the broker is killed and connections are cut: no write that was reported as routed is missing, and
/// without repeated operations the messages of each row are its writes, in order.
#[tokio::test(flavor = "multi_thread")]
async fn routed_writes_are_in_the_queue_in_order_over_kills_and_cuts() {
    for arguments in [&[][..], QUORUM] {
        let Some(mut server) = server(arguments).await else { return };
        let proxy = CutProxy::start(server.port());
        let url = format!("amqp://guest:guest@127.0.0.1:{}", proxy.port());
        let route = route(&url, "t", "t.{id}", WriteFormat::Row);
        let (rows, writes, done) = (20, 60, AtomicUsize::new(0));
        let write_row = async |row: usize| {
            for number in 0..writes {
                let operation = format!("op_{row}_{number}");
                while let Err(error) = route.shell().write_once(&operation, &replace(&format!("r{row}"), number)).await
                {
                    assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let trouble = async {
            for part in 1..6 {
                while done.load(Ordering::Relaxed) < rows * 60 * part / 6 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                match part % 3 {
                    0 => {
                        server.kill();
                        server.restart();
                    }
                    _ => proxy.cut_all(),
                }
            }
        };
        tokio::join!(futures_util::future::join_all((0..rows).map(write_row)), trouble);
        let (mut seen, mut of_row) = (HashSet::new(), BTreeMap::<String, Vec<i64>>::new());
        for message in server.take_messages("q").await {
            if seen.insert(message.headers["diorama-operation"].clone()) {
                let row: serde_json::Value = serde_json::from_str(&message.value).unwrap();
                of_row.entry(message.routing_key).or_default().push(row["n"].as_i64().unwrap());
            }
        }
        assert_eq!(of_row.len(), rows);
        for (row, numbers) in of_row {
            assert_eq!(numbers, (0..writes).collect::<Vec<_>>(), "{row}");
        }
    }
}
