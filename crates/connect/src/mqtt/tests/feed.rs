use std::time::Duration;

use diorama_core::dio::EventEntry;
use diorama_servers::CutProxy;

use super::*;
use crate::stream::testing::{native, preset};
use crate::stream::{Broker as _, Place, Subscription as _};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_changes_and_the_session_keeps_those_sent_meanwhile() {
    let Some(server) = MqttServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, topics(&server.url(), true), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(2)).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 2), ("b", 1)]).await;
    // A row in doubt would be read from the source before the message about its end.
    followed.until("no row is in doubt", || followed.dio.rows_in_doubt() == 0).await;
    // The key of a message without content is in its topic.
    change(&world, &server, "b", None).await;
    followed.shows(&[("a", 2)]).await;
    followed.close().await;
    change(&world, &server, "d", Some(4)).await;
    change(&world, &server, "a", Some(3)).await;
    let followed = world.open(|dio| start(dio, topics(&server.url(), true), native())).await;
    followed.until("the messages of the meantime", || messages(&followed) == 2).await;
    followed.shows(&[("a", 3), ("d", 4)]).await;
    followed.until("one list", || followed.lists() == 1).await;
    followed.close().await;
}

/// A message that was applied is acknowledged before the feed has closed, so that it does not come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_closes_leaves_no_stored_message_behind() {
    let Some(server) = MqttServer::start() else { return };
    let world = World::new();
    // Rows that are known have the values of messages, and are not read from the source.
    for id in ["a", "b", "c"] {
        world.source.insert(id, &n(-1)).await.unwrap();
    }
    for round in 0..20 {
        let followed = world.open(|dio| start(dio, topics(&server.url(), true), native())).await;
        followed.until("one list", || followed.lists() == 1).await;
        for id in ["a", "b", "c"] {
            change(&world, &server, id, Some(round)).await;
        }
        followed.shows(&[("a", round), ("b", round), ("c", round)]).await;
        followed.close().await;
        assert_eq!(server.take_messages("diorama").await, [], "all are acknowledged");
    }
}

/// The end of a feed is an answer of the broker, behind its acknowledgements.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_feed_waits_for_the_broker() {
    let Some(server) = MqttServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let mut broker = MqttBroker::new(topics(&format!("mqtt://127.0.0.1:{}", proxy.port()), true));
    let (subscription, _) = broker.subscribe(None).await.unwrap();
    proxy.hold(true);
    let ended = tokio::time::timeout(Duration::from_millis(300), subscription.end()).await;
    assert!(ended.is_err(), "the broker has not answered: {ended:?}");
    proxy.hold(false);
    let (subscription, _) = broker.subscribe(None).await.unwrap();
    subscription.end().await.unwrap();
}

