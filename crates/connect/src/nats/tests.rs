//! Feed and route against a server that is killed, cut off, and that forgets messages.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diorama_core::Dio;
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Column, ColumnType, ErrorKind, Schema, Vista, WriteOp};
use diorama_servers::{CutProxy, NatsServer};

use super::address::NatsAddress;
use super::feed::NatsBroker;
use super::route::NatsPublisher;
use crate::connector::FeedFormat;
use crate::stream::testing::{Followed, World, cloudevents, native, preset};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};

fn start(dio: &Dio, url: &str, filter: Option<&str>, format: FeedFormat) {
    let broker =
        NatsBroker { address: NatsAddress::plain(url), stream: "S".into(), filter: filter.map(str::to_string) };
    StreamFeed::start(broker, dio, "nats".into(), "nats:S", format).unwrap();
}

fn n(n: i64) -> Record {
    Record::from_iter([("n".to_string(), CborValue::from(n))])
}

/// Changes a row of the source, and says so in the stream.
async fn change(world: &World, server: &NatsServer, id: &str, value: Option<i64>) {
    let message = match value {
        Some(value) => {
            world.source.replace_value(id, &n(value)).await.unwrap();
            format!(r#"{{"op":"upsert","id":"{id}","new":{{"n":{value}}}}}"#)
        }
        None => {
            world.source.delete(id).await.unwrap();
            String::new()
        }
    };
    server.publish(&format!("t.{id}"), &[], &message).await;
}

fn messages(followed: &Followed) -> u64 {
    followed.dio.status().feeds[0].messages
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_changes_and_a_restart_reads_none_twice() {
    let Some(server) = NatsServer::start() else { return };
    server.create_stream("S", &["t.*"]).await;
    let world = World::new();
    change(&world, &server, "a", Some(1)).await;
    let followed = world.open(|dio| start(dio, &server.url(), Some("t.*"), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(2)).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 2), ("b", 1)]).await;
    change(&world, &server, "b", None).await;
    followed.shows(&[("a", 2)]).await;
    followed.until("the message before the subscription is not a change", || messages(&followed) == 3).await;
    followed.close().await;
    // While nobody listens.
    change(&world, &server, "d", Some(4)).await;
    change(&world, &server, "a", Some(3)).await;
    let followed = world.open(|dio| start(dio, &server.url(), Some("t.*"), native())).await;
    followed.shows(&[("a", 3), ("d", 4)]).await;
    followed.until("nothing is read again", || messages(&followed) == 2).await;
    assert_eq!(followed.lists(), 0, "the source is not listed");
    followed.until("it has caught up", || followed.dio.status().feeds[0].lag.unwrap().messages == Some(0)).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_decoded_costs_a_refresh_and_blocks_nothing() {
    let Some(server) = NatsServer::start() else { return };
    server.create_stream("S", &["t.*"]).await;
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.url(), None, native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    world.source.insert("a", &n(1)).await.unwrap();
    server.publish("t.a", &[], "{not json").await;
    // Without a filter, the subject is not a key.
    server.publish("t.a", &[], "").await;
    followed.until("both are counted", || followed.undecodable() == 2).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 1), ("b", 1)]).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_costs_one_refresh() {
    let Some(server) = NatsServer::start() else { return };
    server.create_stream("S", &["t.*"]).await;
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.url(), Some("t.*"), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(1)).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 1), ("b", 1)]).await;
    followed.close().await;
    server.delete_stream("S").await;
    server.create_stream("S", &["t.*"]).await;
    // The new stream has as many messages.
    change(&world, &server, "a", None).await;
    change(&world, &server, "c", Some(1)).await;
    let followed = world.open(|dio| start(dio, &server.url(), Some("t.*"), native())).await;
    followed.shows(&[("b", 1), ("c", 1)]).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "b", Some(2)).await;
    followed.shows(&[("b", 2), ("c", 1)]).await;
    assert_eq!(followed.lists(), 1);
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_continues_after_the_server_was_killed_and_connections_were_cut() {
    let Some(mut server) = NatsServer::start() else { return };
    server.create_stream("S", &["t.*"]).await;
    let proxy = CutProxy::start(server.port());
    let url = format!("nats://127.0.0.1:{}", proxy.port());
    let world = World::new();
    let followed = world.open(|dio| start(dio, &url, Some("t.*"), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    for round in 0..6 {
        match round % 3 {
            0 => {
                server.kill();
                server.restart();
            }
            1 => proxy.cut_all(),
            _ => {
                proxy.cut_all();
                proxy.cut_after(1_500 + 37 * round);
            }
        }
        let value = i64::try_from(round).unwrap();
        change(&world, &server, "a", Some(value)).await;
        proxy.cut_after(None);
        change(&world, &server, "b", Some(value)).await;
        followed.shows(&[("a", value), ("b", value)]).await;
    }
    followed.until("no message was read twice, and none was missed", || messages(&followed) == 12).await;
    assert_eq!(followed.lists(), 1);
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_stream_is_named() {
    let Some(server) = NatsServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.url(), None, native())).await;
    let error = || followed.dio.status().feeds[0].error.clone().unwrap_or_default();
    followed.until("the error", || error().contains("stream S") && error().contains("not found")).await;
    server.create_stream("S", &["t.*"]).await;
    followed.until("it is connected", || followed.dio.status().feeds[0].connected).await;
    followed.close().await;
}

fn route(url: &str, subject: &str, format: WriteFormat) -> Vista {
    let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
    StreamRoute::vista(NatsPublisher::new(NatsAddress::plain(url), subject.into()), format, "rows", schema.into())
}

/// A feed reads what a route of each format has written, also ids that a subject cannot have.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_reads_what_a_route_has_written() {
    let Some(server) = NatsServer::start() else { return };
    server.create_stream("S", &["t.*"]).await;
    for (format, read) in [
        (WriteFormat::Native, native()),
        (WriteFormat::Row, preset("row", None)),
        (WriteFormat::Debezium, preset("debezium", Some("rows"))),
        (WriteFormat::CloudEvents, cloudevents()),
    ] {
        let world = World::new();
        let followed = world.open(|dio| start(dio, &server.url(), Some("t.*"), read)).await;
        followed.until("one list", || followed.lists() == 1).await;
        let route = route(&server.url(), "t.{id}", format);
        world.source.insert("a.b *é", &n(5)).await.unwrap();
        for (operation, op) in [
            ("1", WriteOp::Insert { id: "a.b *é".into(), record: n(5) }),
            ("2", WriteOp::Insert { id: "gone".into(), record: n(1) }),
            ("3", WriteOp::Delete { id: "gone".into() }),
        ] {
            let operation = format!("op_{format:?}_{operation}");
            route.shell().write_once(&operation, &op).await.unwrap();
            // The server drops a repeated message.
            route.shell().write_once(&operation, &op).await.unwrap();
        }
        followed.until("all messages", || messages(&followed) == 3).await;
        followed.shows(&[("a.b *é", 5)]).await;
        assert_eq!(followed.undecodable(), 0);
        followed.close().await;
    }
}

