//! NATS JetStream: streams as feeds of changes, and subjects of streams as routes of writes. [`NatsConnector`] reads the configuration.

mod address;
mod config;
mod feed;
mod route;
mod subject;

pub use self::config::NatsConnector;

#[cfg(test)]
mod tests;
