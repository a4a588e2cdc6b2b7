//! Real servers for tests, each with a folder and a port of its own, doubles of HTTP APIs ([`apis`]), and a proxy whose connections break
//! on request.
//!
//! ```no_run
//! # use diorama_servers::PostgresServer;
//! let Some(mut server) = PostgresServer::start() else { return };
//! server.psql("CREATE TABLE bread (id int PRIMARY KEY); INSERT INTO bread VALUES (1)");
//! server.kill();
//! server.restart();
//! assert_eq!(server.psql("SELECT count(*) FROM bread"), "1");
//! ```
//!
//! A server ends with its value. If the test's process is killed, a helper process ends the server and removes its folder.
//! If the programs of a server are not installed, `start` says so and returns `None`; under `CI=true` it panics.
//! Anything else that goes wrong is a panic with the server's log.

mod account;
pub mod apis;
mod client;
mod daemon;
mod kafka;
mod keeper;
mod mariadb;
mod mqtt;
mod nats;
mod port;
mod postgres;
mod processes;
mod programs;
mod proxy;
mod rabbitmq;
mod redis;
mod skip;
mod surreal;
mod template;

pub use kafka::{KafkaMessage, KafkaRecord, KafkaServer};
pub use mariadb::MariaDbServer;
pub use mqtt::{MqttMessage, MqttRecord, MqttServer};
pub use nats::NatsServer;
pub use postgres::PostgresServer;
pub use proxy::CutProxy;
pub use rabbitmq::{RabbitMessage, RabbitServer, publish as publish_to_rabbit};
pub use redis::{RedisEntry, RedisServer};
pub use skip::skip_or_fail;
pub use surreal::SurrealServer;

/// Password of the superuser of every server.
pub const PASSWORD: &str = "diorama";