/// A message that comes again long after newer ones has no effect. One without an id has, for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_message_makes_a_repetition_have_no_effect() {
    let Some(server) = MqttServer::start() else { return };
    let (world, old) = (World::new(), update("a", 1));
    let followed = world.open(|dio| start(dio, topics(&server.url(), true), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    let repeated = MqttRecord { properties: &[("diorama-operation", "m1")], ..record("t/a", &old) };
    world.source.replace_value("a", &n(1)).await.unwrap();
    server.publish(&[repeated]).await;
    followed.shows(&[("a", 1)]).await;
    change(&world, &server, "a", Some(2)).await;
    change(&world, &server, "z", Some(0)).await;
    followed.shows(&[("a", 2), ("z", 0)]).await;
    followed.until("no row is in doubt", || followed.dio.rows_in_doubt() == 0).await;
    let mut events = followed.dio.subscribe_events();
    for (message, has_effect) in [(repeated, false), (record("t/a", &old), true)] {
        server.publish(&[message]).await;
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
        assert_eq!(seen.contains(&1.into()), has_effect, "{seen:?}");
    }
    followed.shows(&[("a", 2), ("z", 2)]).await;
    followed.close().await;
}

/// Messages that were received and not acknowledged come again before newer messages, in order.
#[tokio::test(flavor = "multi_thread")]
async fn messages_are_acknowledged_after_they_were_taken_and_come_again_otherwise() {
    let Some(server) = MqttServer::start() else { return };
    let texts: Vec<String> = (0..6).map(|n| n.to_string()).collect();
    let records: Vec<_> = texts.iter().map(|text| record("t/a", text)).collect();
    let mut broker = MqttBroker::new(topics(&server.url(), true));
    let (mut subscription, place) = broker.subscribe(None).await.unwrap();
    assert_eq!(place, Place::Elsewhere, "nothing tells what was before");
    let read = async |subscription: &mut super::super::feed::MqttSubscription, count: usize| {
        let mut values = Vec::new();
        while values.len() < count {
            let messages = subscription.receive(count - values.len()).await.unwrap();
            values.extend(messages.into_iter().map(|message| message.value.unwrap()));
        }
        values
    };
    server.publish(&records[..4]).await;
    assert_eq!(read(&mut subscription, 2).await, texts[..2]);
    subscription.acknowledge().await.unwrap();
    assert_eq!(read(&mut subscription, 2).await, texts[2..4]);
    // Until the acknowledgement of the first two has arrived.
    server.publish(&records[4..5]).await;
    assert_eq!(read(&mut subscription, 1).await, texts[4..5]);
    drop(subscription);
    server.publish(&records[5..]).await;
    let (mut subscription, place) = broker.subscribe(None).await.unwrap();
    assert_eq!(place, Place::Asked, "the session goes on");
    assert_eq!(read(&mut subscription, 4).await, texts[2..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_the_broker_has_kept_are_the_first_state() {
    let Some(server) = MqttServer::start() else { return };
    let world = World::new();
    world.source.insert("a", &n(1)).await.unwrap();
    let row = |value: &'static str| MqttRecord { retained: true, ..record("t/a", value) };
    server.publish(&[row(r#"{"id":"a","n":0}"#), row(r#"{"id":"a","n":1}"#)]).await;
    let followed = world.open(|dio| start(dio, topics(&server.url(), false), preset("row", None))).await;
    followed.until("the kept message", || messages(&followed) == 1).await;
    followed.shows(&[("a", 1)]).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_decoded_costs_a_refresh_and_blocks_nothing() {
    let Some(server) = MqttServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, topics(&server.url(), true), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    world.source.insert("a", &n(1)).await.unwrap();
    server.publish(&[record("t/a", "{not json"), record("t/", "")]).await;
    followed.until("both are counted", || followed.undecodable() == 2).await;
    change(&world, &server, "b", Some(1)).await;
    followed.shows(&[("a", 1), ("b", 1)]).await;
    followed.close().await;
}

/// A session that the broker has lost, and a message that nobody repeats, each cost one refresh.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_costs_one_refresh_and_a_kept_one_none() {
    let Some(mut server) = MqttServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let url = format!("mqtt://127.0.0.1:{}", proxy.port());
    let world = World::new();
    let followed = world.open(|dio| start(dio, topics(&url, true), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    for round in 0..4 {
        proxy.cut_all();
        change(&world, &server, "a", Some(round)).await;
        followed.shows(&[("a", round)]).await;
    }
    assert_eq!(followed.lists(), 1, "a session that goes on misses nothing");
    assert_eq!(followed.dio.status().warnings, [""; 0]);
    server.kill_and_forget();
    world.source.replace_value("a", &n(10)).await.unwrap();
    server.restart();
    followed.shows(&[("a", 10)]).await;
    followed.until("one more list", || followed.lists() == 2).await;
    change(&world, &server, "a", Some(11)).await;
    followed.shows(&[("a", 11)]).await;
    assert_eq!(followed.lists(), 2);
    assert!(warned(&followed, "has lost the session"), "{:?}", followed.dio.status().warnings);
    // A message with QoS 0: nothing repeats it.
    world.source.replace_value("a", &n(12)).await.unwrap();
    let text = update("a", 12);
    server.publish(&[MqttRecord { acknowledged: false, ..record("t/a", &text) }]).await;
    followed.shows(&[("a", 12)]).await;
    proxy.cut_all();
    followed.until("one more list", || followed.lists() == 3).await;
    let warnings = || (warned(&followed, "has lost the session"), warned(&followed, "send messages with QoS 1"));
    followed.until("the session goes on again", || warnings() == (false, true)).await;
    followed.close().await;
}

/// Mosquitto loses what it has acknowledged when it is killed, and keeps older sessions.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_continues_after_the_broker_was_killed_and_connections_were_cut() {
    let Some(mut server) = MqttServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let url = format!("mqtt://127.0.0.1:{}", proxy.port());
    let world = World::new();
    let followed = world.open(|dio| start(dio, topics(&url, false), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    for round in 0..9 {
        let value = i64::try_from(round).unwrap();
        match round % 3 {
            0 => {
                change(&world, &server, "c", Some(value)).await;
                server.kill();
                server.restart();
            }
            1 => proxy.cut_all(),
            _ => {
                proxy.cut_all();
                proxy.cut_after(5 + 17 * round);
            }
        }
        change(&world, &server, "a", Some(value)).await;
        proxy.cut_after(None);
        change(&world, &server, "b", Some(value)).await;
        followed.shows(&[("a", value), ("b", value), ("c", value / 3 * 3)]).await;
    }
    followed.close().await;
}

/// A broker that goes away without a word is noticed by pings.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_without_notice_ends() {
    let Some(server) = MqttServer::start() else { return };
    let proxy = CutProxy::start(server.port());
    let world = World::new();
    let url = format!("mqtt://127.0.0.1:{}", proxy.port());
    let followed = world.open(|dio| start(dio, topics(&url, true), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    proxy.hold(true);
    followed.until("the loss is noticed", || !followed.dio.status().feeds[0].connected).await;
    proxy.cut_all();
    proxy.hold(false);
    change(&world, &server, "a", Some(1)).await;
    followed.shows(&[("a", 1)]).await;
    followed.close().await;
}
