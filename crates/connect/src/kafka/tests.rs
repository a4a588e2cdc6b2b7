//! Feed and route against a broker that is killed, cut off, and that forgets messages.

mod contract;

use std::collections::{BTreeMap, HashSet};

use diorama_core::Dio;
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Column, ColumnType, ErrorKind, Schema, Vista, WriteOp};
use diorama_servers::{CutProxy, KafkaMessage, KafkaRecord, KafkaServer};

use super::*;
use crate::connector::FeedFormat;
use crate::kafka::address::KafkaTopic;
use crate::kafka::feed::KafkaBroker;
use crate::kafka::route::KafkaPublisher;
use crate::stream::testing::{Followed, World, cloudevents, native, preset};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};

fn topic(address: &str) -> KafkaTopic {
    KafkaTopic::plain(address, "t")
}

fn start(dio: &Dio, address: &str, format: FeedFormat) {
    StreamFeed::start(KafkaBroker(topic(address)), dio, "kafka".into(), "kafka:t", format).unwrap();
}

fn update(id: &str, n: i64) -> String {
    format!(r#"{{"op":"upsert","id":"{id}","new":{{"n":{n}}}}}"#)
}

fn n(n: i64) -> Record {
    Record::from_iter([("n".to_string(), CborValue::from(n))])
}

fn keyed<'a>(key: &'a str, value: Option<&'a str>) -> KafkaRecord<'a> {
    KafkaRecord { key, value, headers: &[] }
}

/// Changes a row of the source, and says so in the topic.
async fn change(world: &World, server: &KafkaServer, partition: i32, id: &str, value: Option<i64>) {
    match value {
        Some(value) => world.source.replace_value(id, &n(value)).await.unwrap(),
        None => world.source.delete(id).await.unwrap(),
    }
    let message = value.map(|value| update(id, value));
    server.produce("t", partition, &[keyed(id, message.as_deref())]).await;
}

fn messages(followed: &Followed) -> u64 {
    followed.dio.status().feeds[0].messages
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_all_partitions_are_changes_and_a_restart_reads_none_twice() {
    let Some(server) = KafkaServer::start() else { return };
    server.create_topic("t", 3).await;
    server.produce("t", 0, &[keyed("old", Some(&update("old", 1)))]).await;
    let world = World::new();
    world.source.insert("a", &n(1)).await.unwrap();
    let followed = world.open(|dio| start(dio, &server.address(), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, 0, "a", Some(2)).await;
    change(&world, &server, 0, "b", Some(1)).await;
    change(&world, &server, 2, "c", Some(1)).await;
    followed.shows(&[("a", 2), ("b", 1), ("c", 1)]).await;
    change(&world, &server, 0, "b", None).await;
    followed.shows(&[("a", 2), ("c", 1)]).await;
    followed.until("the message before the subscription is not a change", || messages(&followed) == 4).await;
    followed.close().await;
    // While nobody listens.
    change(&world, &server, 1, "d", Some(4)).await;
    change(&world, &server, 0, "a", Some(3)).await;
    let followed = world.open(|dio| start(dio, &server.address(), native())).await;
    followed.shows(&[("a", 3), ("c", 1), ("d", 4)]).await;
    followed.until("nothing is read again", || messages(&followed) == 2).await;
    assert_eq!(followed.lists(), 0, "the source is not listed");
    followed.until("it has caught up", || followed.dio.status().feeds[0].lag.unwrap().messages == Some(0)).await;
    followed.close().await;
}

/// Later messages of a row need no read of the source, and an older one than the row is stale.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_row_are_in_the_order_of_the_topic() {
    let Some(server) = KafkaServer::start() else { return };
    server.create_topic("t", 1).await;
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.address(), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, 0, "a", Some(0)).await;
    followed.shows(&[("a", 0)]).await;
    followed.until("the first message was compared with the source", || followed.dio.rows_in_doubt() == 0).await;
    // The source is not changed: a read would show.
    for value in 1..=500 {
        server.produce("t", 0, &[keyed("a", Some(&update("a", value)))]).await;
    }
    followed.shows(&[("a", 500)]).await;
    assert_eq!(followed.dio.rows_in_doubt(), 0);
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named() {
    let Some(server) = KafkaServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.address(), native())).await;
    let error = || followed.dio.status().feeds[0].error.clone().unwrap_or_default();
    followed.until("the error", || error().contains("there is no such topic")).await;
    server.create_topic("t", 1).await;
    followed.until("it is connected", || followed.dio.status().feeds[0].connected).await;
    followed.close().await;
}

