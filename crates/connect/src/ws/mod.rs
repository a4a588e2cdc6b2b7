//! WebSockets that tell of changes: those of another Diorama, or of any sender whose messages can be mapped.

mod config;
mod feed;
mod frames;

pub use self::config::WsConnector;
pub use self::feed::WsFeed;
