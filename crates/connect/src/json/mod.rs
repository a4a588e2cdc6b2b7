//! JSON files: arrays, objects by name, lines, GeoJSON.

mod config;
mod outline;
mod rows;
mod shape;
mod source;

pub use self::config::JsonConnector;
pub use self::outline::arrays;
pub use self::source::{Json, JsonOptions};
