use diorama_core::vista::{ErrorKind, WriteOp};

use super::*;
use crate::stream::testing::native;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_refuses_is_told() {
    let Some(server) = MqttServer::start_closed() else { return };
    let reader = server.url().replace("mqtt://", "mqtt://reader:diorama@");
    for url in [server.url(), server.url().replace("mqtt://", "mqtt://reader:secret@")] {
        let world = World::new();
        let followed = world.open(|dio| start(dio, topics(&url, true), native())).await;
        followed.until("the reason", || error(&followed).contains("the user or the password is wrong")).await;
        assert!(!error(&followed).contains("secret"), "{}", error(&followed));
        followed.close().await;
    }
    let world = World::new();
    let followed = world.open(|dio| start(dio, topics(&reader, true), native())).await;
    followed.until("the right to read is enough", || followed.dio.status().feeds[0].connected).await;
    let route = route(&reader, "t/{id}", false, WriteFormat::Row);
    let error = route.shell().write_once("op_1", &WriteOp::Delete { id: "a".into() }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent, "{error}");
    assert!(error.to_string().contains("the user may not write to this topic"), "{error}");
    followed.close().await;
}

/// The broker ends the older connection, which says why.
#[tokio::test(flavor = "multi_thread")]
async fn another_client_with_the_same_id_is_named() {
    let Some(server) = MqttServer::start() else { return };
    let world = World::new();
    let followed = world.open(|dio| start(dio, topics(&server.url(), true), native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    server.keep("diorama", "t/+").await;
    followed
        .until("the reason", || {
            let connects = followed.dio.status().feeds[0].connects;
            error(&followed).contains("each instance needs one of its own") || connects > 1
        })
        .await;
    followed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_tls_is_verified() {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let Some(server) = MqttServer::start_tls(&certificate, &key) else { return };
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &certificate).unwrap();
    let url = format!("mqtts://127.0.0.1:{}", server.tls_port().unwrap());
    let trusted = MqttAddress::parse(&url, Some(ca.clone())).unwrap();
    let world = World::new();
    let followed = world.open(|dio| start(dio, MqttTopics { address: trusted, ..topics(&url, true) }, native())).await;
    followed.until("one list", || followed.lists() == 1).await;
    change(&world, &server, "a", Some(1)).await;
    followed.shows(&[("a", 1)]).await;
    followed.close().await;
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
    std::fs::write(&ca, other.cert.pem()).unwrap();
    let session = Session { client: "other".into(), expiry: None, prefetch: 1 };
    for ca in [Some(ca), None] {
        let refused = MqttAddress::parse(&url, ca).unwrap().connect(&session, 1).await.map(drop).unwrap_err();
        assert!(refused.message.contains("certificate"), "{}", refused.message);
    }
}