const UPDATED: &[(&str, &str)] =
    &[("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "rows.updated"), ("ce_subject", "a")];
const DELETED: &[(&str, &str)] =
    &[("ce_specversion", "1.0"), ("ce_id", "3"), ("ce_source", "/s"), ("ce_type", "rows.deleted"), ("ce_subject", "b")];

/// Messages for an insert of `a`, and for a row `b` that comes and goes, with the format that reads them.
fn foreign() -> [(FeedFormat, [KafkaRecord<'static>; 3]); 3] {
    let record = |key, value| KafkaRecord { key, value, headers: &[] };
    let debezium = [
        record(
            r#"{"schema":null,"payload":{"id":"a"}}"#,
            Some(r#"{"before":null,"after":{"id":"a","n":5},"source":{"table":"rows"},"op":"c","ts_ms":1}"#),
        ),
        record(
            r#"{"schema":null,"payload":{"id":"b"}}"#,
            Some(r#"{"before":null,"after":{"id":"b","n":6},"source":{"table":"rows"},"op":"c","ts_ms":2}"#),
        ),
        record(r#"{"schema":null,"payload":{"id":"b"}}"#, None),
    ];
    let structured =
        r#"{"specversion":"1.0","id":"2","source":"/s","type":"rows.created","subject":"b","data":{"n":1}}"#;
    let events = [
        KafkaRecord { headers: UPDATED, ..record("a", Some(r#"{"id":"a","n":5}"#)) },
        record("b", Some(structured)),
        KafkaRecord { headers: DELETED, ..record("b", Some("null")) },
    ];
    let rows = [record("a", Some(r#"{"id":"a","n":5}"#)), record("b", Some(r#"{"n":1}"#)), record("b", None)];
    [(preset("debezium", Some("rows")), debezium), (cloudevents(), events), (preset("row", None), rows)]
}

#[tokio::test(flavor = "multi_thread")]
async fn debezium_and_cloudevents_and_rows_are_read() {
    let Some(server) = KafkaServer::start() else { return };
    server.create_topic("t", 1).await;
    for (format, sent) in foreign() {
        let world = World::new();
        let followed = world.open(|dio| start(dio, &server.address(), format)).await;
        followed.until("one list", || followed.lists() == 1).await;
        world.source.insert("a", &n(5)).await.unwrap();
        for message in sent {
            server.produce("t", 0, &[message]).await;
        }
        followed.until("all messages", || messages(&followed) == 3).await;
        followed.shows(&[("a", 5)]).await;
        assert_eq!(followed.undecodable(), 0);
        followed.close().await;
    }
}

fn route(address: &str, format: WriteFormat) -> Vista {
    let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
    StreamRoute::vista(KafkaPublisher::new(topic(address)), format, "rows", schema.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_are_messages_with_the_row_as_key_and_the_operation_in_a_header() {
    let Some(server) = KafkaServer::start() else { return };
    server.create_topic("t", 4).await;
    let route = route(&server.address(), WriteFormat::Native);
    for id in ["a", "b", "c", "d"] {
        let op = WriteOp::Insert { id: id.into(), record: n(1) };
        route.shell().write_once(&format!("op_{id}"), &op).await.unwrap();
    }
    let messages = server.messages("t").await;
    assert_eq!(messages.len(), 4);
    for KafkaMessage { partition, key, value, headers } in messages {
        assert_eq!(partition as usize, partitioner::partition(key.as_bytes(), 4));
        assert_eq!(headers["diorama-operation"], format!("op_{key}"));
        assert_eq!(headers["content-type"], "application/json");
        assert!(value.unwrap().ends_with(r#""new":{"n":1},"op":"insert"}"#));
    }
}

/// Random writes to 20 rows while the broker is killed and connections are cut: no write that was reported as routed is missing, and
/// without repeated operations the messages of each row are its writes, in order.
#[tokio::test(flavor = "multi_thread")]
async fn routed_writes_are_in_the_topic_in_order_over_kills_and_cuts() {
    let Some(mut server) = KafkaServer::start_durable() else { return };
    server.create_topic("t", 3).await;
    let proxy = CutProxy::start(server.port());
    server.advertise(proxy.port());
    let route = route(&format!("127.0.0.1:{}", proxy.port()), WriteFormat::Row);
    let rows = 20;
    let (done, writes) = (std::sync::atomic::AtomicUsize::new(0), 60);
    let write_row = async |row: usize| {
        for number in 0..writes {
            let op = WriteOp::Replace { id: format!("r{row}"), record: n(number) };
            let operation = format!("op_{row}_{number}");
            while let Err(error) = route.shell().write_once(&operation, &op).await {
                assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let all = futures_util::future::join_all((0..rows).map(write_row));
    let trouble = async {
        let passed = |count| {
            let done = &done;
            async move {
                while done.load(std::sync::atomic::Ordering::Relaxed) < count {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                }
            }
        };
        for part in 1..8 {
            passed(rows * 60 * part / 8).await;
            match part % 2 {
                0 => {
                    server.kill();
                    server.restart();
                }
                _ => proxy.cut_all(),
            }
        }
    };
    tokio::join!(all, trouble);
    let (mut seen, mut of_row) = (HashSet::new(), BTreeMap::<String, Vec<i64>>::new());
    for message in server.messages("t").await {
        if seen.insert(message.headers["diorama-operation"].clone()) {
            let row: serde_json::Value = serde_json::from_str(&message.value.unwrap()).unwrap();
            of_row.entry(message.key).or_default().push(row["n"].as_i64().unwrap());
        }
    }
    assert_eq!(of_row.len(), rows);
    for (row, numbers) in of_row {
        assert_eq!(numbers, (0..writes).collect::<Vec<_>>(), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_broker_that_is_away_is_known_not_to_be_sent() {
    let Some(mut server) = KafkaServer::start_durable() else { return };
    server.create_topic("t", 1).await;
    let route = route(&server.address(), WriteFormat::Native);
    let op = WriteOp::Delete { id: "a".into() };
    server.kill();
    let error = route.shell().write_once("op_1", &op).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    server.restart();
    route.shell().write_once("op_1", &op).await.unwrap();
    assert_eq!(server.messages("t").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_given_up() {
    let topic = KafkaTopic::plain("127.0.0.1:9092", "changes");
    let failure = topic.answer(std::future::pending::<Result<(), _>>()).await.unwrap_err();
    assert_eq!(failure.message, "kafka://127.0.0.1:9092/changes: no answer within 30 s");
}