/// Headers are one line of ASCII: ids in them are percent-encoded, as the binding of CloudEvents says, and read back.
#[tokio::test(flavor = "multi_thread")]
async fn ids_in_headers_are_encoded() {
    let Some(server) = NatsServer::start() else { return };
    server.create_stream("S", &["t.*"]).await;
    let (world, id) = (World::new(), "a b%é");
    let followed = world.open(|dio| start(dio, &server.url(), None, preset("row", None))).await;
    followed.until("one list", || followed.lists() == 1).await;
    world.source.insert(id, &n(5)).await.unwrap();
    let (insert, delete) = (WriteOp::Insert { id: id.into(), record: n(5) }, WriteOp::Delete { id: id.into() });
    route(&server.url(), "t.events", WriteFormat::CloudEvents).shell().write_once("op_1", &delete).await.unwrap();
    let (_, headers, _) = server.messages("S").await.pop().unwrap();
    assert_eq!(headers.get("ce-subject").unwrap().as_str(), "a%20b%25%C3%A9");
    let rows = route(&server.url(), "t.rows", WriteFormat::Row);
    rows.shell().write_once("op_2", &insert).await.unwrap();
    followed.shows(&[(id, 5)]).await;
    world.source.delete(id).await.unwrap();
    rows.shell().write_once("op_3", &delete).await.unwrap();
    followed.shows(&[]).await;
    followed.close().await;
}

/// Random writes to 20 rows while the server is killed and connections are cut: no write that was reported as routed is missing, and
/// without repeated operations the messages of each row are its writes, in order.
#[tokio::test(flavor = "multi_thread")]
async fn routed_writes_are_in_the_stream_in_order_over_kills_and_cuts() {
    let Some(mut server) = NatsServer::start() else { return };
    server.create_stream("S", &["t.*"]).await;
    let proxy = CutProxy::start(server.port());
    let route = route(&format!("nats://127.0.0.1:{}", proxy.port()), "t.{id}", WriteFormat::Row);
    let (rows, writes, done) = (20, 60, AtomicUsize::new(0));
    let write_row = async |row: usize| {
        for number in 0..writes {
            let op = WriteOp::Replace { id: format!("r{row}"), record: n(number) };
            let operation = format!("op_{row}_{number}");
            while let Err(error) = route.shell().write_once(&operation, &op).await {
                assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    let trouble = async {
        for part in 1..8 {
            while done.load(Ordering::Relaxed) < rows * 60 * part / 8 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            match part % 2 {
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
    for (subject, headers, value) in server.messages("S").await {
        if seen.insert(headers.get("diorama-operation").unwrap().to_string()) {
            let row: serde_json::Value = serde_json::from_str(&value).unwrap();
            of_row.entry(subject).or_default().push(row["n"].as_i64().unwrap());
        }
    }
    assert_eq!(of_row.len(), rows);
    for (row, numbers) in of_row {
        assert_eq!(numbers, (0..writes).collect::<Vec<_>>(), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_no_stream_takes_waits_and_one_to_a_server_that_is_away_is_known_not_to_be_sent() {
    let Some(mut server) = NatsServer::start() else { return };
    let route = route(&server.url(), "t.{id}", WriteFormat::Native);
    let op = WriteOp::Delete { id: "a".into() };
    let error = route.shell().write_once("op_1", &op).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("no stream takes this subject"), "{error}");
    server.kill();
    let error = route.shell().write_once("op_1", &op).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
    let error = route.shell().write_once("op_1", &op).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    server.restart();
    server.create_stream("S", &["t.*"]).await;
    route.shell().write_once("op_1", &op).await.unwrap();
    assert_eq!(server.messages("S").await.len(), 1);
}
