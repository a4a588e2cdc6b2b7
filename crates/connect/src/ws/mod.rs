//! WebSocket feeds: another Diorama, or any sender whose messages can be mapped.

mod config;
mod feed;
mod frames;

pub use self::config::WsConnector;
pub use self::feed::WsFeed;
