//! Feed and route against a server that is killed, cut off, and that forgets entries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diorama_core::Dio;
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Column, ColumnType, ErrorKind, Schema, Vista, WriteOp};
use diorama_servers::{CutProxy, RedisServer};

use super::address::RedisAddress;
use super::feed::RedisBroker;
use super::route::RedisPublisher;
use crate::connector::FeedFormat;
use crate::stream::testing::{Followed, World, cloudevents, native, preset};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};

mod cache;
mod contract;
mod security;

fn start(dio: &Dio, url: &str, format: FeedFormat) {
    let broker = RedisBroker { address: RedisAddress::parse(url).unwrap(), stream: "s".into() };
    StreamFeed::start(broker, dio, "redis".into(), "redis:s", format).unwrap();
}

fn n(n: i64) -> Record {
    Record::from_iter([("n".to_string(), CborValue::from(n))])
}

/// Changes a row of the source, and says so in the stream.
async fn change(world: &World, server: &RedisServer, id: &str, value: Option<i64>) {
    match value {
        Some(value) => {
            world.source.replace_value(id, &n(value)).await.unwrap();
            let message = format!(r#"{{"op":"upsert","id":"{id}","new":{{"n":{value}}}}}"#);
            server.add("s", &[("key", id), ("value", &message)]);
        }
        None => {
            world.source.delete(id).await.unwrap();
            server.add("s", &[("key", id)]);
        }
    }
}

fn messages(followed: &Followed) -> u64 {
    followed.dio.status().feeds[0].messages
}

fn route(url: &str, max_length: Option<u64>, format: WriteFormat) -> Vista {
    let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
    let publisher = RedisPublisher::new(RedisAddress::parse(url).unwrap(), "s".into(), max_length);
    StreamRoute::vista(publisher, format, "rows", schema.into())
}

/// The field `name` of an entry.
fn field<'e>(entry: &'e diorama_servers::RedisEntry, name: &str) -> Option<&'e str> {
    entry.1.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_changes_and_a_restart_reads_none_twice() {
    let Some(server) = RedisServer::start() else { return };
    let world = World::new();
    change(&world, &server, "a", Some(1)).await;
    let followed = world.open(|dio| start(dio, &server.url(), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(2)).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 2), ("b", 1)]).await;
    change(&world, &server, "b", None).await;
    followed.shows(&[("a", 2)]).await;
    followed.until("the entry before the subscription is not a change", || messages(&followed) == 3).await;
    followed.close().await;
    // While nobody listens.
    change(&world, &server, "d", Some(4)).await;
    change(&world, &server, "a", Some(3)).await;
    let followed = world.open(|dio| start(dio, &server.url(), native())).await;
    followed.shows(&[("a", 3), ("d", 4)]).await;
    followed.until("nothing is read again", || messages(&followed) == 2).await;
    assert_eq!(followed.lists(), 0, "the source is not listed");
    followed.until("it has caught up", || followed.dio.status().feeds[0].lag.unwrap().messages == Some(0)).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_decoded_costs_a_refresh_and_blocks_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.url(), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    world.source.insert("a", &n(1)).await.unwrap();
    server.add("s", &[("key", "a"), ("value", "{not json")]);
    server.add("s", &[("name", "a"), ("n", "1")]);
    followed.until("both are counted", || followed.undecodable() == 2).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 1), ("b", 1)]).await;
    followed.close().await;
}

/// A stream that does not exist is one without entries: the first entry is a change.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_does_not_exist_yet_is_waited_for_and_told() {
    let Some(server) = RedisServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.url(), native())).await;
    let warned = || followed.dio.status().warnings.iter().any(|warning| warning.contains("stream s: there is no such"));
    followed.until("the warning", warned).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(1)).await;
    followed.shows(&[("a", 1)]).await;
    followed.until("the warning ends", || !warned()).await;
    assert_eq!((messages(&followed), followed.lists()), (1, 1));
    followed.close().await;
}

