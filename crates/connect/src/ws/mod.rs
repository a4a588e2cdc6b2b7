//! WebSocket feeds: another Diorama, or any sender whose messages can be mapped.

mod config;
#[cfg(test)]
pub(crate) mod double;
mod feed;
mod frames;

pub use self::config::WsConnector;
pub use self::feed::WsFeed;
