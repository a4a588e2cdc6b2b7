//! JSON files: arrays, keyed objects, lines, GeoJSON.

mod config;
mod outline;
mod rows;
mod shape;
mod source;

pub use self::config::JsonConnector;
pub use self::outline::arrays;
pub use self::source::{Json, JsonOptions};