/// A way to take entries from a feed that does not listen, with a name.
type Removal = (&'static str, fn(&RedisServer));

fn removals() -> [Removal; 5] {
    [
        ("trimmed by length", |server| assert_ne!(server.run::<i64>(&["XTRIM", "s", "MAXLEN", "2"]), -1)),
        ("trimmed to nothing", |server| assert_ne!(server.run::<i64>(&["XTRIM", "s", "MAXLEN", "0"]), -1)),
        ("an unread entry is deleted", |server| {
            let unread = server.entries("s").pop().unwrap().0;
            server.run::<i64>(&["XDEL", "s", &unread]);
        }),
        ("made anew with as many entries", |server| {
            let count = server.entries("s").len();
            server.run::<i64>(&["DEL", "s"]);
            (0..count).for_each(|_| drop(server.add("s", &[("key", "nobody")])));
        }),
        ("removed", |server| assert_ne!(server.run::<i64>(&["DEL", "s"]), -1)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_gone_cost_one_refresh() {
    let Some(server) = RedisServer::start() else { return };
    for (what, remove) in removals() {
        let world = World::new();
        let followed = world.open(|dio| start(dio, &server.url(), native())).await;
        followed.until("one list", || followed.lists() == 1).await;
        change(&world, &server, "a", Some(1)).await;
        change(&world, &server, "b", Some(1)).await;
        followed.shows(&[("a", 1), ("b", 1)]).await;
        followed.close().await;
        for value in 2..6 {
            change(&world, &server, "a", Some(value)).await;
        }
        remove(&server);
        let followed = world.open(|dio| start(dio, &server.url(), native())).await;
        followed.until(what, || followed.lists() == 1).await;
        followed.shows(&[("a", 5), ("b", 1)]).await;
        change(&world, &server, "b", Some(2)).await;
        followed.shows(&[("a", 5), ("b", 2)]).await;
        assert_eq!(followed.lists(), 1, "{what}");
        followed.close().await;
    }
}

/// A producer that keeps a stream short does no harm to a feed that has read what is removed.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_were_read_may_be_removed() {
    let Some(server) = RedisServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, &server.url(), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    for value in 1..8 {
        change(&world, &server, "a", Some(value)).await;
        followed.shows(&[("a", value)]).await;
        server.run::<i64>(&["XTRIM", "s", "MAXLEN", if value % 2 == 0 { "0" } else { "1" }]);
    }
    followed.close().await;
    server.run::<i64>(&["XTRIM", "s", "MAXLEN", "0"]);
    change(&world, &server, "b", Some(1)).await;
    let followed = world.open(|dio| start(dio, &server.url(), native())).await;
    followed.shows(&[("a", 7), ("b", 1)]).await;
    assert_eq!((messages(&followed), followed.lists()), (1, 0));
    followed.close().await;
}

/// Entries that are removed while the feed is connected and cannot keep up.
#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_removed_under_a_slow_feed_cost_a_refresh() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let world = World::new();
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let followed = world.open(|dio| start(dio, &url, native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(1)).await;
    followed.shows(&[("a", 1)]).await;
    proxy.hold(true);
    for value in 2..500 {
        change(&world, &server, "a", Some(value)).await;
    }
    change(&world, &server, "b", Some(1)).await;
    server.run::<i64>(&["XTRIM", "s", "MAXLEN", "1"]);
    world.source.insert("c", &n(1)).await.unwrap();
    proxy.hold(false);
    followed.shows(&[("a", 499), ("b", 1), ("c", 1)]).await;
    followed.until("one list", || followed.lists() == 2).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_continues_after_the_server_was_killed_and_connections_were_cut() {
    let Some(mut server) = RedisServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let world = World::new();
    let followed = world.open(|dio| start(dio, &url, native())).await;
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
                proxy.cut_after(500 + 37 * round);
            }
        }
        let value = i64::try_from(round).unwrap();
        change(&world, &server, "a", Some(value)).await;
        proxy.cut_after(None);
        change(&world, &server, "b", Some(value)).await;
        followed.shows(&[("a", value), ("b", value)]).await;
    }
    followed.until("no entry was read twice, and none was missed", || messages(&followed) == 12).await;
    assert_eq!(followed.lists(), 1);
    followed.close().await;
}

/// A feed reads what a route of each format has written.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_reads_what_a_route_has_written() {
    let Some(server) = RedisServer::start() else { return };
    for (format, read) in [
        (WriteFormat::Native, native()),
        (WriteFormat::Row, preset("row", None)),
        (WriteFormat::Debezium, preset("debezium", Some("rows"))),
        (WriteFormat::CloudEvents, cloudevents()),
    ] {
        let world = World::new();
        let followed = world.open(|dio| start(dio, &server.url(), read)).await;
        followed.until("one list", || followed.lists() == 1).await;
        let route = route(&server.url(), None, format);
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

#[tokio::test(flavor = "multi_thread")]
async fn fields_and_operations_of_a_route_are_bounded_and_documented() {
    let Some(server) = RedisServer::start() else { return };
    let route = route(&server.url(), Some(100), WriteFormat::Native);
    assert!(route.shell().writes_once());
    for number in 0..1_000 {
        let op = WriteOp::Patch { id: "a".into(), record: n(number) };
        route.shell().write_once(&format!("op_{number}"), &op).await.unwrap();
    }
    let entries = server.entries("s");
    assert!((100..400).contains(&entries.len()), "{} entries", entries.len());
    let last = entries.last().unwrap();
    assert_eq!((field(last, "key"), field(last, "diorama-operation")), (Some("a"), Some("op_999")));
    assert_eq!(
        field(last, "value"),
        Some(r#"{"delivery":"op_999","id":"a","new":{"n":999},"op":"update","partial":true}"#)
    );
    let (known, lifetime): (u64, i64) =
        (server.run(&["ZCARD", "{s}:diorama-operations"]), server.run(&["TTL", "{s}:diorama-operations"]));
    assert!(known == 1_000 && (600_000..=604_800).contains(&lifetime), "{known} operations for {lifetime} s");
}

/// Random writes to 20 rows while the server is killed and connections are cut: each write is in the stream once, and those of a row
/// are in order.
#[tokio::test(flavor = "multi_thread")]
async fn routed_writes_are_in_the_stream_once_and_in_order_over_kills_and_cuts() {
    let Some(mut server) = RedisServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let route = route(&format!("redis://127.0.0.1:{}", proxy.port()), None, WriteFormat::Row);
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
    let mut of_row = BTreeMap::<String, Vec<i64>>::new();
    for entry in server.entries("s") {
        let row: serde_json::Value = serde_json::from_str(field(&entry, "value").unwrap()).unwrap();
        let key = field(&entry, "key").unwrap().to_string();
        of_row.entry(key).or_default().push(row["n"].as_i64().unwrap());
    }
    assert_eq!(of_row.len(), rows);
    for (row, numbers) in of_row {
        assert_eq!(numbers, (0..writes).collect::<Vec<_>>(), "{row}");
    }
}

/// 1,000 deliveries of 100 operations, each over a connection that is cut somewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_delivered_again_has_one_effect() {
    let Some(server) = RedisServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let route = route(&format!("redis://127.0.0.1:{}", proxy.port()), None, WriteFormat::Native);
    for round in 0..10u64 {
        for number in 0..100 {
            let op = WriteOp::Patch { id: (number % 10).to_string(), record: n(number) };
            if number % 7 == 0 {
                proxy.cut_all();
                proxy.cut_after(u64::try_from(number).unwrap() * 3 + round);
            }
            if let Err(error) = route.shell().write_once(&format!("op_{number}"), &op).await {
                assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
            }
        }
        proxy.cut_after(None);
        proxy.cut_all();
    }
    for number in 0..100 {
        let op = WriteOp::Patch { id: (number % 10).to_string(), record: n(number) };
        while route.shell().write_once(&format!("op_{number}"), &op).await.is_err() {}
    }
    let operations: Vec<_> =
        server.entries("s").iter().map(|entry| field(entry, "diorama-operation").unwrap().to_string()).collect();
    let distinct: std::collections::HashSet<_> = operations.iter().collect();
    assert_eq!((operations.len(), distinct.len()), (100, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_to_a_server_that_is_away_or_refuses_is_known_not_to_be_sent() {
    let Some(mut server) = RedisServer::start() else { return };
    let route = route(&server.url(), None, WriteFormat::Native);
    let op = WriteOp::Delete { id: "a".into() };
    server.run::<String>(&["SET", "s", "text"]);
    let error = route.shell().write_once("op_1", &op).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("stream s") && error.to_string().contains("another type"), "{error}");
    server.run::<i64>(&["DEL", "s"]);
    server.kill();
    let error = route.shell().write_once("op_1", &op).await.unwrap_err();
    assert_ne!(error.kind(), ErrorKind::Permanent, "{error}");
    let error = route.shell().write_once("op_1", &op).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    server.restart();
    route.shell().write_once("op_1", &op).await.unwrap();
    assert_eq!(server.entries("s").len(), 1);
}
