//! Redis and Valkey: streams as feeds of changes and as routes of writes, and hashes as caches. [`RedisConnector`] reads the configuration.

mod address;
mod cache;
mod config;
mod entry;
mod errors;
mod feed;
mod route;
mod safety;
mod session;
mod watermark;

pub use self::config::RedisConnector;

#[cfg(test)]
mod tests;
