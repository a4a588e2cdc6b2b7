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
    // The key of a message without content is in its topic.
    change(&world, &server, "b", None).await;
    followed.shows(&[("a", 2)]).await;
    followed.close().await;
    change(&world, &server, "d", Some(4)).await;
    change(&world, &server, "a", Some(3)).await;
    let followed = world.open(|dio| start(dio, topics(&server.url(), true), native())).await;
    // With those whose acknowledgement was not sent any more.
    followed.until("the messages of the meantime", || messages(&followed) >= 2).await;
    followed.shows(&[("a", 3), ("d", 4)]).await;
    followed.until("one list", || followed.lists() == 1).await;
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
    server.kill_and_forget();
    world.source.replace_value("a", &n(10)).await.unwrap();
    server.restart();
    followed.shows(&[("a", 10)]).await;
    followed.until("one more list", || followed.lists() == 2).await;
    change(&world, &server, "a", Some(11)).await;
    followed.shows(&[("a", 11)]).await;
    assert_eq!(followed.lists(), 2);
    // A message with QoS 0: nothing repeats it.
    world.source.replace_value("a", &n(12)).await.unwrap();
    let text = update("a", 12);
    server.publish(&[MqttRecord { acknowledged: false, ..record("t/a", &text) }]).await;
    followed.shows(&[("a", 12)]).await;
    proxy.cut_all();
    followed.until("one more list", || followed.lists() == 3).await;
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
