//! Messages of a session are taken once, also while others arrive.

use std::collections::BTreeSet;

use diorama_servers::{MqttRecord, MqttServer};

/// Number of messages, and of those that are sent by one connection.
const MESSAGES: (usize, usize) = (300, 50);

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_that_arrives_while_others_are_taken() {
    let Some(server) = MqttServer::start() else { return };
    server.keep("reader", "t").await;
    let texts: Vec<String> = (0..MESSAGES.0).map(|number| number.to_string()).collect();
    let record = |text| MqttRecord { topic: "t", properties: &[], value: text, acknowledged: true, retained: false };
    let records: Vec<_> = texts.iter().map(|text| record(text)).collect();
    let send = async {
        for records in records.chunks(MESSAGES.1) {
            server.publish(records).await;
        }
    };
    let take = async {
        let mut taken = BTreeSet::new();
        while taken.len() < MESSAGES.0 {
            let messages = server.take_messages("reader").await;
            taken.extend(messages.into_iter().map(|message| message.value.parse::<usize>().unwrap()));
        }
    };
    let both = Box::pin(async { tokio::join!(send, take) });
    tokio::time::timeout(std::time::Duration::from_secs(60), both).await.expect("all are taken");
}
