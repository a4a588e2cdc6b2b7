//! RabbitMQ, and other brokers of AMQP 0-9-1: queues as feeds of changes, and exchanges as routes of writes. [`AmqpConnector`] reads the
//! configuration.

mod address;
mod config;
mod errors;
mod feed;
mod queue;
mod route;
mod routing_key;

pub use self::config::AmqpConnector;

#[cfg(test)]
mod tests;
