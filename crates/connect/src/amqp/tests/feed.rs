use std::time::Duration;

use diorama_core::dio::EventEntry;
use diorama_core::vista::WriteOp;
use diorama_servers::{CutProxy, publish_to_rabbit};
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;

use super::*;
use crate::stream::testing::{cloudevents, native};
use crate::stream::{Broker as _, Place, Subscription as _};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_changes_and_those_sent_meanwhile_are_read() {
    let Some(server) = server(QUORUM).await else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, queue(&server.url()), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(2)).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 2), ("b", 1)]).await;
    // A row in doubt would be read from the source before the message about its end.
    followed.until("no row is in doubt", || followed.dio.rows_in_doubt() == 0).await;
    // The key of a message without content is in its routing key.
    change(&world, &server, "b", None).await;
    followed.shows(&[("a", 2)]).await;
    followed.close().await;
    change(&world, &server, "d", Some(4)).await;
    change(&world, &server, "a", Some(3)).await;
    let followed = world.open(|dio| start(dio, queue(&server.url()), native())).await;
    followed.until("the messages of the meantime", || messages(&followed) == 2).await;
    followed.shows(&[("a", 3), ("d", 4)]).await;
    followed.until("one list", || followed.lists() == 1).await;
    followed.until("it has caught up", || followed.dio.status().feeds[0].lag.unwrap().messages == Some(0)).await;
    followed.close().await;
    assert_eq!(server.take_messages("q").await, [], "all are acknowledged");
}

/// A message that was applied is acknowledged before the feed has closed, so that it does not come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_closes_leaves_no_stored_message_behind() {
    for arguments in [&[][..], QUORUM] {
        let Some(server) = server(arguments).await else { return };
        let world = World::new();
        // Rows that are known have the values of messages, and are not read from the source.
        for id in ["a", "b", "c"] {
            world.source.insert(id, &n(-1)).await.unwrap();
        }
        for round in 0..5 {
            let followed = world.open(|dio| start(dio, queue(&server.url()), native())).await;
            followed.until("one list", || followed.lists() == 1).await;
            for id in ["a", "b", "c"] {
                change(&world, &server, id, Some(round)).await;
            }
            followed.shows(&[("a", round), ("b", round), ("c", round)]).await;
            followed.close().await;
            assert_eq!(server.take_messages("q").await, [], "all are acknowledged");
        }
    }
}

/// A message that comes again, also long after newer ones, has no effect. One without an id has, for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_message_makes_a_repetition_have_no_effect() {
    let Some(server) = server(&[]).await else { return };
    let world = World::new();
    let old = update("a", 1);
    for process in 0..2 {
        let followed = world.open(|dio| start(dio, queue(&server.url()), native())).await;
        followed.until("one list", || followed.lists() == 1).await;
        if process == 0 {
            world.source.replace_value("a", &n(1)).await.unwrap();
            server.publish("t", &[("t.a", "m1", &old)]).await;
            followed.shows(&[("a", 1)]).await;
        }
        change(&world, &server, "a", Some(2)).await;
        change(&world, &server, "z", Some(0)).await;
        followed.shows(&[("a", 2), ("z", 0)]).await;
        followed.until("no row is in doubt", || followed.dio.rows_in_doubt() == 0).await;
        let mut events = followed.dio.subscribe_events();
        for (id, has_effect) in [("m1", false), ("", true)] {
            server.publish("t", &[("t.a", id, &old)]).await;
            let end = i64::from(has_effect) + 1;
            change(&world, &server, "z", Some(end)).await;
            let mut seen = Vec::new();
            loop {
                let EventEntry { record, .. } = events.recv_entry().await.unwrap();
                let Some(record) = record else { continue };
                if record["id"] == "z".into() && record["n"] == end.into() {
                    break;
                }
                seen.push(record["n"].clone());
            }
            assert_eq!(seen.contains(&1.into()), has_effect, "{id:?} {seen:?}");
        }
        followed.shows(&[("a", 2), ("z", 2)]).await;
        // Another message, although its sender says that it is the same.
        let other = 3 + process;
        world.source.replace_value("a", &n(other)).await.unwrap();
        server.publish("t", &[("t.a", "m1", &update("a", other))]).await;
        followed.shows(&[("a", other), ("z", 2)]).await;
        followed.close().await;
    }
}

