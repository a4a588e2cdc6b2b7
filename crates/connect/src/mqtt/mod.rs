//! MQTT 5: topics as feeds of changes, and as routes of writes. [`MqttConnector`] reads the configuration.

mod address;
mod config;
mod errors;
mod feed;
mod route;
mod topic;

pub use self::config::MqttConnector;

#[cfg(test)]
mod tests;
