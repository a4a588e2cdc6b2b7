use diorama_core::vista::{ErrorKind, WriteOp};

use super::*;
use crate::stream::testing::native;

/// Each error of a feed names the reason and the remedy.
#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_cannot_begin_says_why() {
    let Some(server) = RabbitServer::start() else { return };
    let (url, reader) = (server.url(), server.url().replace("guest:guest", "reader:diorama"));
    let bound = |url: &str| AmqpQueue { exchange: Some("absent".into()), ..queue(url) };
    for (queue, said, advice) in [
        (queue(&url.replace("guest:guest", "guest:secret")), "Login was refused", "the user or the password is wrong"),
        (queue(&url.replace("%2f", "absent")), "absent", "`rabbitmqctl add_vhost`"),
        (queue(&url.replace("%2f", "closed")), "closed", "`rabbitmqctl set_permissions`"),
        (queue(&url), "no queue 'q'", "declare it, or name the exchange"),
        (bound(&reader), "access to queue 'q'", "`rabbitmqctl set_permissions`"),
        (bound(&url), "no exchange 'absent'", "declare it"),
    ] {
        let world = World::new();
        let followed = world.open(|dio| start(dio, queue, native())).await;
        followed.until(said, || error(&followed).contains(said) && error(&followed).contains(advice)).await;
        assert!(!error(&followed).contains("secret"), "{}", error(&followed));
        followed.close().await;
        if advice == "declare it" {
            server.delete_queue("q").await;
        }
    }
    server.declare_queue("q", &[("x-queue-type", "stream")]).await;
    let world = World::new();
    let followed = world.open(|dio| start(dio, queue(&url), native())).await;
    followed.until("a stream is refused", || error(&followed).contains("is a stream")).await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_read_is_enough_for_any_kind_of_queue() {
    let Some(server) = RabbitServer::start() else { return };
    let reader = server.url().replace("guest:guest", "reader:diorama");
    let single = ("x-single-active-consumer", "true");
    for arguments in [&[][..], QUORUM, &[single], &[single, QUORUM[0]], &[("x-dead-letter-exchange", "t"), QUORUM[0]]] {
        server.declare_queue("q", arguments).await;
        let world = World::new();
        let followed = world.open(|dio| start(dio, queue(&reader), native())).await;
        let status = || followed.dio.status().feeds.remove(0);
        followed.until(&format!("{arguments:?}"), || status().connected || status().error.is_some()).await;
        assert!(status().connected, "{arguments:?}: {:?}", status().error);
        followed.close().await;
        server.delete_queue("q").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_cannot_be_routed_says_why_and_waits() {
    let Some(server) = RabbitServer::start() else { return };
    server.declare_exchange("t", &[]).await;
    server.declare_queue("q", &[]).await;
    let (url, reader) = (server.url(), server.url().replace("guest:guest", "reader:diorama"));
    for (url, exchange, key, advice) in [
        (url.replace("guest:guest", "guest:secret"), "t", "x", "the user or the password is wrong"),
        (url.clone(), "absent", "x", "no exchange 'absent' in vhost '/': declare it"),
        (url.clone(), "", "absent", "no queue 'absent' in vhost '/': declare it"),
        (reader, "t", "x", "refused for user 'reader': `rabbitmqctl set_permissions`"),
    ] {
        let route = route(&url, exchange, key, WriteFormat::Row);
        for _ in 0..2 {
            let error = route.shell().write_once("op_1", &WriteOp::Delete { id: "a".into() }).await.unwrap_err();
            assert!(error.to_string().contains(advice), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_tls_is_verified() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let Some(server) = RabbitServer::start_tls(&certificate, &key) else { return };
    server.declare_queue("q", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &certificate).unwrap();
    let url = format!("amqps://guest:guest@127.0.0.1:{}", server.tls_port().unwrap());
    let trusted = AmqpAddress::parse(&url, Some(ca.clone())).unwrap();
    let publisher = AmqpPublisher::new(trusted.clone(), String::new(), "q".into());
    let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
    let route = StreamRoute::vista(publisher, WriteFormat::Native, "rows", schema.into());
    let world = World::new();
    let followed = world.open(|dio| start(dio, AmqpQueue { address: trusted, ..queue(&url) }, native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    world.source.insert("a", &n(1)).await.unwrap();
    route.shell().write_once("op_1", &WriteOp::Replace { id: "a".into(), record: n(1) }).await.unwrap();
    followed.shows(&[("a", 1)]).await;
    followed.close().await;

    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    std::fs::write(&ca, other.cert.pem()).unwrap();
    for ca in [Some(ca), None] {
        let error = AmqpAddress::parse(&url, ca).unwrap().connect().await.map(drop).unwrap_err();
        assert!(error.message.contains("certificate"), "{}", error.message);
    }
}
