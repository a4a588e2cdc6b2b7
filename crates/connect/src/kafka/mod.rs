//! Kafka: topics as feeds of changes, and as routes of writes. [`KafkaConnector`] reads the configuration.

mod address;
mod batches;
mod config;
mod errors;
mod feed;
mod partitioner;
mod route;

pub use self::config::KafkaConnector;

#[cfg(test)]
mod tests;