/// Messages that were received and not acknowledged come again before newer messages, in order, and to nobody else before.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_lost_connection_come_again_before_newer_ones() {
    for arguments in [&[][..], QUORUM] {
        let Some(server) = server(arguments).await else { return };
        let proxy = CutProxy::start(server.port());
        let url = format!("amqp://guest:guest@127.0.0.1:{}", proxy.port());
        let texts: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        let all: Vec<_> = texts.iter().map(|text| ("t.a", text.as_str(), text.as_str())).collect();
        server.publish("t", &all[..6]).await;
        let mut broker = AmqpBroker::new(queue(&url));
        let read = async |broker: &mut AmqpBroker, expected: usize| {
            let (mut subscription, place) = broker.subscribe(None).await.unwrap();
            let mut values = Vec::new();
            while values.len() < expected {
                let messages = subscription.receive(2).await.unwrap();
                values.extend(messages.into_iter().map(|message| message.value.unwrap()));
                // The first two messages only.
                if values.len() == 2 && place == Place::Elsewhere {
                    subscription.acknowledge().await.unwrap();
                    // The broker answers this after it has taken the acknowledgement.
                    subscription.look().await.unwrap();
                }
            }
            (subscription, values, place)
        };
        let (first, values, place) = read(&mut broker, 6).await;
        assert_eq!((values, place), (texts[..6].iter().map(|text| text.clone().into()).collect(), Place::Elsewhere));
        server.publish("t", &all[6..]).await;
        let mut other = AmqpBroker::new(queue(&server.url()));
        let refused = other.subscribe(None).await.map(drop).unwrap_err();
        assert!(refused.contains("another consumer reads this queue"), "{refused}");
        proxy.cut_all();
        let second = loop {
            match broker.subscribe(None).await {
                Ok((mut subscription, place)) => {
                    assert_eq!(place, Place::Asked, "nothing is missing");
                    let mut values = Vec::new();
                    while values.last().is_none_or(|last: &bytes::Bytes| last[..] != b"9"[..]) {
                        let messages = subscription.receive(100).await.unwrap();
                        values.extend(messages.into_iter().map(|message| message.value.unwrap()));
                    }
                    subscription.acknowledge().await.unwrap();
                    break values;
                }
                // The broker has not noticed the cut yet.
                Err(error) => assert!(error.contains("another consumer"), "{error}"),
            }
        };
        drop(first);
        assert_eq!(second, texts[2..].iter().map(|text| text.clone().into()).collect::<Vec<bytes::Bytes>>());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_decoded_costs_a_refresh_and_goes_to_the_dead_letters() {
    let arguments = [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "dead")];
    let Some(server) = server(&arguments).await else { return };
    server.declare_queue("dead", &[]).await;
    let world = World::new();
    let followed = world.open(|dio| start(dio, queue(&server.url()), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    world.source.insert("a", &n(1)).await.unwrap();
    world.source.insert("b", &n(1)).await.unwrap();
    let good = update("b", 1);
    server.publish("t", &[("t.x", "", "{not json"), ("t.b", "", &good), ("t.y", "", "5")]).await;
    followed.until("both are counted", || followed.undecodable() == 2).await;
    followed.shows(&[("a", 1), ("b", 1)]).await;
    followed.close().await;
    let dead: Vec<_> = server.take_messages("dead").await.into_iter().map(|message| message.value).collect();
    assert_eq!(dead, ["{not json", "5"]);
    assert_eq!(server.take_messages("q").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_made_anew_costs_one_refresh() {
    let Some(server) = server(QUORUM).await else { return };
    let (world, mut declared) = (World::new(), queue(&server.url()));
    declared.exchange = Some("t".into());
    let followed = world.open(|dio| start(dio, declared, native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(1)).await;
    followed.shows(&[("a", 1)]).await;
    // Its end is told to the consumer, which declares it again and binds it.
    server.delete_queue("q").await;
    world.source.insert("b", &n(1)).await.unwrap();
    followed.shows(&[("a", 1), ("b", 1)]).await;
    followed.until("one more list", || followed.lists() == 2).await;
    followed.until("it is connected", || followed.dio.status().feeds[0].connected).await;
    change(&world, &server, "c", Some(1)).await;
    followed.shows(&[("a", 1), ("b", 1), ("c", 1)]).await;
    assert_eq!(followed.lists(), 2);
    followed.close().await;
}

/// A queue that is missing when the feed connects is told by nobody: it may have had messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_removed_meanwhile_costs_a_refresh() {
    let Some(server) = server(QUORUM).await else { return };
    let mut broker = AmqpBroker::new(AmqpQueue { exchange: Some("t".into()), ..queue(&server.url()) });
    for (removed, expected) in [(false, Place::Elsewhere), (false, Place::Asked), (true, Place::Elsewhere)] {
        if removed {
            server.delete_queue("q").await;
        }
        let (subscription, place) = broker.subscribe(None).await.unwrap();
        assert_eq!(place, expected, "removed: {removed}");
        subscription.end().await.unwrap();
    }
}

/// The end of a feed is an answer of the broker, behind its acknowledgements.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_feed_waits_for_the_broker() {
    let Some(server) = server(QUORUM).await else { return };
    let proxy = CutProxy::start(server.port());
    let url = format!("amqp://guest:guest@127.0.0.1:{}", proxy.port());
    let (subscription, _) = AmqpBroker::new(queue(&url)).subscribe(None).await.unwrap();
    proxy.hold(true);
    let ended = tokio::time::timeout(Duration::from_millis(300), subscription.end()).await;
    assert!(ended.is_err(), "the broker has not answered: {ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_continues_after_the_broker_was_killed_and_connections_were_cut() {
    let Some(mut server) = server(QUORUM).await else { return };
    let proxy = CutProxy::start(server.port());
    let url = format!("amqp://guest:guest@127.0.0.1:{}", proxy.port());
    let world = World::new();
    let followed = world.open(|dio| start(dio, queue(&url), native())).await;
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
                proxy.cut_after(700 + 37 * round);
            }
        }
        let value = i64::try_from(round).unwrap();
        change(&world, &server, "a", Some(value)).await;
        proxy.cut_after(None);
        change(&world, &server, "b", Some(value)).await;
        followed.shows(&[("a", value), ("b", value)]).await;
    }
    assert_eq!(followed.lists(), 1, "a queue that is durable misses nothing");
    followed.close().await;
}

/// The broker forgets the queue, or its messages, so that the source is read again after each loss of the connection.
#[tokio::test(flavor = "multi_thread")]
async fn unsafe_queues_and_messages_are_told_and_cost_a_refresh_for_each_reconnect() {
    let Some(server) = RabbitServer::start() else { return };
    let (transient, durable) =
        (QueueDeclareOptions::default(), QueueDeclareOptions { durable: true, ..Default::default() });
    let auto_delete = QueueDeclareOptions { auto_delete: true, ..durable };
    let cases = [
        ("transient", transient, "is not durable"),
        ("auto", auto_delete, "with its last consumer"),
        ("safe", durable, ""),
    ];
    for (name, options, warning) in cases {
        server.declare_queue_with(name, options, &[]).await;
        let broker = AmqpBroker::new(AmqpQueue { queue: name.into(), ..queue(&server.url()) });
        let connection = address(&server.url()).connect().await.unwrap();
        let warnings = broker.warnings(&connection).await.unwrap();
        assert!(warnings.iter().all(|text| text.contains(warning)) && warnings.is_empty() == warning.is_empty());
    }
    let reader = server.url().replace("guest:guest", "reader:diorama");
    let connection = address(&reader).connect().await.unwrap();
    let broker = AmqpBroker::new(AmqpQueue { queue: "safe".into(), ..queue(&reader) });
    assert!(broker.warnings(&connection).await.unwrap()[0].contains("the right to configure it"));

    let single = route(&server.url(), "", "transient", WriteFormat::Native);
    assert_eq!(single.shell().warnings(), [""; 0], "it was not asked yet");
    single.shell().write_once("op_1", &WriteOp::Delete { id: "a".into() }).await.unwrap();
    assert!(single.shell().warnings()[0].contains("is not durable"), "{:?}", single.shell().warnings());
    let world = World::new();
    let proxy = CutProxy::start(server.port());
    let url = format!("amqp://guest:guest@127.0.0.1:{}", proxy.port());
    let own = AmqpQueue { queue: "transient".into(), ..queue(&url) };
    let followed = world.open(|dio| start(dio, own, native())).await;
    followed.until("the feed warns", || warned(&followed, "is not durable")).await;
    followed.until("one list", || followed.lists() == 1).await;
    proxy.cut_all();
    followed.until("the source is read again", || followed.lists() == 2).await;
    followed.close().await;

    let world = World::new();
    let safe = AmqpQueue { queue: "safe".into(), ..queue(&url) };
    let followed = world.open(|dio| start(dio, safe, native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    assert_eq!(followed.dio.status().warnings, [""; 0]);
    world.source.insert("a", &n(1)).await.unwrap();
    let (connection, channel) = server.connect().await;
    publish_to_rabbit(&channel, "", "safe", BasicProperties::default(), &update("a", 1)).await;
    followed.shows(&[("a", 1)]).await;
    followed.until("the feed warns", || warned(&followed, "delivery mode 2")).await;
    drop(connection);
    world.source.insert("b", &n(1)).await.unwrap();
    proxy.cut_all();
    followed.until("the source is read again", || followed.lists() == 2).await;
    followed.shows(&[("a", 1), ("b", 1)]).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_read_by_both_prefixes_of_their_headers() {
    use lapin::types::{AMQPValue, FieldTable};
    let Some(server) = server(&[]).await else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, queue(&server.url()), cloudevents())).await;
    followed.until("one list", || followed.lists() == 1).await;
    let (_connection, channel) = server.connect().await;
    for (number, prefix) in ["cloudEvents_", "cloudEvents:"].into_iter().enumerate() {
        let id = format!("é{number}");
        world.source.insert(&id, &n(1)).await.unwrap();
        let attributes =
            [("specversion", "1.0"), ("id", &id), ("source", "/t"), ("type", "t.updated"), ("subject", &id)];
        let header =
            |(name, value): (&str, &str)| (format!("{prefix}{name}").into(), AMQPValue::LongString(value.into()));
        let headers =
            FieldTable::from(attributes.into_iter().map(header).collect::<std::collections::BTreeMap<_, _>>());
        let properties = BasicProperties::default().with_headers(headers).with_content_type("application/json".into());
        publish_to_rabbit(&channel, "t", "t.x", properties, r#"{"n":1}"#).await;
        followed.until("it is read", || followed.rows().contains_key(id.as_str())).await;
    }
    assert_eq!(followed.undecodable(), 0);
    followed.close().await;
}

/// A broker that goes away without a word is noticed by the heartbeat, or by the look at the queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_without_notice_ends() {
    let Some(server) = server(QUORUM).await else { return };
    let proxy = CutProxy::start(server.port());
    let world = World::new();
    let url = format!("amqp://guest:guest@127.0.0.1:{}", proxy.port());
    let followed = world.open(|dio| start(dio, queue(&url), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    proxy.hold(true);
    followed.until("the loss is noticed", || !followed.dio.status().feeds[0].connected).await;
    proxy.cut_all();
    proxy.hold(false);
    change(&world, &server, "a", Some(1)).await;
    followed.shows(&[("a", 1)]).await;
    followed.close().await;
}

/// Threads of the client for a broker that accepts connections and does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_answer_leaves_no_thread() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.filter(|name| name.starts_with("lapin-io")).count()
    };
    for _ in 0..3 {
        let connecting = address(&url);
        assert!(tokio::time::timeout(Duration::from_millis(300), connecting.connect()).await.is_err());
    }
    let ended = async {
        while threads() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), ended).await.is_ok(), "{} threads", threads());
    drop(listener);
}
