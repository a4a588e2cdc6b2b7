//! Feed and route against a broker that is killed, cut off, and that forgets sessions.

mod contract;
mod errors;
mod feed;
mod route;

use diorama_core::Dio;
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Column, ColumnType, Schema, Vista};
use diorama_servers::{MqttRecord, MqttServer};

use super::address::{MqttAddress, Session};
use super::config::PREFETCH;
use super::feed::{EXPIRY, MqttBroker, MqttTopics};
use super::route::MqttPublisher;
use crate::connector::FeedFormat;
use crate::stream::testing::{Followed, World};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};

fn address(url: &str) -> MqttAddress {
    MqttAddress::parse(url, None).unwrap()
}

/// The topics `t/+` of a broker.
fn topics(url: &str, durable: bool) -> MqttTopics {
    let session = Session { client: "diorama".into(), expiry: Some(EXPIRY), prefetch: PREFETCH };
    MqttTopics { address: address(url), filter: "t/+".into(), session, durable }
}

fn start(dio: &Dio, topics: MqttTopics, format: FeedFormat) {
    StreamFeed::start(MqttBroker::new(topics), dio, "mqtt".into(), "mqtt:t/+", format).unwrap();
}

fn n(n: i64) -> Record {
    Record::from_iter([("n".to_string(), CborValue::from(n))])
}

fn update(id: &str, n: i64) -> String {
    format!(r#"{{"op":"upsert","id":"{id}","new":{{"n":{n}}}}}"#)
}

fn record<'a>(topic: &'a str, value: &'a str) -> MqttRecord<'a> {
    MqttRecord { topic, properties: &[], value, acknowledged: true, retained: false }
}

/// Changes a row of the source, and says so in a message with an id.
async fn change(world: &World, server: &MqttServer, id: &str, value: Option<i64>) {
    let message = match value {
        Some(value) => {
            world.source.replace_value(id, &n(value)).await.unwrap();
            update(id, value)
        }
        None => {
            world.source.delete(id).await.unwrap();
            String::new()
        }
    };
    let unique = uuid::Uuid::now_v7().to_string();
    let (topic, properties) = (format!("t/{id}"), [("diorama-operation", unique.as_str())]);
    server.publish(&[MqttRecord { properties: &properties, ..record(&topic, &message) }]).await;
}

fn messages(followed: &Followed) -> u64 {
    followed.dio.status().feeds[0].messages
}

fn error(followed: &Followed) -> String {
    followed.dio.status().feeds[0].error.clone().unwrap_or_default()
}

/// True if a warning of the feed, as `/readyz` shows it, contains `text`.
fn warned(followed: &Followed, text: &str) -> bool {
    let warnings = followed.dio.status().warnings;
    warnings.iter().any(|warning| warning.starts_with("feed: mqtt://127.0.0.1:") && warning.contains(text))
}

fn route(url: &str, topic: &str, retain: bool, format: WriteFormat) -> Vista {
    let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
    StreamRoute::vista(MqttPublisher::new(address(url), topic.into(), retain), format, "rows", schema.into())
}
