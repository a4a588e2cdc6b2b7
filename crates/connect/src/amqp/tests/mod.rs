//! Feed and route against a broker that is killed, cut off, and that forgets messages.

mod contract;
mod errors;
mod feed;
mod route;

use diorama_core::Dio;
use diorama_core::record::{CborValue, Record};
use diorama_core::vista::{Column, ColumnType, Schema, Vista};
use diorama_servers::RabbitServer;

use super::address::AmqpAddress;
use super::config::PREFETCH;
use super::feed::AmqpBroker;
use super::queue::AmqpQueue;
use super::route::AmqpPublisher;
use crate::connector::FeedFormat;
use crate::stream::testing::{Followed, World};
use crate::stream::{StreamFeed, StreamRoute, WriteFormat};

/// Arguments of a queue that is replicated.
const QUORUM: &[(&str, &str)] = &[("x-queue-type", "quorum")];

fn address(url: &str) -> AmqpAddress {
    AmqpAddress::parse(url, None).unwrap()
}

/// The queue `q` of a broker. Its routing keys end with the id.
fn queue(url: &str) -> AmqpQueue {
    let routing_key = Some("t.*".to_string());
    AmqpQueue { address: address(url), queue: "q".into(), exchange: None, routing_key, prefetch: PREFETCH }
}

fn start(dio: &Dio, queue: AmqpQueue, format: FeedFormat) {
    StreamFeed::start(AmqpBroker::new(queue), dio, "amqp".into(), "amqp:q", format).unwrap();
}

fn n(n: i64) -> Record {
    Record::from_iter([("n".to_string(), CborValue::from(n))])
}

fn update(id: &str, n: i64) -> String {
    format!(r#"{{"op":"upsert","id":"{id}","new":{{"n":{n}}}}}"#)
}

/// A server with a durable topic exchange `t`, whose messages `t.*` are those of the queue `q`.
async fn server(arguments: &[(&str, &str)]) -> Option<RabbitServer> {
    let server = RabbitServer::start()?;
    server.declare_queue("q", arguments).await;
    server.declare_exchange("t", &[("q", "t.*")]).await;
    Some(server)
}

/// Changes a row of the source, and says so in a message with an id.
async fn change(world: &World, server: &RabbitServer, id: &str, value: Option<i64>) {
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
    server.publish("t", &[(&format!("t.{id}"), &unique, &message)]).await;
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
    warnings.iter().any(|warning| warning.starts_with("feed: amqp://127.0.0.1:") && warning.contains(text))
}

fn route(url: &str, exchange: &str, key: &str, format: WriteFormat) -> Vista {
    let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
    StreamRoute::vista(AmqpPublisher::new(address(url), exchange.into(), key.into()), format, "rows", schema.into())
}
